"""`deluge serve`: a gateway for programs that speak the API of OpenAI, Anthropic, Google or Ollama."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec

from lm_deluge.cli.environment import setting_command
from lm_deluge.cli.gateway_database import read_gateway_settings
from lm_deluge.cli.gateway_server import load_environment, run_gateway, with_page
from lm_deluge.cli.render.terminal import report


@click.command()
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="deluge.toml, or a LiteLLM config.yaml."
)
@click.option("--host", metavar="ADDRESS", help="Address to listen at. [127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="Port; 0: any free one. [8000]")
@click.option("--workers", type=click.IntRange(1), metavar="COUNT", help="Processes; several need a limiter. [1]")
@click.option("--no-page", is_flag=True, help="Do not offer the chat page.")
@click.option("-q", "--quiet", is_flag=True, help="Write no line for each call.")
def serve(
    config: Path | None, host: str | None, port: int | None, workers: int | None, *, no_page: bool, quiet: bool
) -> None:
    """Serve models to other programs, and a chat page to browsers.

    Without --config every model whose key is set is served, and the simulator if there is no key at all. A key of the
    gateway is required as soon as one was created (deluge keys create), or DELUGE_MASTER_KEY is set.
    """
    load_environment()
    settings = read_gateway_settings(config)
    named = {"host": host, "port": port, "workers": workers}
    own = {name: value for name, value in named.items() if value is not None}
    settings = with_page(msgspec.structs.replace(settings, **own), enabled=False if no_page else None)
    run_gateway(settings, on_start=partial(_announce, has_page=settings.page.enabled), is_quiet=quiet)


def _announce(server: Any, *, has_page: bool) -> None:
    """Report the address, and how to use it."""
    what = "answers of the simulator (no key of a provider is set)" if server.is_simulated else "models"
    report(f"serving {what} at {server.url}")
    report(setting_command("OPENAI_BASE_URL", f"{server.url}/v1"))
    report(setting_command("ANTHROPIC_BASE_URL", server.url))
    if has_page:
        report(f"the chat page is at {server.url}/")
