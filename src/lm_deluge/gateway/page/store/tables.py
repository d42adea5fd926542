"""The tables of the chat page, and the migrations from one version of them to the next.

A database has the number of its version. Version 1 is what `METADATA` creates.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sqlalchemy import (
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    column,
    insert,
    literal_column,
    select,
    table,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from lm_deluge.errors import ConfigurationError

__all__ = [
    "CONVERSATIONS",
    "FILES",
    "MESSAGES",
    "METADATA",
    "MIGRATIONS",
    "SESSIONS",
    "create_search",
    "matching_rows",
    "migrate",
]

METADATA = MetaData()

VERSIONS = Table("deluge_page_version", METADATA, Column("version", Integer, nullable=False))

CONVERSATIONS = Table(
    "deluge_page_conversations",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("owner", String(200), nullable=False),  # name of a key; empty: the user of a server without keys
    Column("title", Text, nullable=False),
    Column("system", Text, nullable=False),
    Column("settings", Text, nullable=False),  # JSON object
    Column("models", Text, nullable=False),  # JSON list: the models that have answered
    Column("head", String(32)),  # the last message of the branch that is shown
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Index("deluge_page_conversations_by_owner", "owner", "updated_at"),
)

MESSAGES = Table(
    "deluge_page_messages",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(32), unique=True, nullable=False),
    Column("conversation", String(32), nullable=False),
    Column("parent", String(32)),
    Column("role", String(16), nullable=False),
    Column("parts", Text, nullable=False),  # JSON list, as the page shows them
    Column("upstream", Text, nullable=False),  # of an answer: the messages that are sent with the next turn
    Column("text", Text, nullable=False),  # what the search looks at; that of an answer is set at its end
    Column("model", Text),
    Column("status", String(8), nullable=False),  # running, complete, stopped or failed
    Column("error", Text),  # JSON object
    Column("usage", Text),  # JSON object
    Column("cost", Float),  # US dollars
    Column("first_token_s", Float),
    Column("duration_s", Float),
    Column("created_at", Float, nullable=False),
    Column("server", String(300), nullable=False),  # the process that runs the answer
    Column("saved_at", Float, nullable=False),
    Index("deluge_page_messages_by_conversation", "conversation", "number"),
    Index("deluge_page_messages_by_status", "status"),
)

FILES = Table(
    "deluge_page_files",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("conversation", String(32)),  # None until a message has the file
    Column("name", Text, nullable=False),
    Column("media_type", String(200), nullable=False),
    Column("size", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
    Index("deluge_page_files_by_owner", "owner"),
    Index("deluge_page_files_by_conversation", "conversation"),
)

SESSIONS = Table(
    "deluge_page_sessions",
    METADATA,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the cookie, which is stored nowhere
    Column("key_digest", String(64), nullable=False),
    Column("expires_at", Float, nullable=False),
)

_SEARCH = "deluge_page_search"
"""The full-text index of SQLite over `MESSAGES.text`, where SQLite has FTS5 with trigrams (3.34, 2020)."""

_SEARCH_DDL = (
    """
    CREATE VIRTUAL TABLE IF NOT EXISTS deluge_page_search USING fts5(
        text, content='deluge_page_messages', content_rowid='number', tokenize='trigram'
    )
    """,
    """
    CREATE TRIGGER IF NOT EXISTS deluge_page_search_added AFTER INSERT ON deluge_page_messages BEGIN
        INSERT INTO deluge_page_search(rowid, text) VALUES (new.number, new.text);
    END
    """,
    """
    CREATE TRIGGER IF NOT EXISTS deluge_page_search_removed AFTER DELETE ON deluge_page_messages BEGIN
        INSERT INTO deluge_page_search(deluge_page_search, rowid, text) VALUES ('delete', old.number, old.text);
    END
    """,
    """
    CREATE TRIGGER IF NOT EXISTS deluge_page_search_changed AFTER UPDATE OF text ON deluge_page_messages BEGIN
        INSERT INTO deluge_page_search(deluge_page_search, rowid, text) VALUES ('delete', old.number, old.text);
        INSERT INTO deluge_page_search(rowid, text) VALUES (new.number, new.text);
    END
    """,
)


def matching_rows(word: str) -> Any:
    """Return the query of the numbers of the messages that contain a text of three characters or more."""
    index = table(_SEARCH, column("rowid"))
    phrase = '"{}"'.format(word.replace('"', '""'))
    return select(index.c.rowid).where(literal_column(_SEARCH).op("MATCH")(phrase))


Migration = Callable[[AsyncConnection], Awaitable[None]]

MIGRATIONS: Mapping[int, Migration] = {}
"""By the version that it makes of the one before: 2 changes a database of version 1."""

_FIRST = 1  # the version of `METADATA`


async def migrate(connection: AsyncConnection, migrations: Mapping[int, Migration] = MIGRATIONS) -> None:
    """Bring the tables to the newest version; those of a new database have it already.

    Raises:
        ConfigurationError: A newer version of this program has written the database.
    """
    newest = max(migrations, default=_FIRST)
    found = (await connection.execute(select(VERSIONS.c.version))).scalar()
    if found is None:
        await connection.execute(insert(VERSIONS).values(version=newest))
        return
    if found > newest:
        raise ConfigurationError(
            f"the conversations are of version {found}, and this program knows versions up to {newest}",
            hint="Update lm-deluge, or name another file: [page] database.",
        )
    for version in range(found + 1, newest + 1):
        await migrations[version](connection)
    await connection.execute(update(VERSIONS).values(version=newest))


async def create_search(connection: AsyncConnection) -> None:
    """Create the full-text index and the triggers that keep it; raises if SQLite has none."""
    for statement in _SEARCH_DDL:
        await connection.execute(text(statement))
