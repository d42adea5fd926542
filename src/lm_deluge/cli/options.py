"""From what stands on the command line to a client and a prompt."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lm_deluge.cli.environment import from_dotenv
from lm_deluge.cli.render.escape import visible_line

if TYPE_CHECKING:
    from lm_deluge.client.client import LLMClient
    from lm_deluge.models.rows import ModelRow, ProviderRow

__all__ = [
    "DEFAULT_MODEL",
    "CommandOptions",
    "batch_call_options",
    "build_client",
    "call_options",
    "read_prompt",
    "read_schema",
]

DEFAULT_MODEL = "gpt-4o"
_SIMULATOR = "simulator"

Command = TypeVar("Command", bound=Callable[..., Any])

_CLOCKS = ("connect", "first_token", "idle", "progress", "total")
_CLOCK_HELP = {
    "connect": "Seconds until the connection stands.",
    "first_token": "Seconds until the first piece of the answer.",
    "idle": "Seconds without any byte.",
    "progress": "Seconds without any piece of the answer, while keep-alives come.",
    "total": "Seconds for the whole call.",
}

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

_MODEL_HELP = f"A name of `deluge models`, or provider:name. [{DEFAULT_MODEL}]"
_ASKING: tuple[Callable[[Any], Any], ...] = (
    click.option("--system", metavar="TEXT", help="How the model is to behave."),
    click.option("--base-url", metavar="URL", help="An OpenAI-compatible host."),
    click.option("--api-key", metavar="KEY", help="Better in the environment: other users can see command lines."),
    click.option("--temperature", type=float, metavar="NUMBER", help="From 0 to 2."),
    click.option("--max-tokens", type=int, metavar="COUNT", help="Most tokens to generate, reasoning included."),
    click.option("--reasoning-effort", type=click.Choice(_EFFORTS), help="How much the model is to think."),
)
_SHOWING = (
    click.option("--show-reasoning", is_flag=True, help="Show on stderr what the model thinks."),
    click.option("--raw", is_flag=True, help="The text as it is: no Markdown, no colours, no status line."),
)
_TIMEOUTS = tuple(
    click.option(f"--timeout-{clock.replace('_', '-')}", type=float, metavar="SECONDS", help=_CLOCK_HELP[clock])
    for clock in _CLOCKS
)
_ONE_CALL = (click.option("--model", "-m", metavar="NAME", help=_MODEL_HELP), *_ASKING, *_SHOWING, *_TIMEOUTS)
_MANY_CALLS = (
    click.option("--model", "-m", "models", multiple=True, metavar="NAME", help=f"{_MODEL_HELP} Repeatable."),
    *_ASKING,
    *_TIMEOUTS,
)


def call_options(command: Command) -> Command:
    """Add the options that every command has that asks a model."""
    return _with_options(command, _ONE_CALL)


def batch_call_options(command: Command) -> Command:
    """Add the same for many calls, which several models may share and nobody watches."""
    return _with_options(command, _MANY_CALLS)


def _with_options(command: Command, options: Sequence[Callable[[Any], Any]]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True)
class CommandOptions:
    """The values of `call_options`."""

    system: str | None
    base_url: str | None
    api_key: str | None
    temperature: float | None
    max_tokens: int | None
    reasoning_effort: str | None
    timeouts: dict[str, float]
    model: str | None = None
    models: tuple[str, ...] = ()
    show_reasoning: bool = False
    raw: bool = False
    json_mode: bool = False

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> CommandOptions:
        """Take what `call_options` added out of a command's keyword arguments; what is left is the command's own."""
        clocks = {clock: options.pop(f"timeout_{clock}") for clock in _CLOCKS}
        own = {name: options.pop(name) for name in cls.__dataclass_fields__ if name in options}
        return cls(timeouts={clock: value for clock, value in clocks.items() if value is not None}, **own)


def build_client(settings: CommandOptions, model: str | None = None, **more: Any) -> tuple[LLMClient, str | None]:
    """Return the client, and what the user must know before it answers.

    Without a key, and without an address where none may be needed, the built-in simulator answers instead.

    Args:
        settings: What stands on the command line.
        model: In place of the one that is asked for there.
        more: Options of the client beside.

    Raises:
        ConfigurationError: It cannot be built as asked.
    """
    from lm_deluge.client.client import LLMClient
    from lm_deluge.config import Timeouts

    names = settings.models or (model or settings.model or DEFAULT_MODEL,)
    key, is_simulated, notice = _choose_keys(settings, names)
    options: dict[str, Any] = {
        "api_key": key,
        "base_url": None if is_simulated else settings.base_url,
        "timeouts": Timeouts(**settings.timeouts),
        "temperature": settings.temperature,
        "max_new_tokens": settings.max_tokens,
        "reasoning_effort": settings.reasoning_effort,
        "json_mode": settings.json_mode,
        **more,
    }
    return LLMClient(_SIMULATOR if is_simulated else names, **options), notice


def _choose_keys(settings: CommandOptions, names: Sequence[str]) -> tuple[str | None, bool, str | None]:
    """Return the same as `_choose_key` for models that are asked together: all of them have keys, or none has."""
    from lm_deluge.errors import ConfigurationError
    from lm_deluge.models.registry import find_provider, find_served_model

    rows = [find_served_model(name, settings.base_url) for name in names]
    if settings.api_key is not None and len({row.provider for row in rows}) > 1:
        raise ConfigurationError(
            "one --api-key cannot be for the models of several providers", hint="Set the keys in the environment."
        )
    choices = [_choose_key(settings, row, find_provider(row.provider)) for row in rows]
    without = [row for row, (_, is_simulated, _) in zip(rows, choices, strict=True) if is_simulated]
    if without and len(without) < len(rows):
        raise ConfigurationError(
            f"some models have a key, and {', '.join(row.id for row in without)} has none",
            hint="Set its key too, or leave it out.",
        )
    return choices[0]


def _choose_key(settings: CommandOptions, row: ModelRow, provider: ProviderRow) -> tuple[str | None, bool, str | None]:
    """Return the key (None: the environment's), whether the simulator answers, and what to say about it."""
    from lm_deluge.api_requests.credentials import find_base_url, has_key, is_row_url

    if row.id == _SIMULATOR and settings.base_url is None:
        return None, True, "Simulator: this is the built-in simulator, not a model; it makes its answers up."
    if settings.api_key is not None or provider.auth == "none" or not provider.key_env:
        return settings.api_key, False, None
    if has_key(provider):
        _check_dotenv(settings, provider)
        return None, False, None
    is_elsewhere = settings.base_url is not None or not is_row_url(provider, find_base_url(provider, None))
    if is_elsewhere or provider.auth == "optional":
        return None, False, None
    names = " or ".join(provider.key_env)
    notice = (
        f"Simulator: no {names} is set, so the built-in simulator answers, not {visible_line(row.id)}. "
        f"To ask the model: export {provider.key_env[0]}=your-key, or put that line into .env."
    )
    return None, True, notice


def _check_dotenv(settings: CommandOptions, provider: ProviderRow) -> None:
    """Refuse a folder that would send a key which is not its own to an address of its choice."""
    address = from_dotenv(provider.address_env)
    if settings.base_url is None and address is not None and from_dotenv(provider.key_env) is None:
        from lm_deluge.errors import ConfigurationError

        raise ConfigurationError(
            f".env sets {address}, but your key for {provider.id} is from elsewhere, so it is not sent there",
            hint="If it should be, put the key into .env too, or say --base-url.",
        )


def read_prompt(prompt: str | None) -> str:
    """Return the prompt; from stdin for `-`, and where there is none and stdin is no terminal.

    Raises:
        click.UsageError: There is none, or it is no text.
    """
    if prompt is None and (sys.stdin is None or sys.stdin.isatty()):
        raise click.UsageError("What is the prompt? Give it as an argument, or pipe it in.")
    try:
        if prompt is None or prompt == "-":
            return sys.stdin.buffer.read().decode("utf-8")
        prompt.encode("utf-8")
    except UnicodeError:
        raise click.UsageError("The prompt is not UTF-8 text.") from None
    return prompt


def read_schema(path: str) -> dict[str, Any]:
    """Return the JSON schema in a file.

    Raises:
        click.UsageError: It cannot be read, or holds no schema.
    """
    try:
        schema = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise click.UsageError(f"Cannot read the schema {path}: {error.strerror}.") from None
    except ValueError as error:
        raise click.UsageError(f"The schema {path} is not JSON: {error}.") from None
    if not isinstance(schema, dict):
        raise click.UsageError(f"The schema {path} is not a JSON object.")
    return schema
