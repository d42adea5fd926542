"""Tool calls: each one ends in an outcome, whatever the tool does."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from lm_deluge import Tool
from lm_deluge.errors import ConfigurationError, InvalidValueError, ToolError
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.parts import FilePart, ImagePart, TextPart, ToolCallPart, ToolResultPart
from lm_deluge.tools import ToolOutcome, ToolReturn, ToolRunner

PNG = b"\x89PNG\r\n\x1a\n rest"


def call(name: str, arguments: Any = None, **fields: Any) -> ToolCallPart:
    return ToolCallPart("id", name, "", {} if arguments is None else arguments, **fields)


async def run(function: Any, arguments: Any = None, **options: Any) -> ToolOutcome:
    tool = Tool.from_function(function, name="tool")
    return await ToolRunner([tool], **options).run(call("tool", arguments))


def raising(error: BaseException) -> Any:
    def sync() -> None:
        raise error

    async def late() -> None:
        await asyncio.sleep(0)
        raise error

    def generator() -> Iterator[int]:
        yield 1
        raise error

    async def async_generator() -> AsyncIterator[int]:
        yield 1
        raise error

    return [sync, late, generator, async_generator]


class Odd(BaseException):
    pass


@pytest.mark.parametrize(
    "error",
    [
        ValueError("the city is unknown"), KeyError("x"), RuntimeError(), MemoryError(), TimeoutError("own"),
        StopIteration(3), StopAsyncIteration(), GeneratorExit(), SystemExit(3), asyncio.CancelledError(), Odd("odd"),
        ExceptionGroup("several", [ValueError("a")]),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
@pytest.mark.parametrize("kind", range(4), ids=["sync", "async", "generator", "async generator"])
async def test_whatever_a_tool_raises_is_its_outcome(error: BaseException, kind: int) -> None:
    if isinstance(error, GeneratorExit) and kind in (1, 3):
        pytest.skip("a coroutine that raises GeneratorExit is a closed one")
    outcome = await run(raising(error)[kind])
    assert outcome.error is not None
    assert outcome.value is None
    assert isinstance(outcome.content, str)
    assert "Traceback" not in outcome.content
    if isinstance(error, ValueError):
        assert outcome.error is error
        assert outcome.content == "ValueError: the city is unknown"
    assert outcome.to_part("id").is_error


@pytest.mark.parametrize(
    ("part", "reason", "text"),
    [
        (call("nope"), "unknown", "there is no tool named 'nope'. Known: double."),
        (ToolCallPart("1", "double", "{", None, "it ends too early"), "arguments", "not valid JSON: it ends too early"),
        (ToolCallPart("1", "double", "{"), "arguments", "the arguments are not valid JSON"),
    ],
)
async def test_what_cannot_be_run_is_explained_to_the_model(part: ToolCallPart, reason: str, text: str) -> None:
    def double(a: int) -> int:
        return 2 * a

    outcome = await ToolRunner([double]).run(part)
    assert isinstance(outcome.error, ToolError)
    assert outcome.error.reason == reason
    assert text in str(outcome.content)


async def test_a_call_may_have_the_text_of_its_arguments_alone() -> None:
    def double(a: int) -> int:
        return 2 * a

    assert (await ToolRunner([double]).run(ToolCallPart("1", "double", '{"a": 3}'))).value == 6


async def test_arguments_that_do_not_fit_never_reach_the_tool() -> None:
    def double(a: int) -> int:
        raise AssertionError

    for arguments in ({"a": "x"}, {}, {"a": 1, "b": 2}, [], None, "x"):
        outcome = await ToolRunner([double]).run(ToolCallPart("id", "double", "", arguments))
        assert isinstance(outcome.error, InvalidValueError)
        assert str(outcome.content).startswith("not a valid call of double: ")


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("text", "text"),
        ("", ""),
        (None, "null"),
        ({"a": [1, None]}, '{"a": [1, null]}'),
        ([], "[]"),
        (PNG, (ImagePart(Media(data=PNG, media_type="image/png")),)),
        ("a\ud800b", "a\ufffdb"),
        (["\ud83d\ude00", PNG], (TextPart("\U0001f600"), ImagePart(Media(data=PNG, media_type="image/png")))),
        (b"text", (FilePart(Media(data=b"text", media_type="text/plain")),)),
        (b"", (TextPart(""),)),
        (b"\x00", (FilePart(Media(data=b"\x00", media_type="application/octet-stream")),)),
        (ImagePart(Media(url="http://x/a.png")), (ImagePart(Media(url="http://x/a.png")),)),
        (["a chart:", PNG, {"n": 1}],
         (TextPart("a chart:"), ImagePart(Media(data=PNG, media_type="image/png")), TextPart('{"n": 1}'))),
        (ToolReturn([1], "one"), "one"),
    ],
    ids=lambda each: str(each)[:20],
)  # fmt: skip
async def test_results_as_content(value: Any, content: Any) -> None:
    outcome = await run(lambda: value)
    assert outcome.error is None
    assert outcome.content == content
    assert outcome.value == (value.value if isinstance(value, ToolReturn) else value)


async def test_an_exception_with_half_a_surrogate_pair_can_be_sent() -> None:
    def fails() -> None:
        raise FileNotFoundError("no \udcff.txt")

    outcome = await run(fails)
    assert outcome.content == "FileNotFoundError: no \ufffd.txt"


async def test_a_result_that_cannot_be_sent_is_an_error() -> None:
    outcome = await run(object)
    assert isinstance(outcome.error, ToolError)
    assert outcome.error.reason == "result"
    assert outcome.value is None


def test_an_outcome_as_a_part_of_a_message() -> None:
    image = ImagePart(Media(url="http://x/a.png"))
    outcome = ToolOutcome(content=(TextPart("a"), image, TextPart("b")))
    assert outcome.to_part("7") == ToolResultPart("7", "a\nb", (image,))


@pytest.mark.parametrize("most", [0, 5, 10, 11, None])
async def test_long_results_are_cut_and_marked(most: int | None) -> None:
    outcome = await run(lambda: "0123456789", max_result_characters=most)
    is_cut = most is not None and most < 10
    assert outcome.is_truncated is is_cut
    assert outcome.value == "0123456789"
    assert outcome.content == (
        f"{'0123456789'[:most]}\n[truncated: {most} of 10 characters]" if is_cut else outcome.value
    )


async def test_long_results_with_images_keep_the_images() -> None:
    outcome = await run(lambda: ["0123456789", PNG, "more", "rest"], max_result_characters=12)
    text = TextPart("mo\n[truncated: 12 of 18 characters]")
    assert outcome.content == (TextPart("0123456789"), ImagePart(Media(data=PNG, media_type="image/png")), text)
    assert outcome.is_truncated


async def test_messages_of_exceptions_are_short_and_have_no_credentials() -> None:
    def fails() -> None:
        raise ValueError("GET https://user:hunter2@example.com/ Authorization: Bearer abc123 " + "x" * 10_000)

    outcome = await run(fails)
    assert len(outcome.content) < 1_100
    assert "hunter2" not in str(outcome.content)
    assert "abc123" not in str(outcome.content)


async def test_an_async_tool_is_cancelled_by_its_timeout() -> None:
    ends: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    outcome = await run(slow, timeout_s=0.01)
    assert isinstance(outcome.error, ToolError)
    assert (outcome.error.reason, ends) == ("timeout", ["cancelled"])
    assert outcome.content == "the tool did not answer within 0.01 s."


async def test_the_wait_for_a_thread_ends_with_the_timeout_and_its_result_is_dropped() -> None:
    release = threading.Event()
    ended = threading.Event()

    def slow() -> None:
        release.wait(10)
        ended.set()

    outcome = await run(slow, timeout_s=0.01)
    assert isinstance(outcome.error, ToolError)
    release.set()
    assert await asyncio.to_thread(ended.wait, 10)


async def test_a_generator_in_a_thread_stops_at_its_next_yield_after_a_cancellation() -> None:
    closed = threading.Event()
    go_on = threading.Event()

    def steps() -> Iterator[int]:
        try:
            yield 1
            yield 2
            go_on.wait(10)
            yield 3
            raise AssertionError
        finally:
            closed.set()

    reported = asyncio.Event()
    tool = Tool.from_function(steps)
    task = asyncio.create_task(ToolRunner([tool]).run(call("steps"), lambda _: reported.set()))
    await reported.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    assert await asyncio.to_thread(closed.wait, 10)


@pytest.mark.parametrize("is_async", [False, True])
async def test_what_a_generator_yields_is_progress_but_for_the_last_value(is_async: bool) -> None:
    def steps(count: int) -> Iterator[int]:
        yield from range(count)

    async def async_steps(count: int) -> AsyncIterator[int]:
        for each in range(count):
            yield each

    tool = Tool.from_function(async_steps if is_async else steps, name="steps")
    for count, progress, result in ((3, [0, 1], 2), (1, [], 0), (0, [], None)):
        reported: list[Any] = []
        outcome = await ToolRunner([tool]).run(call("steps", {"count": count}), reported.append)
        await asyncio.sleep(0)
        assert (reported, outcome.value) == (progress, result)
    assert tool.call(count=3) == 2


async def test_a_generator_that_returns_a_value_reports_all_others() -> None:
    def steps() -> Iterator[str]:
        yield "half"
        yield "nearly"
        return "done"

    reported: list[Any] = []
    outcome = await ToolRunner([steps]).run(call("steps"), reported.append)
    assert (reported, outcome.value) == (["half", "nearly"], "done")


async def test_a_failing_report_ends_no_tool() -> None:
    async def steps() -> AsyncIterator[int]:
        yield 1
        yield 2

    def report(value: Any) -> None:
        raise ValueError

    outcome = await ToolRunner([steps]).run(call("steps"), report)
    assert (outcome.value, outcome.error) == (2, None)


async def test_calls_run_at_once_up_to_the_limit() -> None:
    running = most = 0
    gate = asyncio.Event()

    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1

    runner = ToolRunner([work], max_concurrent=3)
    tasks = [asyncio.create_task(runner.run(call("work"))) for _ in range(10)]
    while running < 3:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    gate.set()
    outcomes = await asyncio.gather(*tasks)
    assert most == 3
    assert all(outcome.error is None for outcome in outcomes)


async def test_a_thread_has_the_context_variables_of_the_caller() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("here")
    outcome = await run(lambda: (variable.get(), threading.current_thread() is threading.main_thread()))
    assert outcome.value == ("here", False)


async def test_a_sync_function_that_returns_an_awaitable_is_awaited() -> None:
    async def inner() -> str:
        return "x"

    assert (await run(lambda: inner())).value == "x"  # noqa: PLW0108


async def test_an_interruption_of_the_caller_passes() -> None:
    async def slow() -> None:
        await asyncio.sleep(60)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for turns in range(6):
            task = asyncio.create_task(ToolRunner([slow]).run(call("slow")))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert asyncio.all_tasks() == {asyncio.current_task()}
        gc.collect()


@pytest.mark.parametrize(
    ("tools", "options", "text"),
    [
        ([Tool(name="a")], {}, "the tool a has no function to run"),
        ([{"name": "a", "parameters": {}}], {}, "no function to run"),
        ([print], {}, "takes"),
        ([], {"timeout_s": -1}, "timeout_s"),
        ([], {"max_concurrent": 0}, "max_concurrent"),
        ([], {"max_result_characters": -1}, "max_result_characters"),
    ],
)
def test_a_runner_refuses_what_it_cannot_run(tools: Any, options: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        ToolRunner(tools, **options)


async def test_tools_of_the_provider_are_part_of_the_definitions() -> None:
    def work() -> None: ...

    async with ToolRunner([work, {"type": "web_search"}]) as runner:
        assert [each.name for each in runner.definitions] == ["work", "web_search"]
