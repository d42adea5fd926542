"""Read a batch file before anything is sent: its ids, its duplicates, its fingerprint."""

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
    """Facts about a batch file.

    Attributes:
        ids: The ids of its rows, in order.
        duplicates: For each row with the same request as an earlier row, the id of the earlier row.
        fingerprint: SHA-256 of the file and of the options that shape the answers.
        stamp: Size and time of the last change, to notice that the file was changed.
    """

    ids: list[str]
    duplicates: dict[str, str]
    fingerprint: str
    stamp: tuple[int, int]


def look_through(path: Path, options: Mapping[str, Any], *, find_duplicates: bool = False) -> Survey:
    """Read a batch file once.

    Args:
        path: The batch file.
        options: The options that shape the answers, for the fingerprint.
        find_duplicates: Whether to look for rows with the same request.

    Raises:
        ConfigurationError: The file cannot be read, or two lines have the same id.

    Example:
        >>> survey = look_through(Path("prompts.jsonl"), {"model": "gpt-5.4"})
        >>> len(survey.ids)
    """
    stamp = stamp_of(path)
    ids: list[str] = []
    duplicates: dict[str, str] = {}
    requests = Duplicates[str]()
    for row in read_rows(path):
        ids.append(row.id)
        if find_duplicates and row.conversation is not None:
            own_options = (row.model, row.params, row.tools, row.output, row.extra_body)
            first = requests.first(row.id, row.conversation, *own_options)
            if first != row.id:
                duplicates[row.id] = first
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").digest()
    return Survey(ids, duplicates, fingerprint_of(options, (content,)), stamp)


def stamp_of(path: Path) -> tuple[int, int]:
    """Return a file's size in bytes and the time of its last change in nanoseconds.

    Raises:
        ConfigurationError: The file does not exist or cannot be read.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path.name}: {error.strerror}") from error
    return status.st_size, status.st_mtime_ns
