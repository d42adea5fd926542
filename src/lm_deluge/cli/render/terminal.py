"""A terminal: rows that scroll by for good, a few below them that may be drawn again, and a status line.

What is drawn again is written over in place, in one write, without being erased first: nothing flickers, and what has
scrolled off is left to the terminal's own scrollback. The cursor rests at the end of the text.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

from lm_deluge.cli.environment import has_colours, is_dumb_terminal
from lm_deluge.cli.render.lines import Row, Run, Wrapper, cells_of, paint, row_of, without_colours

__all__ = [
    "SEPARATOR",
    "Screen",
    "is_same_terminal",
    "is_terminal",
    "open_screen",
    "report",
    "report_aside",
    "write_text",
]

_ERASE_RIGHT = "\x1b[K"
_ERASE_BELOW = "\x1b[J"
_STATUS_STYLE = "2"

SEPARATOR = " \u00b7 "
"""Between the items of a status line."""


def is_terminal(file: TextIO) -> bool:
    """Whether `file` is a terminal; a closed one is none."""
    try:
        return file.isatty()
    except (ValueError, AttributeError):
        return False


def is_same_terminal(one: TextIO, other: TextIO) -> bool:
    """Whether both files are the same terminal, so that what is written to them mixes."""
    if not (is_terminal(one) and is_terminal(other)):
        return False
    return os.fstat(one.fileno()).st_rdev == os.fstat(other.fileno()).st_rdev


def write_text(file: TextIO, text: str) -> None:
    """Write text as it is, in UTF-8 whatever the locale says, and flush."""
    buffer = getattr(file, "buffer", None)
    if buffer is None:
        file.write(text)
    else:
        file.flush()
        buffer.write(text.encode("utf-8", "replace"))
        buffer.flush()
        return
    file.flush()


def open_screen(file: TextIO) -> Screen | None:
    """Return the screen behind `file`, None where it is no terminal or one that knows no escape sequences."""
    return Screen(file) if is_terminal(file) and not is_dumb_terminal() else None


class Screen:
    """Draws on one terminal. Rows must be made for `width`."""

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
            return os.get_terminal_size(self._file.fileno())
        except (OSError, ValueError):
            return os.terminal_size((80, 24))

    @property
    def width(self) -> int:
        """Cells that a row may have: the last column stays free, for terminals that wrap there differ."""
        return max((self._size().columns or 80) - 1, 1)

    @property
    def height(self) -> int:
        """Rows of the screen."""
        return self._size().lines or 24

    def show(self, done: list[Row], live: list[Row], status: str | None = None) -> None:
        """Draw rows for good, and those that may still change below them.

        Args:
            done: They begin where the live rows of the call before began.
            live: What stands below, until the next call.
            status: The last line; None leaves it as it is.
        """
        status = self._status if status is None else status
        painted = [self._paint(row) for row in (*done, *live)]
        columns = self._size().columns or 80
        first = self._first_change(painted) if columns == self._columns else 0
        out = [self._go_up_to(first, columns), *self._lines(painted, first, status)]
        self._columns = columns
        out.append(self._park(done, live, status))
        self._live, self._painted, self._status = list(live), painted[len(done) :], status
        write_text(self._file, "".join(out))

    def _first_change(self, painted: list[str]) -> int:
        """Return the first row that is not on the screen already, at most the one that the cursor is on."""
        same = 0
        for old, new in zip(self._painted, painted, strict=False):
            if old != new:
                break
            same += 1
        return min(same, max(len(self._painted) - 1, 0))

    def _go_up_to(self, first: int, columns: int) -> str:
        """Return what moves the cursor from its place to the beginning of a live row.

        In a window that was made narrower, the terminal wraps rows, and they take several of its own.
        """
        up = sum(max(-(-_row_cells(row) // columns), 1) for row in self._live[first:]) - 1
        return f"\r\x1b[{up}A" if up > 0 else "\r"

    def _lines(self, painted: list[str], first: int, status: str) -> list[str]:
        lines = painted[first:]
        if status:
            lines = [*lines, paint(row_of(_cut(status, self.width), _STATUS_STYLE))]
        return ["\r\n".join(line + _ERASE_RIGHT for line in lines), _ERASE_BELOW]

    def _park(self, done: list[Row], live: list[Row], status: str) -> str:
        """Return what moves the cursor from the end of the last line to the end of the text."""
        if not live:
            # The text goes on in the next row; where a status line stands, that is its row.
            return "\r" if status or not done else "\r\n"
        if not status:
            return ""
        cells = _row_cells(live[-1]) % (self._size().columns or 80)
        return "\r\x1b[A" + (f"\x1b[{cells}C" if cells else "")

    def update_status(self, status: str) -> None:
        """Draw the status line again and leave the text alone."""
        if status != self._status:
            self.show([], self._live, status)

    def clear(self) -> None:
        """Make what was live final and take the status line away; the cursor goes to a row of its own."""
        self.show(self._live, [], "")

    def close(self) -> None:
        """Leave the terminal in order, whatever it is like by now."""
        with contextlib.suppress(OSError, ValueError):
            self.clear()


def _row_cells(row: Row) -> int:
    return sum(cells_of(run.text) for run in row)


def _cut(text: str, width: int) -> str:
    """Return as much of a status line as fits, whole items where possible."""
    while cells_of(text) > width:
        shorter, separator, _ = text.rpartition(SEPARATOR)
        text = shorter if separator else text[:-1]
    return text


def report(text: str) -> None:
    """Say something to the user, beside the answer: on stderr, if anybody reads that; wrapped on a terminal."""
    with contextlib.suppress(OSError, ValueError):
        if is_terminal(sys.stderr):
            width = Screen(sys.stderr).width
            text = "\n".join(row for line in text.split("\n") for row in _wrapped(line, width))
        write_text(sys.stderr, text + "\n")


def _wrapped(line: str, width: int) -> list[str]:
    wrapper = Wrapper(width)
    rows = [*wrapper.feed(Run(line)), *wrapper.rest()]
    return ["".join(run.text for run in row) for row in rows]


def report_aside(text: str, *, is_raw: bool = False) -> None:
    """Say what is not so important: in a faint colour where there is one, cut between its items."""
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
