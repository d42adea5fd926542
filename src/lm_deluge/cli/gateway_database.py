"""The database of the gateway, as the commands find it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from lm_deluge.cli.environment import state_folder
from lm_deluge.errors import ConfigurationError, MissingExtraError
from lm_deluge.extras import install_hint

__all__ = ["database_of", "read_gateway_settings", "with_ledger"]

T = TypeVar("T")

_DATABASE_VARIABLE = "DELUGE_DATABASE"  # a URL with a password does not belong into a file of settings
_PACKAGES = ("starlette", "uvicorn", "httptools", "sqlalchemy", "aiosqlite")


def read_gateway_settings(config: Path | None) -> Any:
    """Return the settings of a file; without one, those of a gateway that serves every model with a key.

    Raises:
        MissingExtraError: A package of the gateway is not installed.
        ConfigurationError: The file cannot be read, or a setting in it is wrong.
    """
    from importlib.util import find_spec

    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"the gateway needs {', '.join(missing)}", hint=install_hint(" ".join(missing)))
    from lm_deluge.gateway.configuration.settings import GatewaySettings, read_settings

    return GatewaySettings() if config is None else read_settings(config)


def database_of(settings: Any) -> str:
    """Return the URL of the database: of the environment, of the settings, or of the default one, whose folder is made.

    Raises:
        ConfigurationError: The folder cannot be made.
    """
    named = os.environ.get(_DATABASE_VARIABLE, "").strip() or settings.database
    if named is not None:
        return str(named)
    folder = state_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be made: {error.strerror}") from error
    return f"sqlite:///{folder / 'gateway.db'}"


def with_ledger(config: Path | None, use: Callable[[Any], Awaitable[T]]) -> T:
    """Open the ledger, use it, and close it.

    Raises:
        ConfigurationError: The database cannot be opened.
    """
    settings = read_gateway_settings(config)

    async def run() -> T:
        from lm_deluge.gateway.ledger.database import Database
        from lm_deluge.gateway.ledger.ledger import Ledger

        database = Database(database_of(settings))
        await database.open()
        try:
            return await use(Ledger(database))
        finally:
            await database.close()

    return asyncio.run(run())
