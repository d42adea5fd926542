"""`deluge simulate`: a simulated provider on this machine, for tests and demonstrations."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from lm_deluge.cli.environment import setting_command
from lm_deluge.cli.render.definitions import definitions
from lm_deluge.cli.render.terminal import report, write_text
from lm_deluge.errors import ConfigurationError
from lm_deluge.events import FinishReason
from lm_deluge.simulator import FAULTS, Fault, Pace, Script, Simulator


def _print_faults(ctx: click.Context, param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's callback
    if not value or ctx.resilient_parsing:
        return
    write_text(sys.stdout, definitions(list(FAULTS.items()), sys.stdout))
    ctx.exit()


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="PORT",
    help="Port to listen on; 0 for any free port. [0]",
)
@click.option(
    "--host",
    type=click.Choice(["127.0.0.1"]),
    default="127.0.0.1",
    help="Address to listen on, only reachable from this machine.",
)
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), metavar="NUMBER", help="Tokens per second. [as fast as possible]"
)
@click.option(
    "--fault", "faults", multiple=True, metavar="NAME", help="Fault of the next request, in turn. Repeatable."
)
@click.option("--always", is_flag=True, help="With one --fault: every request gets this fault.")
@click.option(
    "--list-faults",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_faults,
    help="List the faults and exit.",
)
@click.option(
    "--script", metavar="FILE", help="JSON file: a text, an object with text, reasoning, ..., or a list of these."
)
def simulate(
    port: int, host: str, rate: float | None, faults: tuple[str, ...], *, always: bool, script: str | None
) -> None:
    """Serve generated answers on 127.0.0.1 until Ctrl-C.

    The server speaks the providers' own wire APIs. A request can choose its own fault with the model simulator/FAULT
    or the header x-simulator-fault.
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


class _ScriptedCall(msgspec.Struct, forbid_unknown_fields=True):
    """A tool call in a script file."""

    name: str
    arguments: dict[str, Any] | str = {}


class _ScriptedAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """An answer in a script file."""

    text: str | None = None
    reasoning: str = ""
    refusal: str = ""
    tool_calls: list[_ScriptedCall] = []
    finish_reason: FinishReason | None = None

    def script(self) -> Script:
        return Script(
            text=self.text,
            reasoning=self.reasoning,
            refusal=self.refusal,
            tool_calls=[(call.name, call.arguments) for call in self.tool_calls],
            finish_reason=self.finish_reason,
        )


def _read_script(path: str) -> list[Script]:
    try:
        data = msgspec.json.decode(Path(path).read_bytes())
        items = [
            {"text": item} if isinstance(item, str) else item for item in (data if isinstance(data, list) else [data])
        ]
        scripts = [answer.script() for answer in msgspec.convert(items, list[_ScriptedAnswer])]
    except OSError as error:
        raise click.UsageError(f"Cannot read the script {path}: {error.strerror}.") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise click.UsageError(f"The script {path} is not valid: {error}.") from None
    if not scripts:
        raise click.UsageError(f"The script {path} is empty.")
    return scripts


async def _serve(simulator: Simulator) -> None:
    async with simulator:
        write_text(sys.stdout, f"{simulator.base_url}\n")
        report("The simulator is running; Ctrl-C stops it. To use it from another terminal:")
        for name, value in (("OPENAI_BASE_URL", simulator.base_url), ("OPENAI_API_KEY", "any-text")):
            click.echo(f"  {setting_command(name, value)}", err=True)  # without wrapping, so that it can be copied
        report(f"The other wire APIs are at {simulator.url}, that of Mistral at {simulator.url}/mistral.")
        await simulator.serve_forever()
