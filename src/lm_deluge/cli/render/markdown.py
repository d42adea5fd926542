"""Markdown of an answer while it is written: rows that are final, and rows that may still change.

It works by lines: a line that has ended is final, except in a table that still grows. So a long answer scrolls
correctly, and the cost per token does not grow with the length of the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lm_deluge.cli.render.highlight import Highlighter
from lm_deluge.cli.render.inline import InlineText
from lm_deluge.cli.render.lines import Row, Run, Wrapper, cells_of, row_of
from lm_deluge.cli.render.tables import Table, is_table_line, is_table_rule

__all__ = ["Markdown"]

_UNDECIDED = re.compile(r"\s*(?:>\s?)*\s*(?:[-*_+][-*_ ]*|\d{1,9}[.)]?\s*|#{1,6}\s*|`{1,2}|~{1,2})?(?:\[[ xX]?\]?)?")
_FENCE = re.compile(r"(\s*)(`{3,}|~{3,})\s*([^`\s]*)[^`]*")
_HEADING = re.compile(r" {0,3}(#{1,6})\s+")
_RULE = re.compile(r" {0,3}([-*_])(?:\s*\1){2,}\s*")
_QUOTE = re.compile(r"\s*((?:>\s?)+)")
_ITEM = re.compile(r"(\s*)([-*+]|\d{1,9}[.)])(\s+)(\[[ xX]\]\s+)?")

_HEADING_STYLES = {1: "1;4;36", 2: "1;36", 3: "1"}
_DEEP_HEADING_STYLE = "1;3"
_MARK_STYLE = "36"
_DIM = "2"
_BOXES = {" ": "\u2610 ", "x": "\u2611 "}
_WIDEST_RULE = 60  # cells; longer rules distract in wide windows


@dataclass(frozen=True)
class _Shape:
    """How to draw a line. `hang` is the prefix of further rows; `length` characters of the line are replaced."""

    prefix: Row
    hang: Row
    style: str
    length: int


def _shape(line: str) -> _Shape:
    """Return the shape of a line: heading, quote, list item or plain text."""
    heading = _HEADING.match(line)
    if heading:
        return _Shape([], [], _HEADING_STYLES.get(len(heading[1]), _DEEP_HEADING_STYLE), heading.end())
    quote = _QUOTE.match(line)
    bars = row_of("\u2502 " * quote[1].count(">"), _DIM) if quote else []
    start = quote.end() if quote else 0
    item = _ITEM.match(line, start)
    if item is None:
        spaces = "" if quote else line[: len(line) - len(line.lstrip())]
        return _Shape([*bars, *row_of(spaces)], [*bars, *row_of(spaces)], "3" if quote else "", start + len(spaces))
    indent, mark, _, box = item.groups()
    sign = "\u2022" if mark in "-*+" else mark
    if box:
        sign = ""
    marks = [Run(indent.expandtabs(4)), Run(f"{sign} " if sign else "", _MARK_STYLE)]
    if box:
        marks.append(Run(_BOXES[box[1].lower()], _MARK_STYLE))
    hang = row_of(" " * sum(cells_of(run.text) for run in marks))
    return _Shape([*bars, *(run for run in marks if run.text)], [*bars, *hang], "3" if quote else "", item.end())


class _TextLine:
    """A line of text while it grows, with inline Markdown, wrapped."""

    def __init__(self, shape: _Shape, width: int, most_open: int) -> None:
        # In a narrow window the indentation of deep lists would leave no room for text.
        is_deep = sum(cells_of(run.text) for run in shape.hang) > width // 2
        self._inline = InlineText(shape.style, most_open)
        self._wrapper = Wrapper(width, [] if is_deep else shape.hang)
        self._wrapper.indent([] if is_deep else shape.prefix)

    def feed(self, text: str) -> list[Row]:
        return [row for run in self._inline.feed(text) for row in self._wrapper.feed(run)]

    def resize(self, width: int) -> None:
        self._wrapper.width = width

    def live(self) -> list[Row]:
        wrapper = self._wrapper.copy()
        rows = [row for run in self._inline.open_runs() for row in wrapper.feed(run)]
        return [*rows, *wrapper.rest()]

    def finish(self) -> list[Row]:
        rows = [row for run in self._inline.finish() for row in self._wrapper.feed(run)]
        return [*rows, *self._wrapper.rest()]


class _CodeBlock:
    """The lines of a fenced code block."""

    def __init__(self, fence: str, language: str, width: int) -> None:
        self._fence = fence
        self._highlighter = Highlighter(language)
        self._width = width

    def is_end(self, line: str) -> bool:
        stripped = line.strip()
        return stripped.startswith(self._fence) and not stripped.strip(self._fence[0])

    def rows(self, line: str) -> list[Row]:
        return self._wrapped(self._highlighter.row(line))

    def end_line(self, line: str) -> list[Row]:
        return self._wrapped(self._highlighter.end_line(line))

    def _wrapped(self, runs: Row) -> list[Row]:
        wrapper = Wrapper(self._width, by_words=False)
        done = [row for run in runs for row in wrapper.feed(run)]
        return [*done, *wrapper.rest()]


class Markdown:
    """Turns Markdown into rows.

    Args:
        width: Cells of a row.
        height: Rows of the screen. Fewer rows than that may change: rows that scrolled off cannot be drawn again.
    """

    def __init__(self, width: int, height: int) -> None:
        self._line = ""
        self._text: _TextLine | None = None
        self.resize(width, height)
        self._code: _CodeBlock | None = None
        self._long: Wrapper | None = None
        self._table: Table | None = None

    def resize(self, width: int, height: int) -> None:
        """Use another size for the rows that follow."""
        self._width = max(width, 8)
        self._most_rows = max(height - 4, 2)
        self._most_open = max(self._width * self._most_rows // 2, 16)
        if self._text is not None:
            self._text.resize(self._width)

    def feed(self, text: str) -> list[Row]:
        """Add text; return the rows that are final now."""
        done: list[Row] = []
        first, *others = text.split("\n")
        if first:
            done += self._grow(first)
        for piece in others:
            done += self._end_line()
            if piece:
                done += self._grow(piece)
        return done

    def finish(self) -> list[Row]:
        """End the text; return the remaining rows."""
        done = self._end_line() if self._line or self._text or self._long else []
        done += self._end_table()
        self._code = None
        return done

    def live(self) -> list[Row]:
        """Return the rows that may still change."""
        if self._text is not None:
            return self._text.live()
        if self._long is not None:
            return self._long.rest()
        if self._code is not None and self._line:
            return self._code.rows(self._line)
        if self._table is not None and (not self._line or is_table_line(self._line)):
            return self._table.rows(self._line)
        above = self._table.rows() if self._table is not None else []
        return [*above, *self._plain(self._line)] if self._line else above

    def _grow(self, piece: str) -> list[Row]:
        if self._text is not None:
            return self._text.feed(piece)
        if self._long is not None:
            return self._long.feed(Run(piece))
        self._line += piece
        if len(self._line) > self._most_open:
            return self._draw_unparsed()
        if self._code is not None or is_table_line(self._line) or _UNDECIDED.fullmatch(self._line):
            return []
        if _FENCE.fullmatch(self._line):
            return []
        return [*self._end_table(), *self._start_text()]

    def _draw_unparsed(self) -> list[Row]:
        """Draw the start of a line that is too long to wait for its end."""
        done = self._end_table()
        if self._code is None:
            return [*done, *self._start_text()]
        self._long = Wrapper(self._width, by_words=False)
        line, self._line = self._line, ""
        return [*done, *self._long.feed(Run(line))]

    def _start_text(self) -> list[Row]:
        line, self._line = self._line, ""
        shape = _shape(line)
        self._text = _TextLine(shape, self._width, self._most_open)
        return self._text.feed(line[shape.length :])

    def _end_line(self) -> list[Row]:
        if self._text is not None:
            rows = self._text.finish()
            self._text = None
            return rows
        if self._long is not None:
            rows = self._long.rest()
            self._long = None
            return rows
        line, self._line = self._line, ""
        return self._end_code_line(line, self._code) if self._code is not None else self._end_whole_line(line)

    def _end_code_line(self, line: str, code: _CodeBlock) -> list[Row]:
        if not code.is_end(line):
            return code.end_line(line)
        self._code = None
        return self._plain(line)

    def _end_whole_line(self, line: str) -> list[Row]:
        """Draw a line whose kind depends on the whole line."""
        if is_table_line(line):
            return self._add_to_table(line)
        done = self._end_table()
        fence = _FENCE.fullmatch(line)
        if fence:
            self._code = _CodeBlock(fence[2], fence[3], self._width)
            return [*done, *self._plain(line)]
        if _RULE.fullmatch(line):
            return [*done, row_of("\u2500" * min(self._width, _WIDEST_RULE), _DIM)]
        return [*done, *self._text_rows(line)]

    def _add_to_table(self, line: str) -> list[Row]:
        if self._table is None:
            self._table = Table(self._width, self._most_rows)
        elif len(self._table.lines) == 1 and not is_table_rule(line):
            return [*self._end_table(), *self._add_to_table(line)]
        return self._table.add(line)

    def _end_table(self) -> list[Row]:
        table, self._table = self._table, None
        if table is None:
            return []
        return table.rows() if table.is_table else [row for line in table.lines for row in self._text_rows(line)]

    def _text_rows(self, line: str) -> list[Row]:
        shape = _shape(line)
        text = _TextLine(shape, self._width, self._most_open)
        return [*text.feed(line[shape.length :]), *text.finish()]

    def _plain(self, line: str) -> list[Row]:
        wrapper = Wrapper(self._width, by_words=False)
        return [*wrapper.feed(Run(line, _DIM)), *wrapper.rest()]
