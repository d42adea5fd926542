"""`deluge models`: the known models with their prices and limits."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click
import msgspec

from lm_deluge.cli.environment import has_colours
from lm_deluge.cli.render.terminal import is_terminal, report, write_text
from lm_deluge.models.registry import list_models, snapshot_date
from lm_deluge.models.rows import ModelRow

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = ("model", "provider", "context_window", "max_output_tokens", "input", "output", "cache_read")
_HEADS = ("model", "provider", "context", "max out", "in $/M", "out $/M", "cached")

# Columns that are left out, in this order, if the table is wider than the terminal. The name and prices stay.
_OPTIONAL_COLUMNS = (6, 1, 3, 2)
_GAP = 3  # cells between two columns in rich's box SIMPLE_HEAD

# Longer names are wrapped: 6% of the names. On 80 columns this leaves room for the two prices.
_LONG_NAME = 48


@click.command()
@click.option("--provider", metavar="NAME", help="Only models of this provider.")
@click.option("--search", default="", metavar="TEXT", help="Only models whose name contains this text.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array with all fields of each model.")
def models(provider: str | None, search: str, *, as_json: bool) -> None:
    """List models: prices in US dollars per million tokens, context window and longest answer in tokens.

    The date of the prices stands below the table. Models that are not listed can be used too, as provider:model.

    The output is a table on a terminal, and tab-separated values with a header line in a pipe.
    """
    rows = list_models(provider=provider, search=search)
    if as_json:
        write_text(sys.stdout, json.dumps(msgspec.to_builtins(rows), ensure_ascii=False) + "\n")
    elif not is_terminal(sys.stdout):
        write_text(sys.stdout, "".join("\t".join(line) + "\n" for line in (_COLUMNS, *map(_exact, rows))))
    elif rows:
        _print_table(rows)
    if not rows:
        report("No model matches. Models that are not listed can be used too, as provider:model.")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _exact(row: ModelRow) -> tuple[str, ...]:
    price = row.price
    prices = (price.input, price.output, price.cache_read) if price is not None else (None, None, None)
    sizes = (row.context_window, row.max_output_tokens)
    return (row.id, row.provider, *(_number(value) for value in (*sizes, *prices)))


def _rounded(tokens: int | None) -> str:
    """Return a count of tokens in short form: 128k, 1M."""
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
    count = "1 model" if len(rows) == 1 else f"{len(rows)} models"
    console.print(f"{count}; prices of {snapshot_date()}", style="dim")


def _table(rows: list[ModelRow], width: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = [
        (*exact[:2], *map(_rounded, (row.context_window, row.max_output_tokens)), *exact[4:])
        for row, exact in zip(rows, map(_exact, rows), strict=True)
    ]
    widths = [max(len(line[index]) for line in (_HEADS, *cells)) for index in range(len(_HEADS))]
    widths[0] = min(widths[0], _LONG_NAME)
    shown = list(range(len(_HEADS)))
    for index in _OPTIONAL_COLUMNS:
        if sum(widths[each] + _GAP for each in shown) > width:
            shown.remove(index)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index in shown:
        is_text = _HEADS[index] in ("model", "provider")
        table.add_column(_HEADS[index], justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
    for line in cells:
        table.add_row(*(Text(line[index]) for index in shown))
    return table
