"""A run that is killed at any step is resumed: each call is submitted once and answered once."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch_runs import MODELS, Clock, DyingTransport, Killed, Script, client_of, plans_of, run_batch
from lm_deluge.dispatch.batch.provider.runner import ProviderBatch
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.dispatch.journal.records import JournalState
from lm_deluge.errors import JournalError, NotFoundError, QueueClosedError
from lm_deluge.simulator import Batches, Fault, Simulator

PROMPTS = [f"say {letter}" for letter in "abcdefg"]
PLAN = Batches(polls=1, is_shuffled=True)


async def state_of(path: Path) -> JournalState:
    async with await Journal.open(path, fingerprint="f" * 64) as journal:
        return journal.state


async def steps_of(model: str, path: Path) -> int:
    """Return the number of steps after which a run can die."""
    async with Simulator(Script(), batches=PLAN) as sim:
        transport = DyingTransport()
        async with client_of(sim, model, transport) as client:
            await run_batch(client, PROMPTS, path, max_requests=4)
    return transport.steps


@pytest.mark.parametrize("model", MODELS)
async def test_a_run_may_die_at_any_step(model: str, tmp_path: Path) -> None:
    steps = await steps_of(model, tmp_path / "healthy")
    assert steps > 20
    seen_ambiguous = False
    for at in range(1, steps + 1):
        script = Script()
        path = tmp_path / f"journal-{at}"
        async with Simulator(script, batches=PLAN) as sim:
            async with client_of(sim, model, DyingTransport(at)) as client:
                with pytest.raises(Killed):
                    await run_batch(client, PROMPTS, path, max_requests=4)
            seen_ambiguous |= bool((await state_of(path)).ambiguous)
            async with client_of(sim, model) as client:
                found = await run_batch(client, PROMPTS, path, max_requests=4)
        assert [found[f"row {number}"].completion for number in range(7)] == [text.upper() for text in PROMPTS]
        assert set(script.asked.values()) == {1}, f"died at step {at}"
        assert (await state_of(path)).ambiguous == ()
    assert seen_ambiguous


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("taken", [1, 4, 6])
async def test_whoever_leaves_early_loses_nothing(model: str, taken: int, tmp_path: Path) -> None:
    script = Script()
    async with Simulator(script, batches=PLAN) as sim, client_of(sim, model) as client:
        first = await run_batch(client, PROMPTS, tmp_path / "j", leave_after=taken, max_requests=4)
        again = await run_batch(client, PROMPTS, tmp_path / "j", max_requests=4)
        asked = len(sim.requests)
        told = await run_batch(client, PROMPTS, tmp_path / "j", max_requests=4)
        assert len(sim.requests) == asked  # the journal has all answers
    assert len(again) == len(told) == 7
    assert {row: answer.completion for row, answer in first.items()}.items() <= {
        row: answer.completion for row, answer in again.items()
    }.items()
    assert {row: answer.to_dict() for row, answer in told.items()} == {
        row: answer.to_dict() for row, answer in again.items()
    }
    assert set(script.asked.values()) == {1}


@pytest.mark.parametrize("model", MODELS)
async def test_what_died_between_submission_and_handle_is_listed_as_ambiguous(model: str, tmp_path: Path) -> None:
    script = Script()
    path = tmp_path / "j"
    async with Simulator(script, batches=PLAN) as sim:
        at = 0
        while not script.asked:  # until the provider has the batch; the client has no answer yet
            at += 1
            path.unlink(missing_ok=True)
            async with client_of(sim, model, DyingTransport(at)) as client:
                with pytest.raises(Killed):
                    await run_batch(client, PROMPTS, path)
        state = await state_of(path)
        assert sorted(state.ambiguous) == [(f"row {number}", 1) for number in range(7)]
        assert {state.status(f"row {number}") for number in range(7)} == {"in_flight"}
        # The provider's list has other batches too: ours is found by its name, or by its results.
        async with client_of(sim, model) as client:
            await run_batch(client, [f"other {number}" for number in range(7)], tmp_path / "other")
            found = await run_batch(client, PROMPTS, path)
    assert [found[f"row {number}"].completion for number in range(7)] == [text.upper() for text in PROMPTS]
    assert set(script.asked.values()) == {1}


@pytest.mark.parametrize("model", MODELS)
async def test_a_batch_that_never_came_into_being_is_sent_again_after_a_minute(model: str, tmp_path: Path) -> None:
    script = Script()
    clock = Clock()
    async with Simulator(script) as sim:
        async with client_of(sim, model, DyingTransport(1)) as client:
            with pytest.raises(Killed):
                await run_batch(client, PROMPTS, tmp_path / "j", clock=clock)
        clock.time += 20
        async with client_of(sim, model) as client:
            found = await run_batch(client, PROMPTS, tmp_path / "j", clock=clock)
    assert clock.waits[0] == 40  # the batch of a submission that was cut off may still appear
    assert len(found) == 7
    assert set(script.asked.values()) == {1}
    assert {answer.stats.attempts for answer in found.values() if answer.stats} == {2}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("fault", ["reset", "short_length", "empty_reply", "status_502"])
async def test_a_submission_whose_answer_is_lost_is_not_sent_twice(model: str, fault: str, tmp_path: Path) -> None:
    """The create request is the last of a submission: either its answer is lost, or the provider sends an error."""
    script = Script()
    before = {"claude": 0, "gemini": 2}.get(model.partition("-")[0], 1)
    async with (
        Simulator(script, faults=[*[None] * before, fault, None], batches=PLAN) as sim,
        client_of(sim, model) as client,
    ):
        found = await run_batch(client, PROMPTS, tmp_path / "j")
        assert sim.stats.faults[fault] == 1
    assert [found[f"row {number}"].completion for number in range(7)] == [text.upper() for text in PROMPTS]
    assert set(script.asked.values()) == {1}


async def test_a_journal_of_other_calls_is_refused(tmp_path: Path) -> None:
    async with Simulator(Script()) as sim, client_of(sim, "gpt-4o") as client:
        first = [answer async for _, answer in client.provider_batch(["a"], journal=tmp_path / "j")]
        with pytest.raises(JournalError, match="belongs to another batch"):
            await anext(aiter(client.provider_batch(["b"], journal=tmp_path / "j")))
        assert first[0].completion == "A"


async def test_a_fault_of_the_network_in_mid_download_is_no_end(tmp_path: Path) -> None:
    script = Script()
    faults = [None, None, None, Fault("reset"), Fault("short_length"), None]
    async with Simulator(script, faults=faults) as sim, client_of(sim, "gpt-4o") as client:
        found = await run_batch(client, PROMPTS, tmp_path / "j")
        assert sim.stats.faults["reset"] == sim.stats.faults["short_length"] == 1
    assert {answer.error for answer in found.values()} == {None}
    assert set(script.asked.values()) == {1}


async def test_a_batch_that_another_key_cannot_see_is_not_sent_again(tmp_path: Path) -> None:
    script = Script()
    async with Simulator(script, batches=PLAN) as sim, client_of(sim, "gpt-4o", DyingTransport(10)) as client:
        with pytest.raises(Killed):
            await run_batch(client, PROMPTS, tmp_path / "j")
    async with Simulator(script) as other, client_of(other, "gpt-4o") as client:
        with pytest.raises(NotFoundError, match="Use the API key that the batch was submitted with"):
            await run_batch(client, PROMPTS, tmp_path / "j")
        assert {request.method for request in other.requests} == {"GET"}
    assert set(script.asked.values()) == {1}


@pytest.mark.parametrize("model", MODELS)
async def test_a_run_that_is_stopped_ends_where_it_waits(model: str, tmp_path: Path) -> None:
    script = Script()
    async with Simulator(script, batches=Batches(polls=1)) as sim, client_of(sim, model) as client:
        async with await Journal.open(tmp_path / "j", fingerprint="f" * 64) as journal:
            batch = ProviderBatch(journal, on_state=lambda *_: batch.stop())
            with pytest.raises(QueueClosedError):
                await anext(batch.run(plans_of(client, PROMPTS)))
            late = ProviderBatch(journal)
            late.stop()
            with pytest.raises(QueueClosedError):
                await anext(late.run(plans_of(client, [*PROMPTS, "one more"])))
        found = await run_batch(client, PROMPTS, tmp_path / "j")
    assert {answer.error for answer in found.values()} == {None}
    assert set(script.asked.values()) == {1}
    assert "one more" not in script.asked
