"""The gateway in the foreground, as the commands run it."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from lm_deluge.cli.default_model import find_default_model
from lm_deluge.cli.environment import load_dotenv_here, raise_file_limit
from lm_deluge.cli.gateway_database import database_of
from lm_deluge.cli.render.terminal import report

__all__ = ["load_environment", "run_gateway", "with_page"]

_MASTER_VARIABLE = "DELUGE_MASTER_KEY"
_LIMITER_VARIABLE = "DELUGE_LIMITER"  # a URL with a password does not belong into a file of settings
_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # https://prometheus.github.io/client_python/multiprocess/ (2026-11)


def load_environment() -> None:
    """Read `.env` in the working folder, and report why it cannot be read."""
    warning = load_dotenv_here()
    if warning is not None:
        report(warning)


def with_page(settings: Any, **page: Any) -> Any:
    """Return the settings of a gateway with some of those of its page; without a model, the usual one is the first."""
    import msgspec

    page = {name: value for name, value in page.items() if value is not None}
    if not settings.models and settings.page.model is None:
        page.setdefault("model", find_default_model())
    return msgspec.structs.replace(settings, page=msgspec.structs.replace(settings.page, **page))


def run_gateway(settings: Any, *, on_start: Callable[[Any], None], is_quiet: bool) -> None:
    """Run the gateway until a signal stops it, in as many processes as its settings have workers.

    Args:
        settings: The settings.
        on_start: Called with the `Listening` of the server, once it listens.
        is_quiet: Write no line for each call.

    Raises:
        ConfigurationError: A setting cannot be used, the port is taken, or a database cannot be opened.
    """
    import msgspec

    from lm_deluge.gateway.access_log import AccessLog, show_warnings
    from lm_deluge.gateway.serve import serve
    from lm_deluge.option_checks import check_limiter

    limiter = os.environ.get(_LIMITER_VARIABLE, "").strip() or settings.limiter
    check_limiter(limiter)
    settings = msgspec.structs.replace(settings, limiter=limiter)
    show_warnings()
    raise_file_limit()
    for name in settings.ignored:
        report(f"{name} is ignored")
    options: dict[str, Any] = {
        "database": database_of(settings),
        "master_key": os.environ.get(_MASTER_VARIABLE, "").strip() or None,
        "on_start": on_start,
    }
    if settings.workers > 1:
        _run_workers(settings, is_quiet=is_quiet, **options)
    else:
        asyncio.run(serve(settings, log=AccessLog(None if is_quiet else sys.stderr), **options))


def _run_workers(settings: Any, **options: Any) -> None:
    from lm_deluge.gateway.cluster.workers import serve_with_workers

    with tempfile.TemporaryDirectory(prefix="deluge-metrics-", ignore_cleanup_errors=True) as folder:
        os.environ[_METRICS_VARIABLE] = folder  # the workers inherit it
        asyncio.run(serve_with_workers(settings, metrics_folder=folder, **options))
