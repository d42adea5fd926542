"""The messages of the page: a tree for each conversation, in which edits and further answers are siblings."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Update, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lm_deluge.errors import BadRequestError, DelugeError, NotFoundError
from lm_deluge.gateway.page.store.conversations import find_conversation
from lm_deluge.gateway.page.store.database import PageDatabase, without_nul
from lm_deluge.gateway.page.store.records import Answered, MessageRecord
from lm_deluge.gateway.page.store.tables import CONVERSATIONS, FILES, MESSAGES

__all__ = ["MessageStore", "NewAnswers", "PathMessage"]

JSON = dict[str, Any]

_RETRY_S = 2.0  # a lock of SQLite is gone in seconds, and a full disk is asked for little
_M = MESSAGES.c
_SHOWN = (
    *(_M.id, _M.parent, _M.role, _M.parts, _M.model, _M.status, _M.error, _M.usage, _M.cost),
    *(_M.first_token_s, _M.duration_s, _M.created_at),
)


class PathMessage(NamedTuple):
    """A message on the way from the first one to that which is answered.

    Attributes:
        parts: Its parts as JSON, of a message of the user.
        upstream: The messages of an answer as JSON.
    """

    id: str
    role: str
    status: str
    parts: str
    upstream: str


class NewAnswers(msgspec.Struct, kw_only=True):
    """Messages that are added together: one of the user, if there is one, and running answers to it.

    Attributes:
        parent: Id of the message before the first of them.
        message: Id, parts (JSON) and text of the message of the user; None: the parent is answered once more.
        answers: Ids and models of the answers.
        title: The title of a conversation that has none yet.
        settings: The settings of the conversation from now on, as JSON text; None: they stay.
    """

    conversation: str
    parent: str | None
    message: tuple[str, str, str] | None
    answers: list[tuple[str, str]]
    file_ids: list[str]
    title: str
    settings: str | None


class MessageStore:
    """The messages of all conversations.

    An answer whose end the database does not take is kept here until it does: it is shown as it ended, and written with
    the next write that succeeds.

    Args:
        database: The database, which is open.
        retry_s: Seconds between attempts to write what is kept.
    """

    def __init__(self, database: PageDatabase, retry_s: float = _RETRY_S) -> None:
        self._database = database
        self._retry_s = retry_s
        self._unsaved: dict[str, Answered] = {}
        self._retrying: asyncio.Task[None] | None = None

    async def open(self, owner: str, conversation: str) -> JSON:
        """Return a conversation with all of its messages, by two queries.

        Raises:
            NotFoundError: The user has no such conversation.
        """

        async def run(connection: AsyncConnection) -> JSON:
            found = await find_conversation(connection, owner, conversation)
            statement = select(*_SHOWN).where(_M.conversation == conversation).order_by(_M.number)
            rows = (await connection.execute(statement)).all()
            return {**found, "messages": [self._shown(_record_of(row)) for row in rows]}

        return await self._database.read(run)

    async def find(self, owner: str, message: str) -> MessageRecord:
        """Return a message.

        Raises:
            NotFoundError: The user has no such message.
        """
        statement = select(*_SHOWN).join(CONVERSATIONS, CONVERSATIONS.c.id == _M.conversation)
        statement = statement.where(_M.id == message, CONVERSATIONS.c.owner == owner)

        async def run(connection: AsyncConnection) -> Any:
            return (await connection.execute(statement)).first()

        row = await self._database.read(run)
        if row is None:
            raise NotFoundError("there is no such message", status_code=404)
        return self._shown(_record_of(row))

    async def path(self, conversation: str, message: str | None) -> list[PathMessage]:
        """Return the messages from the first one to this one, by one query.

        Raises:
            NotFoundError: The conversation has no such message.
        """
        if message is None:
            return []
        end = select(_M.id, _M.parent, _M.number).where(_M.conversation == conversation, _M.id == message)
        way = end.cte("way", recursive=True)
        before = select(_M.id, _M.parent, _M.number).join(way, _M.id == way.c.parent)
        way = way.union_all(before)
        columns = (_M.id, _M.role, _M.status, _M.parts, _M.upstream)
        statement = select(*columns).join(way, way.c.number == _M.number).order_by(_M.number)

        async def run(connection: AsyncConnection) -> list[PathMessage]:
            rows = (await connection.execute(statement)).all()
            return [self._current(PathMessage(row.id, row.role, row.status, row.parts, row.upstream)) for row in rows]

        found = await self._database.read(run)
        if not found:
            raise NotFoundError("the parent is no message of this conversation", status_code=404)
        return found

    async def add(self, new: NewAnswers) -> list[MessageRecord]:
        """Add messages; return them.

        Raises:
            BadRequestError: A file belongs to another conversation by now.
        """
        now = time.time()
        rows: list[JSON] = []
        parent = new.parent
        own: JSON = {"conversation": new.conversation, "upstream": "", "server": self._database.server}
        own |= {"created_at": now, "saved_at": now}
        if new.message is not None:
            name, parts, text = new.message
            fields = {"id": name, "parent": parent, "role": "user", "status": "complete", "model": None}
            fields["text"] = without_nul(text)
            rows.append({**own, **fields, "parts": parts})
            parent = name
        for name, model in new.answers:
            fields = {
                "id": name,
                "parent": parent,
                "role": "assistant",
                "status": "running",
                "model": model,
                "text": "",
            }
            rows.append({**own, **fields, "parts": "[]"})

        async def run(connection: AsyncConnection) -> None:
            await _take_files(connection, new.conversation, new.file_ids)
            await connection.execute(insert(MESSAGES), rows)
            await _note_answers(connection, new, head=rows[-1]["id"], now=now)

        await self._database.run(run)
        await self._save_kept()
        return [_record_of(_Fields(row)) for row in rows]

    async def save(self, message: str, answered: Answered) -> None:
        """Store an answer, or what is there of it. An answer that has ended is not changed any more."""
        values: JSON = {
            "status": answered.status,
            "parts": answered.parts.decode(),
            "upstream": answered.upstream,
            "error": _json(answered.error),
            "usage": _json(answered.usage),
            "cost": answered.cost,
            "first_token_s": answered.first_token_s,
            "duration_s": answered.duration_s,
            "saved_at": time.time(),
        }
        if answered.text is not None:
            values["text"] = without_nul(answered.text)
        statement = update(MESSAGES).where(_M.id == message, _M.status == "running").values(**values)

        await self._execute(statement)

    async def save_end(self, message: str, answered: Answered) -> DelugeError | None:
        """Store how an answer ended. If the database fails, keep it, and return the error."""
        try:
            await self.save(message, answered)
        except DelugeError as error:
            self._unsaved[message] = answered
            if self._retrying is None or self._retrying.done():
                self._retrying = asyncio.get_running_loop().create_task(self._retry())
            return error
        return None

    async def save_cost(self, message: str, usage: JSON | None, cost: float | None) -> None:
        """Store what an answer cost that had ended before this was known."""
        kept = self._unsaved.get(message)
        if kept is not None:
            kept.usage, kept.cost = usage, cost
        else:
            await self._execute(update(MESSAGES).where(_M.id == message).values(usage=_json(usage), cost=cost))

    async def close(self) -> None:
        """Try a last time to store what is kept."""
        if self._retrying is not None:
            self._retrying.cancel()
        await self._save_kept()

    async def unfinished(self, conversation: str) -> list[str]:
        """Return the ids of the running answers of a conversation, those of other processes included."""
        statement = select(_M.id).where(_M.conversation == conversation, _M.status == "running")

        async def run(connection: AsyncConnection) -> list[str]:
            return [str(row.id) for row in (await connection.execute(statement)).all()]

        return await self._database.read(run)

    async def _retry(self) -> None:
        while self._unsaved:
            await asyncio.sleep(self._retry_s)
            await self._save_kept()

    async def _save_kept(self) -> None:
        with contextlib.suppress(DelugeError):  # the next attempt may succeed
            for message, answered in [*self._unsaved.items()]:
                await self.save(message, answered)
                self._unsaved.pop(message, None)

    async def _execute(self, statement: Update) -> None:
        async def run(connection: AsyncConnection) -> None:
            await connection.execute(statement)

        await self._database.run(run)

    def _shown(self, record: MessageRecord) -> MessageRecord:
        """Return a message as it is, whatever the database has of it."""
        kept = self._unsaved.get(record.id)
        if kept is None:
            return record
        names = ("status", "cost", "first_token_s", "duration_s")
        return msgspec.structs.replace(
            record,
            parts=msgspec.Raw(kept.parts),
            error=None if kept.error is None else msgspec.Raw(msgspec.json.encode(kept.error)),
            usage=None if kept.usage is None else msgspec.Raw(msgspec.json.encode(kept.usage)),
            unsaved=True,
            **{name: getattr(kept, name) for name in names},
        )

    def _current(self, message: PathMessage) -> PathMessage:
        kept = self._unsaved.get(message.id)
        if kept is None:
            return message
        return message._replace(status=kept.status, parts=kept.parts.decode(), upstream=kept.upstream)


class _Fields:
    """A row that was just written, with the columns that it does not have."""

    def __init__(self, row: JSON) -> None:
        self._row = row

    def __getattr__(self, name: str) -> Any:
        return self._row.get(name)


def _record_of(row: Any) -> MessageRecord:
    return MessageRecord(
        id=row.id,
        parent=row.parent,
        role=row.role,
        parts=msgspec.Raw(row.parts.encode()),
        model=row.model,
        status=row.status,
        error=None if row.error is None else msgspec.Raw(row.error.encode()),
        usage=None if row.usage is None else msgspec.Raw(row.usage.encode()),
        cost=row.cost,
        first_token_s=row.first_token_s,
        duration_s=row.duration_s,
        created=row.created_at,
    )


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


async def _take_files(connection: AsyncConnection, conversation: str, file_ids: list[str]) -> None:
    """Have files belong to a conversation, so that they are removed with it."""
    if not file_ids:
        return
    f = FILES.c
    free = f.conversation.is_(None) | (f.conversation == conversation)
    statement = update(FILES).where(f.id.in_(file_ids), free).values(conversation=conversation)
    if (await connection.execute(statement)).rowcount < len(set(file_ids)):
        raise BadRequestError("a file belongs to another conversation: send it again", status_code=400)


async def _note_answers(connection: AsyncConnection, new: NewAnswers, *, head: str, now: float) -> None:
    """Note in a conversation that it was answered, by which models, and its title if it has none."""
    c = CONVERSATIONS.c
    row = (await connection.execute(select(c.title, c.models).where(c.id == new.conversation))).first()
    if row is None:
        raise NotFoundError("there is no such conversation", status_code=404)
    models = [*dict.fromkeys([*msgspec.json.decode(row.models), *(model for _, model in new.answers)])]
    values = {"head": head, "updated_at": now, "models": msgspec.json.encode(models).decode()}
    if not row.title and new.title:
        values["title"] = without_nul(new.title)
    if new.settings is not None:
        values["settings"] = new.settings
    await connection.execute(update(CONVERSATIONS).where(c.id == new.conversation).values(**values))
