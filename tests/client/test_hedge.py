"""A second attempt beside one that is silent: the first to speak wins; both are paid for, and both count."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from grammar import check_grammar
from lm_deluge import LLMClient
from lm_deluge.errors import ConfigurationError
from lm_deluge.events import Attempt, Event, ResponseStarted, TextDelta
from lm_deluge.response import APIResponse
from lm_deluge.usage import Usage
from loopback import DONE, END, HANG, HEAD, HELLO, NEXT, RST, USAGE, Loopback, Step, answer, chunk, finish, plain, text
from patience import with_bell
from racing import (
    BOTH,
    BROKEN,
    MUTE,
    PROMPT,
    SILENT,
    TALKING,
    after,
    check_nothing_is_left,
    notes_of,
    places,
    racing,
    serving,
    text_of,
    until,
)
from samples import responses_bytes

# Who wins


@pytest.mark.parametrize("first", [SILENT, MUTE], ids=["without a token", "without a head"])
async def test_the_second_speaks_first(first: list[Step]) -> None:
    async with racing(first, answer(HELLO)) as race:
        await race.begin()
        await race.ring()
        events = await race.end()
        assert isinstance(events[0], ResponseStarted)
        assert [event for event in events if isinstance(event, Attempt)] == [
            Attempt(2, "Hedge", "no output within 2 s", 0.0, "gpt-4o-mini")
        ]
        assert isinstance(events[1], Attempt)
        assert race.models == BOTH
        assert race.bell.delays == [2.0]
        response = race.response
        assert (response.completion, response.model_internal) == ("Hello world", "gpt-4o-mini")
        assert (response.stats.attempts, response.is_error) == (2, False)


async def test_the_first_speaks_first_after_all() -> None:
    go = asyncio.Event()
    async with racing(after(go, answer(HELLO)), SILENT) as race:
        await race.begin()
        await race.ring()
        go.set()
        assert notes_of(await race.end()) == [(2, "Hedge")]
        response = race.response
        assert (response.completion, response.model_internal) == ("Hello world", "gpt-4o")
        assert (response.stats.attempts, response.usage.estimated) == (2, True)


@pytest.mark.parametrize("winner", [0, 1])
async def test_the_connection_of_the_loser_is_closed_at_once(winner: int) -> None:
    go = asyncio.Event()
    steps = [SILENT, SILENT]
    steps[winner] = after(go, TALKING)
    async with racing(*steps) as race, race.client.stream("Hi") as stream:
        opening = asyncio.create_task(stream.next_batch())
        await race.asked(1)
        await race.ring()
        assert race.server.open == places(race.client) == 2
        go.set()
        assert TextDelta("Hel") in await opening
        await until(lambda: race.server.open == 1)  # the winner's, which speaks on
        assert places(race.client) == 1
        assert (stream.response.completion, stream.response.model_internal) == ("Hel", BOTH[winner])


async def test_one_model_gets_another_connection() -> None:
    async with racing(SILENT, answer(HELLO), model="gpt-4o") as race:
        await race.begin()
        await race.ring()
        await race.end()
        assert race.models == ["gpt-4o"] * 2
        assert race.server.connections == 2


async def test_the_fallback_stands_beside_the_only_model() -> None:
    async with racing(SILENT, answer(HELLO), model="gpt-4o", fallback="gpt-4o-mini") as race:
        await race.begin()
        await race.ring()
        await race.end()
        assert race.models == BOTH


async def test_a_model_that_cannot_take_the_call_is_not_asked() -> None:
    models = ["gpt-4o", "anthropic:claude-3-haiku-20240307"]  # which knows no seed
    async with racing(SILENT, answer(HELLO), model=models, seed=1) as race:
        await race.begin(prefer_model="gpt-4o")
        await race.ring()
        await race.end()
        assert race.models == ["gpt-4o"] * 2


async def test_a_model_that_is_not_there_is_not_asked() -> None:
    async with racing(plain("404 X", b"{}"), answer(HELLO), SILENT, answer(HELLO)) as race:
        await race.client.stream("Hi", echo=None)
        await race.begin(prefer_model="gpt-4o-mini")
        await race.ring()
        await race.end()
        assert race.models == ["gpt-4o", *["gpt-4o-mini"] * 3]


async def test_one_that_speaks_in_time_has_no_second_and_no_task() -> None:
    async with racing(TALKING) as race:
        tasks = asyncio.all_tasks()
        async with race.client.stream("Hi") as stream:
            assert TextDelta("Hel") in await stream.next_batch()
            assert race.bell.delays == [2.0]
            assert race.bell.ring() == 0
            assert asyncio.all_tasks() - tasks <= serving()
            assert stream.response.stats.attempts == 1
        assert len(race.server.requests) == 1


async def test_one_that_speaks_slowly_is_not_silent() -> None:
    """It is held back as it may be too slow, which is another matter."""
    go = asyncio.Event()
    steps: list[Step] = [HEAD, chunk(text("a" * 40)), go, chunk(text("b" * 200), finish(), DONE), END, NEXT]
    async with racing(steps, min_tokens_per_second=1.0) as race:
        await race.begin()
        await until(
            lambda: (attempt := race.stream._call._opening) and attempt.stream and attempt.stream.builder.has_deltas
        )
        race.bell.ring()
        go.set()
        assert notes_of(await race.end()) == []
        assert len(race.server.requests) == 1


async def test_both_at_the_same_moment_are_one_answer() -> None:
    for _ in range(20):
        go = asyncio.Event()
        async with racing(after(go, answer(HELLO)), after(go, answer(HELLO))) as race:
            await race.begin()
            await race.ring()
            await asyncio.sleep(0.002)
            go.set()
            events = await race.end()
            assert notes_of(events) == [(2, "Hedge")]
            assert text_of(events) == race.response.completion == "Hello world"
            assert race.response.stats.attempts == 2


# What it costs


async def test_both_are_billed() -> None:
    """Of the first nothing is known but its input, which is estimated; the second reports."""
    async with racing(SILENT, answer(HELLO)) as race:
        await race.begin(PROMPT)
        await race.ring()
        await race.end()
        usage = race.response.usage
        assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (20 + 3, 2, True)
        own = race.cost("gpt-4o", Usage(input_tokens=20))
        other = race.cost("gpt-4o-mini", Usage(input_tokens=3, output_tokens=2))
        assert race.response.cost == pytest.approx(own + other)


async def test_what_the_loser_reported_counts_as_reported() -> None:
    async with racing([HEAD, chunk(USAGE), HANG], answer(HELLO)) as race:
        await race.begin(PROMPT)
        await until(lambda: (attempt := race.stream._call._opening) and attempt.stream and attempt.stream.builder.usage)
        await race.ring()
        await race.end()
        usage = race.response.usage
        assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (6, 4, False)


async def test_a_loser_that_was_refused_costs_nothing() -> None:
    go = asyncio.Event()
    async with racing(after(go, answer(HELLO)), plain("429 X", b"{}")) as race:
        await race.begin(PROMPT)
        await race.ring()
        await race.one_is_out()
        go.set()
        await race.end()
        usage = race.response.usage
        assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (3, 2, False)


async def test_a_purse_that_is_too_small_for_two_pays_for_one() -> None:
    go = asyncio.Event()
    async with racing(after(go, answer(HELLO)), SILENT, model="gpt-4o") as race:
        await race.begin(PROMPT, max_cost=race.cost("gpt-4o", Usage(input_tokens=30)))
        tasks = asyncio.all_tasks()
        assert race.bell.ring() == 1
        await until(lambda: asyncio.all_tasks() - serving() <= tasks)
        go.set()
        assert notes_of(await race.end()) == []
        assert (race.response.stats.attempts, len(race.server.requests)) == (1, 1)


# Limits


async def test_without_a_place_there_is_no_second() -> None:
    go = asyncio.Event()
    async with racing(after(go, answer(HELLO)), SILENT, max_concurrent_requests=1) as race:
        await race.begin()
        assert race.bell.ring() == 1
        await until(lambda: race.client.dispatcher.runner().waiting == 1)
        go.set()
        assert notes_of(await race.end()) == []
        assert len(race.server.requests) == 1
        assert (race.response.stats.attempts, race.response.usage.estimated) == (1, False)


async def test_a_second_goes_when_a_place_is_free() -> None:
    async with racing(TALKING, SILENT, answer(HELLO), max_concurrent_requests=2) as race:
        other = race.client.stream("Hi")
        assert await other.next_batch()
        await race.begin()
        assert race.bell.ring() == 1
        await until(lambda: race.client.dispatcher.runner().waiting == 1)
        await other.cancel()
        assert notes_of(await race.end()) == [(2, "Hedge")]


async def test_a_first_that_fails_while_the_second_waits_is_tried_again() -> None:
    go = asyncio.Event()
    async with racing([go, *BROKEN], answer(HELLO), max_concurrent_requests=1) as race:
        await race.begin()
        assert race.bell.ring() == 1
        await until(lambda: race.client.dispatcher.runner().waiting == 1)
        go.set()
        assert notes_of(await race.end()) == [(2, "ServerError")]
        assert len(race.server.requests) == 2


async def test_there_are_no_more_attempts_than_there_may_be() -> None:
    go = asyncio.Event()
    async with racing(BROKEN, after(go, answer(HELLO)), max_attempts=2) as race:
        race.stream = race.client.stream("Hi")
        race.reading = asyncio.create_task(race._read())
        await race.asked(2)
        assert race.bell.ring() == 0
        go.set()
        assert notes_of(await race.end()) == [(2, "ServerError")]
        assert len(race.server.requests) == 2


REFUSALS = [plain("429 X", b"{}", "retry-after: 60"), plain("403 X", b"{}"), plain("404 X", b"{}")]


@pytest.mark.parametrize("refusal", REFUSALS, ids=["429", "403", "404"])
async def test_a_refusal_closes_the_gate_of_that_model_only(refusal: list[Step]) -> None:
    go = asyncio.Event()
    async with racing(after(go, answer(HELLO)), refusal) as race:
        await race.begin()
        await race.ring()
        await race.one_is_out()
        go.set()
        assert text_of(await race.end()) == "Hello world"
        runner = race.client.dispatcher.runner()
        assert runner._scheduler.usable(runner.now()) == {"gpt-4o"}


# Percentiles


async def test_a_percentile_is_learned_before_anything_is_hedged() -> None:
    """By a clock of the test: the first tokens take one second more each time."""
    clock = [0.0]
    go = [asyncio.Event() for _ in range(20)]
    steps = [after(each, answer(HELLO)) for each in go]
    async with racing(*steps, SILENT, answer(HELLO), model="gpt-4o", hedge_after="p90") as race:
        race.bell = with_bell(race.client, lambda: clock[0])
        for number, each in enumerate(go, 1):
            await race.begin()
            clock[0] += number
            each.set()
            assert notes_of(await race.end()) == []
        assert race.bell.delays == []
        await race.begin()
        assert race.bell.delays == [pytest.approx(18, abs=1)]
        clock[0] += 25
        await race.ring()
        assert notes_of(await race.end()) == [(2, "Hedge")]
        # The one that was given up counts as at least so slow: else the next would be given up sooner.
        window = race.client.dispatcher.runner().first_tokens._windows["gpt-4o"]
        assert len(window) == 22
        assert window._sorted[-1] == pytest.approx(25, abs=1)


# The other doors


class Tenth(Loopback):
    """Never answers the first request of every tenth prompt."""

    def __init__(self) -> None:
        super().__init__([])
        self.seen: set[bytes] = set()
        self.answered = 0

    def _next_transcript(self) -> list[Step]:
        body = self.requests[-1][2]
        prompt = msgspec.json.decode(body)["messages"][0]["content"].encode()
        is_slow = prompt.endswith(b"0") and prompt not in self.seen
        self.seen.add(prompt)
        self.answered += not is_slow
        return SILENT if is_slow else answer(text(prompt.decode()), finish(), USAGE, DONE)


@pytest.mark.parametrize("is_merged", [False, True], ids=["process_prompts", "stream_many"])
async def test_a_batch_does_not_wait_for_its_slow_tenth(is_merged: bool) -> None:
    """Those that hang are never waited for: they hang for ever, and each call has its answer."""
    prompts = [f"prompt {number}" for number in range(200)]
    async with Tenth() as server:
        options = {"api_key": "k", "base_url": server.url, "progress": "none", "hedge_after": 1.0}
        async with LLMClient(BOTH, **options) as client:
            bell = with_bell(client)

            async def run() -> list[APIResponse]:
                if not is_merged:
                    return await client.process_prompts_async(prompts)
                events: dict[int, list[Event]] = {}
                streams = client.stream_many(prompts)
                async for index, event in streams:
                    events.setdefault(index, []).append(event)
                for each in events.values():
                    check_grammar(each)
                return [streams.responses[index] for index in range(len(prompts))]

            running = asyncio.create_task(run())
            async with asyncio.timeout(20):
                while server.answered < 180 or places(client) > 20:
                    await asyncio.sleep(0.005)
                assert bell.ring() == 20
                responses = await running
            check_nothing_is_left(client)
        await server.settle()
    assert [response.completion for response in responses] == prompts
    slow = [index for index, response in enumerate(responses) if response.stats.attempts == 2]
    assert slow == list(range(0, 200, 10))
    assert len(server.requests) == 220


async def test_a_hit_of_the_cache_is_not_hedged(tmp_path: Path) -> None:
    async with racing(SILENT, answer(HELLO), local_cache=tmp_path / "cache") as race:
        await race.begin(prefer_model="gpt-4o")
        await race.ring()
        await race.end()
        assert race.response.model_internal == "gpt-4o-mini"
        async with race.client.stream("Hi", prefer_model="gpt-4o-mini") as stream:
            events = [event async for event in stream.events()]
        check_grammar(events)
        assert notes_of(events) == []
        assert stream.response.local_cache_hit
        assert (race.bell.delays, len(race.server.requests)) == ([2.0], 2)


def test_a_blocking_stream_is_hedged() -> None:
    with Loopback(SILENT, answer(HELLO)) as server:
        client = LLMClient("gpt-4o", api_key="k", base_url=server.url, hedge_after=0.05)
        with client.stream_sync("Hi") as stream:
            assert "".join(stream) == "Hello world"
        assert stream.response.stats.attempts == 2
        client.close_sync()


async def test_a_background_answer_that_lost_is_ended_upstream() -> None:
    lost = [HEAD, chunk(responses_bytes.created(id="resp_lost")), HANG]
    piece = responses_bytes.message(responses_bytes.piece("Ja."))
    whole = answer(responses_bytes.created(), responses_bytes.text("Ja."), responses_bytes.completed(piece))
    ended = plain("200 OK", b"{}")
    async with racing(lost, whole, ended, model="openai-responses:gpt-5", background=True) as race:
        await race.begin()
        await until(lambda: (attempt := race.stream._call._opening) and attempt.stream and attempt.stream.resume_point)
        assert race.bell.ring() == 1
        await race.end()
        assert (race.response.completion, race.response.warnings) == ("Ja.", ())
        paths = [line.split(" ")[1] for line, _, _ in race.server.requests]
        assert sorted(paths) == ["/v1/responses", "/v1/responses", "/v1/responses/resp_lost/cancel"]


async def test_an_answer_that_is_taken_up_again_uses_up_attempts() -> None:
    fail, go = asyncio.Event(), asyncio.Event()
    broken = [HEAD, chunk(responses_bytes.created()), fail, RST]
    piece = responses_bytes.message(responses_bytes.piece("Ja."))
    rest = after(go, answer(responses_bytes.text("Ja."), responses_bytes.completed(piece)))
    options = {"model": "openai-responses:gpt-5", "background": True, "max_attempts": 2}
    async with racing(broken, rest, **options) as race:
        await race.begin()
        await until(lambda: (attempt := race.stream._call._opening) and attempt.stream and attempt.stream.resume_point)
        fail.set()
        await race.asked(2)
        tasks = asyncio.all_tasks()
        assert race.bell.ring() == 1
        await until(lambda: asyncio.all_tasks() - serving() <= tasks)
        go.set()
        assert notes_of(await race.end()) == [(2, "StreamInterruptedError")]
        assert [line.split(" ")[0] for line, _, _ in race.server.requests] == ["POST", "GET"]


# Options

WRONG = [0, -1, True, float("nan"), float("inf"), "p49", "p100", "p9", "95", "", [1]]


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_what_is_no_patience_is_told(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="is neither a number of seconds above 0 nor a percentile"):
        LLMClient("gpt-4o", hedge_after=value)


def test_one_attempt_has_none_beside_it() -> None:
    with pytest.raises(ConfigurationError, match="needs a second attempt"):
        LLMClient("gpt-4o", hedge_after="p95", max_attempts=1)
