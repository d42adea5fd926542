"""The settings of the gateway, and the file that they are read from."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from lm_deluge.config import ClientOptions, SamplingParams, Timeouts
from lm_deluge.errors import ConfigurationError
from lm_deluge.option_checks import check_limiter

__all__ = ["GatewaySettings", "PageSettings", "ServedModel", "parse_settings", "read_settings"]

_MOST_FILE = 4 * 2**20  # bytes; a configuration of 10,000 models has less

_MOST_WORKERS = 512  # more than any machine has cores


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A name that clients ask for, and what answers.

    Attributes:
        name: The name that clients ask for.
        models: The models that share the calls.
        options: Keyword arguments of `LLMClient`.
    """

    name: str
    models: tuple[str, ...]
    options: Mapping[str, Any] = {}


class PageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the chat page.

    Attributes:
        enabled: Whether the server offers the page.
        model: The model of new conversations; None: the first one that is served.
        mcp: MCP servers whose tools the models may call: the command that starts one, or its URL.
        database: URL of the database with the conversations; None: beside that of the keys.
    """

    enabled: bool = True
    model: str | None = None
    mcp: tuple[str, ...] = ()
    database: str | None = None


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the gateway.

    Attributes:
        host: The address to listen at.
        port: The port of the clients.
        admin_port: The port of `/metrics` and, with a master key, of the admin API, always on 127.0.0.1; None: there is
            none.
        database: URL of the database with keys and spend: `sqlite:///deluge.db`, or any URL that SQLAlchemy has. None:
            a file of SQLite in the user's folder for state.
        limiter: URL of a Redis or Valkey server that counts the limits of models and of keys for all gateways that name
            it; None: they are those of this process alone. A model may have a limiter of its own.
        workers: Processes that serve; more than one needs a limiter.
        peer_host: Address of this machine at which other gateways with the same limiter reach its resumable streams;
            with the default those of the same machine do.
        tls_certificate, tls_key: Files in PEM format; with both, the server speaks HTTPS.
        max_body_bytes: Largest body of a request.
        max_connections: Most connections at a time; further ones are refused with status 503.
        body_timeout_s: Seconds in which the body of a request must arrive.
        stalled_client_s: Seconds after which a client that reads nothing is dropped.
        heartbeat_s: Seconds of silence after which a stream sends a heartbeat.
        kept_s: Seconds for which a resumable stream can be read after its end.
        drain_s: Seconds that running streams get when the server stops.
        retention_days: Days for which single calls are kept in the database; sums for each day stay.
        metrics_by_key: Whether `/metrics` counts requests by the names of keys.
        opentelemetry: Whether calls have spans and metrics of OpenTelemetry; the process needs its SDK, for example by
            `opentelemetry-instrument deluge serve`.
        models: The served models; empty: every model whose key is set, by its own name.
        page: The settings of the chat page.
        ignored: Settings of the file that have no effect, for the start-up message.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    admin_port: int | None = 8001
    database: str | None = None
    limiter: str | None = None
    workers: Annotated[int, msgspec.Meta(ge=1, le=_MOST_WORKERS)] = 1
    peer_host: str = "127.0.0.1"
    tls_certificate: str | None = None
    tls_key: str | None = None
    max_body_bytes: int = 32 * 2**20
    max_connections: int = 4096
    body_timeout_s: float = 30.0
    stalled_client_s: float = 30.0
    heartbeat_s: float = 15.0
    kept_s: float = 600.0
    drain_s: float = 30.0
    retention_days: int = 90
    metrics_by_key: bool = False
    opentelemetry: bool = False
    models: tuple[ServedModel, ...] = ()
    page: PageSettings = PageSettings()
    ignored: tuple[str, ...] = ()


def read_settings(path: Path) -> GatewaySettings:
    """Read the settings from a TOML file, or from a LiteLLM `config.yaml`.

    Raises:
        ConfigurationError: The file cannot be read, or a setting in it is unknown or wrong.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _MOST_FILE:
        raise ConfigurationError(f"{path} has more than {_MOST_FILE:,} bytes")
    if path.suffix.lower() in (".yaml", ".yml"):
        from lm_deluge.gateway.configuration.litellm_config import read_litellm

        return read_litellm(data, path)
    try:
        found = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from error
    return parse_settings(found, str(path))


def parse_settings(data: Mapping[str, Any], source: str) -> GatewaySettings:
    """Return the settings of a decoded TOML file; `source` names it in messages.

    Raises:
        ConfigurationError: A setting is unknown or wrong.
    """
    _check_names(data, ("server", "page", "models"), source)
    known = [name for name in GatewaySettings.__struct_fields__ if name not in ("models", "page", "ignored")]
    server = _table(data, "server", known, source)
    page = _table(data, "page", PageSettings.__struct_fields__, source)
    models = data.get("models", [])
    if not isinstance(models, list):
        raise ConfigurationError(f"{source}: models is not a list of tables", hint="Write [[models]] above each model.")
    served = tuple(_parse_model(table, f"{source}, [[models]] number {at}") for at, table in enumerate(models, 1))
    names = [model.name for model in served]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(
            f"{source}: two models have the name {twice!r}", hint="List what shares a name in models = [...]."
        )
    try:
        settings = msgspec.convert({**server, "page": page, "models": served}, GatewaySettings)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{source}, {'[page]' if '$.page' in str(error) else '[server]'}: {error}") from error
    check_limiter(settings.limiter)
    return settings


def _table(data: Mapping[str, Any], name: str, known: Iterable[str], source: str) -> Mapping[str, Any]:
    table = data.get(name, {})
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{source}: [{name}] is not a table")
    _check_names(table, known, f"{source}, [{name}]")
    return table


def _parse_model(table: Any, where: str) -> ServedModel:
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{where} is not a table")
    name = table.get("name")
    models = table.get("models", name)
    names = (models,) if isinstance(models, str) else tuple(models or ()) if isinstance(models, list) else ()
    if not isinstance(name, str) or not name or not names or not all(isinstance(each, str) for each in names):
        raise ConfigurationError(f"{where}: there is no name, or models is no list of names")
    options = {key: value for key, value in table.items() if key not in ("name", "models")}
    known = (*ClientOptions.__struct_fields__, *SamplingParams.__struct_fields__)
    _check_names(options, [*known, "name", "models"], where)
    if isinstance(options.get("timeouts"), Mapping):
        _check_names(options["timeouts"], Timeouts.__struct_fields__, f"{where}, timeouts")
        options["timeouts"] = Timeouts(**options["timeouts"])
    return ServedModel(name=name, models=names, options={**options, "progress": "none"})


def _check_names(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    names = list(known)
    for name in table:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise ConfigurationError(
                f"{where}: there is no setting {name!r}", hint=f"Do you mean {near[0]!r}?" if near else None
            )
