"""What a batch is made of, looked through before anything is sent: its ids, its twins, its fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from lm_deluge.dispatch.batch.duplicates import Duplicates
from lm_deluge.dispatch.batch.input import read_rows
from lm_deluge.dispatch.journal.records import fingerprint_of
from lm_deluge.errors import ConfigurationError

__all__ = ["Survey", "look_through", "stamp_of"]


class Survey(msgspec.Struct, frozen=True):
    """A batch file.

    Attributes:
        ids: Of its calls, in order.
        twins: For a call that asks what an earlier one does, the id of that one.
        fingerprint: Of the file and of the options that shape the answers.
        stamp: By which a change of the file shows.
    """

    ids: list[str]
    twins: dict[str, str]
    fingerprint: str
    stamp: tuple[int, int]


def look_through(path: Path, options: Mapping[str, Any], *, find_twins: bool = False) -> Survey:
    """Read a batch file once, and see that all of its lines have ids of their own.

    Raises:
        ConfigurationError: It cannot be read, or two lines have the same id.
    """
    stamp = stamp_of(path)
    ids: list[str] = []
    twins: dict[str, str] = {}
    duplicates = Duplicates[str]()
    for row in read_rows(path):
        ids.append(row.id)
        if find_twins and row.conversation is not None:
            asked = (row.model, row.params, row.tools, row.output, row.extra_body)
            first = duplicates.first(row.id, row.conversation, *asked)
            if first != row.id:
                twins[row.id] = first
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").digest()
    return Survey(ids, twins, fingerprint_of(options, (content,)), stamp)


def stamp_of(path: Path) -> tuple[int, int]:
    """Return size and time of the last change.

    Raises:
        ConfigurationError: There is no such file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path.name}: {error.strerror}") from error
    return status.st_size, status.st_mtime_ns
