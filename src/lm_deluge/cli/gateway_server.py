"""The gateway in the foreground, as the commands run it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

from lm_deluge.cli.default_model import find_default_model
from lm_deluge.cli.environment import load_dotenv_here, raise_file_limit
from lm_deluge.cli.gateway_database import database_of
from lm_deluge.cli.render.terminal import report

__all__ = ["load_environment", "run_gateway", "with_page"]

_MASTER_VARIABLE = "DELUGE_MASTER_KEY"


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


def run_gateway(settings: Any, *, on_start: Callable[[Any, str], None], is_quiet: bool) -> None:
    """Run the gateway until a signal stops it.

    Args:
        settings: The settings.
        on_start: Called with the gateway and its URL once the server listens.
        is_quiet: Write no line for each call.

    Raises:
        ConfigurationError: A setting cannot be used, the port is taken, or a database cannot be opened.
    """
    from lm_deluge.gateway.access_log import AccessLog
    from lm_deluge.gateway.serve import serve

    raise_file_limit()
    for name in settings.ignored:
        report(f"{name} is ignored")
    asyncio.run(
        serve(
            settings,
            database=database_of(settings),
            master_key=os.environ.get(_MASTER_VARIABLE, "").strip() or None,
            log=AccessLog(None if is_quiet else sys.stderr),
            on_start=on_start,
        )
    )
