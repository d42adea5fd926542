"""Read a batch file before anything is sent: its ids, its duplicates, its bad rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from lm_deluge.dispatch.batch.duplicates import Duplicates
from lm_deluge.dispatch.batch.input import RowFormat, read_rows
from lm_deluge.dispatch.batch.input_file import InputFile
from lm_deluge.dispatch.journal.records import fingerprint_of
from lm_deluge.errors import DelugeError

__all__ = ["BadRow", "Survey", "look_through"]


class BadRow(msgspec.Struct, frozen=True):
    """A row that cannot be read: its place in the file, and the reason."""

    place: str
    error: DelugeError


class Survey(msgspec.Struct, frozen=True):
    """Facts about a batch file.

    Attributes:
        keys: For the id of each row, in order, the name of its call in the journal.
        duplicates: For each row with the same request as an earlier row, the id of the earlier row.
        bad: By id, the rows that cannot be read; nothing is sent for them.
        has_columns: Whether a row has columns that the output gets unchanged.
        fingerprint: SHA-256 of the options that shape the answers. It does not depend on the rows, which the journal
            knows by their requests: a file may be mended, extended or reordered between two runs.
        stamp: Size and time of the last change, to notice that the file was changed.
    """

    keys: dict[str, str]
    duplicates: dict[str, str]
    bad: dict[str, BadRow]
    has_columns: bool
    fingerprint: str
    stamp: tuple[int, int]

    @property
    def ids(self) -> list[str]:
        """The ids of all rows, in order."""
        return list(self.keys)

    def named(self, calls: Iterable[str]) -> list[str]:
        """Return the ids of the rows of calls, which the journal knows by their keys.

        The call of a row that the file no longer has stays as it is.
        """
        wanted = list(calls)
        if not wanted:
            return []
        names = {key: row_id for row_id, key in self.keys.items()}
        return [names.get(call, call) for call in wanted]


def look_through(
    source: Path | InputFile,
    options: Mapping[str, Any],
    *,
    find_duplicates: bool = False,
    form: RowFormat = RowFormat(),  # noqa: B008 - immutable
) -> Survey:
    """Read a batch file once.

    Args:
        source: The batch file.
        options: The options that shape the answers, for the fingerprint.
        find_duplicates: Whether to look for rows with the same request.
        form: How the rows are to be read.

    Raises:
        ConfigurationError: The file cannot be read, is of another format, or two rows have the same id.

    Example:
        >>> survey = look_through(Path("prompts.jsonl"), {"model": "gpt-5.4"})
        >>> len(survey.ids)
    """
    file = source if isinstance(source, InputFile) else InputFile(source)
    stamp = file.stamp()
    keys: dict[str, str] = {}
    duplicates: dict[str, str] = {}
    bad: dict[str, BadRow] = {}
    has_columns = False
    requests = Duplicates[str]()
    for row in read_rows(file, form):
        keys[row.id] = row.key
        has_columns = has_columns or bool(row.columns)
        if row.error is not None:
            bad[row.id] = BadRow(row.place, row.error)
        elif find_duplicates and row.conversation is not None:
            own_options = (row.model, row.params, row.tools, row.output, row.extra_body)
            first = requests.first(row.id, row.conversation, *own_options)
            if first != row.id:
                duplicates[row.id] = first
    return Survey(keys, duplicates, bad, has_columns, fingerprint_of(options, ()), stamp)
