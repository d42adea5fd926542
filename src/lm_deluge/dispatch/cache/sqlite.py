"""The local cache that is built in: one SQLite file, shared by all processes of a user, of a bounded size.

The least recently used answers make way for new ones. A file that is damaged is moved aside and a new one begun.
Whatever goes wrong with the cache is a warning and no more.
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
_APPLICATION_ID = 0x64656C75  # "delu"
_VERSION = 1
_OVERHEAD = 512  # of a row: its key, twice, and what is unused in its last page
_BUSY_S = 1.5
_MOST_LOG_BYTES = 16 * 2**20
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
    """The file is a database of something else, or of a newer version: it is not touched."""


class _Database:
    """The file, for one process. Blocking; its lock makes it safe for several threads."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.pid = os.getpid()
        self._path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    def run(self, spec: Callable[[sqlite3.Connection], T]) -> tuple[T, bool]:
        """Return what the work returns, and whether a damaged file was moved aside for it."""
        with self._lock:
            try:
                return spec(self._open()), False
            except sqlite3.DatabaseError as error:
                if (error.sqlite_errorcode & 0xFF if hasattr(error, "sqlite_errorcode") else 0) not in _DAMAGE:
                    raise
                is_mine = self._move_aside()
                return spec(self._open()), is_mine

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
        with contextlib.suppress(sqlite3.OperationalError):  # another process is just doing the same
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {_MOST_LOG_BYTES}")
        if not has_tables:
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute("COMMIT")

    def _move_aside(self) -> bool:
        """Rename the damaged file; return whether it was there: another process may have been quicker."""
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
        with contextlib.suppress(sqlite3.OperationalError):  # busy, or read-only: then it counts as unused
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
        leaving = []
        if over > 0:
            for row in connection.execute("SELECT id, size FROM answers ORDER BY used"):
                leaving.append(row[:1])
                over -= row[1]
                if over <= 0:
                    break
        connection.executemany("DELETE FROM answers WHERE id = ?", leaving)

    def close(self) -> None:
        with self._lock:
            self.close_connection()

    def close_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


_inherited: list[_Database] = []
"""Of parents of this process. They are never used and never closed: https://sqlite.org/howtocorrupt.html, 2.6."""


class SQLiteCache:
    """A `LocalCache` in one SQLite file. It may be shared by clients, event loops, threads and processes.

    Args:
        path: The file; it is made when it is needed, its folders too.
        max_bytes: How large the answers in it may be altogether. One that takes a quarter of it is not kept.

    Raises:
        ConfigurationError: `max_bytes` is no positive integer.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes <= 0:
            raise ConfigurationError(f"max_bytes={max_bytes!r} is no number of bytes above 0")
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
        """Return what was put under a key."""
        database = self._own_database()
        return await self._run(lambda connection: database.get(connection, key), "read")

    async def put(self, key: str, value: bytes) -> None:
        """Keep a value; the least recently used ones make room for it."""
        database = self._own_database()
        await self._run(lambda connection: database.put(connection, key, value), "written")

    async def _run(self, spec: Callable[[sqlite3.Connection], T], what: str) -> T | None:
        try:
            result, was_damaged = await asyncio.to_thread(self._own_database().run, spec)
        except _ForeignError:
            self._warn("holds something else, or was written by a newer version: it is not used")
            return None
        except (OSError, sqlite3.Error) as error:
            self._warn(f"cannot be {what}: {getattr(error, 'strerror', None) or error}")
            return None
        if was_damaged:
            self._warn(f"was damaged; it is now {self.path.name}.damaged, and a new one was begun")
        return result

    def _warn(self, what: str) -> None:
        warnings.warn(f"the local cache {self.path} {what}", RuntimeWarning, stacklevel=4)

    async def close(self) -> None:
        """Close the file. It is opened again where it is needed."""
        await asyncio.to_thread(self._own_database().close)


def _close_own(database: _Database) -> None:
    if database.pid == os.getpid():
        database.close_connection()


def open_cache(path: str | os.PathLike[str] | None) -> SQLiteCache:
    """Return the cache at a path, by default the one in the user's cache folder."""
    return SQLiteCache(find_cache_folder() / "answers.sqlite3" if path is None else path)
