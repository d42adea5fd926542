"""`client.answers`: by completion, with ids, with a journal that survives whatever ends the iterator."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lm_deluge import Conversation, LLMClient
from lm_deluge.errors import (
    BadRequestError,
    ConfigurationError,
    ConnectError,
    DispatchError,
    InvalidPromptError,
    JournalError,
)
from lm_deluge.simulator import Script, Simulator


def echo(request: Any) -> Script:
    prompt = request.conversation[-1].completion
    if prompt == "bad":
        raise BadRequestError("This is not valid.", status_code=400)
    return Script(text=f"answer to {prompt}")


def client_of(sim: Simulator, **options: Any) -> LLMClient:
    return LLMClient("gpt-4o", base_url=sim.base_url, **{"api_key": "k", "progress": None, **options})


async def all_of(client: LLMClient, prompts: Any, **options: Any) -> dict[Any, str]:
    return {each: response.completion async for each, response in client.answers(prompts, **options)}


@pytest.mark.parametrize("has_journal", [False, True])
async def test_answers_come_as_they_complete(has_journal: bool, tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def hold(response: Any) -> Any:
        if "slow" in response.completion:
            await gate.wait()
        return response

    options = {"journal": tmp_path / "j"} if has_journal else {}
    async with Simulator(echo) as sim, client_of(sim, postprocess=hold) as client:
        order = []
        async for index, response in client.answers(["slow", "one", "bad", "", "two"], **options):
            order.append(index)
            assert response.id == index
            if len(order) == 4:
                gate.set()
            if index in (2, 3):
                assert isinstance(response.error, BadRequestError if index == 2 else InvalidPromptError)
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert order[-1] == 0


@pytest.mark.parametrize("has_journal", [False, True])
@pytest.mark.parametrize("is_lazy", [False, True])
async def test_ids_are_those_of_the_user(is_lazy: bool, has_journal: bool, tmp_path: Path) -> None:
    options = {"journal": tmp_path / "j"} if has_journal else {}
    ids: Any = ["a", 7, ("x", 1)]
    async with Simulator(echo) as sim, client_of(sim) as client:
        prompts = ["one", "two", Conversation.user("three")]
        found = await all_of(
            client, iter(prompts) if is_lazy else prompts, ids=iter(ids) if is_lazy else ids, **options
        )
    assert found == {"a": "answer to one", 7: "answer to two", ("x", 1): "answer to three"}


BAD_IDS: dict[str, tuple[Any, Any, str]] = {
    "too few": (["a", "b"], ["x"], "there are 1 ids for 2 prompts"),
    "too many": (["a"], ["x", "y"], "there are 2 ids for 1 prompts"),
    "equal": (["a", "b"], ["x", "x"], "two prompts have the same id"),
    "equal as text": (["a", "b"], [1, "1"], "two prompts have the same id"),
}


@pytest.mark.parametrize("name", BAD_IDS)
async def test_ids_that_do_not_fit_are_refused_before_anything_is_sent(name: str) -> None:
    prompts, ids, words = BAD_IDS[name]
    async with Simulator(echo) as sim, client_of(sim) as client:
        with pytest.raises(ConfigurationError, match=words):
            client.answers(prompts, ids=ids)
        assert sim.stats.requests == 0


@pytest.mark.parametrize(("ids", "words"), [(["x"], "there are 1 ids, and more"), (["x", "x"], "the same id")])
async def test_ids_of_an_iterator_that_do_not_fit_end_the_iterator_with_an_error(ids: list[str], words: str) -> None:
    found = {}
    async with Simulator(echo) as sim, client_of(sim) as client:
        answers = client.answers(iter(["a", "b"]), ids=iter(ids))
        each, response = await anext(answers)
        found[each] = response.completion
        with pytest.raises(ConfigurationError, match=words):
            await anext(answers)
    assert found == {"x": "answer to a"}


async def test_a_run_goes_on_where_the_last_one_was_left(tmp_path: Path) -> None:
    journal = tmp_path / "j"
    prompts = [f"q{number}" for number in range(20)]
    async with Simulator(echo) as sim, client_of(sim, max_concurrent_requests=1) as client:
        first = []
        async for index, _ in client.answers(prompts, journal=journal):
            first.append(index)
            if len(first) == 5:
                break
        # At once: the run that was left closes its journal first.
        found = await all_of(client, prompts, journal=journal)
        assert found == {index: f"answer to {prompt}" for index, prompt in enumerate(prompts)}
        assert sim.stats.requests <= len(prompts) + 1  # the one in flight may be sent again
        again = sim.stats.requests
        assert await all_of(client, prompts, journal=journal) == found
        assert [each.completion for each in await client.process_prompts_async(prompts, journal=journal)] == [
            found[index] for index in range(20)
        ]
        assert sim.stats.requests == again


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 13, 30])
async def test_a_run_that_is_left_at_any_moment_closes_its_journal(steps: int, tmp_path: Path) -> None:
    """Also while it opens or closes the file, in a thread that a cancellation does not reach."""
    journal = tmp_path / "j"
    async with Simulator(echo) as sim, client_of(sim) as client:
        answers = client.answers(["one"], journal=journal)
        waiting = asyncio.create_task(anext(answers))
        for _ in range(steps):
            await asyncio.sleep(0)
        waiting.cancel()
        del answers, waiting
        assert await all_of(client, ["one"], journal=journal) == {0: "answer to one"}
        async for _ in client.answers(["one"], journal=journal):
            break  # all answers are there, and the file is being closed
        assert await all_of(client, ["one"], journal=journal) == {0: "answer to one"}


async def test_a_batch_that_is_cancelled_keeps_what_was_answered(tmp_path: Path) -> None:
    arrived: list[str] = []
    hold = asyncio.Event()

    async def note(response: Any) -> Any:
        if len(arrived) >= 6:
            await hold.wait()
        arrived.append(response.completion)
        return response

    prompts = [f"q{number}" for number in range(12)]
    async with Simulator(echo) as sim:
        async with client_of(sim, postprocess=note, max_concurrent_requests=2) as client:
            batch = asyncio.create_task(client.process_prompts_async(prompts, journal=tmp_path / "j"))
            while len(arrived) < 6:
                await asyncio.sleep(0.001)
            batch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await batch
        kept = len(arrived)
        before = sim.stats.requests
        async with client_of(sim) as client:
            responses = await client.process_prompts_async(prompts, journal=tmp_path / "j")
        assert sim.stats.requests - before == len(prompts) - kept
    assert [each.completion for each in responses] == [f"answer to {prompt}" for prompt in prompts]


KILLED = """
import asyncio, os, sys
from lm_deluge import LLMClient

async def main():
    client = LLMClient("gpt-4o", base_url=sys.argv[1], api_key="k", progress=None, max_concurrent_requests=1)
    count = 0
    async for index, response in client.answers([f"q{number}" for number in range(8)], journal=sys.argv[2]):
        count += 1
        if count == 3:
            os.kill(os.getpid(), 9)

asyncio.run(main())
"""


async def test_a_process_that_is_killed_keeps_what_was_yielded(tmp_path: Path) -> None:
    with Simulator(echo).start_in_thread() as sim:
        command = [sys.executable, "-c", KILLED, sim.base_url, str(tmp_path / "j")]
        run = await asyncio.to_thread(subprocess.run, command, timeout=30, check=False)
        assert run.returncode == -9
        before = sim.stats.requests
        async with client_of(sim) as client:
            found = await all_of(client, [f"q{number}" for number in range(8)], journal=tmp_path / "j")
        assert sim.stats.requests - before <= 5
    assert found == {number: f"answer to q{number}" for number in range(8)}


async def test_a_longer_or_changed_list_goes_on_where_it_was(tmp_path: Path) -> None:
    journal = tmp_path / "j"
    async with Simulator(echo) as sim, client_of(sim) as client:
        await all_of(client, ["a", "b", "c"], journal=journal)
        assert sim.stats.requests == 3
        found = await all_of(client, ["a", "changed", "c", "d"], journal=journal)
        assert sim.stats.requests == 5
        assert found == {0: "answer to a", 1: "answer to changed", 2: "answer to c", 3: "answer to d"}


async def test_a_journal_of_other_options_is_refused(tmp_path: Path) -> None:
    async with Simulator('{"a": 1}') as sim, client_of(sim) as client:
        await all_of(client, ["a"], journal=tmp_path / "j")
        others: list[dict[str, Any]] = [
            {"output": {"type": "object"}},
            {"tools": [{"name": "look"}]},
            {"temperature": 0.5},
        ]
        for options in others:
            with pytest.raises(JournalError):
                await all_of(client, ["a"], journal=tmp_path / "j", **options)
        assert sim.stats.requests == 1


async def test_what_failed_is_asked_again_on_demand(tmp_path: Path) -> None:
    journal = tmp_path / "j"
    answers = {"bad": 0}

    def script(request: Any) -> Script:
        answers["bad"] += 1
        return echo(request) if answers["bad"] == 1 else Script(text="better")

    async with Simulator(script) as sim, client_of(sim) as client:
        (failed,) = [response async for _, response in client.answers(["bad"], journal=journal)]
        (again,) = [response async for _, response in client.answers(["bad"], journal=journal)]
        assert sim.stats.requests == 1
        assert (type(failed.error), type(again.error)) == (BadRequestError, BadRequestError)
        assert await all_of(client, ["bad"], journal=journal, retry_failed=True) == {0: "better"}
        assert await all_of(client, ["bad"], journal=journal) == {0: "better"}
        assert sim.stats.requests == 2


@pytest.mark.parametrize("runs", [1, 2])
async def test_equal_prompts_are_asked_once_with_a_journal(runs: int, tmp_path: Path) -> None:
    prompts = ["a", "b", "a", Conversation.user("a"), "bad", "bad", "a"]
    async with Simulator(echo) as sim, client_of(sim) as client:
        for _ in range(runs):
            responses = await client.process_prompts_async(prompts, journal=tmp_path / "j", ask_duplicates_once=True)
        assert sim.stats.requests == 3
    assert [each.completion for each in responses] == [
        "answer to a",
        "answer to b",
        *["answer to a"] * 2,
        "",
        "",
        "answer to a",
    ]
    assert [each.usage is None for each in responses[:4]] == [False, False, True, True]
    assert [each.id for each in responses] == list(range(7))


@pytest.mark.parametrize("has_journal", [False, True])
async def test_prompts_that_break_off_leave_what_was_sent_before(has_journal: bool, tmp_path: Path) -> None:
    def prompts() -> Iterator[str]:
        yield "one"
        yield "two"
        raise ZeroDivisionError

    options = {"journal": tmp_path / "j"} if has_journal else {}
    found = {}
    async with Simulator(echo) as sim, client_of(sim) as client:
        answers = client.answers(prompts(), **options)
        for _ in range(2):
            index, response = await anext(answers)
            found[index] = response.completion
        with pytest.raises(ZeroDivisionError):
            await anext(answers)
    assert found == {0: "answer to one", 1: "answer to two"}


async def test_everything_that_a_call_takes() -> None:
    async with Simulator('{"a": 1}') as sim, client_of(sim) as client:
        options: dict[str, Any] = {
            "tools": [{"name": "look"}],
            "output": {"type": "object"},
            "temperature": 0.5,
            "max_cost": 1.0,
            "prefer_model": "gpt-4o",
            "progress": "none",
        }
        assert await all_of(client, ["a"], **options)
        (request,) = sim.requests
        assert request.json["temperature"] == 0.5
        assert request.json["tools"][0]["function"]["name"] == "look"
        assert request.json["response_format"]["type"] == "json_schema"
        with pytest.raises(ConfigurationError, match="Did you mean journal"):
            client.answers(["a"], journall="x")  # type: ignore[call-arg]


async def test_an_iterator_is_used_once_and_stays_at_its_end() -> None:
    async with Simulator(echo) as sim, client_of(sim) as client:
        answers = client.answers(["a"])
        assert aiter(answers) is answers
        assert [index async for index, _ in answers] == [0]
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(answers)
        async with client.answers(["a", "b"]) as answers:
            await anext(answers)
        with pytest.raises(StopAsyncIteration):
            await anext(answers)
        await client.answers(["a"]).aclose()  # never used
        assert sim.stats.requests <= 3


async def test_a_provider_that_is_never_reached_ends_a_batch_with_a_journal(tmp_path: Path) -> None:
    async with Simulator(echo) as sim:
        client = client_of(sim, max_concurrent_requests=1, max_attempts=1, max_retry_after_s=0.01)
    client.dispatcher.runner().only_breaker.probe_pauses_s = (0.001, 0.001)
    with pytest.raises((ConnectError, DispatchError)):
        await client.process_prompts_async(["a"] * 20, journal=tmp_path / "j")
    await client.close()


async def test_no_task_is_left_by_whoever_leaves(tmp_path: Path) -> None:
    async with Simulator(echo) as sim, client_of(sim) as client:
        before = len(asyncio.all_tasks())
        for options in ({}, {"journal": tmp_path / "j"}):
            async for _ in client.answers([f"q{number}" for number in range(50)], **options):
                break
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) > before + sim.open_connections:
                await asyncio.sleep(0.001)
        assert client.dispatcher.runner().waiting == 0
