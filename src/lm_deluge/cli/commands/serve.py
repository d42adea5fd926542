"""`deluge serve`: a gateway for programs that speak the API of OpenAI, Anthropic, Google or Ollama."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import msgspec

from lm_deluge.cli.environment import load_dotenv_here, raise_file_limit, setting_command
from lm_deluge.cli.gateway_database import database_of, read_gateway_settings
from lm_deluge.cli.render.terminal import report

_MASTER_VARIABLE = "DELUGE_MASTER_KEY"
_LIMITER_VARIABLE = "DELUGE_LIMITER"  # a URL with a password does not belong into a file of settings
_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # https://prometheus.github.io/client_python/multiprocess/ (2026-11)


@click.command()
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="deluge.toml, or a LiteLLM config.yaml."
)
@click.option("--host", metavar="ADDRESS", help="Address to listen at. [127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="Port; 0: any free one. [8000]")
@click.option("--workers", type=click.IntRange(1), metavar="COUNT", help="Processes; several need a limiter. [1]")
@click.option("-q", "--quiet", is_flag=True, help="Write no line for each call.")
def serve(config: Path | None, host: str | None, port: int | None, workers: int | None, *, quiet: bool) -> None:
    """Serve models to other programs.

    Without --config every model whose key is set is served, and the simulator if there is no key at all. A key of the
    gateway is required as soon as one was created (deluge keys create), or DELUGE_MASTER_KEY is set.
    """
    warning = load_dotenv_here()
    if warning is not None:
        report(warning)
    settings = read_gateway_settings(config)
    limiter = os.environ.get(_LIMITER_VARIABLE, "").strip() or None
    named = {"host": host, "port": port, "workers": workers, "limiter": limiter}
    own = {name: value for name, value in named.items() if value is not None}
    settings = msgspec.structs.replace(settings, **own)
    from lm_deluge.gateway.access_log import AccessLog, show_warnings
    from lm_deluge.option_checks import check_limiter

    show_warnings()
    check_limiter(settings.limiter)
    raise_file_limit()
    for name in settings.ignored:
        report(f"{name} is ignored")
    options: dict[str, Any] = {
        "database": database_of(settings),
        "master_key": os.environ.get(_MASTER_VARIABLE, "").strip() or None,
        "on_start": _announce,
    }
    if settings.workers > 1:
        _serve_with_workers(settings, is_quiet=quiet, **options)
        return
    from lm_deluge.gateway.serve import serve as run_server

    asyncio.run(run_server(settings, log=AccessLog(None if quiet else sys.stderr), **options))


def _serve_with_workers(settings: Any, **options: Any) -> None:
    from lm_deluge.gateway.cluster.workers import serve_with_workers

    with tempfile.TemporaryDirectory(prefix="deluge-metrics-", ignore_cleanup_errors=True) as folder:
        os.environ[_METRICS_VARIABLE] = folder  # the workers inherit it
        asyncio.run(serve_with_workers(settings, metrics_folder=folder, **options))


def _announce(is_simulated: bool, url: str) -> None:  # noqa: FBT001 - as the server calls it
    """Report the address, and how to use it."""
    what = "answers of the simulator (no key of a provider is set)" if is_simulated else "models"
    report(f"serving {what} at {url}")
    report(setting_command("OPENAI_BASE_URL", f"{url}/v1"))
    report(setting_command("ANTHROPIC_BASE_URL", url))
