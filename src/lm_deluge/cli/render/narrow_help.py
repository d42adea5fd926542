"""Help texts for narrow terminals: click takes at least 50 columns, and gives 30 of them to the names of options."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

import click
from click.formatting import wrap_text

__all__ = ["INDENT", "LEAST_COLUMNS", "fit_help"]

LEAST_COLUMNS = 24
"""Columns of the meanings: four words. With fewer, meanings stand in rows of their own."""
INDENT = 4
"""The indentation of these rows: more than that of the names."""

# click.HelpFormatter: columns of a help text, at least, and how many less than the terminal has.
_LEAST_OF_CLICK, _MARGIN = 50, 2


class _NarrowHelp(click.HelpFormatter):
    """Puts meanings below their names where a column of their own would be too narrow."""

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names and their meanings."""
        rows = list(rows)
        column = self.current_indent + max(len(name) for name, _ in rows) + col_spacing
        if self.width - column >= LEAST_COLUMNS:
            super().write_dl(rows, col_max, col_spacing)
            return
        indent = " " * (self.current_indent + INDENT)
        for name, meaning in rows:
            self.write(f"{wrap_text(name, self.width, ' ' * self.current_indent, indent)}\n")
            self.write(f"{wrap_text(meaning, self.width, indent, indent)}\n")


def fit_help() -> int | None:
    """Return the columns of help texts if the terminal is narrower than click assumes, else None."""
    columns = shutil.get_terminal_size().columns - _MARGIN
    if columns >= _LEAST_OF_CLICK:
        return None
    click.Context.formatter_class = _NarrowHelp  # also of the contexts of all subcommands
    return max(columns, 1)
