"""`deluge web`: the chat page in a browser."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import click
import msgspec

from lm_deluge.cli.gateway_database import read_gateway_settings
from lm_deluge.cli.gateway_server import load_environment, run_gateway, with_page
from lm_deluge.cli.render.terminal import report
from lm_deluge.errors import ConfigurationError, MissingAPIKeyError

_HOST = "127.0.0.1"


@click.command()
@click.option("--model", metavar="NAME", help="Model of new conversations.")
@click.option(
    "--mcp",
    multiple=True,
    metavar="SERVER",
    help="MCP server whose tools models may call: its URL, or the command that starts it. May be repeated.",
)
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="Port. [8000, or any if that is taken]")
@click.option("--no-open", is_flag=True, help="Do not open a browser.")
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="The file that `deluge serve` is started with."
)
def web(model: str | None, mcp: tuple[str, ...], port: int | None, config: Path | None, *, no_open: bool) -> None:
    """Chat with models in the browser.

    The page is served at 127.0.0.1, so only this machine reaches it, and its conversations are stored on this machine.
    Tools of an MCP server run without a question: name only servers whose tools may do so.
    """
    load_environment()
    settings = read_gateway_settings(config)
    settings = msgspec.structs.replace(
        settings, host=_HOST, port=_port_of(settings.port, port), admin_port=None, workers=1
    )
    settings = with_page(settings, enabled=True, model=model, mcp=(*settings.page.mcp, *mcp) or None)
    if model is not None:
        settings = _with_model(settings, model)

    def announce(server: Any) -> None:
        if server.is_simulated:
            report("no key of a provider is set: the simulator answers")
        report(f"the chat page is at {server.url}/ (Ctrl-C stops it)")
        if not no_open and _has_display():
            threading.Thread(target=_open, args=(f"{server.url}/",), daemon=True).start()

    run_gateway(settings, on_start=announce, is_quiet=True)


def _port_of(configured: int, given: int | None) -> int:
    """Return the port: as given, else the configured one, or any if another program has that."""
    if given is not None:
        return given
    with socket.socket() as probe:
        if sys.platform != "win32":  # where the option would share the port with the other program
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, configured))
        except OSError:
            return 0
    return configured


def _with_model(settings: Any, name: str) -> Any:
    """Return the settings with a model that can answer: one that needs no key answers, and not the simulator.

    Raises:
        ConfigurationError: There is no such model, or no key for it while there are keys for others.
    """
    from lm_deluge.api_requests.credentials import has_key, has_named_key
    from lm_deluge.gateway.configuration.settings import ServedModel
    from lm_deluge.models.registry import find_model, find_provider, list_providers

    if settings.models:
        names = [model.name for model in settings.models]
        if name not in names:
            raise ConfigurationError(f"the model {name!r} is not served", hint=f"Served: {', '.join(names)}.")
        return settings
    provider = find_provider(find_model(name).provider)
    has_any = any(map(has_named_key, list_providers()))
    if provider.auth in ("none", "optional"):
        served = ServedModel(name=name, models=(name,), options={"progress": "none"})
        return settings if has_any else msgspec.structs.replace(settings, models=(served,))
    if has_any and not has_key(provider):
        raise MissingAPIKeyError(f"there is no key for {provider.id}", hint=f"Set {provider.key_env[0]}.")
    return settings


def _has_display() -> bool:
    """Whether a browser has a window. Without one, a browser for terminals would take the terminal of the server."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _open(url: str) -> None:
    import webbrowser

    webbrowser.open(url)
