"""`deluge simulate`: a provider of one's own, for tests and demonstrations."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from lm_deluge.cli.terminal import report, write_text
from lm_deluge.errors import ConfigurationError
from lm_deluge.simulator import FAULTS, Fault, Pace, Script, Simulator

_SCRIPT_FIELDS = ("text", "reasoning", "refusal", "tool_calls", "finish_reason")


def _print_faults(ctx: click.Context, param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's callback
    if not value or ctx.resilient_parsing:
        return
    import sys

    width = max(len(name) for name in FAULTS)
    write_text(sys.stdout, "".join(f"{name:<{width}}  {text}\n" for name, text in FAULTS.items()))
    ctx.exit()


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="PORT", help="0 takes a free one. [0]")
@click.option(
    "--host", type=click.Choice(["127.0.0.1"]), default="127.0.0.1", help="It is only reached from this machine."
)
@click.option("--rate", type=click.FloatRange(0, min_open=True), metavar="NUMBER", help="Tokens per second. [as fast as can be]")
@click.option("--fault", "faults", multiple=True, metavar="NAME", help="A fault for each request in turn; repeatable.")
@click.option("--always", is_flag=True, help="With one --fault: every request meets it.")
@click.option("--list-faults", is_flag=True, is_eager=True, expose_value=False, callback=_print_faults, help="List the faults and end.")
@click.option("--script", metavar="FILE", help="JSON: a text, an object with text, reasoning, ..., or a list of these.")
def simulate(port: int, host: str, rate: float | None, faults: tuple[str, ...], always: bool, script: str | None) -> None:  # noqa: FBT001 - click passes flags so
    """Serve made-up answers on 127.0.0.1 until Ctrl-C.

    It speaks the providers' own wire APIs. A request may choose its fault itself, with the model simulator/FAULT or
    the header x-simulator-fault.
    """
    simulator = Simulator(
        _read_script(script) if script else None,
        pace=Pace(tokens_per_second=rate, jitter=0.3 if rate else 0.0),
        faults=_parse_faults(faults, always=always),
        port=port,
    )
    try:
        asyncio.run(_serve(simulator))
    except OSError as error:
        raise ConfigurationError(f"cannot listen on port {port}: {error.strerror or error}") from None


def _parse_faults(names: tuple[str, ...], *, always: bool) -> Any:
    if always and len(names) != 1:
        raise click.UsageError("--always needs exactly one --fault.")
    faults = [Fault.parse(name) for name in names]
    return faults[0] if always else faults or None


def _read_script(path: str) -> Script | list[Script]:
    try:
        data = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise click.UsageError(f"Cannot read the script {path}: {error.strerror}.") from None
    except ValueError as error:
        raise click.UsageError(f"The script {path} is not JSON: {error}.") from None
    return [_script(item) for item in data] if isinstance(data, list) else _script(data)


def _script(item: Any) -> Script:
    fields = {"text": item} if isinstance(item, str) else item
    unknown = set(fields) - set(_SCRIPT_FIELDS) if isinstance(fields, dict) else {"it"}
    if unknown or not fields:
        known = ", ".join(_SCRIPT_FIELDS)
        raise click.UsageError(f"An answer of the script is a text, or an object of some of: {known}.")
    calls = [(call["name"], call.get("arguments", {})) for call in fields.get("tool_calls", ())]
    return Script(**{**fields, "tool_calls": calls})


async def _serve(simulator: Simulator) -> None:
    async with simulator:
        write_text(click.get_text_stream("stdout"), f"{simulator.base_url}\n")
        report(
            "The simulator runs; Ctrl-C stops it. To use it from another terminal:\n"
            f"  export OPENAI_BASE_URL={simulator.base_url}\n"
            "  export OPENAI_API_KEY=any-text"
        )
        await simulator.serve_forever()
