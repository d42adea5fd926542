"""The options that several commands share, and the client and prompt that they describe."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lm_deluge.cli.completion import complete_model
from lm_deluge.cli.default_model import find_default_model
from lm_deluge.cli.environment import from_dotenv, setting_command
from lm_deluge.cli.render.escape import visible_line
from lm_deluge.cli.render.terminal import is_terminal, report
from lm_deluge.cli.sampling_options import complete_parameter, parse_parameters

if TYPE_CHECKING:
    from lm_deluge.client.client import LLMClient
    from lm_deluge.models.rows import ModelRow, ProviderRow

__all__ = [
    "CommandOptions",
    "batch_call_options",
    "build_client",
    "call_options",
    "model_of",
]

_SIMULATOR = "simulator"

Command = TypeVar("Command", bound=Callable[..., Any])

_TIMEOUT_NAMES = ("connect", "first_token", "idle", "progress", "total")
_TIMEOUT_HELP = {
    "connect": "Seconds until the connection is established.",
    "first_token": "Seconds until the first part of the answer.",
    "idle": "Seconds without any byte.",
    "progress": "Seconds without any part of the answer, even if keep-alives arrive.",
    "total": "Seconds for the whole call.",
}

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

_MODEL_HELP = (
    "A name listed by `deluge models`, or provider:name. [$DELUGE_MODEL, else a model of the provider whose key is set]"
)
_REQUEST_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--system", "-s", metavar="TEXT", help="System message: how the model should behave."),
    click.option("--base-url", metavar="URL", help="Address of an OpenAI-compatible server."),
    click.option("--api-key", metavar="KEY", help="Safer in the environment: other users can see command lines."),
    click.option("--temperature", type=float, metavar="NUMBER", help="From 0 to 2."),
    click.option("--max-tokens", type=int, metavar="COUNT", help="Maximum of generated tokens, reasoning included."),
    click.option("--reasoning-effort", type=click.Choice(_EFFORTS), help="How much the model should think."),
    click.option(
        "--option",
        "-o",
        "parameters",
        nargs=2,
        multiple=True,
        metavar="NAME VALUE",
        shell_complete=complete_parameter,
        help="Any sampling parameter, for example -o top_p 0.9. Repeatable.",
    ),
)
_DISPLAY_OPTIONS = (
    click.option("--show-reasoning", is_flag=True, help="Show the model's reasoning on stderr."),
    click.option("--raw", is_flag=True, help="Plain text: no Markdown rendering, no colours, no status line."),
)
_TIMEOUT_OPTIONS = tuple(
    click.option(f"--timeout-{name.replace('_', '-')}", type=float, metavar="SECONDS", help=_TIMEOUT_HELP[name])
    for name in _TIMEOUT_NAMES
)
_CALL_OPTIONS = (
    click.option("--model", "-m", metavar="NAME", shell_complete=complete_model, help=_MODEL_HELP),
    *_REQUEST_OPTIONS,
    *_DISPLAY_OPTIONS,
    *_TIMEOUT_OPTIONS,
)
_BATCH_OPTIONS = (
    click.option(
        "--model",
        "-m",
        "models",
        multiple=True,
        metavar="NAME",
        shell_complete=complete_model,
        help=f"{_MODEL_HELP} Repeatable.",
    ),
    *_REQUEST_OPTIONS,
    *_TIMEOUT_OPTIONS,
)


def call_options(command: Command) -> Command:
    """Add the options of a command that sends one request at a time."""
    return _with_options(command, _CALL_OPTIONS)


def batch_call_options(command: Command) -> Command:
    """Add the options of a command that sends many requests: several models are allowed, display options are not."""
    return _with_options(command, _BATCH_OPTIONS)


def _with_options(command: Command, options: Sequence[Callable[[Any], Any]]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True)
class CommandOptions:
    """The values of the options that `call_options` and `batch_call_options` add."""

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
    parameters: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> CommandOptions:
        """Remove the shared options from the keyword arguments of a command, and return them.

        Raises:
            ConfigurationError: A value of `-o` is invalid.
        """
        timeouts = {name: options.pop(f"timeout_{name}") for name in _TIMEOUT_NAMES}
        shared = {name: options.pop(name) for name in cls.__dataclass_fields__ if name in options}
        shared["parameters"] = parse_parameters(shared["parameters"])
        return cls(timeouts={name: value for name, value in timeouts.items() if value is not None}, **shared)


def build_client(settings: CommandOptions, model: str | None = None, **more: Any) -> tuple[LLMClient, str | None]:
    """Return a client, and a notice for the user or None.

    If there is neither a key nor an address of a server that may need none, the client uses the built-in simulator on a
    terminal; a script or a file would take its answers for those of a model.

    Args:
        settings: The options of the command line.
        model: A model that replaces the model of `settings`.
        more: Further options of the client.

    Raises:
        ConfigurationError: The options do not fit together, or the client refuses one of them.
        MissingAPIKeyError: There is no key, the output is not a terminal, and the simulator was not named.
    """
    from lm_deluge.client.client import LLMClient
    from lm_deluge.config import Timeouts

    names = settings.models or (model or model_of(settings),)
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
    for name, value in settings.parameters.items():
        if options.get(name):
            raise click.UsageError(f"-o {name} is also given as an option of its own. Remove one of the two.")
        options[name] = value
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        client = LLMClient(_SIMULATOR if is_simulated else names, **options)
    # The errors of a script are not the place for news about models; a model that has ended fails there by itself.
    for warning in given if is_terminal(sys.stderr) else ():
        report(f"Warning: {warning.message}")
    return client, notice


def model_of(settings: CommandOptions) -> str:
    """Return the model of a command: that of its option, else the default model."""
    is_openai = settings.api_key is not None or settings.base_url is not None
    return settings.model or find_default_model(is_openai=is_openai)


def _choose_keys(settings: CommandOptions, names: Sequence[str]) -> tuple[str | None, bool, str | None]:
    """Return the result of `_choose_key` for models of one client: either all of them have keys, or none has."""
    from lm_deluge.errors import ConfigurationError
    from lm_deluge.models.registry import find_provider, find_served_model

    rows = [find_served_model(name, settings.base_url) for name in names]
    if settings.api_key is not None and len({row.provider for row in rows}) > 1:
        raise ConfigurationError(
            "one --api-key cannot serve models of several providers", hint="Set the keys in the environment."
        )
    choices = [_choose_key(settings, row, find_provider(row.provider)) for row in rows]
    without = [row for row, (_, is_simulated, _) in zip(rows, choices, strict=True) if is_simulated]
    if without and len(without) < len(rows):
        raise ConfigurationError(
            f"some models have a key, but there is none for {', '.join(row.id for row in without)}",
            hint="Set that key too, or remove the model from the command.",
        )
    unasked = [row for row in without if row.id != _SIMULATOR]
    if unasked:
        _refuse_outside_terminal(unasked[0], find_provider(unasked[0].provider))
    return choices[0]


def _choose_key(settings: CommandOptions, row: ModelRow, provider: ProviderRow) -> tuple[str | None, bool, str | None]:
    """Return the key (None: the key of the environment), whether the simulator answers, and a notice about it."""
    from lm_deluge.api_requests.credentials import find_base_url, has_key, is_row_url

    if row.id == _SIMULATOR and settings.base_url is None:
        return None, True, "Simulator: the answers are generated by the built-in simulator, not by a model."
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
        f"To use the model, set its key: {setting_command(provider.key_env[0], 'your-key')}, or write "
        f"{provider.key_env[0]}=your-key into .env."
    )
    return None, True, notice


def _refuse_outside_terminal(row: ModelRow, provider: ProviderRow) -> None:
    """Refuse to simulate answers where the notice about it would not be seen beside them."""
    from lm_deluge.cli.render.terminal import is_terminal
    from lm_deluge.errors import MissingAPIKeyError

    if is_terminal(sys.stdout) and is_terminal(sys.stderr):
        return
    variable = provider.key_env[0]
    raise MissingAPIKeyError(
        f"{' or '.join(provider.key_env)} is not set, so {visible_line(row.id)} cannot answer",
        hint=f"Set the key: {setting_command(variable, 'your-key')}, or write {variable}=your-key into .env. "
        "--model names a model of another provider; --model simulator is the built-in simulator, which generates "
        "answers and needs no key.",
    )


def _check_dotenv(settings: CommandOptions, provider: ProviderRow) -> None:
    """Refuse to send a key of the environment to an address from `.env`, which may be the file of a stranger."""
    address = from_dotenv(provider.address_env)
    if settings.base_url is None and address is not None and from_dotenv(provider.key_env) is None:
        from lm_deluge.errors import ConfigurationError

        raise ConfigurationError(
            f".env sets {address}, but the key for {provider.id} is not from .env, so it is not sent to that address",
            hint="To send it there, write the key into .env too, or give the address with --base-url.",
        )
