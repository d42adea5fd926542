"""The prompts of a table: a column of texts, a column of messages, or a template over several columns. Pure."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lm_deluge.dispatch.batch.input import BatchRow, RowFormat, table_row
from lm_deluge.errors import ConfigurationError, DelugeError, InvalidPromptError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message

__all__ = ["PromptColumns"]

_DIGEST_BYTES = 8  # of the hash of a prompt: enough to notice that a row with the same id has another prompt

_encoder = msgspec.msgpack.Encoder(enc_hook=repr)


class PromptColumns:
    """Where the prompts of a table are, and what identifies its rows.

    Args:
        prompt: The column with the prompts: texts, or lists of messages. None: the first of `prompt`, `messages` and
            `body` that the table has.
        template: A text with the names of columns in braces, in place of `prompt`.
        system: A system message for the rows that have none.
        id: The column that identifies the rows; None: they have no identity beyond their place in a batch.

    Raises:
        ConfigurationError: Both `prompt` and `template` are given, or the template cannot be read.
    """

    def __init__(
        self,
        prompt: str | None = None,
        template: str | None = None,
        system: str | None = None,
        id: str | None = None,
    ) -> None:
        if prompt is not None and template is not None:
            raise ConfigurationError("prompt and template are both given", hint="Remove one of the two.")
        self.id = id
        self._prompt = prompt
        self._template = template
        self._system = system
        self._fields = None if template is None else _fields_of(template)

    def check(self, columns: Sequence[str]) -> None:
        """Check that a table has the columns that are needed.

        Raises:
            ConfigurationError: It lacks one.
        """
        needed = [*(self._fields or ()), *(each for each in (self._prompt, self.id) if each is not None)]
        missing = [each for each in needed if each not in columns]
        if not missing and not needed and not {"prompt", "messages", "body"} & set(columns):
            missing = ["prompt"]
        if missing:
            names = ", ".join(repr(each[:40]) for each in columns)
            raise ConfigurationError(f"the dataset has no column {missing[0][:80]!r}", hint=f"Its columns are {names}.")

    def rows(self, records: Sequence[Mapping[str, Any]]) -> list[BatchRow]:
        """Return the rows of a batch. A row without a usable prompt has an error.

        Raises:
            ConfigurationError: Two rows have the same id.
        """
        rows = [self._row(number, record) for number, record in enumerate(records, start=1)]
        if self.id is not None and len({str(record[self.id]) for record in records}) < len(rows):
            raise ConfigurationError(
                f"two rows have the same {self.id}", hint="The column that `id` names identifies rows."
            )
        return rows

    def _row(self, number: int, record: Mapping[str, Any]) -> BatchRow:
        own = str(number) if self.id is None else str(record[self.id])
        if self._template is None:
            row = table_row(_without_nulls(record), own, number, RowFormat(column=self._prompt))
        else:
            row = table_row({"prompt": self._filled(record)}, own, number, RowFormat())
        conversation = row.conversation
        if (
            conversation is not None
            and self._system is not None
            and all(each.role != "system" for each in conversation)
        ):
            conversation = Conversation([Message.system(self._system), *conversation])
        name = f"{own}:{_digest_of(row)}"
        return msgspec.structs.replace(row, id=name, key=name, conversation=conversation)

    def _filled(self, record: Mapping[str, Any]) -> str | DelugeError:
        values = {name: record.get(name) for name in self._fields or ()}
        empty = [name for name, value in values.items() if value is None]
        if empty:
            return InvalidPromptError(f"the column {empty[0][:40]!r} of the row is empty")
        return (self._template or "").format_map(values)


def _without_nulls(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cells of a row without the empty fields of messages, which Arrow adds to have equal fields in all."""
    return {name: _compact(value) if isinstance(value, list) else value for name, value in record.items()}


def _compact(value: Any) -> Any:
    if isinstance(value, list):
        return [_compact(each) for each in value]
    if isinstance(value, dict):
        return {name: _compact(each) for name, each in value.items() if each is not None}
    return value


def _fields_of(template: str) -> list[str]:
    try:
        parsed = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ConfigurationError(
            f"the template cannot be read: {error}", hint="Write {{ and }} for braces that belong to the text."
        ) from error
    wrong = next((name for name in parsed if not name or not name.replace("_", "a").isalnum()), None)
    if wrong is not None or not parsed:
        raise ConfigurationError(
            "the template has no column in braces" if wrong is None else f"the template has {{{wrong[:40]}}}",
            hint='Name columns: "Translate into French: {review}".',
        )
    return parsed


def _digest_of(row: BatchRow) -> str:
    messages = None if row.conversation is None else row.conversation.messages
    try:
        data = _encoder.encode([messages, row.params, row.tools, row.output, row.extra_body])
    except Exception:  # noqa: BLE001 - a request that cannot be encoded is refused when it is planned
        data = b""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()
