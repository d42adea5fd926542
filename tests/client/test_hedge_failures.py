"""Two attempts side by side of which one fails, or both; and what a journal is told of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lm_deluge import LLMClient
from lm_deluge.client.batch.prompts import run_call
from lm_deluge.client.batch.row_planner import answer_rows
from lm_deluge.client.client import CallOptions
from lm_deluge.dispatch.batch.input import BatchRow
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.errors import JournalError, ServerError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.response import APIResponse
from loopback import HEAD, HELLO, RST, Step, answer, chunk, plain, text
from racing import BOTH, BROKEN, SILENT, Race, after, notes_of, places, racing, serving, text_of, until

# Failures

FAILURES = {"500": BROKEN, "reset": [HEAD, RST], "400": plain("400 X", b"{}"), "401": plain("401 X", b"{}")}


@pytest.mark.parametrize("failing", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("loser", [0, 1])
async def test_one_that_fails_leaves_the_other_alone(failing: list[Step], loser: int) -> None:
    fail, go = asyncio.Event(), asyncio.Event()
    steps = [after(go, answer(HELLO)), after(go, answer(HELLO))]
    steps[loser] = [fail, *failing]
    async with racing(*steps, answer(HELLO)) as race:
        await race.begin()
        await race.ring()
        fail.set()
        await race.one_is_out()
        assert race.bell.ring() == 0
        go.set()
        assert notes_of(await race.end()) == [(2, "Hedge")]
        assert race.response.model_internal == BOTH[1 - loser]
        assert len(race.server.requests) == 2


@pytest.mark.parametrize("last", [0, 1])
async def test_when_both_have_failed_the_last_error_decides(last: int) -> None:
    fail, go = asyncio.Event(), asyncio.Event()
    steps: list[list[Step]] = [[fail, *plain("503 X", b"{}")], [fail, *plain("503 X", b"{}")]]
    steps[last] = [go, *BROKEN]
    async with racing(*steps, answer(HELLO)) as race:
        await race.begin()
        await race.ring()
        fail.set()
        await race.one_is_out()
        go.set()
        events = await race.end()
        assert notes_of(events) == [(2, "Hedge"), (3, "ServerError")]
        assert race.response.stats.attempts == 3
        assert race.response.usage.estimated is False


@pytest.mark.parametrize("last", [0, 1])
async def test_when_nothing_is_left_to_try_the_last_error_is_raised(last: int) -> None:
    fail, go = asyncio.Event(), asyncio.Event()
    steps: list[list[Step]] = [[fail, *plain("401 X", b"{}")], [fail, *plain("401 X", b"{}")]]
    steps[last] = [go, *BROKEN]
    async with racing(*steps, max_attempts=2) as race:
        await race.begin()
        await race.ring()
        fail.set()
        await race.one_is_out()
        go.set()
        with pytest.raises(ServerError) as caught:
            await race.reading
        assert caught.value.attempts == 2
        (note,) = caught.value.__notes__
        assert note.startswith(f"attempt {2 - last} ended with AuthenticationError")


async def test_a_race_may_follow_a_race() -> None:
    fail = asyncio.Event()
    async with racing([fail, *BROKEN], [fail, *BROKEN], SILENT, answer(HELLO)) as race:
        await race.begin()
        await race.ring()
        fail.set()
        await race.asked(3)
        await race.ring()
        assert notes_of(await race.end()) == [(2, "Hedge"), (3, "ServerError"), (4, "Hedge")]


async def test_a_stream_that_begins_anew_may_be_hedged() -> None:
    async with racing([HEAD, chunk(text("void")), RST], SILENT, answer(HELLO), on_break="restart") as race:
        await race.begin()
        await race.asked(2)
        await race.ring()
        events = await race.end()
        assert notes_of(events) == [(2, "StreamInterruptedError"), (3, "Hedge")]
        assert (text_of(events), race.response.completion) == ("voidHello world", "Hello world")


# What a journal is told


class Told(list[tuple[Any, ...]]):
    def __init__(self, intend_fails: BaseException | None = None) -> None:
        self.intend_fails = intend_fails

    async def before_attempt(self, number: int) -> None:
        self.append(("before_attempt", number))
        if number > 1 and self.intend_fails is not None:
            raise self.intend_fails

    async def failed(self, number: int, response: APIResponse, is_final: bool) -> None:
        self.append(("failed", number, type(response.error).__name__, is_final))

    def run(self, client: LLMClient) -> asyncio.Task[APIResponse]:
        spec = client.dispatcher.planner(CallOptions()).spec(Conversation.user("Hi"))
        spec = msgspec.structs.replace(spec, before_attempt=self.before_attempt, on_attempt_failed=self.failed)
        return asyncio.create_task(run_call(spec, client.dispatcher.runner))


@pytest.mark.parametrize("winner", [0, 1])
async def test_the_loser_is_told_of_before_the_answer(winner: int) -> None:
    go, told = asyncio.Event(), Told()
    steps = [SILENT, SILENT]
    steps[winner] = after(go, answer(HELLO))
    async with racing(*steps) as race:
        running = told.run(race.client)
        await race.asked(1)
        await race.ring()
        go.set()
        assert (await running).completion == "Hello world"
    assert told == [("before_attempt", 1), ("before_attempt", 2), ("failed", 2 - winner, "DispatchError", False)]


async def test_both_failures_are_told() -> None:
    fail, go, told = asyncio.Event(), asyncio.Event(), Told()
    async with racing([go, *BROKEN], [fail, *plain("401 X", b"{}")], max_attempts=2) as race:
        running = told.run(race.client)
        await race.asked(1)
        await race.ring()
        fail.set()
        await race.one_is_out()
        go.set()
        assert isinstance((await running).error, ServerError)
    assert told == [
        ("before_attempt", 1),
        ("before_attempt", 2),
        ("failed", 2, "AuthenticationError", False),
        ("failed", 1, "ServerError", True),
    ]


async def test_a_journal_that_takes_no_more_intents_stops_the_second_only() -> None:
    go, told = asyncio.Event(), Told(JournalError("full"))
    async with racing(after(go, answer(HELLO)), SILENT) as race:
        running = told.run(race.client)
        await race.asked(1)
        race.bell.ring()
        await until(lambda: len(told) == 2 and places(race.client) == 1)
        go.set()
        response = await running
        assert (response.completion, response.stats.attempts) == ("Hello world", 1)
        assert len(race.server.requests) == 1
    assert told == [("before_attempt", 1), ("before_attempt", 2)]


async def test_a_fault_that_is_not_ours_is_the_error_of_the_call() -> None:
    told = Told(ZeroDivisionError())
    async with racing(SILENT, SILENT) as race:
        running = told.run(race.client)
        await race.asked(1)
        race.bell.ring()
        response = await running
        assert isinstance(response.error.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("winner", [0, 1])
async def test_nothing_is_in_flight_in_a_journal_but_the_winner(winner: int, tmp_path: Path) -> None:
    go = asyncio.Event()
    steps = [SILENT, SILENT]
    steps[winner] = after(go, answer(HELLO))
    async with racing(*steps) as race, await Journal.open(tmp_path / "j", fingerprint="f") as journal:

        async def before_attempt(number: int) -> None:
            await journal.before_attempt("1", number)

        async def failed(number: int, response: APIResponse, is_final: bool) -> None:
            await journal.fail("1", number, response, is_final=is_final)

        spec = race.client.dispatcher.planner(CallOptions()).spec(Conversation.user("Hi"))
        spec = msgspec.structs.replace(spec, before_attempt=before_attempt, on_attempt_failed=failed)
        running = asyncio.create_task(run_call(spec, race.client.dispatcher.runner))
        await race.asked(1)
        await race.ring()
        assert journal.state.ambiguous == (("1", 1), ("1", 2))
        go.set()
        await running
        assert journal.state.ambiguous == (("1", winner + 1),)


# Batches with a journal


def story(path: Path) -> list[tuple[Any, ...]]:
    lines = [msgspec.json.decode(line[18:]) for line in path.read_bytes().splitlines()[1:]]
    return [(line["type"], line["attempt"], *([line["is_final"]] if "is_final" in line else [])) for line in lines]


async def answer_row(race: Race, path: Path, happens: Callable[[], Awaitable[None]]) -> APIResponse:
    """Ask one row through a journal; say how it ended."""
    row = BatchRow(id="r", number=1, conversation=Conversation.user("Hi"))
    asked = len(race.server.requests)
    async with await Journal.open(path, fingerprint="f" * 64, gather_s=0) as journal:

        async def run() -> APIResponse:
            (ended,) = [response async for _, response in answer_rows(race.client.dispatcher, journal).answers([row])]
            return ended

        running = asyncio.create_task(run())
        await race.asked(asked + 1)
        await happens()
        return await running


@pytest.mark.parametrize("winner", [0, 1])
async def test_a_row_of_two_attempts_is_done_by_the_one_that_was_kept(winner: int, tmp_path: Path) -> None:
    go = asyncio.Event()
    steps = [SILENT, SILENT]
    steps[winner] = after(go, answer(HELLO))
    async with racing(*steps) as race:

        async def happens() -> None:
            await race.ring()
            go.set()

        response = await answer_row(race, tmp_path / "j", happens)
    assert (response.completion, response.error) == ("Hello world", None)
    ends = [("failed", 2 - winner, False), ("done", 1 + winner)]
    assert story(tmp_path / "j") == [("intent", 1), ("intent", 2), *ends]


async def test_a_row_fails_for_good_only_once_both_attempts_have(tmp_path: Path) -> None:
    fail, go = asyncio.Event(), asyncio.Event()
    async with racing([go, *BROKEN], [fail, *BROKEN], max_attempts=2) as race:

        async def happens() -> None:
            await race.ring()
            fail.set()
            await race.one_is_out()
            go.set()

        response = await answer_row(race, tmp_path / "j", happens)
    assert isinstance(response.error, ServerError)
    ends = [("failed", 2, False), ("failed", 1, True)]
    assert story(tmp_path / "j") == [("intent", 1), ("intent", 2), *ends]


async def test_attempts_of_earlier_runs_are_not_spent_on_hedging(tmp_path: Path) -> None:
    path, go = tmp_path / "j", asyncio.Event()
    async with await Journal.open(path, fingerprint="f" * 64) as journal:
        await journal.before_attempt("r", 1)
        await journal.fail("r", 1, APIResponse(error=ServerError("not now", status_code=500)), is_final=False)
    async with racing(after(go, answer(HELLO)), SILENT, max_attempts=2) as race:

        async def happens() -> None:
            tasks = asyncio.all_tasks()
            assert race.bell.ring() == 1
            await until(lambda: asyncio.all_tasks() - serving() <= tasks)
            go.set()

        response = await answer_row(race, path, happens)
        assert (response.completion, len(race.server.requests)) == ("Hello world", 1)
    assert story(path) == [("intent", 1), ("failed", 1, False), ("intent", 2), ("done", 2)]


async def test_a_batch_that_stops_lets_both_attempts_end(tmp_path: Path) -> None:
    fail, go = asyncio.Event(), asyncio.Event()
    row = BatchRow(id="r", number=1, conversation=Conversation.user("Hi"))
    async with (
        racing([fail, *BROKEN], after(go, answer(HELLO))) as race,
        await Journal.open(tmp_path / "j", fingerprint="f" * 64, gather_s=0) as journal,
    ):
        rows = answer_rows(race.client.dispatcher, journal)

        async def run() -> list[APIResponse]:
            return [response async for _, response in rows.answers([row])]

        running = asyncio.create_task(run())
        await race.asked(1)
        await race.ring()
        await until(lambda: rows.in_flight == 2)
        rows.stop()
        fail.set()
        await race.one_is_out()
        go.set()
        assert [response.completion for response in await running] == ["Hello world"]
