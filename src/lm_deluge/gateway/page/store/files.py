"""The files that users of the page send: images and documents, in the database."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lm_deluge.errors import BadRequestError, NotFoundError, RequestTooLargeError
from lm_deluge.gateway.page.store.database import PageDatabase, new_id
from lm_deluge.gateway.page.store.records import FileRecord
from lm_deluge.gateway.page.store.tables import FILES
from lm_deluge.prompt.media import Media, load_media, sniff_media_type

__all__ = ["FileStore", "StoredFile"]

_MOST_OF_OWNER = 2**30
"""Bytes of all files of a user: thirty of the largest. Conversations that are removed make room."""
_UNUSED_S = 86_400.0  # a file that no message has after a day is removed: the page was closed before it was sent
_LONGEST_NAME = 200  # characters
_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")  # those that all providers take, and browsers show


class StoredFile(NamedTuple):
    """A file with its content."""

    record: FileRecord
    data: bytes

    def media(self) -> Media:
        """Return the file as a medium of a message."""
        return Media(media_type=self.record.media_type, data=self.data, filename=self.record.name)


class FileStore:
    """The files of all users.

    Args:
        database: The database, which is open.
    """

    def __init__(self, database: PageDatabase) -> None:
        self._database = database

    async def add(
        self, owner: str, *, name: str, media_type: str, data: bytes, conversation: str | None = None
    ) -> FileRecord:
        """Store a file; files that no message has since a day are removed.

        Args:
            owner: The user.
            name: Its name; folders are left out.
            media_type: As the browser has it. What the content shows has precedence.
            data: Its content.
            conversation: The conversation that it belongs to; None: that of the first message that has it.

        Raises:
            BadRequestError: It is empty.
            RequestTooLargeError: The files of the user together are too large.
        """
        if not data:
            raise BadRequestError("the file is empty", status_code=400)
        found = FileRecord(
            file_id=new_id(), name=_clean(name), media_type=_type_of(data, media_type, name), size=len(data)
        )
        f, now = FILES.c, time.time()

        async def run(connection: AsyncConnection) -> None:
            await connection.execute(delete(FILES).where(f.conversation.is_(None), f.created_at < now - _UNUSED_S))
            used = (await connection.execute(select(func.sum(f.size)).where(f.owner == owner))).scalar() or 0
            if used + len(data) > _MOST_OF_OWNER:
                raise RequestTooLargeError(
                    f"all files together have more than {_MOST_OF_OWNER:,} bytes: remove conversations", status_code=413
                )
            row = {"id": found.file_id, "owner": owner, "created_at": now, "data": data, "conversation": conversation}
            fields = {"name": found.name, "media_type": found.media_type, "size": found.size}
            await connection.execute(insert(FILES).values(**row, **fields))

        await self._database.run(run)
        return found

    async def read(self, owner: str, file_ids: list[str]) -> dict[str, StoredFile]:
        """Return files by their ids, with one query.

        Raises:
            NotFoundError: The user has no such file.
        """
        if not file_ids:
            return {}
        statement = select(FILES).where(FILES.c.id.in_(file_ids), FILES.c.owner == owner)

        async def run(connection: AsyncConnection) -> list[Any]:
            return [*(await connection.execute(statement)).all()]

        found = {
            row.id: StoredFile(
                FileRecord(file_id=row.id, name=row.name, media_type=row.media_type, size=row.size), row.data
            )
            for row in await self._database.read(run)
        }
        if any(name not in found for name in file_ids):
            raise NotFoundError("there is no such file: send it again", status_code=404)
        return found


def _clean(name: str) -> str:
    """Return the name of a file without folders and control characters."""
    name = name.replace("\\", "/").rpartition("/")[2]
    return "".join(each for each in name if each.isprintable())[-_LONGEST_NAME:].strip() or "file"


def _type_of(data: bytes, declared: str, name: str) -> str:
    """Return the media type of a file; an image is one only by its content."""
    found = sniff_media_type(data)
    if found in _IMAGES:
        return found
    declared = declared.partition(";")[0].strip().lower()
    is_usable = "/" in declared and not declared.startswith("image/") and len(declared) <= _LONGEST_NAME
    media = load_media(data, kind="file", media_type=declared if is_usable else None, filename=name)
    return media.media_type or "application/octet-stream"
