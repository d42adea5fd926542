"""Styled text, wrapped into rows of a terminal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from rich.cells import get_character_cell_size

__all__ = ["Row", "Run", "Wrapper", "cells_of", "paint", "row_of", "without_colours"]

_TAB_CELLS = 4  # terminals use 8; 4 keeps indented code and lists within narrow windows
_EMOJI_VARIANT = "\ufe0f"
_REGIONAL = range(0x1F1E6, 0x1F200)
_WIDE = 2  # cells of ideographs and emoji: https://www.unicode.org/reports/tr11/


class Run(NamedTuple):
    """Text in one style. `style` has the parameters of the escape sequence: "1;36" is bold and cyan."""

    text: str
    style: str = ""


Row = list[Run]


def _cells(char: str) -> int:
    """Return the maximum of cells that a character takes.

    Terminals disagree about joined emoji. The sum of their parts is never too small, so a row never exceeds the width
    of the screen; a redraw relies on that.
    """
    if char == _EMOJI_VARIANT:
        return 1
    return _WIDE if ord(char) in _REGIONAL else get_character_cell_size(char)


def cells_of(text: str) -> int:
    """Return the maximum of cells that a text takes."""
    if text.isascii():
        return len(text)
    return sum(_cells(char) for char in text)


def row_of(text: str, style: str = "") -> Row:
    """Return a row with one run, or an empty row."""
    return [Run(text, style)] if text else []


def without_colours(run: Run) -> Run:
    """Return the run with bold, italic and underline, but without colours."""
    kept = [code for code in run.style.split(";") if not code.startswith("3") or code == "3"]
    return Run(run.text, ";".join(kept))


def paint(row: Row) -> str:
    """Return a row with escape sequences, one for neighbours of the same style."""
    pieces: list[str] = []
    last = ""
    for text, style in row:
        if style != last:
            pieces.append(f"\x1b[0;{style}m" if last and style else f"\x1b[{style or 0}m")
            last = style
        pieces.append(text)
    if last:
        pieces.append("\x1b[0m")
    return "".join(pieces)


def _add(row: Row, run: Run) -> None:
    if row and row[-1].style == run.style:
        row[-1] = Run(row[-1].text + run.text, run.style)
    else:
        row.append(run)


@dataclass
class Wrapper:
    """Wraps words while they arrive. Its state is one row and one word, regardless of the length of the text.

    Attributes:
        width: Cells of a row.
        hang: The prefix of each row after the first, for example the indentation of a list item.
        by_words: Whether to break rows between words; else rows are broken when they are full, as for code.
    """

    width: int
    hang: Row = field(default_factory=list)
    by_words: bool = True
    _row: Row = field(default_factory=list)
    _row_cells: int = 0
    _word: Row = field(default_factory=list)
    _word_cells: int = 0
    _is_empty: bool = True  # the row has only its indentation
    _is_cut: bool = False  # inside a word that is longer than a row

    def copy(self) -> Wrapper:
        """Return an independent copy."""
        new = Wrapper(self.width, self.hang, self.by_words)
        new._row, new._row_cells = list(self._row), self._row_cells
        new._word, new._word_cells = list(self._word), self._word_cells
        new._is_empty, new._is_cut = self._is_empty, self._is_cut
        return new

    def indent(self, prefix: Row) -> None:
        """Put `prefix` before the first row."""
        for run in prefix:
            _add(self._row, run)
            self._row_cells += cells_of(run.text)

    def feed(self, run: Run) -> list[Row]:
        """Add text; return the rows that are complete now."""
        done: list[Row] = []
        text, style = run
        word: list[str] = []
        for char in text:
            if char in " \t":
                self._grow(word, style, done)
                self._space(char, style, done)
                continue
            cells = _cells(char)
            if cells == _WIDE and self.by_words and (word or self._word_cells):
                # Text in ideographs has no spaces: a row may end between any two of them.
                self._grow(word, style, done)
                self._end_word(done)
            word.append(char)
            if not self.by_words and len(word) >= self.width:
                self._grow(word, style, done)
        self._grow(word, style, done)
        return done

    def _grow(self, letters: list[str], style: str, done: list[Row]) -> None:
        """Add letters to the word. A word that is longer than a row starts on a new row and is cut."""
        if not letters:
            return
        text = "".join(letters)
        letters.clear()
        room = self.width - self._indent_cells() if self.by_words and not self._is_cut else 0
        cells = cells_of(text)
        if self._word_cells + cells <= room:
            _add(self._word, Run(text, style))
            self._word_cells += cells
            return
        for char in text:
            cells = _cells(char)
            if self._word_cells + cells <= room:
                _add(self._word, Run(char, style))
                self._word_cells += cells
                continue
            self._end_word(done)
            room, self._is_cut = 0, True
            self._put(Run(char, style), cells, done)

    def _indent_cells(self) -> int:
        return sum(cells_of(run.text) for run in self.hang)

    def _space(self, char: str, style: str, done: list[Row]) -> None:
        self._end_word(done)
        cells = 1 if char == " " else _TAB_CELLS - self._row_cells % _TAB_CELLS
        if self._row_cells + cells > self.width and self.by_words:
            return  # the end of the row stands for the space
        for _ in range(cells):
            self._put(Run(" ", style), 1, done)

    def _end_word(self, done: list[Row]) -> None:
        self._is_cut = False
        if not self._word:
            return
        if self._row_cells + self._word_cells > self.width and not self._is_empty:
            self._break(done)
        for run in self._word:
            _add(self._row, run)
        self._row_cells += self._word_cells
        self._is_empty = False
        self._word, self._word_cells = [], 0

    def _put(self, run: Run, cells: int, done: list[Row]) -> None:
        if self._row_cells + cells > self.width and not self._is_empty:
            self._break(done)
        _add(self._row, run)
        self._row_cells += cells
        self._is_empty = False

    def _break(self, done: list[Row]) -> None:
        done.append(_without_end_space(self._row) if self.by_words else self._row)
        self._row = list(self.hang)
        self._row_cells = self._indent_cells()
        self._is_empty = True

    def rest(self) -> list[Row]:
        """Return the incomplete rows: the last row, and another row if the current word does not fit."""
        return self.copy().finish()

    def finish(self) -> list[Row]:
        """End the text; return the remaining rows."""
        done: list[Row] = []
        self._end_word(done)
        return [*done, self._row]


def _without_end_space(row: Row) -> Row:
    kept = list(row)
    while kept and not kept[-1].text.strip(" "):
        kept.pop()
    if kept and kept[-1].text.endswith(" "):
        kept[-1] = Run(kept[-1].text.rstrip(" "), kept[-1].style)
    return kept
