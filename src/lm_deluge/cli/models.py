"""`deluge models`: what can be asked, for how much."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click
import msgspec

from lm_deluge.cli.environment import has_colours
from lm_deluge.cli.terminal import is_terminal, report, write_text
from lm_deluge.models.registry import list_models
from lm_deluge.models.rows import ModelRow

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = ("model", "provider", "context", "output", "input $/M", "output $/M", "cached $/M")

# Below so many cells, tables leave out the columns that are missed least.
_NARROW, _NARROWER = 76, 56


@click.command()
@click.option("--provider", metavar="NAME", help="Only models of this provider.")
@click.option("--search", default="", metavar="TEXT", help="Only models with this in their name.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array, everything that is known of each.")
def models(provider: str | None, search: str, *, as_json: bool) -> None:
    """List models: US dollars per million tokens, context window and longest answer in tokens.

    On a terminal it is a table, into a pipe tab-separated values with a head.
    """
    rows = list_models(provider=provider, search=search)
    if as_json:
        write_text(sys.stdout, json.dumps(msgspec.to_builtins(rows), ensure_ascii=False) + "\n")
    elif not is_terminal(sys.stdout):
        write_text(sys.stdout, "".join("\t".join(line) + "\n" for line in (_COLUMNS, *map(_exact, rows))))
    elif rows:
        _print_table(rows)
    if not rows:
        report("No model fits. Any model of a provider can be named as provider:model, too.")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _exact(row: ModelRow) -> tuple[str, ...]:
    price = row.price
    prices = (price.input, price.output, price.cache_read) if price is not None else (None, None, None)
    sizes = (row.context_window, row.max_output_tokens)
    return (row.id, row.provider, *(_number(value) for value in (*sizes, *prices)))


def _rounded(tokens: int | None) -> str:
    """Return a count of tokens as one says it: 128k, 1M."""
    if tokens is None:
        return ""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if tokens >= size:
            return f"{tokens / size:.3g}{unit}"
    return str(tokens)


def _print_table(rows: list[ModelRow]) -> None:
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, no_color=not has_colours())
    console.print(_table(rows, console.width))


def _table(rows: list[ModelRow], width: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = [0, 1, 2, 3, 4, 5, 6]
    if width < _NARROW:
        shown = [0, 2, 3, 4, 5]
    if width < _NARROWER:
        shown = [0, 4, 5]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index in shown:
        is_text = _COLUMNS[index] in ("model", "provider")
        table.add_column(_COLUMNS[index], justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
    for row in rows:
        cells = list(_exact(row))
        cells[2:4] = [_rounded(row.context_window), _rounded(row.max_output_tokens)]
        table.add_row(*(Text(cells[index]) for index in shown))
    return table
