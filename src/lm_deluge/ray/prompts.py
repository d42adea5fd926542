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

_SOURCES = ("prompt", "messages", "body")
_FORMATTER = string.Formatter()
_BETWEEN = str.maketrans("_- ", "aaa")

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
        self._template = None if template is None else _Template(template)
        self._system = system

    def check(self, columns: Sequence[str]) -> None:
        """Check that a table has the columns that are needed.

        Raises:
            ConfigurationError: It lacks one.
        """
        missing = [each for each in self._named() if each not in columns]
        if not missing and self._template is None and self._prompt is None and not set(_SOURCES) & set(columns):
            missing = ["prompt"]
        if missing:
            names = ", ".join(repr(each[:40]) for each in columns)
            raise ConfigurationError(f"the dataset has no column {missing[0][:80]!r}", hint=f"Its columns are {names}.")

    def needed(self, columns: Sequence[str]) -> list[str]:
        """Return the columns of a table that the prompts and the ids are in."""
        is_free = self._template is None and self._prompt is None
        used = {*self._named(), *((*_SOURCES, "url") if is_free else ())}
        return [name for name in columns if name in used]

    def _named(self) -> list[str]:
        names = [] if self._template is None else self._template.fields
        return [*names, *(each for each in (self._prompt, self.id) if each is not None)]

    def rows(self, records: Sequence[Mapping[str, Any]]) -> list[BatchRow]:
        """Return the rows of a batch. A row without a usable prompt has an error.

        Raises:
            ConfigurationError: Two rows have the same id, or one has none.
        """
        if self.id is not None:
            ids = {None if record[self.id] is None else str(record[self.id]) for record in records}
            if None in ids or len(ids) < len(records):
                problem = "a row has no" if None in ids else "two rows have the same"
                raise ConfigurationError(
                    f"{problem} {self.id[:80]}", hint="The column that `id` names identifies rows."
                )
        return [self._row(number, record) for number, record in enumerate(records, start=1)]

    def _row(self, number: int, record: Mapping[str, Any]) -> BatchRow:
        own = str(number) if self.id is None else str(record[self.id])
        if self._template is None:
            row = table_row(_without_nulls(record), own, number, RowFormat(column=self._prompt))
        else:
            row = table_row({"prompt": self._template.filled(record)}, own, number, RowFormat())
        conversation = row.conversation
        if (
            conversation is not None
            and self._system is not None
            and all(each.role != "system" for each in conversation)
        ):
            conversation = Conversation([Message.system(self._system), *conversation])
        name = f"{own}:{_digest_of(row)}"
        return msgspec.structs.replace(row, id=name, key=name, conversation=conversation)


class _Template:
    """A text with the names of columns in braces, as in `str.format`: `{price:.2f}` and `{name!r}` work, too.

    Raises:
        ConfigurationError: It cannot be read, or has no column.
    """

    def __init__(self, text: str) -> None:
        try:
            self._parts = list(_FORMATTER.parse(text))
        except ValueError as error:
            raise ConfigurationError(
                f"the template cannot be read: {error}", hint="Write {{ and }} for braces that belong to the text."
            ) from error
        self.fields = [name for _, name, _, _ in self._parts if name is not None]
        wrong = next((_written(*part) for _, *part in self._parts if not _is_usable(*part)), None)
        if wrong is not None or not self.fields:
            raise ConfigurationError(
                "the template has no column in braces" if wrong is None else f"the template has {wrong[:40]}",
                hint='Name columns: "Translate into French: {review}".',
            )

    def filled(self, record: Mapping[str, Any]) -> str | DelugeError:
        """Return the text for a row, or the reason why there is none."""
        texts: list[str] = []
        for literal, name, spec, conversion in self._parts:
            texts.append(literal)
            if name is None:
                continue
            value = record.get(name)
            if value is None:
                return InvalidPromptError(f"the column {name[:40]!r} of the row is empty")
            try:
                texts.append(format(_FORMATTER.convert_field(value, conversion), spec or ""))
            except (TypeError, ValueError):
                return InvalidPromptError(f"the column {name[:40]!r} of the row does not fit the format {spec!r}")
        return "".join(texts)


def _is_usable(name: str | None, spec: str | None, conversion: str | None) -> bool:
    """Whether a field of a template names a column: letters, digits, `_`, `-`, and spaces between them."""
    if name is None:
        return True
    is_name = name == name.strip() and name.translate(_BETWEEN).isalnum()
    return is_name and "{" not in (spec or "") and conversion in (None, "s", "r", "a")


def _written(name: str | None, spec: str | None, conversion: str | None) -> str:
    return f"{{{name}{f'!{conversion}' if conversion else ''}{f':{spec}' if spec else ''}}}"


def _without_nulls(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cells of a row without empty fields, which Arrow adds to have equal fields in all rows."""
    return {name: _compact(value) for name, value in record.items()}


def _compact(value: Any) -> Any:
    if hasattr(value, "tolist"):  # of NumPy, in a cell that Ray has pickled
        value = value.tolist()
    if isinstance(value, list):
        return [_compact(each) for each in value]
    if isinstance(value, dict):
        return {name: _compact(each) for name, each in value.items() if each is not None}
    return value


def _digest_of(row: BatchRow) -> str:
    messages = None if row.conversation is None else row.conversation.messages
    try:
        data = _encoder.encode([messages, row.params, row.tools, row.output, row.extra_body])
    except Exception:  # noqa: BLE001 - a request that cannot be encoded is refused when it is planned
        data = b""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()
