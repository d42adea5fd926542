"""Tables of an answer, with columns that fit the width of the terminal."""

from __future__ import annotations

import re

from lm_deluge.cli.render.inline import InlineText
from lm_deluge.cli.render.lines import Row, Run, Wrapper, cells_of, row_of

__all__ = ["Table", "is_table_line", "is_table_rule"]

_RULE = re.compile(r"\s*\|?(\s*:?-+:?\s*\|)*\s*:?-+:?\s*\|?\s*")
_GAP = " \u2502 "
_NARROWEST = 4  # cells of a column; narrower columns are unreadable, so such a table is shown as plain lines


def is_table_line(line: str) -> bool:
    """Whether a line can be a row of a table."""
    return line.lstrip().startswith("|")


def is_table_rule(line: str) -> bool:
    """Whether a line is the rule between the header of a table and its body."""
    return "-" in line and _RULE.fullmatch(line) is not None


def _split(line: str) -> list[str]:
    body = line.strip()
    body = body.removeprefix("|")
    if body.endswith("|") and not body.endswith("\\|"):
        body = body[:-1]
    cells = [""]
    is_code = False
    position = 0
    while position < len(body):
        char = body[position]
        if char == "\\" and body[position + 1 : position + 2] == "|":
            cells[-1] += "|"
            position += 2
            continue
        is_code ^= char == "`"
        if char == "|" and not is_code:
            cells.append("")
        else:
            cells[-1] += char
        position += 1
    return [cell.strip() for cell in cells]


def _runs(cell: str, style: str = "") -> Row:
    text = InlineText(style)
    return [*text.feed(cell), *text.finish()]


def _alignments(rule: str) -> list[str]:
    return ["right" if cell.endswith(":") and not cell.startswith(":") else "left" for cell in _split(rule)]


class Table:
    """Lays out the rows of a table, and does so again for each new row while all of the table is on the screen.

    Args:
        width: Cells of a row of the terminal.
        most_rows: Most rows that can be drawn again. In a longer table the columns keep their widths.
    """

    def __init__(self, width: int, most_rows: int) -> None:
        self._width = width
        self._most_rows = most_rows
        self._lines: list[str] = []
        self._settled = 0
        self._widths: list[int] = []

    @property
    def lines(self) -> list[str]:
        """The source lines."""
        return self._lines

    @property
    def is_table(self) -> bool:
        """Whether the second line is the rule of a table."""
        return len(self._lines) > 1 and is_table_rule(self._lines[1])

    def add(self, line: str) -> list[Row]:
        """Add a complete line; return the rows that are final now."""
        self._lines.append(line)
        if not self.is_table:
            return []
        rows = self._rows(self._lines, self._settled)
        if len(rows) <= self._most_rows:
            return []
        self._widths = self._column_widths(self._lines)
        self._settled = len(self._lines)
        return rows

    def rows(self, partial: str = "") -> list[Row]:
        """Return the rows that may still change; `partial` is the last line if it is not complete."""
        lines = [*self._lines, partial] if partial else self._lines
        return self._rows(lines, self._settled)

    def _column_widths(self, lines: list[str]) -> list[int]:
        """Return the widths of the columns, not narrower than before unless the terminal is too narrow."""
        cells = [
            _split(line) for index, line in enumerate(lines) if index != 1 and (index == 0 or index >= self._settled)
        ]
        count = len(self._widths) or max(len(row) for row in cells)
        widths = self._widths or [0] * count
        for row in cells:
            needed = [sum(cells_of(run.text) for run in _runs(cell)) for cell in row[:count]]
            widths = [max(pair) for pair in zip(widths, [*needed, *[0] * count], strict=False)]
        room = self._width - len(_GAP) * (count - 1)
        while sum(widths) > room and max(widths) > _NARROWEST:
            widths[widths.index(max(widths))] -= 1
        return [max(width, 1) for width in widths]

    def _rows(self, lines: list[str], start: int) -> list[Row]:
        widths = self._column_widths(lines)
        if sum(widths) + len(_GAP) * (len(widths) - 1) > self._width:
            return [row for line in lines[start:] for row in _wrapped(row_of(line), self._width)]
        aligned = _alignments(lines[1]) if len(lines) > 1 else []
        rows: list[Row] = []
        for index in range(start, len(lines)):
            if index == 1:
                rows.append(row_of("\u2500\u253c\u2500".join("\u2500" * width for width in widths), "2"))
            else:
                rows += _side_by_side(_split(lines[index]), widths, aligned, "1" if index == 0 else "")
        return rows


def _wrapped(runs: Row, width: int) -> list[Row]:
    wrapper = Wrapper(width)
    done = [row for run in runs for row in wrapper.feed(run)]
    return [*done, *wrapper.rest()]


def _side_by_side(cells: list[str], widths: list[int], aligned: list[str], style: str) -> list[Row]:
    """Return one row of the table, as several rows of the screen if a cell is wrapped."""
    # Cells beyond the last column are joined to the last column, so that no text is lost.
    if len(cells) > len(widths):
        cells = [*cells[: len(widths) - 1], " | ".join(cells[len(widths) - 1 :])]
    columns = [_wrapped(_runs(cell, style), width) for cell, width in zip(cells, widths, strict=False)]
    rows: list[Row] = []
    for level in range(max(len(column) for column in columns)):
        row: Row = []
        for index, width in enumerate(widths):
            piece = columns[index][level] if index < len(columns) and level < len(columns[index]) else []
            room = row_of(" " * (width - sum(cells_of(run.text) for run in piece)))
            is_right = index < len(aligned) and aligned[index] == "right"
            gap = [Run(_GAP, "2")] if index else []
            row += [*gap, *room, *piece] if is_right else [*gap, *piece, *room]
        rows.append(row)
    return rows
