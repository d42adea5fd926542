"""The outputs of an answer: bytes into a pipe, rendered text on a terminal, or none."""

from __future__ import annotations

import sys
from typing import Protocol, TextIO

from lm_deluge.cli.render.escape import Escaper
from lm_deluge.cli.render.lines import Row, Run, Wrapper
from lm_deluge.cli.render.markdown import Markdown
from lm_deluge.cli.render.terminal import Screen, is_same_terminal, is_terminal, open_screen, write_text

__all__ = ["Output", "choose_output"]

_REASONING_STYLE = "2;3"


class _Writer(Protocol):
    """Writes text as it arrives."""

    def write(self, text: str) -> None: ...

    def end(self) -> None: ...


class _NullWriter:
    """Writes nothing."""

    def write(self, text: str) -> None:
        """Discard the text."""

    def end(self) -> None:
        """Do nothing."""


class _UnchangedWriter:
    """Writes the unchanged text to a pipe or a file, and flushes it at once."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        write_text(self._file, text)

    def end(self) -> None:
        """Add nothing: the output has only the text of the model."""


class _PlainWriter:
    """Writes to a terminal without escape sequences."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._escaper = Escaper()
        self._is_line_open = False

    def write(self, text: str) -> None:
        if text:
            write_text(self._file, self._escaper.feed(text))
            self._is_line_open = not text.endswith("\n")

    def end(self) -> None:
        if self._is_line_open:
            write_text(self._file, "\n")
        self._is_line_open = False


class _MarkdownWriter:
    """Renders Markdown on a terminal while it grows."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._escaper = Escaper()
        self._markdown: Markdown | None = None

    def write(self, text: str) -> None:
        if self._markdown is None:
            self._markdown = Markdown(self._screen.width, self._screen.height)
        self._markdown.resize(self._screen.width, self._screen.height)
        done = self._markdown.feed(self._escaper.feed(text))
        self._screen.show(done, self._markdown.live())

    def end(self) -> None:
        if self._markdown is not None:
            self._screen.show(self._markdown.finish(), [])
        self._markdown = None


class _TextWriter:
    """Writes text to a terminal as it is, without rendering Markdown: reasoning, or code.

    Args:
        screen: The terminal.
        style: The style of the text.
        by_words: Whether long lines are broken between words.
        gap: The rows below the text.
    """

    def __init__(self, screen: Screen, *, style: str = "", by_words: bool = False, gap: int = 0) -> None:
        self._screen = screen
        self._escaper = Escaper()
        self._style, self._by_words, self._gap = style, by_words, gap
        self._wrapper: Wrapper | None = None

    def write(self, text: str) -> None:
        done: list[Row] = []
        first, *others = self._escaper.feed(text).split("\n")
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
            self._wrapper = Wrapper(self._screen.width, by_words=self._by_words)
        return self._wrapper.feed(Run(text, self._style))

    def end(self) -> None:
        rows = self._wrapper.rest() if self._wrapper else []
        self._wrapper = None
        self._screen.show([*rows, *([] for _ in range(self._gap))], [])


class Output:
    """The outputs of one command: answer, reasoning and status line.

    Text and reasoning may alternate; the output of one is ended before the other is written.
    """

    def __init__(self, answer: _Writer, reasoning: _Writer, screens: list[Screen], status: Screen | None) -> None:
        self._answer = answer
        self._reasoning = reasoning
        self._open: _Writer | None = None
        self._screens = screens
        self._status = status

    @property
    def has_status(self) -> bool:
        """Whether a status line is shown."""
        return self._status is not None

    def write(self, text: str) -> None:
        """Write text of the answer."""
        self._write(self._answer, text)

    def write_reasoning(self, text: str) -> None:
        """Write text of the reasoning."""
        self._write(self._reasoning, text)

    def _write(self, writer: _Writer, text: str) -> None:
        if not text or isinstance(writer, _NullWriter):
            return
        if self._open is not None and self._open is not writer:
            self._open.end()
        self._open = writer
        writer.write(text)

    def show_status(self, status: str) -> None:
        """Draw the status line again."""
        if self._status is not None:
            self._status.update_status(status)

    def end(self) -> None:
        """End the current output and remove the status line."""
        if self._open is not None:
            self._open.end()
        self._open = None
        for screen in self._screens:
            screen.close()


def choose_output(*, is_raw: bool, shows_reasoning: bool, is_silent: bool = False, is_code: bool = False) -> Output:
    """Return the output for the kinds of stdout and stderr.

    Args:
        is_raw: Whether Markdown and escape sequences are off on terminals, too.
        shows_reasoning: Whether the reasoning is written to stderr.
        is_silent: Whether the answer is not written.
        is_code: Whether the answer is code, in which Markdown is not rendered.
    """
    out, err = sys.stdout, sys.stderr
    err_screen = None if is_raw else open_screen(err)
    out_screen = err_screen if is_same_terminal(out, err) else (None if is_raw else open_screen(out))
    answer = _NullWriter() if is_silent else _answer_writer(out, out_screen, is_code=is_code)
    reasoning = _reasoning_writer(err, err_screen) if shows_reasoning else _NullWriter()
    screens = [screen for screen in (err_screen, out_screen) if screen is not None]
    return Output(answer, reasoning, screens, err_screen)


def _answer_writer(file: TextIO, screen: Screen | None, *, is_code: bool) -> _Writer:
    if screen is not None:
        return _TextWriter(screen) if is_code else _MarkdownWriter(screen)
    return _PlainWriter(file) if is_terminal(file) else _UnchangedWriter(file)


def _reasoning_writer(file: TextIO, screen: Screen | None) -> _Writer:
    if screen is not None:
        return _TextWriter(screen, style=_REASONING_STYLE, by_words=True, gap=1)
    # In a file, too, the text after the reasoning starts on a new line.
    return _PlainWriter(file) if is_terminal(file) else _LinesWriter(file)


class _LinesWriter(_UnchangedWriter):
    """Writes several texts to a pipe or a file, each from a new line on."""

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
