"""Faults on the wire, through a real socket, asynchronous and blocking: each fault raises its one class of error.

Names in brackets refer to the table of faults in docs/errors.md.
"""

import asyncio
import gzip
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import pytest
import zstandard

from lm_deluge import APIResponse, LLMClient, Timeouts
from lm_deluge import errors as e
from lm_deluge.errors import DelugeError
from loopback import (
    DONE,
    END,
    FIN,
    HANG,
    HEAD,
    HELLO,
    NEXT,
    RST,
    USAGE,
    Loopback,
    Step,
    answer,
    chunk,
    data,
    finish,
    plain,
    text,
)

# One short clock at a time: a machine that stops for a second trips the others as well.
CLOCKS = {
    "none": Timeouts(connect=20, first_token=20, idle=20, progress=20),
    "first_token": Timeouts(connect=20, first_token=0.3, idle=20, progress=20),
    "idle": Timeouts(connect=20, first_token=20, idle=0.3, progress=20),
    "progress": Timeouts(connect=20, first_token=20, idle=20, progress=0.6),
}


def _client(url: str, **options: Any) -> LLMClient:
    return LLMClient(
        "gpt-4o", **{"base_url": url, "max_attempts": 1, "timeouts": CLOCKS["none"], "api_key": "sk-test", **options}
    )


def _async(transcripts: list[list[Step]], **options: Any) -> APIResponse:
    async def run() -> APIResponse:
        async with Loopback(*transcripts) as server, asyncio.timeout(20), _client(server.url, **options) as client:
            return await client.stream("hi", echo=None)

    return asyncio.run(run())


def _blocking(transcripts: list[list[Step]], **options: Any) -> APIResponse:
    with Loopback(*transcripts) as server:
        client = _client(server.url, **options)
        with client.stream_sync("hi") as stream:
            for _ in stream.events():
                pass
        client.close_sync()
        return stream.response


@pytest.fixture(params=[_async, _blocking], ids=["async", "blocking"])
def ask(request: pytest.FixtureRequest) -> Callable[..., APIResponse]:
    return request.param


def coded(name: str, body: bytes) -> list[Step]:
    head = HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: " + name.encode() + b"\r\n\r\n")
    return [head, chunk(body), END, NEXT]


def gzip_flushed() -> list[bytes]:
    squeeze = zlib.compressobj(wbits=31)
    pieces = [
        squeeze.compress(event) + squeeze.flush(zlib.Z_SYNC_FLUSH)
        for event in (text("Hello"), text(" world"), finish(), USAGE, DONE)
    ]
    return [*pieces, squeeze.flush()]


IN_ORDER = {
    "one piece": answer(HELLO),
    "byte by byte [W1]": [HEAD, *(chunk(HELLO[i : i + 1]) for i in range(len(HELLO))), END, NEXT],
    "crlf [W5]": answer(HELLO.replace(b"\n", b"\r\n")),
    "cr only [W5]": answer(HELLO.replace(b"\n", b"\r")),
    "bom [W3]": answer(b"\xef\xbb\xbf" + HELLO),
    "keep-alives [W7]": answer(b": ping\n\n", HELLO, b": bye\n\n"),
    "multi-line data [W8]": answer(
        text("Hello").replace(b'"choices"', b'\ndata: "choices"'), text(" world"), finish(), DONE
    ),
    "event without data [W9]": answer(b"event: x\n\n" + HELLO),
    "empty data [W10]": answer(b"data:\n\n" + HELLO),
    "done without blank line [W12]": answer(HELLO[:-2]),
    "gzip [W14]": coded("gzip", gzip.compress(HELLO)),
    "gzip flushed per event [W14]": [coded("gzip", b"x")[0], *(chunk(piece) for piece in gzip_flushed()), END, NEXT],
    "deflate [W14]": coded("deflate", zlib.compress(HELLO)),
    "deflate without header [W14]": coded("deflate", zlib.compress(HELLO)[2:-4]),
    "brotli [W14]": coded("br", brotli.compress(HELLO)),
    "zstandard [W14]": coded("zstd", zstandard.compress(HELLO)),
    "identity [W14]": coded("identity", HELLO),
    "no content type [W16]": [HEAD.replace(b"content-type: text/event-stream\r\n", b""), chunk(HELLO), END, NEXT],
    "called JSON [W16]": [HEAD.replace(b"text/event-stream", b"application/json"), chunk(HELLO), END, NEXT],
    "called HTML, but a stream [W16]": [HEAD.replace(b"text/event-stream", b"text/html"), chunk(HELLO), END, NEXT],
    "no done [T8]": answer(text("Hello"), text(" world"), finish()),
    "cut after the finish reason [T8]": [HEAD, chunk(text("Hello"), text(" world"), finish()), FIN],
    "reset after the finish reason [T8]": [HEAD, chunk(text("Hello"), text(" world"), finish()), 0.1, RST],
    "never closes [T9]": [HEAD, chunk(HELLO), HANG],
    "data after the end [T10]": answer(HELLO, text("ghost")),
    "body until the connection closes": [HEAD.replace(b"transfer-encoding: chunked", b"connection: close"), HELLO, FIN],
    "informational answer first [T15]": [b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n", *answer(HELLO)],
    "second finish reason [P10]": answer(text("Hello"), text(" world"), finish(), finish("length"), USAGE, DONE),
    "empty choices, null delta [P11]": answer(
        data({"choices": [], "prompt_filter_results": []}), data({"choices": [{"index": 0, "delta": None}]}), HELLO
    ),
    "a plain answer instead of a stream": plain(
        "200 OK",
        b'{"id":"c","model":"gpt-4o","choices":[{"message":{"content":"Hello world"},"finish_reason":"stop"}]}',
    ),
}


@pytest.mark.parametrize("name", IN_ORDER)
def test_whole_answers_are_whole(ask: Callable[..., APIResponse], name: str) -> None:
    asked = {"accept-encoding": "br, zstd, gzip;q=0.5"} if name.startswith(("brotli", "zstandard")) else {}
    response = ask([IN_ORDER[name]], extra_headers=asked)
    assert response.completion == "Hello world"
    assert response.finish_reason == "stop"
    assert response.usage is not None
    assert response.usage.estimated is not (response.usage.raw is not None)
    assert response.error is None


def says(code: str, status: str = "400 X") -> list[Step]:
    return plain(status, b'{"error":{"message":"m","code":"%b"}}' % code.encode())


def page(status: str) -> list[Step]:
    return plain(status, b"<html><title>502 Bad Gateway</title>", content_type="text/html")


BUSY = data({"error": {"message": "busy", "type": "overloaded_error"}})
NO_CHUNK_SIZE = b"zz\r\n"
TWO_LENGTHS = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd"

BROKEN: dict[str, tuple[list[Step], type[DelugeError], str | None]] = {
    "huge event [W13]": ([HEAD, chunk(text("a")), chunk(b"data: " + b"x" * 70_000), HANG], e.ResponseLimitError, "a"),
    "gzip bomb [W14]": (coded("gzip", gzip.compress(b"\n" * (20 * 2**20))), e.ResponseLimitError, None),
    "not gzip [W14]": (coded("gzip", HELLO), e.ProtocolError, None),
    "gzip cut short [W14]": (coded("gzip", gzip_flushed()[0]), e.StreamInterruptedError, "Hello"),
    "unknown coding [W14]": (coded("snappy", HELLO), e.ContentTypeError, None),
    "brotli, unasked [W14]": (coded("br", brotli.compress(HELLO)), e.ContentTypeError, None),
    "zstandard, unasked [W14]": (coded("zstd", zstandard.compress(HELLO)), e.ContentTypeError, None),
    "not JSON [W15]": (answer(text("a"), b"data: {nope\n\n"), e.ProtocolError, "a"),
    "HTML with status 200 [W16]": (page("200 OK"), e.ContentTypeError, None),
    "JSON error with status 200 [W17]": (says("rate_limit_exceeded", "200 OK"), e.RateLimitError, None),
    "slow first byte [T3]": ([HANG], e.TimeoutError, None),
    "slow first token [T3]": ([HEAD, chunk(b": ping\n\n"), HANG], e.TimeoutError, None),
    "half-open silence [T4]": ([HEAD, chunk(text("a")), HANG], e.TimeoutError, "a"),
    "endless pings [T4]": ([HEAD, chunk(text("a")), *[chunk(b": ping\n\n"), 0.05] * 30, HANG], e.TimeoutError, "a"),
    "cut chunk [T5]": ([HEAD, chunk(text("a")), b"50\r\ndata: {", FIN], e.StreamInterruptedError, "a"),
    "reset [T6]": ([HEAD, chunk(text("a")), 0.1, RST], e.StreamInterruptedError, "a"),
    "clean end in the middle [T7]": (answer(text("a")), e.TruncatedError, "a"),
    "clean end of a body without length [T7]": (
        [HEAD.replace(b"transfer-encoding: chunked", b"connection: close"), text("a"), FIN], e.TruncatedError, "a"
    ),
    "nothing at all": (answer(), e.TruncatedError, None),
    "only the end mark": (answer(DONE), e.TruncatedError, None),
    "no answer": ([FIN], e.StreamInterruptedError, None),
    "not HTTP": ([b"SSH-2.0-OpenSSH_9.2\r\n", FIN], e.ProtocolError, None),
    "huge header [T15]": ([b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", HANG], e.ProtocolError, None),
    "two lengths [T15]": ([TWO_LENGTHS, FIN], e.ProtocolError, None),
    # aiohttp closes the connection and does not tell who reads (3.14, 2026-11): the idle clock does.
    "chunk size that is none": ([HEAD, chunk(text("a")), 0.1, NO_CHUNK_SIZE, HANG], e.TimeoutError, "a"),
    "error before the first token [P7]": (answer(BUSY), e.OverloadedError, None),
    "error after tokens [P8]": (answer(text("a"), BUSY), e.OverloadedError, "a"),
    "the answer broke off": (answer(text("a"), finish("insufficient_system_resource")), e.OverloadedError, "a"),
    **{
        f"status {status}": (plain(f"{status} X", b'{"error":{"message":"m"}}'), kind, None)
        for status, kind in {
            400: e.BadRequestError, 401: e.AuthenticationError, 402: e.QuotaExceededError, 403: e.PermissionDeniedError,
            404: e.NotFoundError, 405: e.BadRequestError, 408: e.ServerError, 409: e.ServerError,
            413: e.RequestTooLargeError, 415: e.BadRequestError, 422: e.BadRequestError, 429: e.RateLimitError,
            500: e.ServerError, 501: e.ServerError, 502: e.ServerError, 503: e.OverloadedError, 504: e.ServerError,
            505: e.ServerError, 529: e.OverloadedError,
        }.items()
    },
    "quota [P3]": (says("insufficient_quota", "429 X"), e.QuotaExceededError, None),
    "context too long": (says("context_length_exceeded"), e.ContextLengthError, None),
    "prompt refused by the filter": (says("content_filter"), e.ContentFilterError, None),
    "error page": (page("502 Bad Gateway"), e.ServerError, None),
}  # fmt: skip


def clocks_for(name: str) -> Timeouts:
    """Return long timeouts, except the one that the fault triggers."""
    if BROKEN[name][1] is not e.TimeoutError:
        return CLOCKS["none"]
    return CLOCKS["first_token" if "slow" in name else "progress" if "pings" in name else "idle"]


@pytest.mark.parametrize("name", BROKEN)
def test_each_fault_has_its_class_and_keeps_what_came(ask: Callable[..., APIResponse], name: str) -> None:
    steps, kind, partial = BROKEN[name]
    with pytest.raises(DelugeError) as caught:
        ask([steps], max_event_bytes=32_768, timeouts=clocks_for(name))
    error = caught.value
    assert type(error) is kind, str(error)
    assert (error.partial and error.partial.completion) == partial
    assert error.attempts == 1
    assert error.provider == "openai"
    assert error.model == "gpt-4o"
    if partial is not None:
        assert error.where == "mid_stream"
        assert error.billed == "yes"
        assert error.partial.usage.output_tokens > 0
        assert error.partial.finish_reason is None


@pytest.mark.parametrize(
    ("steps", "phase"),
    [
        ([HANG], "first_token"),
        ([HEAD, HANG], "first_token"),
        ([HEAD, *[chunk(b": ping\n\n"), 0.05] * 30, HANG], "first_token"),
        ([HEAD, chunk(text("a")), HANG], "idle"),
        ([HEAD, chunk(text("a")), *[chunk(b": ping\n\n"), 0.05] * 30, HANG], "progress"),
        ([HEAD, chunk(text("a")), *[chunk(USAGE), 0.05] * 30, HANG], "progress"),
    ],
    ids=["no headers", "no byte", "pings first", "silence", "pings", "empty chunks"],
)
def test_each_clock_says_its_name(ask: Callable[..., APIResponse], steps: list[Step], phase: str) -> None:
    with pytest.raises(e.TimeoutError) as caught:
        ask([steps], timeouts=CLOCKS[phase])
    assert caught.value.phase == phase
    assert isinstance(caught.value, TimeoutError)


def test_reasoning_and_keep_alives_are_life(ask: Callable[..., APIResponse]) -> None:
    thought = data({"id": "c", "choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]})
    steps = [HEAD, *[chunk(thought), 0.2, chunk(b": ping\n\n"), 0.2] * 5, chunk(HELLO), END, NEXT]
    response = ask([steps], timeouts=Timeouts(first_token=20, idle=1.5, progress=1.8))
    assert response.thinking == "hm" * 5
    assert response.completion == "Hello world"


def test_the_total_clock_runs_through_everything(ask: Callable[..., APIResponse]) -> None:
    steps = [HEAD, *[chunk(text("a")), 0.05] * 100, HANG]
    with pytest.raises(e.TimeoutError) as caught:
        ask([steps], timeouts=Timeouts(total=1.0))
    assert caught.value.phase == "total"
    assert caught.value.partial.completion.startswith("aa")


def test_a_slow_consumer_trips_no_clock() -> None:
    async def run() -> str:
        async with Loopback([HEAD, chunk(text("a")), chunk(text("b")), 0.1, chunk(HELLO), END, NEXT]) as server:
            client = _client(server.url, timeouts=Timeouts(first_token=20, idle=1.0, progress=1.0))
            seen = ""
            async with client, client.stream("hi") as stream:
                async for token in stream:
                    seen += token
                    if seen == "a":
                        await asyncio.sleep(1.5)
            return seen

    assert asyncio.run(run()) == "abHello world"


def test_a_consumer_that_stops_gets_the_rest_when_it_goes_on() -> None:
    """More bytes and chunks than are buffered for a consumer that does not read: reading pauses in between, twice."""
    chunks = [chunk(text(f"{number} ")) for number in range(9_000)]

    async def run() -> str:
        async with Loopback([HEAD, b"".join(chunks), chunk(finish(), DONE), END, NEXT]) as server:
            client = _client(server.url)
            seen = list[str]()
            async with client, client.stream("hi") as stream:
                async for token in stream:
                    seen.append(token)
                    if len(seen) in (1, 5_000):
                        await asyncio.sleep(0.2)
            return "".join(seen)

    assert asyncio.run(run()).split() == [str(number) for number in range(9_000)]


def test_nobody_listens(ask: Callable[..., APIResponse], unused_tcp_port: int) -> None:
    with pytest.raises(e.ConnectError) as caught:
        ask([answer(HELLO)], base_url=f"http://127.0.0.1:{unused_tcp_port}/v1")
    assert caught.value.billed == "no"
    assert caught.value.where == "connect"


def test_warnings_say_what_was_odd(ask: Callable[..., APIResponse]) -> None:
    assert ask([answer(text("a"), finish())]).warnings == ("no_done",)
    other = data({"id": "c", "model": "llama-3", "choices": [{"index": 0, "delta": {"content": "a"}}]})
    assert ask([answer(other, finish(), DONE)]).warnings == ("other_model",)
    assert ask([answer(HELLO)]).warnings == ()


def test_silence_after_the_finish_reason_is_no_fault(ask: Callable[..., APIResponse]) -> None:
    """Usage and end mark never arrive, and the wait for them has the usual timeout."""
    response = ask([[HEAD, chunk(text("Hello"), finish()), HANG]], timeouts=CLOCKS["idle"])
    assert response.completion == "Hello"
    assert response.finish_reason == "stop"
    assert response.warnings == ("no_done",)
    assert response.usage.estimated
