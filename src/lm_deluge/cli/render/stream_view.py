"""Shows a stream while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator

from lm_deluge.cli.render.code_block import FirstCodeBlock
from lm_deluge.cli.render.output import Output
from lm_deluge.cli.render.status_line import describe_retry, running_status
from lm_deluge.cli.render.terminal import SEPARATOR, report
from lm_deluge.cli.terminal_echo import hide_typing
from lm_deluge.client.stream import Stream
from lm_deluge.events import (
    Event,
    MediaDelta,
    ReasoningDelta,
    RefusalDelta,
    RoundStarted,
    TextDelta,
    ToolProgress,
    ToolResult,
)
from lm_deluge.response import APIResponse

__all__ = ["show_stream", "watch_for_closed_stdout"]

_STATUS_EVERY_S = 0.1  # smooth for the eye, and few writes for a slow terminal


class _Activity:
    """The current activity of the model, in one word."""

    def __init__(self) -> None:
        self.word = "waiting"

    def note(self, events: list[Event]) -> None:
        for event in events:
            self.word = _WORDS.get(type(event), self.word)


_WORDS: dict[type, str] = {
    TextDelta: "writing",
    RefusalDelta: "writing",
    ReasoningDelta: "thinking",
    MediaDelta: "drawing or speaking",
    ToolProgress: "running a tool",
    ToolResult: "running a tool",
    RoundStarted: "waiting",
}


async def show_stream(
    stream: Stream, output: Output, *, code: FirstCodeBlock | None = None, is_quiet: bool = False
) -> APIResponse:
    """Show a stream while it runs and return the answer. At any end the output is ended and the connection closed.

    Args:
        stream: The stream.
        output: The outputs.
        code: Show only the first code block of the answer, which this object finds.
        is_quiet: Do not report on stderr that the stream waits for another attempt.

    Raises:
        DelugeError: The call failed; the text before the failure was shown.
        BrokenPipeError: The program that reads the output has ended.
    """
    activity = _Activity()
    show = _draw_status if output.has_status else _do_nothing if is_quiet else _report_retries
    ticker = asyncio.ensure_future(show(stream, output, activity))
    write = output.write if code is None else lambda text: output.write(code.feed(text))
    try:
        with hide_typing(sys.stdout):
            async with stream:
                while events := await stream.next_batch():
                    activity.note(events)
                    _write(events, output, write)
                return stream.response
    finally:
        ticker.cancel()
        if code is not None:
            output.write(code.finish())
        output.end()


def _write(events: list[Event], output: Output, write: Callable[[str], None]) -> None:
    """Write text and reasoning of one read, in order, with as few writes as possible."""
    text: list[str] = []
    for event in events:
        if isinstance(event, TextDelta | RefusalDelta):
            text.append(event.text)
        elif isinstance(event, ReasoningDelta):
            write("".join(text))
            text.clear()
            output.write_reasoning(event.text)
    write("".join(text))


async def _draw_status(stream: Stream, output: Output, activity: _Activity) -> None:
    loop = asyncio.get_running_loop()
    while True:
        response, retry = stream.response, stream.pending_retry
        word = activity.word
        if retry is not None:
            word = SEPARATOR.join(describe_retry(retry, now=loop.time()))
        elif word == "waiting" and response.stats is not None and response.stats.attempts > 1:
            word = f"waiting, attempt {response.stats.attempts}"
        output.show_status(running_status(response, activity=word))
        await asyncio.sleep(_STATUS_EVERY_S)


async def _report_retries(stream: Stream, output: Output, activity: _Activity) -> None:
    """Report each wait for another attempt once, in a line on stderr."""
    loop = asyncio.get_running_loop()
    reported = 0
    while True:
        retry = stream.pending_retry
        if retry is not None and retry.attempt > reported:
            reported = retry.attempt
            report(": ".join(describe_retry(retry, now=loop.time())))
        await asyncio.sleep(_STATUS_EVERY_S)


async def _do_nothing(stream: Stream, output: Output, activity: _Activity) -> None:
    """Show nothing."""


@contextlib.contextmanager
def watch_for_closed_stdout() -> Iterator[None]:
    """End the current task with BrokenPipeError as soon as the program that reads stdout ends.

    Otherwise only the next write would fail, and a model that thinks for minutes would be paid for in vain.
    """
    descriptor = _pipe_of_stdout()
    if descriptor is None:
        yield
        return
    watched: int = descriptor
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    is_closed = False

    def on_closed() -> None:
        nonlocal is_closed
        is_closed = True
        loop.remove_reader(watched)
        if task is not None:
            task.cancel()

    try:
        loop.add_reader(watched, on_closed)
    except (OSError, NotImplementedError):
        yield
        return
    try:
        yield
    except asyncio.CancelledError:
        if is_closed and task is not None and task.uncancel() == 0:
            raise BrokenPipeError from None
        raise
    finally:
        loop.remove_reader(watched)


def _pipe_of_stdout() -> int | None:
    """Return the descriptor of stdout if it is a pipe on Linux: elsewhere `add_reader` does not notice its end."""
    import os
    import stat

    if sys.platform != "linux":
        return None
    try:
        descriptor = sys.stdout.fileno()
        return descriptor if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else None
    except (OSError, ValueError, AttributeError):
        return None
