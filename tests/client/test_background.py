"""Background mode through real sockets: a stream that breaks goes on, a stream that is left is ended upstream."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

from grammar import check_grammar
from lm_deluge import LLMClient
from lm_deluge.client.stream import Stream
from lm_deluge.config import Timeouts
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import (
    NotFoundError,
    ServerError,
    StreamInterruptedError,
    TruncatedError,
    UnsupportedParameterError,
)
from lm_deluge.events import Attempt, Event, ResponseFinished, ResponseStarted, TextDelta
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.response import ResponseBuilder
from lm_deluge.simulator import Pace, Script, Simulator
from lm_deluge.simulator.faults.catalog import Fault

TEXT = "Grüße aus Genève, 世界! 🙂 Ende."
SCRIPT = Script(reasoning="Erst denken.", text=TEXT, tool_calls=[("weather", {"city": "Roma"})])
DELTAS = 24  # at least as many as the script has


def client_of(sim: Simulator, **options: Any) -> LLMClient:
    options = {"background": True, "max_attempts": 3, **options}
    return LLMClient("openai-responses:gpt-5", base_url=sim.base_url, api_key="test-key", **options)


def without_waits(client: LLMClient) -> Stream:
    """Return a stream whose pauses between attempts take no time."""
    client.dispatcher.make_runner(functools.partial(Runner, chance=lambda: 0.0))
    return client.stream("Hi", echo=None)


async def the_rest(stream: Stream) -> list[Event]:
    found: list[Event] = []
    while batch := await stream.next_batch():
        found += batch
    return found


async def all_events(client: LLMClient) -> tuple[list[Event], Any]:
    async with without_waits(client) as stream:
        events = [event async for event in stream.events()]
    return events, stream.response


def check_whole(events: list[Event], response: Any) -> None:
    check_grammar(events)
    assert sum(type(event) is ResponseStarted for event in events) == 1
    assert sum(type(event) is ResponseFinished for event in events) == 1
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == TEXT
    assert response.completion == TEXT
    folded = ResponseBuilder()
    folded.add_all(events)
    assert folded.response().content == response.content
    assert response.thinking == "Erst denken."
    assert [(call.name, call.arguments) for call in response.tool_calls] == [("weather", {"city": "Roma"})]
    assert response.finish_reason == "tool_calls"
    assert not response.usage.estimated
    assert response.warnings == ()


@pytest.mark.parametrize("fault", ["reset", "cut_chunk", "clean_truncation"])
@pytest.mark.parametrize("in_frame", [False, True])
async def test_a_stream_that_breaks_anywhere_is_whole(fault: str, in_frame: bool) -> None:
    for after in range(DELTAS):
        async with Simulator(SCRIPT, faults=[Fault(fault, after=after, in_frame=in_frame)]) as sim:
            client = client_of(sim)
            events, response = await all_events(client)
            await client.close()
            check_whole(events, response)
            asked = [(request.method, request.path) for request in sim.requests]
            assert asked[0] == ("POST", "/v1/responses")
            assert asked[1:] == [("GET", "/v1/responses/resp_sim-000001")]
            notes = [event for event in events if isinstance(event, Attempt)]
            assert [note.number for note in notes] == [2]
            assert response.stats.attempts == 2


async def test_a_stream_that_breaks_again_and_again_is_whole() -> None:
    faults = [Fault("reset", after=3), Fault("reset", after=4, in_frame=True), Fault("clean_truncation", after=2)]
    async with Simulator(SCRIPT, faults=faults) as sim:
        client = client_of(sim, max_attempts=4)
        events, response = await all_events(client)
        await client.close()
        check_whole(events, response)
        assert [event.number for event in events if isinstance(event, Attempt)] == [2, 3, 4]


async def test_silence_is_a_break() -> None:
    async with Simulator(SCRIPT, faults=[Fault("silence", after=5, seconds=None)]) as sim:
        client = client_of(sim, timeouts=Timeouts(idle=0.2))
        events, response = await all_events(client)
        await client.close()
        check_whole(events, response)
        assert [event.error for event in events if isinstance(event, Attempt)] == ["TimeoutError"]


async def test_attempts_are_bounded() -> None:
    async with Simulator(TEXT, faults=Fault("reset", after=2)) as sim:
        client = client_of(sim, max_attempts=3)
        with pytest.raises(StreamInterruptedError) as caught:
            await all_events(client)
        await client.close()
        assert caught.value.attempts == 3
        assert TEXT.startswith(caught.value.partial.completion)
        assert caught.value.partial.completion
        # What nobody will hear is ended.
        assert [request.method for request in sim.requests] == ["POST", "GET", "GET", "POST"]
        assert sim.requests[-1].path == "/v1/responses/resp_sim-000001/cancel"


async def test_without_background_a_break_is_an_error() -> None:
    async with Simulator(TEXT, faults=[Fault("clean_truncation", after=2)]) as sim:
        client = client_of(sim, background=False)
        with pytest.raises(TruncatedError):
            await all_events(client)
        await client.close()
        assert len(sim.requests) == 1


def cancels(sim: Simulator) -> list[str]:
    return [request.path for request in sim.requests if request.path.endswith("/cancel")]


SLOW = Pace(tokens_per_second=20)


async def test_cancel_ends_it_upstream() -> None:
    async with Simulator("word " * 200, pace=SLOW) as sim:
        client = client_of(sim)
        async with client.stream("Hi") as stream:
            await stream.next_batch()
            response = await stream.cancel()
        assert response.finish_reason is None
        assert cancels(sim) == ["/v1/responses/resp_sim-000001/cancel"]
        await client.close()


async def test_closing_the_stream_ends_it_upstream() -> None:
    async with Simulator("word " * 200, pace=SLOW) as sim:
        client = client_of(sim)
        stream = client.stream("Hi")
        await stream.next_batch()
        stream.close()
        async with asyncio.timeout(10):
            while not cancels(sim):
                await asyncio.sleep(0)
        assert cancels(sim) == ["/v1/responses/resp_sim-000001/cancel"]
        await client.close()


@pytest.mark.parametrize("faults", [[], [Fault("reset", after=12)]])
async def test_an_answer_goes_on_after_the_client_is_closed(faults: list[Fault]) -> None:
    async with Simulator(SCRIPT, faults=faults) as sim:
        client = client_of(sim)
        stream = without_waits(client)
        events = await stream.next_batch()
        await client.close()
        events += await the_rest(stream)
        check_whole(events, stream.response)
        assert [request.method for request in sim.requests] == ["POST", *["GET" for _ in faults]]
        assert cancels(sim) == []


async def test_leaving_the_block_ends_it_upstream() -> None:
    async with Simulator("word " * 200, pace=SLOW) as sim:
        client = client_of(sim)
        async with client.stream("Hi") as stream:
            await stream.next_batch()
        assert cancels(sim) == ["/v1/responses/resp_sim-000001/cancel"]
        await client.close()


async def test_a_loop_that_is_left_ends_it_upstream() -> None:
    async with Simulator("word " * 200, pace=SLOW) as sim:
        client = client_of(sim)
        async for _ in client.stream("Hi"):
            break
        async with asyncio.timeout(10):
            while not cancels(sim):
                await asyncio.sleep(0)
        await client.close()


async def test_an_error_in_the_block_ends_it_upstream() -> None:
    async with Simulator("word " * 200, pace=SLOW) as sim:
        client = client_of(sim)
        with pytest.raises(ZeroDivisionError):
            async with client.stream("Hi") as stream:
                1 / len((await stream.next_batch())[:0])
        assert cancels(sim) == ["/v1/responses/resp_sim-000001/cancel"]
        await client.close()


async def test_an_answer_that_is_through_is_not_cancelled() -> None:
    async with Simulator(TEXT) as sim:
        client = client_of(sim)
        response = await client.stream("Hi", echo=None)
        await client.close()
        assert response.completion == TEXT
        assert [request.method for request in sim.requests] == ["POST"]
        assert sim.requests[0].json["background"] is sim.requests[0].json["store"] is True


def test_a_blocking_stream_is_ended_upstream() -> None:
    with Simulator("word " * 200, pace=SLOW).start_in_thread() as sim:
        client = client_of(sim)
        with client.stream_sync("Hi") as stream:
            next(stream.events())
        assert cancels(sim) == ["/v1/responses/resp_sim-000001/cancel"]
        client.close_sync()


async def test_a_cancel_that_fails_is_told() -> None:
    async with Simulator("word " * 200, pace=SLOW) as sim:
        client = client_of(sim)
        async with client.stream("Hi") as stream:
            await stream.next_batch()
            sim._router._answers._background._answers.clear()
            with pytest.warns(RuntimeWarning, match="could not be cancelled and may go on: .*not found"):
                response = await stream.cancel()
        assert "cancel_failed" in response.warnings
        await client.close()


async def test_an_answer_that_is_not_kept_is_an_error_of_the_stream() -> None:
    async with Simulator(TEXT, faults=[Fault("clean_truncation", after=2)]) as sim:
        client = client_of(sim)
        stream = without_waits(client)
        await stream.next_batch()
        sim._router._answers._background._answers.clear()
        with pytest.raises(TruncatedError, match="could not be resumed: Response with id") as caught:
            await the_rest(stream)
        assert isinstance(caught.value.__cause__, NotFoundError)
        assert TEXT.startswith(caught.value.partial.completion)
        with pytest.warns(RuntimeWarning, match="could not be cancelled"):
            await stream.cancel()
        await client.close()


async def test_an_abort_wakes_who_waits_for_the_rest() -> None:
    """The pause before an answer is taken up again ends with the stream."""
    async with Simulator(TEXT, faults=[Fault("reset", after=2)]) as sim:
        client = client_of(sim)
        client.dispatcher.make_runner(functools.partial(Runner, chance=lambda: 1_000.0))  # a pause without an end
        stream = client.stream("Hi", echo=None)
        reader = asyncio.create_task(the_rest(stream))
        while not (stream._call._call and stream._call._call.failures):
            await asyncio.sleep(0.001)
        response = await stream.cancel()
        events = await reader
        assert TEXT.startswith(response.completion)
        assert not any(isinstance(event, ResponseFinished) for event in events)
        assert cancels(sim)
        await client.close()


async def test_other_apis_refuse_it_by_name() -> None:
    client = LLMClient("gpt-4o", api_key="test-key", background=True)
    with pytest.raises(UnsupportedParameterError, match="takes no background through openai-chat"):
        client.stream(Conversation.user("Hi"))


async def test_an_answer_that_failed_is_over() -> None:
    async with Simulator(TEXT, faults=["in_band_error_mid"]) as sim:
        client = client_of(sim)
        with pytest.raises(ServerError):
            await client.stream("Hi", echo=None)
        await client.close()
        assert [request.method for request in sim.requests] == ["POST"]
