"""`StreamResponse` as an ASGI application: what it sends, when it stops, and what it reports."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel

from lm_deluge import LLMClient
from lm_deluge.errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    DelugeError,
    RateLimitError,
    StreamConsumedError,
    TruncatedError,
)
from lm_deluge.events import ResponseFinished, ResponseStarted, TextDelta, UsageReported
from lm_deluge.response import APIResponse
from lm_deluge.simulator import Pace, Script, Simulator
from lm_deluge.ui import DataPart, StreamResponse, web_client
from lm_deluge.usage import Usage
from ui.judges import AGUIJudge, VercelJudge, decoded

START, END = ResponseStarted("r", "m"), ResponseFinished("stop")
SLOW = Pace(tokens_per_second=5)


class Page:
    """The client of a response. It leaves, or stops reading, once the body has a certain text."""

    def __init__(self, *, leaves_at: bytes | None = None, stalls_at: bytes | None = None) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.writes: list[bytes] = []
        self.is_whole = False
        self._leaves_at = leaves_at
        self._stalls_at = stalls_at
        self._gone = asyncio.Event()
        self.changed = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    def leave(self) -> None:
        self._gone.set()

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            assert not self.status
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        assert self.status
        assert not self.is_whole
        self.body += message["body"]
        self.writes.append(message["body"])
        self.is_whole = not message.get("more_body", False)
        self.changed.set()
        if self._leaves_at is not None and self._leaves_at in self.body:
            self.leave()
        if self._stalls_at is not None and self._stalls_at in self.body:
            await asyncio.Event().wait()

    async def open(self, response: StreamResponse) -> Page:
        await response({"type": "http"}, self.receive, self.send)  # type: ignore[arg-type]
        return self


async def events_of(*events: Any) -> AsyncIterator[Any]:
    for event in events:
        yield event


async def test_headers_and_frames() -> None:
    stream = events_of(START, TextDelta("Hi"), END)
    page = await Page().open(StreamResponse(stream, headers={"x-own": "1"}))
    assert page.status == 200
    assert page.headers == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache, no-transform",
        "x-accel-buffering": "no",
        "x-vercel-ai-ui-message-stream": "v1",
        "x-own": "1",
    }
    assert page.is_whole
    assert VercelJudge().read(page.body).end == "finish"


async def test_the_ids_are_those_of_the_request() -> None:
    body = {"threadId": "t", "runId": "r", "messages": [{"id": "u", "role": "user", "content": "Hi"}]}
    page = await Page().open(StreamResponse(events_of(START, END), "ag-ui", request=body))
    assert decoded(page.body)[0] == {"type": "RUN_STARTED", "threadId": "t", "runId": "r"}
    said = {"messages": [{"id": "a1", "role": "assistant", "parts": []}]}
    page = await Page().open(StreamResponse(events_of(START, END), request=said))
    assert decoded(page.body)[0] == {"type": "start", "messageId": "a1"}
    page = await Page().open(StreamResponse(events_of(START, END), request={"messages": []}))
    assert decoded(page.body)[0]["messageId"].startswith("msg-")


async def test_an_answer_of_a_model_and_its_report() -> None:
    ended: list[APIResponse] = []
    async with Simulator("Hello you.") as simulator:
        client = LLMClient("gpt-5.4", base_url=simulator.url, api_key="k")
        async with client:
            page = await Page().open(StreamResponse(client.stream("Hi"), on_end=ended.append))
    [response] = ended
    assert response.completion == "Hello you."
    assert response.usage is not None
    assert response.cost
    metadata = next(chunk for chunk in decoded(page.body) if chunk["type"] == "finish")["messageMetadata"]
    assert metadata["cost"] == response.cost
    assert metadata["usage"]["totalTokens"] == response.usage.total_tokens


class Invoice(BaseModel):
    name: str
    lines: list[int]


async def test_the_values_of_a_typed_answer() -> None:
    async with (
        Simulator('{"name": "Ada", "lines": [1, 2]}') as simulator,
        LLMClient("gpt-5.4", base_url=simulator.url, api_key="k") as client,
    ):
        page = await Page().open(StreamResponse(client.stream("Hi", output=Invoice)))
    fields = [chunk for chunk in decoded(page.body)[:-1] if chunk["type"] == "data-field"]
    assert [(each["id"], each["data"]) for each in fields] == [
        ("name", {"path": ["name"], "value": "Ada"}),
        ("lines.0", {"path": ["lines", 0], "value": 1}),
        ("lines.1", {"path": ["lines", 1], "value": 2}),
        ("lines", {"path": ["lines"], "value": [1, 2]}),
    ]
    assert VercelJudge().read(page.body).end == "finish"


async def test_an_invalid_typed_answer_is_an_error() -> None:
    async with (
        Simulator('{"name": 5}') as simulator,
        LLMClient("gpt-5.4", base_url=simulator.url, api_key="k") as client,
    ):
        page = await Page().open(StreamResponse(client.stream("Hi", output=Invoice), "ag-ui"))
    assert AGUIJudge().read(page.body).end == "RUN_ERROR"


@pytest.mark.parametrize("protocol", ["vercel-ui", "ag-ui", "openai-chat", "text"])
async def test_a_page_that_leaves_cancels_the_call(protocol: Any) -> None:
    ended: list[APIResponse] = []
    async with (
        Simulator("one two three four " * 20, pace=SLOW) as simulator,
        LLMClient("gpt-5.4", base_url=simulator.url, api_key="k") as client,
    ):
        page = await Page(leaves_at=b"one").open(StreamResponse(client.stream("Hi"), protocol, on_end=ended.append))
        assert not page.is_whole
        while simulator.open_connections:
            await asyncio.sleep(0.005)
        assert simulator.stats.aborted == 1
    [response] = ended
    assert (response.error, response.finish_reason) == (None, None)
    assert response.usage is not None
    assert response.usage.estimated
    assert response.cost


@pytest.mark.parametrize("fault", ["clean_truncation", "reset", "status_401"])
@pytest.mark.parametrize("protocol", ["vercel-ui", "ag-ui", "openai-chat", "text"])
async def test_a_broken_answer_never_looks_complete(protocol: Any, fault: str) -> None:
    ended: list[APIResponse] = []
    async with (
        Simulator("one two three four", faults=fault) as simulator,
        LLMClient("gpt-5.4", base_url=simulator.url, api_key="k", max_attempts=1) as client,
    ):
        page = Page()
        response = StreamResponse(client.stream("Hi"), protocol, on_end=ended.append)
        if protocol == "text" and fault != "status_401":
            with pytest.raises(DelugeError):  # the server closes the connection
                await page.open(response)
            assert not page.is_whole
        else:
            await page.open(response)
            assert page.is_whole
    early = fault == "status_401"
    assert page.status == (502 if early and protocol in ("openai-chat", "text") else 200)
    if protocol == "vercel-ui":
        assert VercelJudge().read(page.body).end == "error"
    elif protocol == "ag-ui":
        assert AGUIJudge().read(page.body).end == "RUN_ERROR"
    elif protocol == "openai-chat":
        assert b'"error"' in page.body
        assert b"[DONE]" not in page.body
    [report] = ended
    assert isinstance(report.error, AuthenticationError if early else DelugeError)


STATUSES = [
    (RateLimitError("slow down"), 429),
    (AuthenticationError("the key of the server"), 502),
    (TruncatedError("cut off"), 502),
    (ConfigurationError("no such model"), 500),
    (APIError("odd"), 502),
    (ValueError("secret"), 500),
]


@pytest.mark.parametrize(("error", "status"), STATUSES, ids=lambda value: type(value).__name__)
async def test_the_status_of_an_error_before_the_answer(error: Exception, status: int) -> None:
    async def failing() -> AsyncIterator[Any]:
        raise error
        yield

    page = await Page().open(StreamResponse(failing(), "text"))
    assert page.status == status
    assert page.is_whole
    assert b"secret" not in page.body


async def test_heartbeats_while_the_model_is_silent() -> None:
    go_on = asyncio.Event()
    page = Page()

    async def silent() -> AsyncIterator[Any]:
        yield START
        await go_on.wait()
        yield TextDelta("Hi")
        yield END

    sent = asyncio.create_task(page.open(StreamResponse(silent(), "openai-chat", heartbeat_s=0.02)))
    while page.writes.count(b": keep-alive\n\n") < 3:
        await page.changed.wait()
        page.changed.clear()
    go_on.set()
    await sent
    assert page.is_whole
    assert b"[DONE]" in page.body


async def test_sending_waits_while_the_page_does_not_read() -> None:
    made = 0

    async def many() -> AsyncIterator[Any]:
        nonlocal made
        yield START
        for _ in range(1000):
            made += 1
            yield TextDelta("x")

    page = Page(stalls_at=b'"x"')
    sent = asyncio.create_task(page.open(StreamResponse(many())))
    await page.changed.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert made == 1
    sent.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sent


async def test_a_page_that_reads_nothing_for_too_long_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_client, "_STALLED_S", 0.03)
    ended: list[APIResponse] = []
    async with (
        Simulator("one two three four " * 20, pace=SLOW) as simulator,
        LLMClient("gpt-5.4", base_url=simulator.url, api_key="k") as client,
    ):
        page = await Page(stalls_at=b"one").open(StreamResponse(client.stream("Hi"), on_end=ended.append))
        assert not page.is_whole
        assert simulator.stats.aborted == 1
    assert len(ended) == 1


async def test_a_cancelled_server_task_ends_the_call_and_reports_it() -> None:
    ended: list[APIResponse] = []
    page = Page()
    async with (
        Simulator("one two three four " * 20, pace=SLOW) as simulator,
        LLMClient("gpt-5.4", base_url=simulator.url, api_key="k") as client,
    ):
        task = asyncio.create_task(page.open(StreamResponse(client.stream("Hi"), on_end=ended.append)))
        while b"one" not in page.body:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while simulator.open_connections:
            await asyncio.sleep(0.005)
    assert len(ended) == 1


@pytest.mark.parametrize("error", [ValueError, SystemExit, MemoryError])
async def test_a_failing_on_end_is_a_warning(error: type[BaseException]) -> None:
    def fail(response: APIResponse) -> None:
        raise error

    async def fail_later(response: APIResponse) -> None:
        await asyncio.sleep(0)
        raise error

    for hook in (fail, fail_later):
        with pytest.warns(RuntimeWarning, match=f"on_end raised {error.__name__}"):
            page = await Page().open(StreamResponse(events_of(START, END), on_end=hook))
        assert page.is_whole


async def test_a_client_error_in_the_server_is_a_client_that_left() -> None:
    class Broken(Page):
        async def send(self, message: Any) -> None:
            if b"Hi" in message.get("body", b""):
                raise OSError
            await super().send(message)

    ended: list[APIResponse] = []
    many = events_of(START, TextDelta("Hi"), *[TextDelta("x")] * 50, END)
    page = await Broken().open(StreamResponse(many, on_end=ended.append))
    assert b"x" not in page.body.replace(b"text", b"")
    assert ended[0].finish_reason is None


async def test_iterators_of_events() -> None:
    ended: list[APIResponse] = []
    usage = Usage(input_tokens=1, output_tokens=2, reported_cost=0.5)
    lists = events_of([START, TextDelta("a"), DataPart("x", 1)], [], [TextDelta("b"), UsageReported(usage), END])
    page = await Page().open(StreamResponse(lists, on_end=ended.append))
    assert VercelJudge().read(page.body).parts[1]["text"] == "ab"
    assert ended[0].completion == "ab"
    page = await Page().open(StreamResponse(events_of(START, TextDelta("a")), on_end=ended.append))
    assert VercelJudge().read(page.body).end == "error"
    assert isinstance(ended[1].error, TruncatedError)


async def test_leaving_ends_an_iterator() -> None:
    closed: list[str] = []

    async def endless() -> AsyncIterator[Any]:
        try:
            yield START
            yield TextDelta("Hi")
            await asyncio.Event().wait()
        finally:
            closed.append("closed")

    page = await Page(leaves_at=b"Hi").open(StreamResponse(endless()))
    assert closed == ["closed"]
    assert not page.is_whole


async def test_what_is_no_stream_is_refused_at_once() -> None:
    async with LLMClient("simulator") as client:
        with pytest.raises(ConfigurationError, match="not str"):
            StreamResponse("text")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="no protocol"):
            StreamResponse(client.stream("Hi"), "sse")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="heartbeat_s"):
            StreamResponse(client.stream("Hi"), heartbeat_s=0)
        stream = client.stream("Hi")
        StreamResponse(stream)
        with pytest.raises(StreamConsumedError):
            StreamResponse(stream)


async def test_the_background_task_runs_after_the_answer() -> None:
    ran: list[bool] = []
    page = Page()

    async def background() -> None:
        ran.append(page.is_whole)

    response = StreamResponse(events_of(START, END))
    response.background = background
    await page.open(response)
    assert ran == [True]


def test_without_starlette() -> None:
    source = (
        "import sys; sys.modules['starlette'] = None; sys.modules['starlette.responses'] = None\n"
        "from lm_deluge.ui import StreamResponse\n"
        "assert StreamResponse.__mro__[2] is object"
    )
    subprocess.run([sys.executable, "-c", source], check=True)  # noqa: S603 - the text above


async def test_no_warning_of_a_stream_that_is_never_sent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with (
            Simulator(Script(text="Hi")) as simulator,
            LLMClient("gpt-5.4", base_url=simulator.url, api_key="k") as client,
        ):
            StreamResponse(client.stream("Hi"))
            assert simulator.stats.requests == 0
