"""The database of the page: opened, brought to the newest version, and cleared of answers that were lost."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from sqlalchemy import select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from lm_deluge.errors import ConfigurationError
from lm_deluge.gateway.ledger.database import Database
from lm_deluge.gateway.page.store.tables import MESSAGES, METADATA, create_search, migrate

__all__ = ["PageDatabase", "database_beside", "new_id", "without_nul"]

T = TypeVar("T")

_ID_BYTES = 16  # 128 random bits: an id cannot be guessed
_LOST_AFTER_S = 60.0
"""Seconds after which an answer of another machine that was not saved is lost. A running one is saved each second."""


def new_id() -> str:
    """Return an id."""
    return secrets.token_hex(_ID_BYTES)


def without_nul(text: str) -> str:
    """Return a text as databases take it: PostgreSQL has no NUL in texts. In JSON it is escaped."""
    return text.replace("\0", " ")


def database_beside(ledger: str) -> str:
    """Return the URL of the database with the conversations, next to that of the ledger.

    A file of SQLite has one writer at a time, and a file of a user that is stored does not delay a call: so the page
    has a file of its own. Other databases have both.
    """
    if not ledger.startswith("sqlite"):
        return ledger
    head, separator, path = ledger.partition(":///")
    if not separator or path in ("", ":memory:"):
        return ledger
    found = Path(path)
    return f"{head}:///{found.with_name(f'{found.stem}-page{found.suffix}')}"


class PageDatabase:
    """The database of the page.

    Args:
        url: As for the ledger. A file of SQLite is made with access for its owner only.

    Attributes:
        has_index: Whether the search has a full-text index.
        server: Name of this process, in the rows of its answers.

    Raises:
        ConfigurationError: The URL is not valid.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._database = Database(url, METADATA)
        self.has_index = False
        self.server = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"

    async def open(self) -> None:
        """Connect, bring the tables to the newest version, and note which answers were lost.

        Raises:
            ConfigurationError: The database cannot be opened, or is of a newer version.
        """
        _make_private(self._url)
        await self._database.open()
        try:
            await self.run(migrate)
            if self._url.startswith("sqlite"):
                self.has_index = await self._create_index()
            await self.fail_lost()
        except BaseException:
            await self._database.close()
            raise

    async def _create_index(self) -> bool:
        async def run(connection: AsyncConnection) -> bool:
            try:
                async with connection.begin_nested():
                    await create_search(connection)
            except SQLAlchemyError:  # this SQLite has no FTS5, or no trigrams
                return False
            return True

        return await self.run(run)

    async def close(self) -> None:
        """Write what waits, and disconnect."""
        await self._database.close()

    async def read(self, operation: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run an operation that changes nothing."""
        return await self._database.read(operation)

    async def run(self, operation: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run an operation in a transaction; return once it is committed."""
        return await self._database.run(operation)

    async def fail_lost(self) -> int:
        """Give the answers of processes that ended without a last word the status "failed"; return their number."""
        error = {
            "type": "StreamInterruptedError",
            "message": "The server ended before the answer was complete.",
            "retryable": True,
        }

        async def run(connection: AsyncConnection) -> int:
            columns = (MESSAGES.c.id, MESSAGES.c.server, MESSAGES.c.saved_at)
            rows = (await connection.execute(select(*columns).where(MESSAGES.c.status == "running"))).all()
            lost = [row.id for row in rows if not self._runs(row.server, row.saved_at)]
            if lost:
                change = update(MESSAGES).where(MESSAGES.c.id.in_(lost))
                await connection.execute(change.values(status="failed", error=msgspec.json.encode(error).decode()))
            return len(lost)

        return await self.run(run)

    def _runs(self, server: str, saved_at: float) -> bool:
        if server == self.server:
            return True
        host, _, rest = server.rpartition(":")[0].rpartition(":")
        if host != socket.gethostname():
            return time.time() - saved_at < _LOST_AFTER_S
        return int(rest) != os.getpid() and _exists(int(rest))


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return True


def _make_private(url: str) -> None:
    """Create the file of a database of SQLite so that only its owner can read it.

    Raises:
        ConfigurationError: The file cannot be made.
    """
    if not url.startswith("sqlite"):
        return
    path = make_url(url).database
    if path in (None, "", ":memory:"):
        return
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise ConfigurationError(f"the conversations cannot be stored: {error.strerror}") from error
