"""The built-in local cache: one SQLite file of limited size, which several processes may share.

The least recently used answers are deleted for new ones. A damaged file is renamed, and a new file is created. Errors
of the cache are only warnings.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lm_deluge.api_requests.credentials import find_cache_folder
from lm_deluge.errors import ConfigurationError

__all__ = ["DEFAULT_MAX_BYTES", "SQLiteCache", "open_cache"]

T = TypeVar("T")

DEFAULT_MAX_BYTES = 512 * 2**20
"""Room for many thousand answers, and a small part of a usual disk."""
_APPLICATION_ID = 0x64656C75  # "delu"
_VERSION = 1  # of the schema; a file with another version is not touched
_OVERHEAD = 512  # bytes of a row beside its value: its key, twice, and the unused part of its last page
_BUSY_S = 1.5  # wait for another process's lock; below the timeout of the call, which reports less about the cause
_MAX_LOG_BYTES = 16 * 2**20  # of the write-ahead log after a checkpoint: small beside the cache
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, value BLOB NOT NULL, size INTEGER NOT NULL, used INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS by_use ON answers (used, size);
CREATE TABLE IF NOT EXISTS total (bytes INTEGER NOT NULL);
INSERT INTO total SELECT 0 WHERE NOT EXISTS (SELECT * FROM total);
CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON answers BEGIN UPDATE total SET bytes = bytes + new.size; END;
CREATE TRIGGER IF NOT EXISTS removed AFTER DELETE ON answers BEGIN UPDATE total SET bytes = bytes - old.size; END;
"""


class _ForeignError(Exception):
    """The file is a database of another program or a newer version. It is not changed."""


class _Database:
    """The file, as one process uses it. Blocking; a lock makes it safe for several threads."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.pid = os.getpid()
        self._path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    def run(self, operation: Callable[[sqlite3.Connection], T]) -> tuple[T, bool]:
        """Return the result of an operation, and whether a damaged file was renamed before it succeeded."""
        with self._lock:
            try:
                return operation(self._open()), False
            except sqlite3.DatabaseError as error:
                if (error.sqlite_errorcode & 0xFF if hasattr(error, "sqlite_errorcode") else 0) not in _DAMAGE:
                    raise
                was_renamed = self._rename_damaged()
                return operation(self._open()), was_renamed

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            self._inode = self._path.stat().st_ino
            connection = sqlite3.connect(self._path, _BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                self._set_up(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        has_tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if has_tables and (owner, version) != (_APPLICATION_ID, _VERSION):
            raise _ForeignError
        with contextlib.suppress(sqlite3.OperationalError):  # another process does the same at this moment
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {_MAX_LOG_BYTES}")
        if not has_tables:
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute("COMMIT")

    def _rename_damaged(self) -> bool:
        """Rename the damaged file; return False if another process has renamed it already."""
        self.close_connection()
        try:
            if self._path.stat().st_ino != self._inode:
                return False
            for ending in ("-wal", "-shm", ""):
                with contextlib.suppress(FileNotFoundError):
                    self._beside(ending).replace(self._beside(f".damaged{ending}"))
        except FileNotFoundError:
            return False
        return True

    def _beside(self, ending: str) -> Path:
        return self._path.with_name(self._path.name + ending)

    def get(self, connection: sqlite3.Connection, key: str) -> bytes | None:
        row = connection.execute("SELECT id, value FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        with contextlib.suppress(sqlite3.OperationalError):  # busy or read-only: the time of use is not updated
            connection.execute(
                "UPDATE answers SET used = 1 + (SELECT max(used) FROM answers) "
                "WHERE id = ? AND used < (SELECT max(used) FROM answers)",
                (row[0],),
            )
        return bytes(row[1])

    def put(self, connection: sqlite3.Connection, key: str, value: bytes) -> None:
        size = len(value) + _OVERHEAD
        if size > self._max_bytes // 4:
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute("DELETE FROM answers WHERE key = ?", (key,))
            connection.execute(
                "INSERT INTO answers (key, value, size, used) "
                "VALUES (?, ?, ?, 1 + coalesce((SELECT max(used) FROM answers), 0))",
                (key, value, size),
            )
            self._make_room(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _make_room(self, connection: sqlite3.Connection) -> None:
        over = connection.execute("SELECT bytes FROM total").fetchone()[0] - self._max_bytes
        expired = []
        if over > 0:
            for row in connection.execute("SELECT id, size FROM answers ORDER BY used"):
                expired.append(row[:1])
                over -= row[1]
                if over <= 0:
                    break
        connection.executemany("DELETE FROM answers WHERE id = ?", expired)

    def close(self) -> None:
        with self._lock:
            self.close_connection()

    def close_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


_inherited: list[_Database] = []
"""Databases of parent processes, which are neither used nor closed: https://sqlite.org/howtocorrupt.html, 2.6."""


class SQLiteCache:
    """A `LocalCache` in one SQLite file. Clients, event loops, threads and processes may share it.

    Args:
        path: The file; it is created at the first use, with its folders.
        max_bytes: Most bytes of all answers together. An answer larger than a quarter of it is not stored.

    Raises:
        ConfigurationError: `max_bytes` is not a positive integer.

    Example:
        >>> cache = SQLiteCache("answers.sqlite3", max_bytes=50_000_000)
        >>> client = LLMClient("gpt-5.4", local_cache=cache)
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes <= 0:
            raise ConfigurationError(f"max_bytes={max_bytes!r} is not a positive number of bytes")
        self.path = Path(path).expanduser()
        self._max_bytes = max_bytes
        self._database = self._new_database()

    def __repr__(self) -> str:
        return f"SQLiteCache({str(self.path)!r})"

    def _new_database(self) -> _Database:
        database = _Database(self.path, self._max_bytes)
        weakref.finalize(self, _close_own, database)
        return database

    def _own_database(self) -> _Database:
        if self._database.pid != os.getpid():
            _inherited.append(self._database)
            self._database = self._new_database()
        return self._database

    async def get(self, key: str) -> bytes | None:
        """Return the value of a key; None if there is none."""
        database = self._own_database()
        return await self._run(lambda connection: database.get(connection, key), "read")

    async def put(self, key: str, value: bytes) -> None:
        """Store a value; the least recently used values are deleted to make room."""
        database = self._own_database()
        await self._run(lambda connection: database.put(connection, key, value), "written")

    async def _run(self, operation: Callable[[sqlite3.Connection], T], participle: str) -> T | None:
        try:
            result, was_damaged = await asyncio.to_thread(self._own_database().run, operation)
        except _ForeignError:
            self._warn("belongs to another program or a newer version, so it is not used")
            return None
        except (OSError, sqlite3.Error) as error:
            self._warn(f"cannot be {participle}: {getattr(error, 'strerror', None) or error}")
            return None
        if was_damaged:
            self._warn(f"was damaged; it was renamed to {self.path.name}.damaged, and a new file was created")
        return result

    def _warn(self, problem: str) -> None:
        warnings.warn(f"the local cache {self.path} {problem}", RuntimeWarning, stacklevel=4)

    async def close(self) -> None:
        """Close the file. The next use opens it again."""
        await asyncio.to_thread(self._own_database().close)


def _close_own(database: _Database) -> None:
    if database.pid == os.getpid():
        database.close_connection()


def open_cache(path: str | os.PathLike[str] | None) -> SQLiteCache:
    """Return the cache at a path, by default `answers.sqlite3` in the user's cache folder."""
    return SQLiteCache(find_cache_folder() / "answers.sqlite3" if path is None else path)
