"""`smooth="word"`: bursts become an even flow of words, at most 0.3 s late, in the order of the events."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge import LLMClient
from lm_deluge.client.smoothing import SmoothedCall
from lm_deluge.client.word_pace import LATEST_S, WordPace
from lm_deluge.errors import ConfigurationError, DelugeError, StreamInterruptedError
from lm_deluge.events import (
    Event,
    ReasoningDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    TokenLogprob,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.response import APIResponse, StreamStats
from lm_deluge.simulator import Simulator
from lm_deluge.usage import Usage
from loopback import HANG, HEAD, RST, Loopback, chunk, text

END = ResponseFinished("stop")


def played(reads: list[tuple[float, list[Event]]]) -> list[tuple[float, Event]]:
    """Return each event with the time of its delivery, for reads at these times, as a consumer without delay has it."""
    pace, delivered = WordPace(), list[tuple[float, Event]]()
    for (now, events), (until, _) in itertools.pairwise([*reads, (float("inf"), [])]):
        pace.add(events, now)
        if until == float("inf"):
            pace.close()
        while (due_at := pace.due_at()) is not None and due_at < until:
            at = max(due_at, now)
            delivered += [(at, event) for event in pace.take(at)]
    return delivered


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_a_burst_is_spread_over_the_time_between_reads() -> None:
    reads = [(number * 0.2, [TextDelta(f"one two three four {number} ")]) for number in range(10)]
    times = [at for at, _ in played(reads)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times[25:])]
    assert max(gaps) < 0.1  # five words in 0.2 s
    assert min(gaps) > 0.02


def test_an_even_flow_is_not_delayed() -> None:
    reads = [(number * 0.05, [TextDelta(f"word{number} ")]) for number in range(30)]
    late = [at - number * 0.05 for number, (at, _) in enumerate(played(reads))]
    assert max(late) < 0.1  # before the pace is known
    assert max(late[15:]) < 0.001


_texts = st.text("ab \n日x", min_size=1, max_size=30)
_events = st.one_of(
    _texts.map(TextDelta),
    _texts.map(ReasoningDelta),
    st.just(UsageReported(Usage())),
    st.just(ToolCallStarted(0, "c", "f")),
    _texts.map(lambda text: TextDelta(text, (TokenLogprob(text, -1.0),))),
)
_reads = st.lists(st.tuples(st.floats(0, 2), st.lists(_events, min_size=1, max_size=4)), min_size=1, max_size=8)


@given(_reads)
def test_nothing_is_late_lost_or_out_of_order(reads: list[tuple[float, list[Event]]]) -> None:
    times = list(itertools.accumulate(gap for gap, _ in reads))
    timed = [(at, events) for at, (_, events) in zip(times, reads, strict=True)]
    delivered = played(timed)
    assert merged([event for _, event in delivered]) == merged([event for _, events in timed for event in events])
    arrived = [at for at, events in timed for event in events for _ in getattr(event, "text", "x")]
    left = [at for at, event in delivered for _ in getattr(event, "text", "x")]
    assert all(0 <= late - early <= LATEST_S + 1e-6 for early, late in zip(arrived, left, strict=True))


def merged(events: list[Event]) -> list[object]:
    """Return the events with texts that follow each other joined."""
    found: list[object] = []
    for kind, group in itertools.groupby(events, key=type):
        texts = [event.text for event in group if isinstance(event, TextDelta | ReasoningDelta)]
        found.append((kind, "".join(texts)))
    return found


def test_words_are_whole_and_languages_without_blanks_have_characters() -> None:
    reads = [(0.0, [TextDelta("Hel")]), (0.05, [TextDelta("lo wor")]), (0.1, [TextDelta("ld 日本語")])]
    assert [event.text for _, event in played(reads)] == ["Hello ", "world ", "日", "本", "語"]
    late = [(0.0, [TextDelta("Hel")]), (1.0, [TextDelta("lo")])]
    assert [(round(at, 3), event.text) for at, event in played(late)] == [(LATEST_S, "Hel"), (1.0, "lo")]


class FakeCall:
    """A call whose reads a test hands over."""

    pending_retry = None

    def __init__(self) -> None:
        self.reads: asyncio.Queue[list[Event] | DelugeError] = asyncio.Queue()
        self.is_aborted = False
        self.closed = 0

    async def next_batch(self) -> list[Event]:
        if self.is_aborted:
            return []
        read = await self.reads.get()
        if isinstance(read, DelugeError):
            raise read
        return read

    async def close(self) -> None:
        self.closed += 1

    async def settle(self) -> None: ...

    def abort(self) -> None:
        self.is_aborted = True
        self.reads.put_nowait([])

    def abort_from_anywhere(self) -> None:
        self.abort()

    def response(self) -> APIResponse:
        return APIResponse()

    def stats(self) -> StreamStats:
        return StreamStats()


def others() -> set[asyncio.Task[object]]:
    """Return the tasks beside this one and those of the servers."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]
    return {task for task in tasks if not task.get_coro().__qualname__.startswith(("Simulator.", "Loopback."))}


async def test_an_error_follows_the_words_before_it() -> None:
    call = FakeCall()
    smooth = SmoothedCall(call)
    for read in ([ResponseStarted(), TextDelta("one two three")], StreamInterruptedError("broken")):
        call.reads.put_nowait(read)
    events: list[Event] = []
    with pytest.raises(StreamInterruptedError):  # noqa: PT012 - what came before counts
        while True:
            events += await smooth.next_batch()
    assert text_of(events) == "one two three"
    assert await smooth.next_batch() == []
    assert others() == set()


def leave_by_abort(smooth: SmoothedCall, task: asyncio.Task[object]) -> None:
    smooth.abort()


def leave_by_finaliser(smooth: SmoothedCall, task: asyncio.Task[object]) -> None:
    smooth.abort_from_anywhere()


def leave_by_cancel(smooth: SmoothedCall, task: asyncio.Task[object]) -> None:
    task.cancel()


@pytest.mark.parametrize("words", ["", "one two three four"])
@pytest.mark.parametrize("leave", [leave_by_abort, leave_by_finaliser, leave_by_cancel])
async def test_no_task_is_left(leave: Callable[[SmoothedCall, asyncio.Task[object]], None], words: str) -> None:
    call = FakeCall()
    smooth = SmoothedCall(call)
    call.reads.put_nowait([TextDelta(words)] if words else [ResponseStarted()])
    await smooth.next_batch()
    reading = asyncio.create_task(smooth.next_batch())
    while len(others()) < 2:  # the reader, and the read below it
        await asyncio.sleep(0)
    leave(smooth, reading)
    await asyncio.wait({reading})
    if leave is leave_by_cancel:
        assert reading.cancelled()
    else:
        assert reading.result() == []
    await smooth.settle()
    assert others() == set()
    assert call.is_aborted
    await smooth.close()
    assert (await smooth.next_batch(), call.closed) == ([], 1)


async def test_a_smooth_stream_is_the_same_stream() -> None:
    answer = "One, two, three.\nFour — five."
    async with Simulator(answer) as sim, LLMClient("m", base_url=sim.base_url) as client:
        async with client.stream("Hi", smooth="word") as stream:
            events = [event async for event in stream.events()]
        assert isinstance(events[0], ResponseStarted)
        assert isinstance(events[-1], ResponseFinished)
        assert text_of(events) == stream.response.completion == answer
        assert [event.text for event in events if isinstance(event, TextDelta)][:2] == ["One, ", "two, "]
        async for token in client.stream("Hi", smooth="word"):
            assert token == "One, "
            break
        assert (await client.stream("Hi", smooth="word", echo=None)).completion == answer
        for _ in range(3):
            await asyncio.sleep(0)
        assert others() == set()
    assert sim.open_connections == 0


async def test_a_smooth_stream_can_be_cancelled_and_may_fail() -> None:
    server = Loopback([HEAD, chunk(text("one two ")), HANG])
    async with server, LLMClient("m", base_url=server.url, api_key="k") as client:
        stream = client.stream("Hi", smooth="word")
        while not text_of(await stream.next_batch()):
            pass
        response = await stream.cancel()
        assert response.completion == "one two "
        assert others() == set()
    server = Loopback([HEAD, chunk(text("one two ")), RST])
    async with server, LLMClient("m", base_url=server.url, api_key="k", max_attempts=1) as client:
        with pytest.raises(StreamInterruptedError) as caught:
            await client.stream("Hi", smooth="word", echo=None)
        assert caught.value.partial.completion == "one two "


def test_a_stream_without_asyncio_can_be_smooth() -> None:
    with Simulator("One two three.").start_in_thread() as sim:
        client = LLMClient("m", base_url=sim.base_url)
        assert list(client.stream_sync("Hi", smooth="word")) == ["One ", "two ", "three."]
        client.close_sync()


async def test_another_pace_is_refused() -> None:
    client = LLMClient("gpt-4o", api_key="k")
    with pytest.raises(ConfigurationError, match=r"smooth='line' is not a known value.*Known: word"):
        client.stream("Hi", smooth="line")  # type: ignore[arg-type]
