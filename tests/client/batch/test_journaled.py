"""Rows of a batch with a journal: intents before requests, outcomes before answers, attempts counted over all runs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from failing_disk import FailingDisk
from lm_deluge import LLMClient
from lm_deluge.client.batch.journaled import JournaledRows
from lm_deluge.client.batch.row_planner import answer_rows
from lm_deluge.dispatch.batch.input import BatchRow
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.dispatch.scheduling.circuit_breaker import CircuitBreaker
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import (
    BadRequestError,
    ConnectError,
    InvalidPromptError,
    JournalError,
    RateLimitError,
    ServerError,
)
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.response import APIResponse
from lm_deluge.simulator import Script, Simulator
from lm_deluge.usage import Usage

BATCH = "f" * 64


def echo(request: Any) -> Script:
    return Script(text=f"answer to {request.conversation[-1].completion}")


def refuse_all(_request: Any) -> Script:
    raise ServerError("not now", status_code=500)


def rows(count: int) -> list[BatchRow]:
    return [
        BatchRow(id=f"r{number}", number=number + 1, conversation=Conversation.user(f"q{number}"))
        for number in range(count)
    ]


def client_of(sim: Simulator, model: str | list[str] = "gpt-4o", **options: Any) -> LLMClient:
    client = LLMClient(model, base_url=sim.base_url, api_key="any", **{"max_concurrent_requests": 8, **options})
    client.dispatcher.make_runner(functools.partial(Runner, chance=lambda: 0.0))  # no waits between attempts
    return client


@contextlib.asynccontextmanager
async def journal_at(path: Path, **options: Any) -> AsyncIterator[Journal]:
    async with await Journal.open(path, fingerprint=BATCH, gather_s=0, **options) as journal:
        yield journal


async def ask(
    client: LLMClient, path: Path, asked: Iterable[BatchRow], *, retry_failed: bool = False, **options: Any
) -> dict[str, APIResponse]:
    """Run the rows; return the responses, and check that each was in the journal when it was yielded."""
    seen: dict[str, APIResponse] = {}
    async with (
        journal_at(path, **options) as journal,
        contextlib.aclosing(
            answer_rows(client.dispatcher, journal, retry_failed=retry_failed).answers(asked)
        ) as answers,
    ):
        async for row, response in answers:
            assert journal.response(row.id).error_message == response.error_message
            assert journal.response(row.id).completion == response.completion
            seen[row.id] = response
    return seen


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line[18:]) for line in path.read_bytes().splitlines()]


async def test_each_row_is_answered_once_over_all_runs(tmp_path: Path) -> None:
    path = tmp_path / "j"
    async with Simulator(echo) as sim, client_of(sim) as client:
        first = await ask(client, path, rows(20))
        second = await ask(client, path, rows(30))
        assert sim.stats.requests == 30
    assert {name: response.completion for name, response in first.items()} == {
        f"r{number}": f"answer to q{number}" for number in range(20)
    }
    assert sorted(second) == sorted(f"r{number}" for number in range(20, 30))
    assert second["r21"].id == 21


async def test_no_request_leaves_before_its_intent_is_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "j"
    early: list[str] = []

    def script(request: Any) -> Script:
        asked = request.conversation[-1].completion
        count = turns[asked] = turns[asked] + 1
        known = [line for line in records(path) if line["type"] == "intent" and line["id"] == f"r{asked[1:]}"]
        if [line["attempt"] for line in known] != list(range(1, count + 1)):
            early.append(asked)
        if count < 3:
            raise ServerError("not now", status_code=500)
        return echo(request)

    turns: Counter[str] = Counter()
    async with Simulator(script) as sim, client_of(sim) as client:
        seen = await ask(client, path, rows(12))
    assert early == []
    assert {response.completion for response in seen.values()} == {f"answer to q{number}" for number in range(12)}
    story = [(line["type"], line.get("attempt")) for line in records(path) if line.get("id") == "r5"]
    assert story == [("intent", 1), ("failed", 1), ("intent", 2), ("failed", 2), ("intent", 3), ("done", 3)]


async def test_attempts_that_failed_count_over_all_runs_and_unseen_ones_do_not(tmp_path: Path) -> None:
    path = tmp_path / "j"
    async with journal_at(path) as journal:
        for attempt in (1, 2, 3):
            await journal.before_attempt("r0", attempt)
            await journal.fail("r0", attempt, APIResponse(error=ServerError("x", status_code=500)), is_final=False)
            await journal.before_attempt("r1", attempt)
    async with Simulator(refuse_all) as sim, client_of(sim, max_attempts=4) as client:
        seen = await ask(client, path, rows(2))
        asked = Counter(request.json["messages"][-1]["content"] for request in sim.requests)
    assert asked == {"q0": 1, "q1": 4}
    assert {type(response.error) for response in seen.values()} == {ServerError}
    async with journal_at(path) as journal:
        assert journal.state.ambiguous == (("r1", 1), ("r1", 2), ("r1", 3))
        assert sorted(journal.state.failed) == ["r0", "r1"]


async def test_what_failed_for_good_is_asked_again_where_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "j"

    def script(request: Any) -> Script:
        if is_bad:
            raise BadRequestError("no", status_code=400)
        return echo(request)

    is_bad = True
    async with Simulator(script) as sim, client_of(sim) as client:
        assert type((await ask(client, path, rows(1)))["r0"].error) is BadRequestError
        is_bad = False
        assert await ask(client, path, rows(1)) == {}
        assert (await ask(client, path, rows(1), retry_failed=True))["r0"].completion == "answer to q0"
        assert sim.stats.requests == 2


async def test_a_row_that_cannot_be_asked_is_tried_again_by_each_run_for_it_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "j"
    bad = BatchRow(id="bad", number=1, error=InvalidPromptError("the line is not JSON"))
    other = BatchRow(id="other", number=2, conversation=Conversation.user("q"), model="claude-haiku-4-5")
    async with Simulator(echo) as sim, client_of(sim) as client:
        seen = await ask(client, path, [bad, other, *rows(1)])
        size = path.stat().st_size
        again = await ask(client, path, [bad, other, *rows(1)])
        assert sim.stats.requests == 1
    assert path.stat().st_size == size  # the same errors are not recorded twice
    for found in (seen, again):
        assert str(found["bad"].error) == "the line is not JSON."
        assert str(found["other"].error) == (
            "the line names the model 'claude-haiku-4-5', and the batch has gpt-4o. "
            "Name all models of the lines with --model."
        )
    assert (sorted(seen), sorted(again)) == (["bad", "other", "r0"], ["bad", "other"])


async def test_an_unseen_request_stays_known_when_its_row_cannot_be_asked_any_more(tmp_path: Path) -> None:
    async with journal_at(tmp_path / "j") as journal:
        await journal.before_attempt("r0", 1)
    async with Simulator(echo) as sim, client_of(sim, max_input_tokens_per_minute=1) as client:
        row = BatchRow(id="r0", number=1, conversation=Conversation.user("long " * 100))
        seen = await ask(client, tmp_path / "j", [row])
        assert type(seen["r0"].error).__name__ == "BudgetError"
    async with journal_at(tmp_path / "j") as journal:
        assert journal.state.ambiguous == (("r0", 1),)
        assert journal.state.status("r0") == "in_flight"  # the next run sends it again


async def test_what_a_row_says_itself_is_asked(tmp_path: Path) -> None:
    from lm_deluge import SamplingParams, Tool

    row = BatchRow(
        id="own",
        number=1,
        conversation=Conversation.user("hi"),
        model="gpt-4o-mini",
        params=SamplingParams(temperature=0.5),
        tools=(Tool(name="weather"),),
        output={"type": "object", "properties": {}},
        extra_body={"metadata": {"a": "b"}},
    )
    async with (
        Simulator(echo) as sim,
        client_of(sim, ["gpt-4o", "gpt-4o-mini"], max_new_tokens=7, extra_body={"user": "u"}) as client,
    ):
        await ask(client, tmp_path / "j", [row])
        body = sim.requests[0].json
    assert (body["model"], body["temperature"], body["max_completion_tokens"]) == ("gpt-4o-mini", 0.5, 7)
    assert body["tools"][0]["function"]["name"] == "weather"
    assert body["response_format"]["type"] == "json_schema"
    assert (body["user"], body["metadata"]) == ("u", {"a": "b"})


async def test_no_row_is_asked_what_another_one_said(tmp_path: Path) -> None:
    """Rows with equal options share a planner; 1, 1.0 and True are equal in Python, but not as options."""
    said = [{}, {"x": 1}, {"x": True}, {"x": 1.0}, {"x": [1]}, {"x": [True]}, {}, {"x": 1}]
    asked = [
        BatchRow(id=f"r{number}", number=number + 1, conversation=Conversation.user(f"q{number}"), extra_body=own)
        for number, own in enumerate([*said, *({"y": number} for number in range(200)), *said])
    ]
    async with Simulator(echo) as sim, client_of(sim) as client:
        await ask(client, tmp_path / "j", asked)
        bodies = [request.json for request in sim.requests]
    found = {body["messages"][0]["content"]: {key: body[key] for key in "xy" if key in body} for body in bodies}
    assert {key: repr(own) for key, own in found.items()} == {
        f"q{number}": repr(dict(row.extra_body)) for number, row in enumerate(asked)
    }


async def test_few_rows_are_held(tmp_path: Path) -> None:
    read: list[int] = []

    def many() -> Iterator[BatchRow]:
        for row in rows(500):
            read.append(row.number)
            yield row

    ended = 0
    async with (
        Simulator(echo) as sim,
        client_of(sim, max_concurrent_requests=3) as client,
        journal_at(tmp_path / "j") as journal,
    ):
        async for _ in answer_rows(client.dispatcher, journal).answers(many()):
            ended += 1
            assert len(read) - ended < 4 * 3
    assert ended == 500


async def stopped(asking: JournaledRows, count: int, **options: Any) -> list[str]:
    """Run 60 rows; stop after `count` answers."""
    seen: list[str] = []
    async for row, _ in asking.answers(rows(60)):
        seen.append(row.id)
        if len(seen) == count:
            asking.stop(**options)
    return seen


async def test_a_stop_lets_what_is_in_flight_end_and_nothing_new_leave(tmp_path: Path) -> None:
    async with Simulator(echo) as sim, client_of(sim) as client, journal_at(tmp_path / "j") as journal:
        asking = answer_rows(client.dispatcher, journal)
        seen = await stopped(asking, 10, within_s=10)
        assert 10 <= len(seen) < 60
        assert sim.stats.requests == len(seen)
        assert journal.state.ambiguous == ()
        assert len(journal.state.done) == len(seen)
        assert asking.in_flight == 0


async def test_a_stop_waits_no_longer_than_it_says(tmp_path: Path) -> None:
    def script(request: Any) -> Any:
        return Script(text="first") if request.conversation[-1].completion == "q0" else Script(text="w " * 10_000)

    from lm_deluge.simulator import Pace

    async with (
        Simulator(script, pace=Pace(tokens_per_second=50)) as sim,
        client_of(sim, max_concurrent_requests=4) as client,
        journal_at(tmp_path / "j") as journal,
    ):
        seen = await stopped(answer_rows(client.dispatcher, journal), 1, within_s=0.05)
        assert seen == ["r0"]
        unseen = [call for call, _ in journal.state.ambiguous]
        assert 1 <= len(unseen) <= 4
    async with Simulator(echo) as sim, client_of(sim) as client:
        rest = await ask(client, tmp_path / "j", rows(60))
        assert len(rest) == 59 == sim.stats.requests
    async with journal_at(tmp_path / "j") as journal:
        assert [call for call, _ in journal.state.ambiguous] == unseen


async def test_a_stop_does_not_wait_for_attempts_that_would_come_later(tmp_path: Path) -> None:
    def script(request: Any) -> Script:
        if request.conversation[-1].completion == "q0":
            return echo(request)
        raise RateLimitError("later", status_code=429, retry_after_s=60)

    async with Simulator(script) as sim, client_of(sim) as client, journal_at(tmp_path / "j") as journal:
        async with asyncio.timeout(20):
            assert await stopped(answer_rows(client.dispatcher, journal), 1) == ["r0"]
        assert journal.state.ambiguous == ()
        assert journal.state.failed == {}


async def run_on_disk(client: LLMClient, path: Path, count: int, disk: FailingDisk) -> tuple[set[str], bool]:
    """Run the rows on a disk that may fail; return the ids of the answers, and whether the disk failed."""
    seen: set[str] = set()
    journal = await Journal.open(path, fingerprint=BATCH, gather_s=0, opener=disk.open)
    try:
        asking = answer_rows(client.dispatcher, journal)
        async for row, response in asking.answers(rows(count)):
            assert response.error is None
            assert row.id in journal.state.done
            seen.add(row.id)
        assert asking.in_flight == 0
        return seen, asking.failure is not None
    finally:
        with contextlib.suppress(JournalError):
            await journal.close()


@pytest.mark.timeout(1_800)
async def test_no_room_at_any_write_and_the_next_run_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    count = 300 if os.environ.get("DELUGE_SOAK") else 40
    async with Simulator(echo) as sim, client_of(sim, max_concurrent_requests=4) as client:
        well = FailingDisk(errno.ENOSPC)
        whole, has_failed = await run_on_disk(client, tmp_path / "well", count, well)
        assert (len(whole), has_failed) == (count, False)
        for failing in range(2, well.writes + 1):
            path = tmp_path / f"{failing}"
            disk = FailingDisk(errno.ENOSPC, on_write=lambda number, failing=failing: number == failing)
            before = sim.stats.requests
            seen, has_failed = await run_on_disk(client, path, count, disk)
            assert has_failed == (disk.writes >= failing)
            async with journal_at(path) as journal:
                # Each request that was sent has an answer in the journal, which `close` tried to write again.
                assert len(journal.state.done) == sim.stats.requests - before
                assert seen <= set(journal.state.done)
            rest = await ask(client, path, rows(count))
            assert sim.stats.requests - before == count
            async with journal_at(path) as journal:
                assert set(journal.state.done) == whole
                assert journal.state.ambiguous == ()
                assert not set(rest) & seen


async def test_a_disk_that_stays_full_keeps_answers_in_memory(tmp_path: Path) -> None:
    disk = FailingDisk(errno.ENOSPC)

    def script(request: Any) -> Script:
        if sim.stats.requests == 10:
            disk.room = 0
        return echo(request)

    async with Simulator(script) as sim, client_of(sim) as client:
        journal = await Journal.open(tmp_path / "j", fingerprint=BATCH, gather_s=0, opener=disk.open)
        asking = answer_rows(client.dispatcher, journal)
        seen = [row.id async for row, _ in asking.answers(rows(100))]
        assert "No space left on device" in str(asking.failure)
        assert sim.stats.requests <= 10 + 8
        assert len(seen) + len(journal.unsaved) == sim.stats.requests
        assert all(response.completion.startswith("answer to q") for response in journal.unsaved.values())
        with pytest.raises(JournalError, match="could not be written to the journal"):
            await journal.close()


async def test_an_answer_that_the_journal_cannot_hold_is_an_error_with_its_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j"
    monkeypatch.setattr("lm_deluge.dispatch.journal.records.MOST_BYTES", 2_000)
    async with Simulator("word " * 500) as sim, client_of(sim) as client, journal_at(path) as journal:
        found = [response async for _, response in answer_rows(client.dispatcher, journal).answers(rows(1))]
    assert "is too long for a journal" in str(found[0].error)
    assert found[0].usage.output_tokens > 0
    assert [line["type"] for line in records(path)] == ["journal", "intent", "failed"]
    assert records(path)[-1]["is_final"] is True


async def test_an_answer_that_the_user_cannot_use_failed_for_good_and_is_paid(tmp_path: Path) -> None:
    def refuse(response: APIResponse) -> APIResponse:
        raise ValueError(response.completion)

    path = tmp_path / "j"
    async with Simulator(echo) as sim, client_of(sim, postprocess=refuse) as client:
        seen = await ask(client, path, rows(1))
        assert await ask(client, path, rows(1)) == {}
    assert "postprocess raised ValueError" in str(seen["r0"].error)
    assert seen["r0"].completion == "answer to q0"
    assert [line["type"] for line in records(path)] == ["journal", "intent", "failed"]
    async with journal_at(path) as journal:
        assert journal.state.ambiguous == ()


async def test_money_that_is_spent_leaves_lines_for_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "j"
    async with Simulator(echo) as sim, client_of(sim, max_cost=0.001, max_concurrent_requests=2) as client:
        first = await ask(client, path, rows(200))
        answered = {name for name, response in first.items() if response.error is None}
        asked = sim.stats.requests
        assert 0 < len(answered) < 200
    async with Simulator(echo) as sim, client_of(sim) as client:
        second = await ask(client, path, rows(200))
        assert sim.stats.requests == len(second) >= 200 - asked
    assert answered.isdisjoint(second)


async def test_an_unexpected_exception_is_the_error_of_its_row(tmp_path: Path) -> None:
    async with Simulator(echo) as sim, client_of(sim) as client, journal_at(tmp_path / "j") as journal:
        asking = answer_rows(client.dispatcher, journal)
        runner, _ = asking._start()

        make = answer_rows(client.dispatcher, journal)._start()[1]

        def fail_once(row: BatchRow) -> Any:
            if row.id == "r1":
                raise ZeroDivisionError
            return make(row)

        asking._start = lambda: (runner, fail_once)
        found = {row.id: response async for row, response in asking.answers(rows(3))}
    assert [found[name].completion for name in ("r0", "r2")] == ["answer to q0", "answer to q2"]
    assert "an unexpected ZeroDivisionError ended the call" in str(found["r1"].error)
    assert isinstance(found["r1"].error.__cause__, ZeroDivisionError)
    assert [line["id"] for line in records(tmp_path / "j") if line["type"] == "failed"] == ["r1"]


@pytest.mark.parametrize("text", ["\ud800", "fine"])
async def test_an_outcome_that_the_journal_cannot_hold_does_not_end_the_batch(tmp_path: Path, text: str) -> None:
    def spoil(response: APIResponse) -> APIResponse:
        if response.completion == "answer to q1":
            response.content = Message.assistant(text)
            response.usage = Usage(input_tokens=1, raw={"note": "\ud800"})
        return response

    path = tmp_path / "j"
    async with Simulator(echo) as sim, client_of(sim, postprocess=spoil) as client:
        seen = await ask(client, path, rows(3))
        assert sim.stats.requests == 3
    assert [seen[name].error for name in ("r0", "r2")] == [None, None]
    assert "does not fit into JSON" in str(seen["r1"].error)
    async with journal_at(path) as journal:
        assert len(journal.state.done) == 2
        assert journal.state.status("r1") == "failed"


async def test_leaving_early_ends_all_calls(tmp_path: Path) -> None:
    async with Simulator(echo) as sim, client_of(sim) as client, journal_at(tmp_path / "j") as journal:
        before = len(asyncio.all_tasks())
        answers = answer_rows(client.dispatcher, journal).answers(rows(100))
        await anext(answers)
        await answers.aclose()
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) > before + sim.open_connections or sim.open_connections:
                await asyncio.sleep(0.01)
                await client.close()


async def test_a_key_that_is_refused_ends_rows_without_asking_them(tmp_path: Path) -> None:
    from lm_deluge.errors import AuthenticationError

    def script(_request: Any) -> Script:
        raise AuthenticationError("wrong key", status_code=401)

    async with Simulator(script) as sim, client_of(sim, max_concurrent_requests=2) as client:
        seen = await ask(client, tmp_path / "j", rows(10))
        asked = sim.stats.requests
    assert {type(response.error) for response in seen.values()} == {AuthenticationError}
    async with Simulator(echo) as sim, client_of(sim) as client:
        await ask(client, tmp_path / "j", rows(10))
        assert sim.stats.requests == 10 - asked  # with a valid key, the rows that were never sent are tried again
        await ask(client, tmp_path / "j", rows(10), retry_failed=True)
        assert sim.stats.requests == 10


async def test_an_address_where_nobody_ever_was_ends_the_batch_and_no_rows(tmp_path: Path) -> None:
    async with Simulator(echo) as sim:
        nowhere = sim.base_url
    client = LLMClient("gpt-4o", base_url=nowhere, api_key="any", max_concurrent_requests=4)
    async with client, journal_at(tmp_path / "j") as journal:
        client.dispatcher.make_runner(functools.partial(Runner, chance=lambda: 0.0))
        asking = answer_rows(client.dispatcher, journal)
        client.dispatcher.runner().only_breaker.probe_pauses_s = (0.01, 0.01)
        seen = [row.id async for row, _ in asking.answers(rows(100))]
        assert type(asking.gave_up) is ConnectError
        assert len(seen) <= 4
        assert len(journal.state.failed) == len(seen)
        assert journal.state.ambiguous == ()


def test_only_a_provider_that_is_alone_is_waited_for(tmp_path: Path) -> None:
    async def outage_of(*models: str) -> CircuitBreaker | None:
        async with journal_at(tmp_path / "j") as journal:
            asking = answer_rows(
                LLMClient(list(models), api_key={"openai": "any", "anthropic": "any"}).dispatcher, journal
            )
            async for _ in asking.answers([]):
                pass
            return asking._breaker

    assert asyncio.run(outage_of("gpt-4o", "gpt-4o-mini")) is not None
    assert asyncio.run(outage_of("gpt-4o", "claude-haiku-4-5")) is None
