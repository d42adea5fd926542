"""`deluge keys`: the keys of the gateway."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from lm_deluge.cli.gateway_database import with_ledger
from lm_deluge.cli.render.terminal import report, write_text
from lm_deluge.errors import ConfigurationError

_CONFIG = click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="The file that `deluge serve` is started with."
)


@click.group()
def keys() -> None:
    """Create, list and revoke the keys of the gateway."""


@keys.command()
@click.argument("name")
@click.option("--models", default="", metavar="NAMES", help="Names of models, with commas between them. [all]")
@click.option("--budget", metavar="AMOUNT", help="US dollars: 5/day, 20/month, or 100 in total.")
@click.option("--requests", metavar="NUMBER", help="Requests: 60/minute.")
@click.option("--tokens", metavar="NUMBER", help="Tokens: 100000/minute.")
@click.option("--concurrent", type=click.IntRange(1), metavar="NUMBER", help="Calls at a time.")
@click.option("--expires", metavar="TIME", help="How long it is valid: 30d, 12h.")
@_CONFIG
def create(name: str, config: Path | None, **rules: Any) -> None:
    """Create a key. It is printed once, and stored nowhere."""
    from lm_deluge.gateway.ledger.keys import parse_rules

    new = with_ledger(config, lambda ledger: ledger.create_key(name, parse_rules(**rules)))
    report(f"the key {name}, shown only now:")
    write_text(sys.stdout, f"{new.token}\n")


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each key.")
@_CONFIG
def list_keys(config: Path | None, *, as_json: bool) -> None:
    """List the keys, with what they have spent in the current period."""
    import time

    async def read(ledger: Any) -> list[tuple[Any, tuple[float, float]]]:
        now = time.time()
        return [(key, await ledger.spent(key, now=now)) for key in await ledger.keys()]

    found = with_ledger(config, read)
    if not found:
        report("There is no key yet; deluge keys create makes one.")
    for key, (spent, reserved) in found:
        if as_json:
            fields = {**msgspec.to_builtins(key), "spent": spent, "reserved": reserved}
            write_text(sys.stdout, msgspec.json.encode(fields).decode() + "\n")
        else:
            write_text(sys.stdout, _line(key, spent) + "\n")


@keys.command()
@click.argument("name")
@_CONFIG
def revoke(name: str, config: Path | None) -> None:
    """Revoke a key. Running calls end normally."""
    if not with_ledger(config, lambda ledger: ledger.revoke(name)):
        raise ConfigurationError(f"there is no valid key {name!r}", hint="List them: deluge keys list.")
    report(f"revoked {name}")


def _line(key: Any, spent: float) -> str:
    rules = key.rules
    budget = "no budget" if rules.budget is None else f"${rules.budget:g}/{rules.period}"
    parts = [key.name, f"${spent:.4f} of {budget}", ", ".join(rules.models) or "all models"]
    for kind, amount in (("requests", rules.requests_per_minute), ("tokens", rules.tokens_per_minute)):
        if amount is not None:
            parts.append(f"{amount:,} {kind}/minute")
    if rules.max_concurrent is not None:
        parts.append(f"{rules.max_concurrent} at a time")
    if rules.expires_at is not None:
        parts.append(f"until {dt.datetime.fromtimestamp(rules.expires_at, tz=dt.UTC):%Y-%m-%d %H:%M} UTC")
    if key.revoked_at is not None:
        parts.append("revoked")
    return "  ".join(parts)
