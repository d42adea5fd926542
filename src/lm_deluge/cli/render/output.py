"""Where an answer goes: byte for byte into a pipe, readable onto a terminal, nowhere."""

from __future__ import annotations

import sys
from typing import Protocol, TextIO

from lm_deluge.cli.render.escape import visible
from lm_deluge.cli.render.lines import Row, Run, Wrapper
from lm_deluge.cli.render.markdown import Markdown
from lm_deluge.cli.render.terminal import Screen, is_same_terminal, is_terminal, open_screen, write_text

__all__ = ["Output", "choose_output"]

_REASONING_STYLE = "2;3"


class _Sink(Protocol):
    """Takes text as it comes."""

    def write(self, text: str) -> None: ...

    def end(self) -> None: ...


class _NullSink:
    """For text that nobody wants to see."""

    def write(self, text: str) -> None:
        """Drop it."""

    def end(self) -> None:
        """Nothing was begun."""


class _BytesSink:
    """A pipe or a file: the text itself, flushed at once."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        write_text(self._file, text)

    def end(self) -> None:
        """Add nothing: what comes out is what the model wrote."""


class _PlainSink:
    """A terminal without any escape sequence of ours."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._is_line_open = False

    def write(self, text: str) -> None:
        if text:
            write_text(self._file, visible(text))
            self._is_line_open = not text.endswith("\n")

    def end(self) -> None:
        if self._is_line_open:
            write_text(self._file, "\n")
        self._is_line_open = False


class _MarkdownSink:
    """A terminal on which the answer is drawn while it grows."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._markdown: Markdown | None = None

    def write(self, text: str) -> None:
        if self._markdown is None:
            self._markdown = Markdown(self._screen.width, self._screen.height)
        self._markdown.resize(self._screen.width, self._screen.height)
        done = self._markdown.feed(visible(text))
        self._screen.show(done, self._markdown.live())

    def end(self) -> None:
        if self._markdown is not None:
            self._screen.show(self._markdown.finish(), [])
        self._markdown = None


class _ReasoningSink:
    """A terminal on which reasoning is drawn, set off from the answer."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._wrapper: Wrapper | None = None

    def write(self, text: str) -> None:
        done: list[Row] = []
        first, *others = visible(text).split("\n")
        done += self._feed(first)
        for line in others:
            done += self._wrapper.rest() if self._wrapper else [[]]
            self._wrapper = None
            done += self._feed(line)
        self._screen.show(done, self._wrapper.rest() if self._wrapper else [])

    def _feed(self, text: str) -> list[Row]:
        if not text:
            return []
        if self._wrapper is None:
            self._wrapper = Wrapper(self._screen.width)
        return self._wrapper.feed(Run(text, _REASONING_STYLE))

    def end(self) -> None:
        rows = self._wrapper.rest() if self._wrapper else []
        self._wrapper = None
        self._screen.show([*rows, []], [])


class Output:
    """Answer, reasoning and status of one command, each in its place.

    Text and reasoning may alternate; the one is ended where the other begins.
    """

    def __init__(self, answer: _Sink, reasoning: _Sink, screens: list[Screen], status: Screen | None) -> None:
        self._answer = answer
        self._reasoning = reasoning
        self._open: _Sink | None = None
        self._screens = screens
        self._status = status

    @property
    def has_status(self) -> bool:
        """Whether anybody sees a status line."""
        return self._status is not None

    def write(self, text: str) -> None:
        """Show a piece of the answer."""
        self._write(self._answer, text)

    def write_reasoning(self, text: str) -> None:
        """Show a piece of the reasoning."""
        self._write(self._reasoning, text)

    def _write(self, sink: _Sink, text: str) -> None:
        if not text or isinstance(sink, _NullSink):
            return
        if self._open is not None and self._open is not sink:
            self._open.end()
        self._open = sink
        sink.write(text)

    def show_status(self, status: str) -> None:
        """Draw the status line again."""
        if self._status is not None:
            self._status.update_status(status)

    def end(self) -> None:
        """Bring what was begun to its end and take the status line away."""
        if self._open is not None:
            self._open.end()
        self._open = None
        for screen in self._screens:
            screen.close()


def choose_output(*, is_raw: bool, shows_reasoning: bool, is_silent: bool = False) -> Output:
    """Return where an answer goes, from what stdout and stderr are.

    Args:
        is_raw: No Markdown and no escape sequences, whatever they are.
        shows_reasoning: The reasoning goes to stderr.
        is_silent: The answer itself is not shown.
    """
    out, err = sys.stdout, sys.stderr
    err_screen = None if is_raw else open_screen(err)
    out_screen = err_screen if is_same_terminal(out, err) else (None if is_raw else open_screen(out))
    answer = _NullSink() if is_silent else _answer_sink(out, out_screen)
    reasoning = _reasoning_sink(err, err_screen) if shows_reasoning else _NullSink()
    screens = [screen for screen in (err_screen, out_screen) if screen is not None]
    return Output(answer, reasoning, screens, err_screen)


def _answer_sink(file: TextIO, screen: Screen | None) -> _Sink:
    if screen is not None:
        return _MarkdownSink(screen)
    return _PlainSink(file) if is_terminal(file) else _BytesSink(file)


def _reasoning_sink(file: TextIO, screen: Screen | None) -> _Sink:
    if screen is not None:
        return _ReasoningSink(screen)
    # Also in a file, what comes after the reasoning begins on a line of its own.
    return _PlainSink(file) if is_terminal(file) else _LinesSink(file)


class _LinesSink(_BytesSink):
    """A pipe or a file that takes more than one text, one below the other."""

    def __init__(self, file: TextIO) -> None:
        super().__init__(file)
        self._is_line_open = False

    def write(self, text: str) -> None:
        super().write(text)
        self._is_line_open = not text.endswith("\n")

    def end(self) -> None:
        if self._is_line_open:
            super().write("\n")
        self._is_line_open = False
