"""Names and their meanings in two columns, as in help texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from lm_deluge.cli.render.narrow_help import INDENT, LEAST_COLUMNS
from lm_deluge.cli.render.terminal import Screen, is_terminal, wrapped

__all__ = ["definitions"]


def definitions(rows: Sequence[tuple[str, str]], file: TextIO, indent: str = "") -> str:
    """Return one line for each name and its meaning; on a terminal meanings are wrapped within their column.

    Args:
        rows: Names and meanings.
        file: Where the text is printed.
        indent: Put before each name.
    """
    column = len(indent) + max(len(name) for name, _ in rows) + 2
    width = Screen(file).width if is_terminal(file) else None
    lines: list[str] = []
    for name, meaning in rows:
        start = f"{indent}{name}"
        if width is None:
            lines.append(f"{start:<{column}}{meaning}")
        elif width - column >= LEAST_COLUMNS:
            first, *rest = wrapped(meaning, width - column)
            lines += [f"{start:<{column}}{first}", *(" " * column + row for row in rest)]
        else:
            room = max(width - INDENT, 1)
            lines += [start, *(" " * INDENT + row for row in wrapped(meaning, room))]
    return "\n".join(lines) + "\n"
