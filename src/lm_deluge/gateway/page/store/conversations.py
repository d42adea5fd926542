"""The conversations of the page: created, listed, searched, changed and removed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lm_deluge.errors import NotFoundError
from lm_deluge.gateway.page.bodies import AnswerSettings
from lm_deluge.gateway.page.store.database import PageDatabase, new_id, without_nul
from lm_deluge.gateway.page.store.tables import CONVERSATIONS, FILES, MESSAGES, matching_rows

__all__ = ["ConversationStore", "find_conversation"]

JSON = dict[str, Any]

_FEWEST_INDEXED = 3  # characters of a word that an index of trigrams finds


class ConversationStore:
    """The conversations of all users. Each user sees only those of the own name.

    Args:
        database: The database, which is open.
    """

    def __init__(self, database: PageDatabase) -> None:
        self._database = database

    async def create(self, owner: str, *, title: str, system: str, settings: AnswerSettings) -> JSON:
        """Create a conversation; return it."""
        now = time.time()
        row = {
            "id": new_id(),
            "owner": owner,
            "title": without_nul(title),
            "system": without_nul(system),
            "settings": msgspec.json.encode(settings).decode(),
            "models": "[]",
            "head": None,
            "created_at": now,
            "updated_at": now,
        }

        async def run(connection: AsyncConnection) -> None:
            await connection.execute(insert(CONVERSATIONS).values(**row))

        await self._database.run(run)
        return _fields_of(row)

    async def find(self, owner: str, conversation: str) -> JSON:
        """Return a conversation without its messages.

        Raises:
            NotFoundError: The user has no such conversation.
        """
        return await self._database.read(lambda connection: find_conversation(connection, owner, conversation))

    async def list(self, owner: str, *, query: str, before: float | None, limit: int) -> tuple[Sequence[JSON], bool]:
        """Return the conversations of a user, the latest first, and whether there are more.

        Args:
            owner: The user.
            query: Words that all stand in the title or in the messages; empty: all conversations.
            before: Only those that changed before this time, in seconds since 1970.
            limit: How many at most.
        """
        c = CONVERSATIONS.c
        statement = select(c.id, c.title, c.updated_at, c.models).where(c.owner == owner)
        for word in query.split():
            statement = statement.where(self._has(word))
        if before is not None:
            statement = statement.where(c.updated_at < before)
        statement = statement.order_by(c.updated_at.desc(), c.id).limit(limit + 1)

        async def run(connection: AsyncConnection) -> Sequence[Any]:
            return (await connection.execute(statement)).all()

        rows = await self._database.read(run)
        found = [
            {"id": row.id, "title": row.title, "updated": row.updated_at, "models": msgspec.Raw(row.models.encode())}
            for row in rows[:limit]
        ]
        return found, len(rows) > limit

    def _has(self, word: str) -> Any:
        """Return the condition that a conversation has a word, or a part of a word."""
        escaped = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        in_text: Any = MESSAGES.c.text.ilike(f"%{escaped}%", escape="\\")
        if self._database.has_index and len(word) >= _FEWEST_INDEXED:
            in_text = MESSAGES.c.number.in_(matching_rows(word))
        found = select(MESSAGES.c.conversation).where(in_text)
        return or_(CONVERSATIONS.c.title.ilike(f"%{escaped}%", escape="\\"), CONVERSATIONS.c.id.in_(found))

    async def change(self, owner: str, conversation: str, values: JSON) -> JSON:
        """Change the title, the system prompt, the settings or the head; return the conversation.

        Raises:
            NotFoundError: The user has no such conversation, or the head is no message of it.
        """

        async def run(connection: AsyncConnection) -> JSON:
            await find_conversation(connection, owner, conversation)
            head = values.get("head")
            if head is not None:
                found = select(MESSAGES.c.id).where(MESSAGES.c.conversation == conversation, MESSAGES.c.id == head)
                if (await connection.execute(found)).first() is None:
                    raise NotFoundError("the head is no message of this conversation", status_code=404)
            texts = {name: without_nul(values[name]) for name in ("title", "system") if name in values}
            if values:
                await connection.execute(
                    update(CONVERSATIONS).where(CONVERSATIONS.c.id == conversation).values(**values | texts)
                )
            return await find_conversation(connection, owner, conversation)

        return await self._database.run(run)

    async def remove(self, owner: str, conversation: str) -> None:
        """Remove a conversation with its messages and files.

        Raises:
            NotFoundError: The user has no such conversation.
        """

        async def run(connection: AsyncConnection) -> None:
            await find_conversation(connection, owner, conversation)
            await connection.execute(delete(MESSAGES).where(MESSAGES.c.conversation == conversation))
            await connection.execute(delete(FILES).where(FILES.c.conversation == conversation))
            await connection.execute(delete(CONVERSATIONS).where(CONVERSATIONS.c.id == conversation))

        await self._database.run(run)


async def find_conversation(connection: AsyncConnection, owner: str, conversation: str) -> JSON:
    """Return a conversation of a user.

    Raises:
        NotFoundError: The user has no such conversation.
    """
    statement = select(CONVERSATIONS).where(CONVERSATIONS.c.id == conversation, CONVERSATIONS.c.owner == owner)
    row = (await connection.execute(statement)).mappings().first()
    if row is None:
        raise NotFoundError("there is no such conversation", status_code=404)
    return _fields_of(row)


def _fields_of(row: Any) -> JSON:
    return {
        "id": row["id"],
        "title": row["title"],
        "system": row["system"],
        "settings": msgspec.Raw(row["settings"].encode()),
        "models": msgspec.Raw(row["models"].encode()),
        "head": row["head"],
        "created": row["created_at"],
        "updated": row["updated_at"],
    }
