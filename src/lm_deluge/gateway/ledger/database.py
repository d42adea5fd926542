"""The connection to the database, and one writer that joins the operations of many calls into few transactions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sqlalchemy import MetaData, event
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from lm_deluge.errors import ConfigurationError, DelugeError, MissingExtraError, OverloadedError
from lm_deluge.extras import install_hint
from lm_deluge.gateway.ledger.tables import METADATA

__all__ = ["Database"]

T = TypeVar("T")
Operation = Callable[[AsyncConnection], Awaitable[T]]

_MOST_QUEUED = 10_000
"""Operations that wait for the database. More means that it stands still: new calls are refused then, and the memory of
the server does not grow."""
_MOST_JOINED = 500  # operations of one transaction: a commit costs as much as a hundred of them
_BUSY_TIMEOUT_MS = 10_000  # for a lock of SQLite, which another process holds for a single transaction
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}


class Database:
    """The database of a gateway.

    Args:
        url: `sqlite:///deluge.db`, `postgresql://user:password@host/name`, or any URL with an asynchronous driver.

        metadata: The tables, which are created where they are missing; by default those of the ledger.

    Raises:
        ConfigurationError: The URL is not valid.
        MissingExtraError: The driver is not installed.
    """

    def __init__(self, url: str, metadata: MetaData = METADATA) -> None:
        self._engine = _engine(url)
        self._metadata = metadata
        self._queue: asyncio.Queue[tuple[Operation[Any], asyncio.Future[Any]]] | None = None
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, and create the tables that are missing.

        Raises:
            ConfigurationError: The database cannot be reached.
        """
        try:
            async with self._engine.begin() as connection:
                await connection.run_sync(self._metadata.create_all)
        except (SQLAlchemyError, OSError) as error:
            raise ConfigurationError(f"the database cannot be opened: {_reason(error)}") from None
        self._queue = asyncio.Queue()
        self._writer = asyncio.get_running_loop().create_task(self._write())

    async def read(self, operation: Operation[T]) -> T:
        """Run an operation that changes nothing."""
        async with self._engine.connect() as connection:
            return await operation(connection)

    async def run(self, operation: Operation[T], *, is_new: bool = False) -> T:
        """Run an operation in a transaction, together with others that wait; return once it is committed.

        Args:
            operation: Changes the tables.
            is_new: Whether it belongs to a call that can still be refused.

        Raises:
            OverloadedError: The database does not keep up, and the call is new.
        """
        if self._queue is None:
            raise ConfigurationError("the database is not open")
        if is_new and self._queue.qsize() >= _MOST_QUEUED:
            raise OverloadedError("the database of the gateway does not keep up", status_code=503)
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((operation, done))
        return await asyncio.shield(done)

    def post(self, operation: Operation[Any]) -> None:
        """Run an operation some time later, without a result. It is left out while the database does not keep up."""
        if self._queue is not None and self._queue.qsize() < _MOST_QUEUED:
            self._queue.put_nowait((operation, asyncio.get_running_loop().create_future()))

    async def close(self) -> None:
        """Run what waits, and disconnect."""
        if self._queue is not None and self._writer is not None:
            await self._queue.join()
            self._writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._writer
            self._queue = None  # a call that ends later gets an error, and does not wait for ever
        await self._engine.dispose()

    async def _write(self) -> None:
        assert self._queue is not None  # noqa: S101 - set before the task starts
        while True:
            batch = [await self._queue.get()]
            while len(batch) < _MOST_JOINED and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            try:
                await self._commit(batch)
            finally:
                for _ in batch:
                    self._queue.task_done()

    async def _commit(self, batch: list[tuple[Operation[Any], asyncio.Future[Any]]]) -> None:
        """Run operations in one transaction; if that fails, each in a transaction of its own."""
        try:
            async with self._engine.begin() as connection:
                results = [await operation(connection) for operation, _ in batch]
        except Exception as error:  # noqa: BLE001 - the writer must go on; the caller of the operation gets the error
            if len(batch) > 1:
                for one in batch:
                    await self._commit([one])
                return
            _fail(batch[0][1], error if isinstance(error, DelugeError) else _broken(error))
            return
        for (_, done), result in zip(batch, results, strict=True):
            if not done.done():
                done.set_result(result)


def _fail(done: asyncio.Future[Any], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
        done.exception()  # the waiter may be gone


def _broken(error: Exception) -> OverloadedError:
    return OverloadedError(f"the database of the gateway failed: {_reason(error)}", status_code=503)


def _reason(error: Exception) -> str:
    """Return why the database failed, without the statement, which has values of calls, and without its URL."""
    inner = getattr(error, "orig", None) or error
    return type(inner).__name__ if isinstance(error, SQLAlchemyError) else getattr(error, "strerror", "") or "no answer"


def _engine(url: str) -> AsyncEngine:
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ConfigurationError("the database is not a URL", hint="Write sqlite:///deluge.db, for example.")
    try:
        engine = create_async_engine(f"{_DRIVERS.get(scheme, scheme)}://{rest}", hide_parameters=True)
    except ImportError as error:
        package = "asyncpg" if scheme.startswith("postgres") else "aiosqlite"
        raise MissingExtraError(f"the database needs {package}", hint=install_hint(package)) from error
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise ConfigurationError("the URL of the database is not valid") from error
    if scheme.startswith("sqlite"):
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Let other processes read while one writes, and wait for a lock instead of failing."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")  # survives the end of the process, which is what WAL is for
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    cursor.close()
