"""The database of the page: private, migrated, searched with and without an index, read with few queries."""

import asyncio
import os
import socket
import sqlite3
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import event, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.ledger.postgres import PostgresServer
from lm_deluge.errors import ConfigurationError, OverloadedError
from lm_deluge.gateway.page.bodies import AnswerSettings
from lm_deluge.gateway.page.store.conversations import ConversationStore
from lm_deluge.gateway.page.store.database import PageDatabase, database_beside
from lm_deluge.gateway.page.store.files import FileStore
from lm_deluge.gateway.page.store.messages import MessageStore, NewAnswers
from lm_deluge.gateway.page.store.records import Answered
from lm_deluge.gateway.page.store.tables import MESSAGES, VERSIONS, migrate


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[PageDatabase]:
    found = PageDatabase(f"sqlite:///{tmp_path / 'page.db'}")
    await found.open()
    yield found
    await found.close()


async def fill(database: PageDatabase, count: int) -> str:
    """Store a conversation with so many messages in one branch; return its id."""
    made = await ConversationStore(database).create("", title="Long", system="", settings=AnswerSettings())

    async def run(connection: AsyncConnection) -> None:
        rows = [
            {
                "id": f"m{number}",
                "parent": f"m{number - 1}" if number else None,
                "conversation": made["id"],
                "role": "assistant" if number % 2 else "user",
                "status": "complete",
                "upstream": "",
                "server": "",
                "parts": f'[{{"type":"text","text":"text {number}"}}]',
                "text": f"text {number}",
                "created_at": 0.0,
                "saved_at": 0.0,
            }
            for number in range(count)
        ]
        await connection.execute(insert(MESSAGES), rows)

    await database.run(run)
    return str(made["id"])


@pytest.mark.parametrize("count", [2, 2000])
async def test_the_number_of_queries_does_not_grow_with_the_messages(database: PageDatabase, count: int) -> None:
    conversation = await fill(database, count)
    statements: list[str] = []
    messages = MessageStore(database)

    def note(*arguments: object) -> None:
        statements.append(str(arguments[2]))

    event.listen(database._database._engine.sync_engine, "before_cursor_execute", note)
    found = await messages.open("", conversation)
    assert len(found["messages"]) == count
    assert len([each for each in statements if each.startswith(("SELECT", "WITH"))]) == 2
    statements.clear()
    path = await messages.path(conversation, f"m{count - 1}")
    assert [each.id for each in path] == [f"m{number}" for number in range(count)]
    assert len([each for each in statements if each.startswith(("SELECT", "WITH"))]) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes of files")
async def test_the_file_is_for_its_owner_only(tmp_path: Path, database: PageDatabase) -> None:
    await fill(database, 2)
    for path in tmp_path.glob("page.db*"):  # noqa: ASYNC240
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


async def test_a_database_of_a_newer_version_is_refused(tmp_path: Path, database: PageDatabase) -> None:
    async def run(connection: AsyncConnection) -> None:
        await connection.execute(update(VERSIONS).values(version=99))

    await database.run(run)
    other = PageDatabase(f"sqlite:///{tmp_path / 'page.db'}")
    with pytest.raises(ConfigurationError, match="version 99"):
        await other.open()


async def test_migrations_run_once_and_in_order(database: PageDatabase) -> None:
    steps: list[int] = []

    def step(number: int) -> object:
        async def run(connection: AsyncConnection) -> None:
            steps.append(number)

        return run

    migrations = {2: step(2), 3: step(3)}
    await database.run(lambda connection: migrate(connection, migrations))  # type: ignore[arg-type]
    await database.run(lambda connection: migrate(connection, migrations))  # type: ignore[arg-type]
    assert steps == [2, 3]
    assert await database.read(_version) == 3


async def _version(connection: AsyncConnection) -> int:
    return int((await connection.execute(select(VERSIONS.c.version))).scalar_one())


@pytest.mark.parametrize("has_index", [True, False])
async def test_the_search_is_the_same_without_an_index(database: PageDatabase, has_index: bool) -> None:
    assert database.has_index
    database.has_index = has_index
    conversation, store = await fill(database, 12), ConversationStore(database)
    for query, is_found in (("text", True), ("ext 11", True), ("TEXT", True), ("text 12x", False), ("e_t", False)):
        found, _ = await store.list("", query=query, before=None, limit=5)
        assert [each["id"] for each in found] == ([conversation] if is_found else []), query
    assert (await store.list("other", query="text", before=None, limit=5))[0] == []


async def test_the_index_follows_answers_and_removals(database: PageDatabase, tmp_path: Path) -> None:
    messages, store = MessageStore(database), ConversationStore(database)
    made = await store.create("", title="", system="", settings=AnswerSettings())
    new = NewAnswers(
        conversation=made["id"],
        parent=None,
        message=("q", '[{"type":"text","text":"question"}]', "question"),
        answers=[("a", "gpt-4o")],
        file_ids=[],
        title="question",
        settings=None,
    )
    await messages.add(new)
    await messages.save("a", Answered(status="running", parts=b"[]", upstream=""))
    await messages.save("a", Answered(status="complete", parts=b"[]", upstream="", text="wonderful"))
    await messages.save("a", Answered(status="failed", parts=b"[]", upstream="", text="changed"))
    assert (await messages.find("", "a")).status == "complete"
    assert (await store.list("", query="wonderful", before=None, limit=5))[0] != []
    assert (await store.list("", query="changed", before=None, limit=5))[0] == []
    await store.remove("", made["id"])
    with sqlite3.connect(tmp_path / "page.db") as connection:
        connection.execute("INSERT INTO deluge_page_search(deluge_page_search) VALUES ('integrity-check')")
        assert connection.execute("SELECT count(*) FROM deluge_page_messages").fetchone() == (0,)


@pytest.mark.parametrize(
    ("server", "age", "status"),
    [
        ("{host}:{pid}:old", 0.0, "failed"),  # an earlier process with the same number
        ("{host}:4194304:x", 0.0, "failed"),  # above the largest number of a process on Linux
        ("{host}:1:x", 9e9, "running"),
        ("elsewhere:7:x", 0.0, "running"),
        ("elsewhere:7:x", 61.0, "failed"),
    ],
)
async def test_answers_of_processes_that_are_gone_are_failed(
    database: PageDatabase, server: str, age: float, status: str
) -> None:
    conversation = await fill(database, 2)
    own = server.format(host=socket.gethostname(), pid=os.getpid())

    async def run(connection: AsyncConnection) -> None:
        change = update(MESSAGES).where(MESSAGES.c.id == "m1")
        await connection.execute(change.values(status="running", server=own, saved_at=time.time() - age))

    await database.run(run)
    assert await database.fail_lost() == (status == "failed")
    found = (await MessageStore(database).open("", conversation))["messages"][1]
    assert found.status == status
    assert bytes(found.parts) == b'[{"type":"text","text":"text 1"}]'
    assert (found.error is None) == (status == "running")


async def test_what_the_database_does_not_take_is_tried_again(database: PageDatabase, tmp_path: Path) -> None:
    conversation = await fill(database, 1)
    store = MessageStore(database, retry_s=0.01)
    (answer,) = await store.add(
        NewAnswers(
            conversation=conversation,
            parent=None,
            message=None,
            answers=[("a" * 32, "gpt-4o")],
            file_ids=[],
            title="",
            settings=None,
        )
    )
    with sqlite3.connect(tmp_path / "page.db") as disk:
        disk.execute("CREATE TRIGGER full BEFORE UPDATE ON deluge_page_messages BEGIN SELECT RAISE(FAIL, 'full'); END")
    ended = Answered(status="complete", parts=b"[]", upstream="[]", text="the end", cost=1.0)
    failure = await store.save_end(answer.id, ended)
    assert isinstance(failure, OverloadedError)
    await store.save_cost(answer.id, {"output_tokens": 7}, 2.0)
    shown = await store.find("", answer.id)
    assert (shown.status, shown.cost, shown.unsaved) == ("complete", 2.0, True)
    assert (await store.path(conversation, answer.id))[-1].status == "complete"
    with disk:
        disk.execute("DROP TRIGGER full")
    row = "SELECT status, text, cost FROM deluge_page_messages WHERE id = ?"
    async with asyncio.timeout(10):
        while disk.execute(row, (answer.id,)).fetchone() != ("complete", "the end", 2.0):
            await asyncio.sleep(0.01)
    await store.close()
    disk.close()


@pytest.mark.parametrize(
    ("ledger", "page"),
    [
        ("sqlite:////var/deluge.db", "sqlite:////var/deluge-page.db"),
        ("sqlite:///deluge.db", "sqlite:///deluge-page.db"),
        ("sqlite://", "sqlite://"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("postgresql://user:secret@host/name", "postgresql://user:secret@host/name"),
    ],
)
def test_the_database_of_the_page_is_beside_that_of_the_keys(ledger: str, page: str) -> None:
    assert database_beside(ledger) == page


async def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be stored"):
        await PageDatabase(f"sqlite:///{tmp_path / 'absent' / 'page.db'}").open()


def test_postgres_stores_the_same(postgres: PostgresServer) -> None:
    async def use(url: str) -> None:
        for _ in range(2):  # the second time the tables are there
            database = PageDatabase(url)
            await database.open()
            assert not database.has_index
            store, messages = ConversationStore(database), MessageStore(database)
            conversation = await fill(database, 4)
            assert [each.id for each in await messages.path(conversation, "m3")] == ["m0", "m1", "m2", "m3"]
            await messages.save("m3", Answered(status="complete", parts=b"[]", upstream="", text="a\0b"))
            await store.change("", conversation, {"title": "a\0b", "system": "c\0d", "head": "m3"})
            found = await messages.open("", conversation)
            assert (found["title"], found["system"], len(found["messages"])) == ("a b", "c d", 4)
            for query, count in (("TEXT 3", 1), ("e_t", 0)):
                assert len((await store.list("", query=query, before=None, limit=5))[0]) == count
            file = await FileStore(database).add("", name="a", media_type="text/plain", data=b"a\0b")
            assert (await FileStore(database).read("", [file.file_id]))[file.file_id].data == b"a\0b"
            assert await database.fail_lost() == 0
            await store.remove("", conversation)
            await database.close()

    asyncio.run(use(postgres.new_database()))
