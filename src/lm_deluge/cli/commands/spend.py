"""`deluge spend`: what the keys of the gateway have spent."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from lm_deluge.cli.gateway_database import with_ledger
from lm_deluge.cli.render.terminal import report, write_text
from lm_deluge.errors import ConfigurationError

_GROUPS = ("day", "key", "model")


@click.command()
@click.option("--by", default="day", metavar="NAMES", help="Sums for each day, key, model, with commas. [day]")
@click.option("--since", default="", metavar="DAY", help="The first day, as 2026-11-30. [the first one]")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each sum.")
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="The file that `deluge serve` is started with."
)
def spend(by: str, since: str, config: Path | None, *, as_json: bool) -> None:
    """Show what the keys of the gateway have spent."""
    names = [name.strip() for name in by.split(",") if name.strip()]
    unknown = [name for name in names if name not in _GROUPS]
    if unknown:
        raise ConfigurationError(f"--by does not know {unknown[0]!r}", hint=f"Known: {', '.join(_GROUPS)}.")
    rows = with_ledger(config, lambda ledger: ledger.sums(names, since=since))
    if not rows:
        report("No call was made yet." if not since else f"No call was made since {since}.")
    for row in rows:
        fields = {**dict(zip(names, row.group, strict=True)), **row._asdict()}
        fields.pop("group")
        if as_json:
            write_text(sys.stdout, msgspec.json.encode(fields).decode() + "\n")
        else:
            numbers = f"{row.calls:,} calls  {row.input_tokens:,} + {row.output_tokens:,} tokens  ${row.cost:.4f}"
            errors = f"  {row.errors:,} failed" if row.errors else ""
            write_text(sys.stdout, "  ".join([*row.group, numbers]) + errors + "\n")
