"""`deluge models`: the known models with their prices and limits."""

from __future__ import annotations

import datetime as dt
import json
import sys
from typing import TYPE_CHECKING

import click
import msgspec

from lm_deluge.cli.environment import has_colours
from lm_deluge.cli.fetched_models import NEWEST_RELEASE, fetch_snapshot, save_snapshot
from lm_deluge.cli.render.terminal import is_terminal, report, write_text
from lm_deluge.models.registry import list_models, snapshot_date
from lm_deluge.models.rows import ModelRow

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = (
    *("model", "provider", "context_window", "max_output_tokens", "input", "output", "cache_read"),
    *("status", "retires"),
)
_HEADS = ("model", "provider", "context", "max out", "in $/M", "out $/M", "cached", "ends")

# Columns that are left out, in this order, if the table is wider than the terminal. The name and prices stay.
_OPTIONAL_COLUMNS = (6, 1, 3, 2, 7)
_GAP = 3  # cells between two columns in rich's box SIMPLE_HEAD

# Longer names are wrapped: 6% of the names. On 80 columns this leaves room for the two prices.
_LONG_NAME = 48


@click.group(invoke_without_command=True)
@click.option("--provider", metavar="NAME", help="Only models of this provider.")
@click.option("--search", default="", metavar="TEXT", help="Only models whose name contains this text.")
@click.option("--all", "has_retired", is_flag=True, help="Also models that their providers have ended.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array with all fields of each model.")
@click.pass_context
def models(context: click.Context, provider: str | None, search: str, *, has_retired: bool, as_json: bool) -> None:
    """List models: prices in US dollars per million tokens, context window and longest answer in tokens.

    The date and age of the prices stand below the table. Models that are not listed can be used too, as
    provider:model. Prices are those of today; models that have ended are left out.

    The output is a table on a terminal, and tab-separated values with a header line in a pipe. The column
    "ends" has the day on which the provider ends a model, if one is announced.
    """
    if context.invoked_subcommand is not None:
        return
    today = dt.datetime.now(tz=dt.UTC).date()
    rows = [row.on(today.isoformat()) for row in list_models(provider=provider, search=search)]
    shown = rows if has_retired else [row for row in rows if row.status != "retired"]
    if as_json:
        write_text(sys.stdout, json.dumps(msgspec.to_builtins(shown), ensure_ascii=False) + "\n")
    elif not is_terminal(sys.stdout):
        write_text(sys.stdout, "".join("\t".join(line) + "\n" for line in (_COLUMNS, *map(_exact, shown))))
    elif shown:
        _print_table(shown, today)
    if rows and not shown:
        report("Only models that have ended match. `deluge models --all` lists them.")
    elif not shown:
        report("No model matches. Models that are not listed can be used too, as provider:model.")


@models.command()
@click.option(
    "--source", default=NEWEST_RELEASE, metavar="URL", help="A models.json, a release, or PyPI's JSON of one."
)
def update(source: str) -> None:
    """Fetch newer models and prices.

    The rows of the newest release of LM Deluge are written to models.json in your configuration folder. They are used
    in place of the installed ones while they are newer; rows of your own models.toml override both.
    """
    fetched = fetch_snapshot(source)
    installed = snapshot_date()
    if fetched.date <= installed:
        report(f"The models of {installed} are the newest: those at {source} are of {fetched.date}.")
        return
    file = save_snapshot(fetched)
    report(f"Fetched {len(fetched.snapshot.models)} models of {fetched.date}, in place of those of {installed}: {file}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _exact(row: ModelRow) -> tuple[str, ...]:
    price = row.price
    prices = (price.input, price.output, price.cache_read) if price is not None else (None, None, None)
    sizes = (row.context_window, row.max_output_tokens)
    numbers = (_number(value) for value in (*sizes, *prices))
    return (row.id, row.provider, *numbers, row.status or "", row.retires or "")


def _end(row: ModelRow) -> str:
    """Return when the model ends or has ended; empty: no end is announced."""
    return row.retires or {"retired": "ended", "deprecated": "announced"}.get(row.status or "", "")


def _rounded(tokens: int | None) -> str:
    """Return a count of tokens in short form: 128k, 1M."""
    if tokens is None:
        return ""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if tokens >= size:
            return f"{tokens / size:.3g}{unit}"
    return str(tokens)


def _age(today: dt.date) -> str:
    """Return the date of the prices, and how long ago that is."""
    date = snapshot_date()
    days = (today - dt.date.fromisoformat(date)).days
    if days < 1:
        return f"prices of {date}"
    return f"prices are {days} {'day' if days == 1 else 'days'} old, of {date}"


def _print_table(rows: list[ModelRow], today: dt.date) -> None:
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, no_color=not has_colours())
    console.print(_table(rows, console.width))
    count = "1 model" if len(rows) == 1 else f"{len(rows)} models"
    console.print(f"{count}; {_age(today)}", style="dim")


def _table(rows: list[ModelRow], width: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = [
        (*exact[:2], *map(_rounded, (row.context_window, row.max_output_tokens)), *exact[4:7], _end(row))
        for row, exact in zip(rows, map(_exact, rows), strict=True)
    ]
    widths = [max(len(line[index]) for line in (_HEADS, *cells)) for index in range(len(_HEADS))]
    widths[0] = min(widths[0], _LONG_NAME)
    shown = [index for index in range(len(_HEADS)) if any(line[index] for line in cells)]
    for index in _OPTIONAL_COLUMNS:
        if index in shown and sum(widths[each] + _GAP for each in shown) > width:
            shown.remove(index)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index in shown:
        is_text = _HEADS[index] in ("model", "provider")
        table.add_column(_HEADS[index], justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
    for row, line in zip(rows, cells, strict=True):
        style = "dim" if row.status == "retired" else None
        table.add_row(*(Text(line[index]) for index in shown), style=style)
    return table
