"""What a cell shows of an answer, part by part."""

from __future__ import annotations

import asyncio
import io
import signal
import threading
from typing import Any

import pytest

from client.hooks.exceptions import EVERY_EXCEPTION
from client.notebook.stub import Notebook
from lm_deluge import LLMClient
from lm_deluge.client.notebook.answer import AnswerParts
from lm_deluge.errors import ServerError, StreamConsumedError, StreamInterruptedError, TruncatedError
from lm_deluge.events import (
    Attempt,
    Citation,
    Event,
    MediaDelta,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    RoundStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolProgress,
    ToolResult,
    UsageReported,
)
from lm_deluge.simulator import Pace, Simulator
from lm_deluge.usage import Usage
from loopback import DONE, USAGE, Loopback, answer, finish, plain, text

END = ResponseFinished("stop")
CALL: list[Event] = [
    ToolCallStarted(0, "call_1", "weather"),
    ToolCallDelta(0, '{"city": '),
    ToolCallDelta(0, '"Paris"}'),
    ToolCallFinished(0, "call_1", "weather", '{"city": "Paris"}', {"city": "Paris"}),
]
SHOWN_CALL = "**Tool** <code>weather(&#123;&#34;city&#34;&#58; &#34;Paris&#34;&#125;)</code>"


def shown(events: list[Event], error: BaseException | None = None, *, is_json: bool = False) -> tuple[str, str]:
    parts = AnswerParts(is_json=is_json)
    parts.add_all([ResponseStarted("1", "m"), *events])
    parts.end(error)
    content = parts.content()
    assert list(content) == ["text/markdown", "text/plain"]
    return content["text/markdown"], content["text/plain"]


LOST = StreamInterruptedError("the connection *closed*")
SHOWN: dict[str, tuple[list[Event], BaseException | None, str, str]] = {
    "text": ([TextDelta("# A"), TextDelta("\n<b>"), END], None, "# A\n&#60;b>", "# A\n<b>"),
    "refusal": ([RefusalDelta("I can't."), END], None, "I can't.", "I can't."),
    "reasoning": (
        [ReasoningDelta("Let me\n"), ReasoningDelta("<think>"), TextDelta("4"), END],
        None,
        "<details><summary>Reasoning</summary>\n\nLet me\n&#60;think>\n\n</details>\n\n4",
        "> Let me\n> <think>\n\n4",
    ),
    "call": ([*CALL, ResponseFinished("tool_calls")], None, SHOWN_CALL, 'Tool weather({"city": "Paris"})'),
    "result": (
        [
            *CALL,
            ToolProgress("call_1", "weather", 1),
            ToolResult("call_1", "weather", "Sun,\n<20>", duration_s=0.2),
            RoundStarted(2),
            TextDelta("Sunny."),
            END,
        ],
        None,
        f"{SHOWN_CALL} → <code>Sun, &#60;20&#62;</code>\n\nSunny.",
        'Tool weather({"city": "Paris"}) → Sun, <20>\n\nSunny.',
    ),
    "failed tool": (
        [*CALL, ToolResult("call_1", "weather", "It failed.", error="ValueError: no")],
        None,
        f"{SHOWN_CALL} failed: <code>ValueError&#58; no</code>\n\n> **Interrupted**: the answer is incomplete",
        'Tool weather({"city": "Paris"}) failed: ValueError: no\n\n[Interrupted: the answer is incomplete]',
    ),
    "result without call": (
        [ToolResult("other", "search", "x" * 301), END],
        None,
        f"**Tool** <code>search()</code> → <code>{'x' * 300}…</code>",
        f"Tool search() → {'x' * 300}…",
    ),
    "error": (
        [TextDelta("Half"), TextDelta(" a")],
        LOST,
        "Half a\n\n> **StreamInterruptedError**: the connection &#42;closed&#42;",
        "Half a\n\n[StreamInterruptedError: the connection *closed*]",
    ),
    "error in code": (
        [TextDelta("```py\nx = 1")],
        LOST,
        "```py\nx = 1\n```\n\n> **StreamInterruptedError**: the connection &#42;closed&#42;",
        "```py\nx = 1\n\n[StreamInterruptedError: the connection *closed*]",
    ),
    "ctrl-c": (
        [TextDelta("Half")],
        KeyboardInterrupt(),
        "Half\n\n> **Interrupted**: the answer is incomplete",
        "Half\n\n[Interrupted: the answer is incomplete]",
    ),
    "length": (
        [TextDelta("Half"), ResponseFinished("length")],
        None,
        "Half\n\n> **Incomplete**: the answer ended with finish reason length",
        "Half\n\n[Incomplete: the answer ended with finish reason length]",
    ),
    "empty": ([END], None, "> **The answer is empty**", "[The answer is empty]"),
    "restart": (
        [ReasoningDelta("a"), TextDelta("b"), Attempt(2, "ServerError", "x", 0.1, "m"), TextDelta("c"), END],
        None,
        "> **The answer starts again**: after ServerError\n\nc",
        "[The answer starts again: after ServerError]\n\nc",
    ),
    "restart in the second round": (
        [
            TextDelta("a"),
            RoundStarted(2),
            TextDelta("b"),
            Attempt(2, "ServerError", "x", 0.1, "m"),
            TextDelta("c"),
            END,
        ],
        None,
        "a\n\n> **The answer starts again**: after ServerError\n\nc",
        "a\n\n[The answer starts again: after ServerError]\n\nc",
    ),
    "retry before the first token": ([Attempt(2, "ServerError", "x", 0.1, "m"), TextDelta("c"), END], None, "c", "c"),
    "continuation": (
        [TextDelta("a"), Attempt(2, "ServerError", "x", 0.1, "m", goes_on=True), TextDelta("b"), END],
        None,
        "ab",
        "ab",
    ),
    "media": (
        [MediaDelta("image/png", "AAAA", id="1"), MediaDelta("image/png", "AAAA", id="1"), END],
        None,
        "> **image/png**: in the parts of the response",
        "[image/png: in the parts of the response]",
    ),
    "speech": (
        [MediaDelta("audio/wav", "AA", transcript="Hi"), MediaDelta("audio/wav", transcript="!"), END],
        None,
        "Hi!",
        "Hi!",
    ),
    "sources": (
        [
            TextDelta("A [1]."),
            Citation("https://a.example/?b=1", "A]b"),
            Citation("https://a.example/?b=1", "A"),
            Citation("javascript:x", "!"),
            UsageReported(Usage(input_tokens=1, output_tokens=1)),
            END,
        ],
        None,
        "A [1].\n\nSources: [A b](https://a.example/?b=1), [!&#93;(javascript:x)",
        "A [1].\n\nSources: https://a.example/?b=1, javascript:x",
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_each_part_is_shown(name: str) -> None:
    events, error, markdown, plain = SHOWN[name]
    assert shown(events, error) == (markdown, plain)


def test_reasoning_is_open_while_it_grows() -> None:
    parts = AnswerParts()
    parts.add_all([ResponseStarted(), ReasoningDelta("Hm")])
    assert parts.content()["text/markdown"].startswith("<details open><summary>")


def test_a_typed_answer_is_a_block_of_json() -> None:
    assert shown([TextDelta('{"a": '), TextDelta("1}"), END], is_json=True)[0] == '```json\n{"a": 1}\n```'


def client_of(server: Any) -> LLMClient:
    return LLMClient("gpt-4o", base_url=server.url, api_key="k", max_attempts=1)


async def test_a_stream_is_one_output(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    notebook = Notebook(monkeypatch)
    async with (
        Loopback(answer(text("Hello"), text(" you"), finish(), USAGE, DONE)) as server,
        client_of(server) as client,
    ):
        stream = client.stream("Hi")
        response = await stream.display()
        with pytest.raises(StreamConsumedError):
            await stream.display()
    assert response.completion == "Hello you"
    (updates,) = notebook.outputs
    assert updates[-1] == {"text/markdown": "Hello you", "text/plain": "Hello you"}
    assert capsys.readouterr() == ("", "")


async def test_a_broken_stream_keeps_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch)
    async with Loopback(answer(text("Hello"), text(" you"))) as server, client_of(server) as client:
        with pytest.raises(TruncatedError) as caught:
            await client.stream("Hi").display()
    (updates,) = notebook.outputs
    lines = updates[-1]["text/plain"].split("\n")
    assert lines == ["Hello you", "", f"[TruncatedError: {caught.value.message}]"]


async def test_an_error_before_the_first_token_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch)
    async with Loopback(plain("500 No", b"{}")) as server, client_of(server) as client:
        with pytest.raises(ServerError):
            await client.stream("Hi").display()
    assert notebook.outputs[-1][-1]["text/markdown"].startswith("> **ServerError**: ")


@pytest.mark.parametrize("how", ["task", "stream"])
async def test_a_cancelled_stream_keeps_its_text(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch)
    is_shown = asyncio.Event()
    notebook.on_update = is_shown.set
    async with (
        Simulator("word " * 1000, pace=Pace(tokens_per_second=50)) as sim,
        LLMClient("gpt-4o", base_url=sim.base_url, api_key="k") as client,
    ):
        stream = client.stream("Hi")
        task = asyncio.create_task(stream.display())
        await is_shown.wait()
        if how == "task":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            await stream.cancel()
            assert (await task).completion.startswith("word")
    (updates,) = notebook.outputs
    assert updates[-1]["text/plain"].startswith("word")
    assert updates[-1]["text/plain"].endswith("\n\n[Interrupted: the answer is incomplete]")


@pytest.mark.parametrize("name", EVERY_EXCEPTION)
async def test_a_display_that_fails_never_ends_the_stream(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch)
    notebook.error = EVERY_EXCEPTION[name]
    async with (
        Loopback(answer(text("Hello"), text(" you"), finish(), USAGE, DONE)) as server,
        client_of(server) as client,
    ):
        assert (await client.stream("Hi").display()).completion == "Hello you"
    assert notebook.calls >= 1


def test_a_sync_stream_is_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch)
    with Simulator("Hello you").start_in_thread() as sim:
        client = LLMClient("gpt-4o", base_url=sim.base_url, api_key="k")
        stream = client.stream_sync("Hi")
        assert stream.display().completion == "Hello you"
        with pytest.raises(StreamConsumedError):
            stream.display()
        client.close_sync()
    (updates,) = notebook.outputs
    assert updates[-1]["text/markdown"] == "Hello you"


def test_ctrl_c_returns_once_the_cell_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch)
    main = threading.main_thread().ident
    assert main is not None
    notebook.on_update = lambda: notebook.calls == 1 and signal.pthread_kill(main, signal.SIGINT)
    with Simulator("word " * 1000, pace=Pace(tokens_per_second=50)).start_in_thread() as sim:
        client = LLMClient("gpt-4o", base_url=sim.base_url, api_key="k")
        with pytest.raises(KeyboardInterrupt):
            client.stream_sync("Hi").display()
        (updates,) = notebook.outputs
        assert updates[-1]["text/plain"].endswith("[Interrupted: the answer is incomplete]")
        client.close_sync()


async def test_a_typed_stream_is_displayed(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch)
    async with Simulator('{"city": "Paris"}') as sim, LLMClient("gpt-4o", base_url=sim.base_url, api_key="k") as client:
        response = await client.stream("Where?", output=dict[str, str]).display()
    assert response.output == {"city": "Paris"}
    assert notebook.outputs[0][-1]["text/markdown"] == '```json\n{"city": "Paris"}\n```'


def weather(city: str) -> str:
    """Return the weather."""
    return f"Sun in {city}"


async def test_an_agent_loop_is_displayed(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch)
    async with LLMClient("simulator") as client:
        response = await client.stream("Weather?", tools=[weather], run_tools=True).display()
    (updates,) = notebook.outputs
    shown_at_end = updates[-1]["text/plain"]
    assert "Tool weather(" in shown_at_end
    assert "→ Sun in " in shown_at_end
    assert shown_at_end.endswith(response.completion)


@pytest.mark.parametrize("echo", ["stdout", None, "file"])
async def test_outside_a_notebook_the_text_is_printed(echo: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    file = io.StringIO()
    where: Any = file if echo == "file" else echo
    async with (
        Loopback(answer(text("Hello"), text(" you"), finish(), USAGE, DONE)) as server,
        client_of(server) as client,
    ):
        await client.stream("Hi", echo=where).display()
    assert (file.getvalue() if echo == "file" else capsys.readouterr().out) == "Hello you"
