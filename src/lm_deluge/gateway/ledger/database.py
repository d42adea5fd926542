"""The connection to the database, and one writer that joins the operations of many calls into few transactions.

Several servers share a database of PostgreSQL, or of SQLite on one machine. Their operations exclude each other by the
locks of the rows that they change. An operation that meets another one fails as a whole, and runs again.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import MetaData, event
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError
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
_OPENING_S = 15.0  # for the connection at the start: asyncpg alone waits a minute for a host that does not answer
_MOST_TRIES = 5  # of an operation that meets those of other servers; each try lets at least one of them through
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
_PORTS = 2**16  # of TCP
_WRITES = "deluge_writes"  # the option of connections whose transactions write
_CONFLICTS = ("40001", "40P01")
"""Codes of PostgreSQL for transactions that other ones stopped: https://www.postgresql.org/docs/current/errcodes-appendix.html
(40001 serialization_failure, 40P01 deadlock_detected)."""


class _Queued(NamedTuple):
    """An operation that waits for the writer."""

    operation: Operation[Any]
    done: asyncio.Future[Any]
    order: str


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
        self._writing = self._engine.execution_options(**{_WRITES: True})
        self._queue: asyncio.Queue[_Queued] | None = None
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, and create the tables that are missing.

        Raises:
            ConfigurationError: The database cannot be reached.
        """
        try:
            _check_file(self._engine.url)
            async with asyncio.timeout(_OPENING_S):
                try:
                    await self._create_tables()
                except SQLAlchemyError:  # another server created them at the same time: then they are there now
                    await self._create_tables()
        except Exception as error:  # noqa: BLE001 - drivers raise errors of their own, which have the URL in their text
            await self._engine.dispose()
            raise ConfigurationError(f"the database cannot be opened: {_opening_reason(error)}") from None
        self._queue = asyncio.Queue()
        self._writer = asyncio.get_running_loop().create_task(self._write())

    async def _create_tables(self) -> None:
        async with self._writing.begin() as connection:
            await connection.run_sync(self._metadata.create_all)

    async def read(self, operation: Operation[T]) -> T:
        """Run an operation that changes nothing.

        Raises:
            OverloadedError: The database failed.
        """
        try:
            async with self._engine.connect() as connection:
                return await operation(connection)
        except DelugeError:
            raise
        except Exception as error:  # noqa: BLE001 - drivers raise errors of their own
            raise _broken(error) from None

    async def run(self, operation: Operation[T], *, order: str = "", is_new: bool = False) -> T:
        """Run an operation in a transaction, together with others that wait; return once it is committed.

        Args:
            operation: Changes the tables. It runs again if it meets an operation of another server.
            order: The key whose rows it changes first. Operations of one transaction run in this order, so that two
                servers do not wait for each other.
            is_new: Whether it belongs to a call that can still be refused.

        Raises:
            OverloadedError: The database does not keep up, and the call is new.
        """
        if self._queue is None:
            raise ConfigurationError("the database is not open")
        if is_new and self._queue.qsize() >= _MOST_QUEUED:
            raise OverloadedError("the database of the gateway does not keep up", status_code=503)
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Queued(operation, done, order))
        return await asyncio.shield(done)

    def post(self, operation: Operation[Any], *, order: str = "") -> None:
        """Run an operation some time later, without a result. It is left out while the database does not keep up."""
        if self._queue is not None and self._queue.qsize() < _MOST_QUEUED:
            self._queue.put_nowait(_Queued(operation, asyncio.get_running_loop().create_future(), order))

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

    async def _commit(self, batch: list[_Queued], *, tries: int = _MOST_TRIES) -> None:
        """Run operations in one transaction; if that fails, each in a transaction of its own."""
        batch.sort(key=lambda queued: queued.order)
        try:
            async with self._writing.begin() as connection:
                results = [await queued.operation(connection) for queued in batch]
        except Exception as error:  # noqa: BLE001 - the writer must go on; the caller of the operation gets the error
            if len(batch) > 1:
                for one in batch:
                    await self._commit([one])
            elif tries > 1 and _is_conflict(error):
                await self._commit(batch, tries=tries - 1)
            else:
                _fail(batch[0].done, error if isinstance(error, DelugeError) else _broken(error))
            return
        for queued, result in zip(batch, results, strict=True):
            if not queued.done.done():
                queued.done.set_result(result)


def _is_conflict(error: Exception) -> bool:
    """Whether another server changed the same rows: the operation finds what that server wrote when it runs again."""
    if isinstance(error, IntegrityError):
        return True
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _CONFLICTS


def _fail(done: asyncio.Future[Any], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
        done.exception()  # the waiter may be gone


def _broken(error: Exception) -> OverloadedError:
    return OverloadedError(f"the database of the gateway failed: {_reason(error)}", status_code=503)


def _reason(error: Exception) -> str:
    """Return why the database failed, without the statement, which has values of calls, and without its URL."""
    if isinstance(error, OSError):  # TimeoutError is one
        return error.strerror or "no answer"
    original = getattr(error, "orig", None) or error
    return type(original.__cause__ or original).__name__


def _opening_reason(error: Exception) -> str:
    """Return why the database cannot be opened. No values of calls are in this text, and no password."""
    original = getattr(error, "orig", None) or error
    cause = original.__cause__ or original
    if isinstance(cause, TimeoutError):
        return "no answer"
    if isinstance(cause, TypeError):
        return "its driver does not know a parameter of the URL"
    is_explained = isinstance(cause, OSError | sqlite3.Error) or hasattr(cause, "sqlstate")
    return str(cause).partition("\n")[0] if is_explained else _reason(error)


def _engine(url: str) -> AsyncEngine:
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ConfigurationError("the database is not a URL", hint="Write sqlite:///deluge.db, for example.")
    try:
        parsed = make_url(f"{_DRIVERS.get(scheme, scheme)}://{rest}")
        is_sqlite = parsed.get_backend_name() == "sqlite"
        parsed = parsed if is_sqlite else _for_driver(parsed)
        # A pool whose connections the server closed, as after its restart, connects again instead of failing.
        engine = create_async_engine(parsed, hide_parameters=True, pool_pre_ping=not is_sqlite)
    except ImportError as error:
        package = "asyncpg" if scheme.startswith("postgres") else "aiosqlite"
        raise MissingExtraError(f"the database needs {package}", hint=install_hint(package)) from error
    except (ArgumentError, NoSuchModuleError, ValueError, TypeError) as error:
        raise ConfigurationError("the URL of the database is not valid") from error
    if (parsed.port or 0) >= _PORTS:
        raise ConfigurationError("the URL of the database is not valid")
    if is_sqlite:
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _check_file(url: URL) -> None:
    """Open the file of SQLite once, if the database is one. Raises the error of `sqlite3` if that fails.

    The thread that aiosqlite (0.22) starts for a connection outlives one that fails, and may meet a closed event loop.
    """
    if url.get_backend_name() == "sqlite" and url.database and not url.database.startswith((":", "file:")):
        sqlite3.connect(url.database).close()


def _for_driver(url: URL) -> URL:
    """Return a URL with asyncpg's names for the parameters that hosts of PostgreSQL put into theirs, which are libpq's.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
    """
    if url.get_driver_name() != "asyncpg":
        return url
    query = dict(url.query)
    if (mode := query.pop("sslmode", None)) is not None:
        query.setdefault("ssl", mode)
    query.pop("channel_binding", None)  # asyncpg decides that itself
    return url.set(query=query)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Let other processes read while one writes, and wait for a lock instead of failing."""
    connection.isolation_level = None  # Python begins no transaction by itself; see `_begin_sqlite`
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")  # survives the end of the process, which is what WAL is for
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """Take the lock for writing before the first read of a transaction that writes: what it read stays true.

    https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#controlling-transactions (2026-11)
    """
    is_writing = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")
