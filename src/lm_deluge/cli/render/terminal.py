"""A terminal: final rows, below them live rows that may be drawn again, and a status line.

A redraw overwrites the live rows in place, in one write and without erasing them first, so the screen does not flicker.
Final rows are never drawn again, so the scrollback of the terminal is correct. The cursor stands at the end of
the text.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TextIO

from lm_deluge.cli.environment import has_colours, is_dumb_terminal
from lm_deluge.cli.render.lines import Row, Run, Wrapper, cells_of, paint, row_of, without_colours
from lm_deluge.cli.render.windows_console import enable_escape_sequences, is_console

__all__ = [
    "SEPARATOR",
    "Screen",
    "is_same_terminal",
    "is_terminal",
    "open_screen",
    "report",
    "report_aside",
    "wrapped",
    "write_text",
]

_ERASE_RIGHT = "\x1b[K"
_ERASE_BELOW = "\x1b[J"
_STATUS_STYLE = "2"
_DEFAULT_SIZE = os.terminal_size((80, 24))  # the size of a VT100, which programs assume where the size is unknown

SEPARATOR = " \u00b7 "
"""Between the items of a status line."""


def is_terminal(file: TextIO) -> bool:
    """Whether `file` is a terminal. A closed file is not."""
    try:
        return file.isatty() and is_console(file.fileno())
    except (OSError, ValueError, AttributeError):
        return False


def is_same_terminal(one: TextIO, other: TextIO) -> bool:
    """Whether both files are the same terminal, so that their texts mix."""
    if not (is_terminal(one) and is_terminal(other)):
        return False
    if sys.platform == "win32":
        return True  # a process has at most one console
    return os.fstat(one.fileno()).st_rdev == os.fstat(other.fileno()).st_rdev


def write_text(file: TextIO, text: str) -> None:
    """Write text without changes, in UTF-8 in any locale, and flush.

    Raises:
        BrokenPipeError: The program that reads the file has ended.
    """
    buffer = getattr(file, "buffer", None)
    try:
        if buffer is None:
            file.write(text)
            file.flush()
        else:
            file.flush()
            buffer.write(text.encode("utf-8", "replace"))
            buffer.flush()
    except OSError as error:
        # https://github.com/python/cpython/issues/79935
        if sys.platform == "win32" and error.errno == errno.EINVAL:
            raise BrokenPipeError(errno.EPIPE, "the reader of the pipe has ended") from error
        raise


def open_screen(file: TextIO) -> Screen | None:
    """Return the screen of `file`, or None if it is not a terminal or does not support escape sequences."""
    if not is_terminal(file) or is_dumb_terminal():
        return None
    return Screen(file) if enable_escape_sequences(file.fileno()) else None


class Screen:
    """Draws on one terminal. Rows must not be wider than `width`."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._live: list[Row] = []
        self._painted: list[str] = []
        self._status = ""
        self._columns = self._size().columns
        self._has_colours = has_colours()

    def _paint(self, row: Row) -> str:
        return paint(row) if self._has_colours else paint([without_colours(run) for run in row])

    def _size(self) -> os.terminal_size:
        try:
            size = os.get_terminal_size(self._file.fileno())
            return os.terminal_size((size.columns or _DEFAULT_SIZE.columns, size.lines or _DEFAULT_SIZE.lines))
        except (OSError, ValueError):
            return _DEFAULT_SIZE

    @property
    def width(self) -> int:
        """Most cells of a row. The last column stays free, because terminals differ in how they wrap there."""
        return max(self._size().columns - 1, 1)

    @property
    def height(self) -> int:
        """Rows of the screen."""
        return self._size().lines

    def show(self, done: list[Row], live: list[Row], status: str | None = None) -> None:
        """Draw final rows in place of the previous live rows, and new live rows below them.

        Args:
            done: The final rows.
            live: The live rows.
            status: The status line; None for the same as before.
        """
        status = self._status if status is None else status
        painted = [self._paint(row) for row in (*done, *live)]
        columns = self._size().columns
        first = self._first_change(painted) if columns == self._columns else 0
        out = [self._go_up_to(first, columns), *self._lines(painted, first, status)]
        self._columns = columns
        out.append(self._park(done, live, status))
        self._live, self._painted, self._status = list(live), painted[len(done) :], status
        write_text(self._file, "".join(out))

    def _first_change(self, painted: list[str]) -> int:
        """Return the index of the first row that differs from the screen, at most that of the row with the cursor."""
        same = 0
        for old, new in zip(self._painted, painted, strict=False):
            if old != new:
                break
            same += 1
        return min(same, max(len(self._painted) - 1, 0))

    def _go_up_to(self, first: int, columns: int) -> str:
        """Return the escape sequence that moves the cursor to the start of a live row.

        If the window was made narrower, the terminal has wrapped rows, so that they take several rows of the screen.
        """
        up = sum(max(-(-_row_cells(row) // columns), 1) for row in self._live[first:]) - 1
        return f"\r\x1b[{up}A" if up > 0 else "\r"

    def _lines(self, painted: list[str], first: int, status: str) -> list[str]:
        lines = painted[first:]
        if status:
            lines = [*lines, paint(row_of(_cut(status, self.width), _STATUS_STYLE))]
        return ["\r\n".join(line + _ERASE_RIGHT for line in lines), _ERASE_BELOW]

    def _park(self, done: list[Row], live: list[Row], status: str) -> str:
        """Return the escape sequence that moves the cursor from the end of the last line to the end of the text."""
        if not live:
            # The text continues in the next row, which is that of the status line if there is one.
            return "\r" if status or not done else "\r\n"
        if not status:
            return ""
        cells = _row_cells(live[-1]) % self._size().columns
        return "\r\x1b[A" + (f"\x1b[{cells}C" if cells else "")

    def update_status(self, status: str) -> None:
        """Draw the status line if it has changed."""
        if status != self._status:
            self.show([], self._live, status)

    def clear(self) -> None:
        """Make the live rows final, remove the status line and move the cursor to a new row."""
        self.show(self._live, [], "")

    def close(self) -> None:
        """Do the same as `clear`, and ignore errors of the terminal."""
        with contextlib.suppress(OSError, ValueError):
            self.clear()


def _row_cells(row: Row) -> int:
    return sum(cells_of(run.text) for run in row)


def _cut(text: str, width: int) -> str:
    """Return as much of a status line as fits, cut between two items if possible."""
    while cells_of(text) > width:
        shorter, separator, _ = text.rpartition(SEPARATOR)
        text = shorter if separator else text[:-1]
    return text


def report(text: str) -> None:
    """Print a message on stderr, wrapped on a terminal. A stderr that cannot be written is ignored."""
    with contextlib.suppress(OSError, ValueError):
        if is_terminal(sys.stderr):
            width = Screen(sys.stderr).width
            text = "\n".join(row for line in text.split("\n") for row in wrapped(line, width))
        write_text(sys.stderr, text + "\n")


def wrapped(line: str, width: int) -> list[str]:
    """Return the rows of a line, at most `width` cells wide; at least one row."""
    wrapper = Wrapper(width)
    rows = [*wrapper.feed(Run(line)), *wrapper.rest()]
    return ["".join(run.text for run in row) for row in rows]


def report_aside(text: str, *, is_raw: bool = False) -> None:
    """Print a less important message on stderr, faint and wrapped between its items on a terminal."""
    screen = None if is_raw else open_screen(sys.stderr)
    if screen is None:
        report(text)
        return
    rows = [""]
    for item in text.split(SEPARATOR):
        row = f"{rows[-1]}{SEPARATOR}{item}" if rows[-1] else item
        if cells_of(row) > screen.width and rows[-1]:
            rows.append(item)
        else:
            rows[-1] = row
    with contextlib.suppress(OSError, ValueError):
        write_text(sys.stderr, "".join(paint(row_of(row, _STATUS_STYLE)) + "\n" for row in rows))
