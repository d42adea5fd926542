"""The SQLite cache: shared, limited in size, and never an error, whatever file is at its path."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lm_deluge.dispatch.cache.sqlite import SQLiteCache, open_cache
from lm_deluge.errors import ConfigurationError

KEY = "0" * 64


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def bytes_of(path: Path) -> bytes:
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "cache"


async def test_what_was_put_is_got(path: Path) -> None:
    cache = SQLiteCache(path)
    assert await cache.get(KEY) is None
    await cache.put(KEY, b"one")
    await cache.put(KEY, b"two")
    assert await cache.get(KEY) == b"two"
    await cache.close()
    await cache.close()
    assert await cache.get(KEY) == b"two"  # it opens again
    other = SQLiteCache(str(path))
    assert await other.get(KEY) == b"two"
    await other.put(KEY, b"three")
    assert await cache.get(KEY) == b"three"
    for each in (cache, other):
        await each.close()
    assert mode_of(path) == 0o600
    assert mode_of(path.parent) == 0o700
    assert repr(cache) == f"SQLiteCache({str(path)!r})"


async def test_the_least_recently_used_make_room(path: Path) -> None:
    cache = SQLiteCache(path, max_bytes=10 * (1_000 + 512))
    for number in range(10):
        await cache.put(f"{number}", b"x" * 1_000)
    assert await cache.get("0") is not None  # used just now
    for number in range(10, 13):
        await cache.put(f"{number}", b"x" * 1_000)
    left = [number for number in range(13) if await cache.get(f"{number}") is not None]
    assert left == [0, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    await cache.put("large", b"x" * 4_000)  # more than a quarter
    assert await cache.get("large") is None
    await cache.close()


async def test_the_file_stays_bounded(path: Path) -> None:
    cache = SQLiteCache(path, max_bytes=400_000)
    for number in range(300):
        await cache.put(f"{number}", os.urandom(500 + 97 * (number % 100)))
    for number in range(50):
        await cache.put("the same", b"x" * (number * 100))
    await cache.close()
    assert len(bytes_of(path)) < 600_000
    with sqlite3.connect(path) as database:
        total, rows = database.execute("SELECT (SELECT bytes FROM total), sum(size) FROM answers").fetchone()
        assert total == rows <= 400_000
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


async def test_many_at_once(path: Path) -> None:
    cache = SQLiteCache(path)
    await asyncio.gather(*(cache.put(f"{number % 50}", b"%d" % number) for number in range(200)))
    found = await asyncio.gather(*(cache.get(f"{number}") for number in range(50)))
    assert all(int(value) % 50 == number for number, value in enumerate(found))
    await cache.close()


WRITER = """
import asyncio, sys, warnings
from lm_deluge.dispatch.cache.sqlite import SQLiteCache
warnings.simplefilter("error")

async def main(path, name):
    cache = SQLiteCache(path, max_bytes=200_000)
    for number in range(150):
        await cache.put(f"{number}", f"{number}".encode() * 500)
        value = await cache.get(f"{number}")
        assert value in (None, f"{number}".encode() * 500)
    await cache.close()

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


def test_two_processes_share_it(path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], stderr=subprocess.PIPE, text=True)  # noqa: S603
        for name in "ab"
    ]
    for process in processes:
        _, said = process.communicate()
        assert process.returncode == 0, said
    database = sqlite3.connect(path)
    total, rows = database.execute("SELECT (SELECT bytes FROM total), sum(size) FROM answers").fetchone()
    assert total == rows <= 200_000
    database.close()


FORKED = """
import asyncio, os, sys
from lm_deluge.dispatch.cache.sqlite import SQLiteCache
cache = SQLiteCache(sys.argv[1])
asyncio.run(cache.put("a", b"parent"))
child = os.fork()
if child == 0:
    assert asyncio.run(cache.get("a")) == b"parent"
    asyncio.run(cache.put("b", b"child"))
    asyncio.run(cache.close())
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert asyncio.run(cache.get("b")) == b"child"
asyncio.run(cache.put("c", b"parent"))
del cache
print("ok")
"""


def test_a_forked_child_opens_it_anew(path: Path) -> None:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "error", "-c", FORKED, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("ok\n", "")


def damage_page(path: Path) -> None:
    """Overwrite all but the first page."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4_096)
        file.write(b"\xa5" * (size - 4_096))


DAMAGES: dict[str, Any] = {
    "no database": lambda path: path.write_bytes(b"Dear diary, " * 1_000),
    "damaged pages": damage_page,
}


@pytest.mark.parametrize("name", DAMAGES)
async def test_a_damaged_file_is_moved_aside(name: str, path: Path) -> None:
    cache = SQLiteCache(path)
    for number in range(20):
        await cache.put(f"{number}", b"x" * 3_000)
    await cache.close()
    DAMAGES[name](path)
    bad = bytes_of(path)
    with pytest.warns(
        RuntimeWarning, match=r"cache was damaged; it was renamed to cache.damaged, and a new file was created"
    ):
        assert await cache.get("7") is None
    await cache.put(KEY, b"one")
    assert await cache.get(KEY) == b"one"
    await cache.close()
    assert path.with_name("cache.damaged").read_bytes() == bad


async def test_only_one_of_two_moves_a_damaged_file_aside(path: Path) -> None:
    one, two = SQLiteCache(path), SQLiteCache(path)
    for cache in (one, two):
        await cache.put(KEY, b"x" * 9_000)
    await one.close()
    await two.close()
    damage_page(path)
    with pytest.warns(RuntimeWarning, match="was damaged"):
        await one.get(KEY)
    await one.put(KEY, b"new")
    two._database._inode = -1  # as if it had opened the old file
    assert await two.get(KEY) == b"new"
    for cache in (one, two):
        await cache.close()


async def test_a_database_of_something_else_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE answers (mine TEXT)")
    database.commit()
    database.close()
    before = bytes_of(path)
    cache = SQLiteCache(path)
    for spec in (cache.get(KEY), cache.put(KEY, b"one")):
        with pytest.warns(RuntimeWarning, match="belongs to another program or a newer version, so it is not used"):
            assert await spec is None
    await cache.close()
    assert bytes_of(path) == before


async def test_places_where_nothing_can_be_kept_are_warnings(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path, words in ((tmp_path / "file" / "cache", "File exists"), (tmp_path, "Is a directory")):
        cache = SQLiteCache(path)
        with pytest.warns(RuntimeWarning, match=f"the local cache {path} cannot be read: {words}"):
            assert await cache.get(KEY) is None
        with pytest.warns(RuntimeWarning, match="cannot be written"):
            await cache.put(KEY, b"one")
        await cache.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.warns(RuntimeWarning, match="cannot be written: Permission denied"):
        asyncio.run(SQLiteCache(tmp_path / "cache").put(KEY, b"one"))


async def test_a_full_disk_is_a_warning(path: Path) -> None:
    """A limit of SQLite: the same error as on a full disk."""
    cache = SQLiteCache(path)
    await cache.put("old", b"one")
    cache._database._connection.execute("PRAGMA max_page_count = 12")
    with pytest.warns(RuntimeWarning, match="cannot be written: database or disk is full"):
        await cache.put(KEY, b"x" * 100_000)
    assert await cache.get("old") == b"one"
    await cache.put("small", b"two")
    assert await cache.get("small") == b"two"
    await cache.close()


async def test_a_cache_that_is_locked_is_a_warning(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_deluge.dispatch.cache.sqlite._BUSY_S", 0.01)
    cache = SQLiteCache(path)
    await cache.put(KEY, b"one")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.warns(RuntimeWarning, match="cannot be written: database is locked"):
        await cache.put("2", b"two")
    assert await cache.get(KEY) == b"one"  # readers go on
    other.execute("ROLLBACK")
    other.close()
    await cache.close()


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "1"])
def test_a_size_that_is_none_is_refused(size: Any, path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a positive number of bytes"):
        SQLiteCache(path, max_bytes=size)


def test_the_default_is_the_user_s_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert open_cache(None).path == tmp_path / "lm-deluge" / "answers.sqlite3"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert open_cache(None).path.is_relative_to(Path.home())
    assert open_cache("~/x").path == Path.home() / "x"
