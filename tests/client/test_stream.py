"""One stream, four ways to take it, and every way to leave it: whatever happens, the connection is closed at once."""

import asyncio
import gc
import io
import pickle
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from lm_deluge import LLMClient, Timeouts
from lm_deluge import errors as e
from lm_deluge.api_requests.openai import stream_chat
from lm_deluge.events import (
    Attempt,
    ReasoningDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallFinished,
    UsageReported,
)
from loopback import END, FIN, HANG, HEAD, HELLO, NEXT, RST, USAGE, Loopback, Step, answer, chunk, data, finish, text

ENDLESS = [HEAD, *[chunk(text("tok ")), 0.01] * 500, HANG]


def client_of(server: Loopback, **options: object) -> LLMClient:
    return LLMClient("gpt-4o", **{"api_key": "sk-test", "base_url": server.url, **options})


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def test_awaited_it_prints_once_per_read_and_returns(capsys: pytest.CaptureFixture[str]) -> None:
    async with Loopback(answer(text("Hel"), text("lo"), finish(), USAGE)) as server, client_of(server) as client:
        response = await client.stream("hi")
    assert capsys.readouterr().out == "Hello"
    assert response.content.completion == "Hello"
    assert response.model_internal == "gpt-4o"
    assert response.model_external == "gpt-4o-2024-08-06"
    assert response.request_id == "req_7"
    assert response.response_id == "chatcmpl-1"
    assert response.status_code == 200
    assert response.usage.total_tokens == 5
    assert response.cost == pytest.approx((3 * 2.5 + 2 * 10) / 1e6)


async def test_echo_goes_where_it_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    file = io.StringIO()
    async with Loopback(answer(HELLO)) as server, client_of(server) as client:
        await client.stream("hi", echo=file)
        await client.stream("hi", echo=None)
    assert file.getvalue() == "Hello world"
    assert capsys.readouterr().out == ""


async def test_a_refusal_is_printed_too(capsys: pytest.CaptureFixture[str]) -> None:
    refusal = data({"id": "c", "choices": [{"index": 0, "delta": {"refusal": "I can't."}}]})
    async with Loopback(answer(refusal, finish())) as server, client_of(server) as client:
        response = await client.stream("hi")
    assert capsys.readouterr().out == "I can't."
    assert response.finish_reason == "refusal"
    assert response.content.refusal == "I can't."


async def test_iterated_it_gives_text_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    async with Loopback(answer(HELLO)) as server, client_of(server) as client:
        assert [token async for token in client.stream("hi")] == ["Hello", " world"]
    assert capsys.readouterr().out == ""


async def test_events_are_typed_and_response_grows() -> None:
    steps = [HEAD, chunk(text("Hello")), 0.05, chunk(text(" world"), finish(), USAGE), END, NEXT]
    async with Loopback(steps) as server, client_of(server) as client, client.stream("hi") as stream:
        assert stream.response.completion == ""
        seen = []
        async for event in stream.events():
            seen.append(type(event))
            if len(seen) == 2:
                assert stream.response.completion == "Hello"
                assert stream.response.finish_reason is None
        assert seen == [ResponseStarted, TextDelta, TextDelta, UsageReported, ResponseFinished]
        assert stream.response.completion == "Hello world"
        assert stream.response.finish_reason == "stop"


def test_blocking_streams_need_no_loop() -> None:
    with Loopback(answer(HELLO)) as server:
        client = client_of(server)
        with client.stream_sync("hi") as stream:
            assert list(stream) == ["Hello", " world"]
            assert stream.response.finish_reason == "stop"
            assert stream.stats.attempts == 1
        client.close_sync()


async def test_blocking_streams_work_inside_a_running_loop() -> None:
    with Loopback(answer(HELLO)) as server:
        client = client_of(server)
        assert list(client.stream_sync("hi")) == ["Hello", " world"]
        client.close_sync()


async def test_nothing_is_sent_until_it_is_used() -> None:
    async with Loopback(answer(HELLO)) as server, client_of(server) as client:
        client.stream("hi")
        async with client.stream("hi"):
            await asyncio.sleep(0.02)
        assert server.connections == 0


async def test_a_stream_is_used_once() -> None:
    async with Loopback(answer(HELLO)) as server, client_of(server) as client:
        stream = client.stream("hi", echo=None)
        await stream
        with pytest.raises(e.StreamConsumedError, match="used already"):
            await stream
        with pytest.raises(e.StreamConsumedError):
            aiter(stream)
        with pytest.raises(e.StreamConsumedError):
            async with stream:
                pass
        async with client.stream("hi") as other:
            other.events()
            with pytest.raises(e.StreamConsumedError):
                aiter(other)
        blocking = client.stream_sync("hi")
        iter(blocking)
        with pytest.raises(e.StreamConsumedError):
            iter(blocking)


async def test_stats_tell_how_it_went() -> None:
    steps = [HEAD, chunk(text("a")), 0.05, chunk(text("b")), 0.1, chunk(text("c")), chunk(finish(), USAGE), END, NEXT]
    async with Loopback(steps) as server, client_of(server) as client:
        response = await client.stream("hi", echo=None)
    stats = response.stats
    assert stats.attempts == 1
    assert stats.bytes_received == len(text("a")) * 3 + len(finish()) + len(USAGE)
    assert 0 < stats.time_to_headers <= stats.time_to_first_token < stats.duration
    assert 0.05 <= stats.gap_mean <= stats.gap_max < stats.duration
    assert stats.output_tokens == 2
    assert stats.tokens_per_second > 0
    assert stats.ignored == 0


async def test_cancel_returns_what_came_and_ends_the_consumer() -> None:
    async with Loopback(ENDLESS) as server, client_of(server) as client:
        stream = client.stream("hi there, you", echo=None)

        async def consume() -> list[str]:
            return [token async for token in stream]

        consumer = asyncio.create_task(consume())
        while not stream.response.completion:
            await asyncio.sleep(0.01)
        partial = await stream.cancel()
        assert partial.completion.startswith("tok ")
        assert partial.finish_reason is None
        assert partial.usage.estimated
        assert partial.usage.output_tokens >= 1
        assert partial.usage.input_tokens == 4
        assert set(await consumer) == {"tok "}
        await server.settle()


async def test_cancel_before_the_headers_ends_the_wait() -> None:
    async with Loopback([HANG]) as server, client_of(server) as client:
        stream = client.stream("hi", echo=None)
        consumer = asyncio.create_task(stream._print())
        while not server.requests:
            await asyncio.sleep(0.01)
        assert (await stream.cancel()).completion == ""
        assert (await consumer).completion == ""
        await server.settle()


async def test_cancel_during_the_wait_for_a_retry() -> None:
    busy = [b"HTTP/1.1 503 X\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n", NEXT]
    async with Loopback(busy) as server, client_of(server) as client:
        stream = client.stream("hi", echo=None)
        consumer = asyncio.create_task(stream._print())
        while not server.requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        await stream.cancel()
        assert (await consumer).completion == ""
        assert stream.stats.attempts == 1


# Every way to leave a stream that still flows.


async def leave_by_break(client: LLMClient) -> None:
    async for _ in client.stream("hi"):
        break


async def leave_by_break_of_events(client: LLMClient) -> None:
    async with client.stream("hi") as stream:
        async for event in stream.events():
            if isinstance(event, TextDelta):
                break


async def leave_by_exception(client: LLMClient) -> None:
    try:
        async for _ in client.stream("hi"):
            raise ZeroDivisionError  # noqa: TRY301 - from within the loop, which is the point
    except ZeroDivisionError:
        pass


async def leave_by_cancellation(client: LLMClient) -> None:
    started = asyncio.Event()

    async def consume() -> None:
        async for _ in client.stream("hi"):
            started.set()

    task = asyncio.create_task(consume())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def leave_by_timeout(client: LLMClient) -> None:
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.05):
            await client.stream("hi", echo=None)
    assert not isinstance(caught.value, e.DelugeError)


async def leave_by_dropping(client: LLMClient) -> None:
    tokens = aiter(client.stream("hi"))
    await anext(tokens)
    del tokens


async def leave_by_cancel(client: LLMClient) -> None:
    async with client.stream("hi") as stream:
        async for _ in stream:
            await stream.cancel()


async def leave_the_function(client: LLMClient) -> None:
    address = str(client.options.base_url)
    async for item in stream_chat("gpt-4o", "hi", base_url=address, api_key="sk-test"):
        assert item == "tok "
        break


async def leave_before_the_headers(client: LLMClient) -> None:
    task = asyncio.create_task(client.stream("hi", echo=None)._print())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


WAYS_OUT = [
    leave_by_break,
    leave_by_break_of_events,
    leave_by_exception,
    leave_by_cancellation,
    leave_by_timeout,
    leave_by_dropping,
    leave_by_cancel,
    leave_the_function,
    leave_before_the_headers,
]


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("leave", WAYS_OUT)
async def test_every_way_out_closes_the_connection(leave: Callable[[LLMClient], Awaitable[None]]) -> None:
    tasks = len(asyncio.all_tasks())
    async with Loopback(ENDLESS) as server, client_of(server) as client:
        for _ in range(20):
            await leave(client)
        await server.settle()
        assert server.connections == len(server.requests) or leave is leave_before_the_headers
        of_server = ("Loopback", "_accept_connection")
        own = [task for task in asyncio.all_tasks() if not any(name in repr(task) for name in of_server)]
        assert len(own) == tasks
    await asyncio.sleep(0)


@pytest.mark.usefixtures("_no_collector")
def test_blocking_ways_out_close_the_connection() -> None:
    def wait_closed(server: Loopback) -> None:
        asyncio.run_coroutine_threadsafe(server.settle(), server._loop).result(10)

    with Loopback(ENDLESS) as server:
        client = client_of(server)
        for _ in client.stream_sync("hi"):
            break
        wait_closed(server)
        with client.stream_sync("hi") as stream:
            next(iter(stream))
        wait_closed(server)
        with pytest.raises(ZeroDivisionError), client.stream_sync("hi") as stream:  # noqa: PT012 - the block is the point
            for _ in stream.events():
                raise ZeroDivisionError
        wait_closed(server)
        with client.stream_sync("hi") as stream:
            for _ in stream:
                assert stream.cancel().completion.startswith("tok ")
        wait_closed(server)
        client.close_sync()


async def test_a_finished_stream_leaves_its_connection_to_the_next() -> None:
    async with Loopback(answer(HELLO)) as server, client_of(server) as client:
        for _ in range(5):
            await client.stream("hi", echo=None)
        assert len([token async for token in client.stream("hi")]) == 2
        async with client.stream("hi") as stream:
            async for _ in stream.events():
                pass
        assert server.connections == 1


async def test_a_connection_with_ghosts_in_it_is_not_used_again() -> None:
    async with (
        Loopback([HEAD, chunk(HELLO), 0.02, chunk(text("ghost")), 0.05, END, NEXT]) as server,
        client_of(server) as client,
    ):
        for _ in range(2):
            response = await client.stream("hi", echo=None)
            assert response.completion == "Hello world"
            assert response.finish_reason == "stop"
        assert server.connections == 2


async def test_an_error_ends_every_view_and_keeps_the_partial_answer() -> None:
    broken = [HEAD, chunk(text("Hello")), 0.02, FIN]
    async with Loopback(broken) as server, client_of(server) as client:
        seen = []
        async with client.stream("hi") as stream:
            tokens = aiter(stream)
            with pytest.raises(e.StreamInterruptedError) as caught:  # noqa: PT012 - at whichever token
                while True:
                    seen.append(await anext(tokens))
            with pytest.raises(StopAsyncIteration):
                await anext(tokens)
        assert seen == ["Hello"]
        assert caught.value.partial.completion == "Hello"
        assert stream.response.completion == "Hello"
        await server.settle()


@pytest.mark.parametrize("end", [FIN, RST])
async def test_what_came_before_the_fault_is_not_lost_on_a_slow_consumer(end: str) -> None:
    broken = [HEAD, chunk(text("one ")), 0.05, chunk(text("two ")), 0.05, chunk(text("three")), 0.05, end]
    async with Loopback(broken) as server, client_of(server) as client:
        seen = []
        with pytest.raises(e.StreamInterruptedError) as caught:  # noqa: PT012 - at whichever token
            async for token in client.stream("hi"):
                seen.append(token)
                await asyncio.sleep(0.3)
        assert "".join(seen) == caught.value.partial.completion == "one two three"
        await server.settle()


async def test_the_function_keeps_the_partial_answer_too() -> None:
    async with Loopback([HEAD, chunk(text("Hello")), 0.02, FIN]) as server:
        with pytest.raises(e.StreamInterruptedError) as caught:
            async for _ in stream_chat("gpt-4o", "hi", base_url=server.url, api_key="sk-test"):
                pass
        assert caught.value.partial.completion == "Hello"
        assert caught.value.attempts == 1


async def test_reasoning_and_tools_come_as_their_own_events() -> None:
    thought = data({"id": "c", "choices": [{"index": 0, "delta": {"reasoning_content": "Hm."}}]})
    call = {"index": 0, "id": "call_1", "function": {"name": "add", "arguments": '{"a": 1}'}}
    called = data({"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
    async with Loopback(answer(thought, called, finish("tool_calls"))) as server, client_of(server) as client:
        stream = client.stream("hi", tools=[{"name": "add", "parameters": {"type": "object"}}])
        events = []
        async with stream:
            async for event in stream.events():
                events.append(event)  # noqa: PERF401 - the form that the documentation shows
    assert ReasoningDelta("Hm.") in events
    assert any(isinstance(event, ToolCallFinished) and event.arguments == {"a": 1} for event in events)
    assert stream.response.thinking == "Hm."
    assert stream.response.tool_calls[0].arguments == {"a": 1}
    assert stream.response.finish_reason == "tool_calls"


def test_one_client_serves_one_loop_after_another() -> None:
    async def ask(client: LLMClient) -> str:
        return (await client.stream("hi", echo=None)).completion

    with Loopback(answer(HELLO)) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        client = client_of(server)
        assert [asyncio.run(ask(client)) for _ in range(3)] == ["Hello world"] * 3
        assert server.connections == 3
        gc.collect()


async def test_two_tasks_share_a_client() -> None:
    async with Loopback(answer(HELLO)) as server, client_of(server) as client:
        responses = await asyncio.gather(*(client.stream("hi", echo=None) for _ in range(20)))
    assert {response.completion for response in responses} == {"Hello world"}


async def test_attempts_stand_behind_the_start_of_the_answer_that_is_kept() -> None:
    busy = [b"HTTP/1.1 503 X\r\nretry-after-ms: 1\r\ncontent-length: 0\r\n\r\n", NEXT]
    started = [HEAD, chunk(data({"id": "lost", "choices": [{"index": 0, "delta": {"role": "assistant"}}]})), END, NEXT]
    async with Loopback(busy, started, answer(HELLO)) as server, client_of(server) as client:
        async with client.stream("hi") as stream:
            events = [event async for event in stream.events()]
        assert [type(event) for event in events[:4]] == [ResponseStarted, Attempt, Attempt, TextDelta]
        assert events[0].response_id == "chatcmpl-1"
        assert [(event.number, event.error) for event in events[1:3]] == [(2, "OverloadedError"), (3, "TruncatedError")]
        assert stream.stats.attempts == 3


async def test_the_socket_is_not_read_ahead_of_a_slow_consumer() -> None:
    """The server counts what it could send: far less than all of it while the consumer sleeps."""
    big = chunk(text("x" * 60_000))
    steps = [HEAD, *[big] * 1_000, chunk(finish()), END, NEXT]
    async with Loopback(steps) as server, client_of(server, timeouts=Timeouts()) as client:
        tokens: AsyncIterator[str] = aiter(client.stream("hi"))
        await anext(tokens)
        await asyncio.sleep(0.3)
        received = tokens._call._attempt.stream.bytes_received
        assert received < 2**20
        del tokens
        await server.settle()


async def test_an_answer_that_something_kept_back_is_told_from_one_that_flowed() -> None:
    """A proxy that buffers gives out everything at once, late: two seconds is what the rule waits for."""
    burst = [text("some words ") for _ in range(40)]
    async with Loopback([HEAD, 2.1, chunk(*burst, finish()), END, NEXT]) as server, client_of(server) as client:
        response = await client.stream("hi", echo=None)
    assert response.warnings == ("no_done", "buffered_upstream")


async def test_the_last_error_tells_of_the_attempts_before_it() -> None:
    busy = [b"HTTP/1.1 503 X\r\nretry-after-ms: 1\r\ncontent-length: 0\r\n\r\n", NEXT]
    gone = [b"HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n", NEXT]
    async with Loopback(busy, busy, gone) as server, client_of(server) as client:
        with pytest.raises(e.NotFoundError) as caught:
            await client.stream("hi", echo=None)
    assert caught.value.attempts == 3
    assert [note.split(":")[0] for note in caught.value.__notes__] == [
        "attempt 1 ended with OverloadedError",
        "attempt 2 ended with OverloadedError",
    ]


# What is known of a call that failed, or was stopped


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([HEAD, chunk(text("a")), FIN], e.StreamInterruptedError),
        (
            [HEAD, chunk(text("a")), chunk(data({"error": {"message": "m", "code": "server_error"}})), END],
            e.ServerError,
        ),
        ([b"HTTP/1.1 400 X\r\ncontent-length: 2\r\n\r\n{}"], e.BadRequestError),
    ],
    ids=["broken", "in the stream", "refused"],
)
async def test_the_error_is_on_the_response_and_on_the_partial_answer(
    steps: list[Step], kind: type[e.DelugeError]
) -> None:
    async with Loopback(steps) as server, client_of(server) as client:
        stream = client.stream("Hi", echo=None)
        assert stream.response.error is None
        with pytest.raises(kind) as caught:
            await stream
    assert stream.response.error is caught.value
    assert stream.response.is_error
    partial = caught.value.partial
    if partial is not None:
        assert (partial.error, partial.completion) == (caught.value, "a")
        assert pickle.loads(pickle.dumps(caught.value)).partial.completion == "a"  # noqa: S301
        assert partial.to_dict()["error"]["type"] == kind.__name__


@pytest.mark.parametrize("options", [{}, {"hedge_after": 60}, {"max_cost": 1.0}], ids=str)
@pytest.mark.parametrize(
    "steps", [[HANG], [HEAD, HANG], [HEAD, chunk(b": ping\n\n"), HANG]], ids=["no head", "head", "ping"]
)
@pytest.mark.parametrize("way", ["cancel", "task", "leave"])
async def test_the_prompt_is_counted_of_a_stream_stopped_before_its_first_token(
    way: str, steps: list[Step], options: dict[str, object]
) -> None:
    async with Loopback(steps) as server, client_of(server, **options) as client:
        stream = client.stream("word " * 80, echo=None)
        reading = asyncio.create_task(stream.next_batch())
        while not server.requests:
            await asyncio.sleep(0.001)
        if way == "cancel":
            await stream.cancel()
        elif way == "leave":
            async with asyncio.timeout(5):
                await stream.__aexit__(None)
        else:
            reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        for _ in range(2):  # stopping twice does not count twice
            response = stream.response
            assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.estimated) == (
                100,
                0,
                True,
            )
            assert response.cost == pytest.approx(100 * 2.5e-6)
            assert response.error is None
            await stream.cancel()
        if client.dispatcher.budget is not None:
            assert client.dispatcher.budget.spent == pytest.approx(response.cost)


async def test_both_prompts_are_counted_of_a_hedged_stream_stopped_before_its_first_token() -> None:
    async with Loopback([HANG]) as server, client_of(server, hedge_after=0.001) as client:
        stream = client.stream("word " * 80, echo=None)
        reading = asyncio.create_task(stream.next_batch())
        while len(server.requests) < 2:
            await asyncio.sleep(0.001)
        response = await stream.cancel()
        await reading
    assert response.usage.input_tokens == 200


async def test_a_stream_that_was_never_sent_has_no_usage() -> None:
    async with Loopback([HANG]) as server, client_of(server) as client:
        response = await client.stream("word " * 80).cancel()
    assert (response.usage, response.cost, server.requests) == (None, None, [])
