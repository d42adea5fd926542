"""The rows of a batch file, read one by one, so that the file may be larger than memory.

A line is a JSON string, `{"id", "prompt"}`, `{"id", "messages"}`, or a request of OpenAI's Batch API
(`{"custom_id", "method", "url", "body"}`). Tables (CSV, Parquet) have columns of the same names, and any others, which
are carried through to the output.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from lm_deluge.config import SamplingParams
from lm_deluge.dispatch.batch.input_file import InputFile
from lm_deluge.dispatch.batch.json_lines import numbered, parse_json, parse_text
from lm_deluge.dispatch.batch.tables import TABLES, open_table
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import ConfigurationError, DelugeError, InvalidPromptError
from lm_deluge.prompt.conversation import Conversation, to_conversation
from lm_deluge.prompt.tool import ProviderTool, Tool

__all__ = ["BatchRow", "RowFormat", "read_rows", "table_row"]

JSON = dict[str, Any]

_NAMES = ("id", "custom_id", "prompt", "messages", "body", "method", "url", "metadata")
_SOURCES = ("prompt", "messages", "body")
_CHAT = "openai-chat"
_NUMBER = re.compile(r"(?:line )*\d+")  # an id that could also be made up for a row without one
_KEY_BYTES = 16  # of a hash: two different requests never have the same one

_encoder = msgspec.msgpack.Encoder(enc_hook=repr)


class BatchRow(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a batch.

    Attributes:
        id: The id in the row, or one made up: the row's number counted from 0, unless another row has that id.
        number: The row's number, counted from 1.
        place: Where the row is, for messages: `line 17`, or `row 17` of a Parquet table.
        key: The name of the call in the journal. It is a hash of the request, so that a row keeps its answer when the
            file is reordered; the second of two rows with equal requests has another key. Empty: the id.
        conversation: The prompt; None if the row cannot be read.
        model: The model that the row names; None for the model of the batch.
        params, tools, output, extra_body: Options of the row, which override those of the batch.
        columns: Further columns of the row, which the output gets unchanged.
        error: Why the row cannot be sent, or None.
    """

    id: str
    number: int
    place: str = ""
    key: str = ""
    conversation: Conversation | None = None
    model: str | None = None
    params: SamplingParams | None = None
    tools: tuple[Tool | ProviderTool, ...] = ()
    output: JSON | None = None
    extra_body: JSON = {}
    columns: JSON = {}
    error: DelugeError | None = None

    @property
    def call(self) -> str:
        """The name of the call in the journal."""
        return self.key or self.id


class RowFormat(msgspec.Struct, frozen=True):
    """How the rows of a file are to be read.

    Attributes:
        column: The column, or the field of a JSON line, that has the prompts. All others are carried to the output.
        is_text: Each line of the file is a prompt, in plain text.
    """

    column: str | None = None
    is_text: bool = False


def read_rows(source: Path | InputFile, form: RowFormat = RowFormat()) -> Iterator[BatchRow]:  # noqa: B008 - immutable
    """Yield the rows of a file, in order. A row that cannot be read has an error.

    Args:
        source: The file.
        form: How its rows are to be read.

    Raises:
        ConfigurationError: The file cannot be read, is of another format, or two rows have the same id.
        MissingExtraError: The file is a Parquet table, and no package that reads it is installed.

    Example:
        >>> for row in read_rows(Path("prompts.jsonl")):
        ...     print(row.id, row.conversation)
    """
    file = source if isinstance(source, InputFile) else InputFile(source)
    taken = {each for _, raw in _values(file, form) if (each := _id_of(raw)) is not None and _NUMBER.fullmatch(each)}
    seen: set[str] = set()
    keys: Counter[str] = Counter()
    for number, (place, raw) in enumerate(_values(file, form), start=1):
        row_id = _id_of(raw) or _made_up_id(number, place, taken)
        if row_id in seen:
            raise ConfigurationError(
                f"{place} has the id {row_id[:80]!r}, which an earlier line has", hint="Give each line its own id."
            )
        seen.add(row_id)
        row = _read_row(raw, row_id, number, form, is_table=file.suffix in TABLES)
        key = _key_of(row)
        keys[key] += 1
        key = f"{key}-{keys[key]}" if keys[key] > 1 else key
        yield msgspec.structs.replace(row, place=place, key=key)


def _values(file: InputFile, form: RowFormat) -> Iterator[tuple[str, Any]]:
    """Yield the place and the value of each row that is not blank: JSON, text, or an error in its place."""
    if file.suffix in TABLES and not form.is_text:
        with open_table(file) as (names, rows):
            _check_columns(file.name, names, form)
            yield from rows
        return
    parse = parse_text if form.is_text else parse_json
    with closing(file.open_text()) as lines:
        for number, line in numbered(lines):
            yield f"line {number}", parse(line)


def _check_columns(name: str, columns: list[str], form: RowFormat) -> None:
    if form.column is not None and form.column not in columns:
        problem = f"{name} has no column {form.column[:80]!r}"
    elif form.column is None and columns and not set(columns) & set(_SOURCES):
        problem = f"{name} has no column of prompts: none is named prompt, messages or body"
    else:
        return
    names = ", ".join(repr(each[:40]) for each in columns)
    raise ConfigurationError(problem, hint=f"Name the column of the prompts with --column. The columns are {names}.")


def _id_of(raw: Any) -> str | None:
    """Return the id that a row has; None if it has none."""
    if not isinstance(raw, dict):
        return None
    named = raw.get("id", raw.get("custom_id"))
    return None if named is None or named == "" else str(named)


def _made_up_id(number: int, place: str, taken: set[str]) -> str:
    """Return an id for a row without one, which is neither the id of another row nor made up for one."""
    made_up = str(number - 1)
    if made_up in taken:
        made_up = place
    while made_up in taken:
        made_up = f"line {made_up}"
    return made_up


def _key_of(row: BatchRow) -> str:
    """Return a hash of a row's request: equal for equal requests."""
    messages = None if row.conversation is None else row.conversation.messages
    parts = [messages, row.model, row.params, row.tools, row.output, row.extra_body]
    try:
        data = _encoder.encode(parts)
    except Exception:  # noqa: BLE001 - a request that cannot be encoded has its id as key
        data = row.id.encode("utf-8", "replace")
    return hashlib.blake2b(data, digest_size=_KEY_BYTES).hexdigest()


def _read_row(raw: Any, row_id: str, number: int, form: RowFormat, *, is_table: bool) -> BatchRow:
    columns: JSON = {}
    try:
        if not isinstance(raw, dict):
            wrong = InvalidPromptError("the line is neither a string nor an object")
            prompt = raw if isinstance(raw, str | DelugeError) else wrong
            return BatchRow(id=row_id, number=number, conversation=_prompt_of(prompt))
        if is_table or form.column is not None:
            raw, columns = _split(raw, form.column)
        else:
            raw, columns = _checked(raw)
        return msgspec.structs.replace(_row_of(raw, row_id, number), columns=columns)
    except DelugeError as error:
        return BatchRow(id=row_id, number=number, columns=columns, error=error)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a row, the others can be sent
        failed = InvalidPromptError(f"the line cannot be read ({type(error).__name__})")
        return BatchRow(id=row_id, number=number, columns=columns, error=failed)


def table_row(record: Mapping[str, Any], row_id: str, number: int, form: RowFormat) -> BatchRow:
    """Return the row of a table that is no file, without a key. A row that cannot be read has an error.

    Args:
        record: Its cells by column.
        row_id: Its id.
        number: Its number, counted from 1.
        form: How it is to be read.
    """
    return _read_row(record, row_id, number, form, is_table=True)


def _prompt_of(raw: Any) -> Conversation:
    """Return the prompt of a line or a field; raise an error that stands in its place."""
    if isinstance(raw, DelugeError):
        raise raw
    return to_conversation(raw)


def _checked(raw: JSON) -> tuple[JSON, JSON]:
    """Return the fields of a JSON line, and those for the output. An unknown field may be a misspelled one."""
    unknown = [name for name in raw if name not in _NAMES]
    if unknown:
        raise InvalidPromptError(
            f"the line has an unknown field {unknown[0][:40]!r}",
            hint=f"Known fields: {', '.join(_NAMES)}. With --column NAME, the others are carried to the output.",
        )
    return raw, {"metadata": raw["metadata"]} if "metadata" in raw else {}


def _split(raw: Mapping[str, Any], column: str | None) -> tuple[JSON, JSON]:
    """Return the fields of a row that make its request, and its other columns.

    Cells of the columns `messages` and `body` may be JSON. In a row that has another prompt they may be anything.
    """
    source = column or next((name for name in _SOURCES if _has_prompt(raw, name)), None)
    if source is None:
        source = next((name for name in _SOURCES if raw.get(name) not in (None, "")), "prompt")
    value = raw.get(source)
    if source not in ("prompt", column) and isinstance(value, str):
        value = parse_json(value.encode("utf-8", "replace"), f"the column {source!r}")
        if isinstance(value, InvalidPromptError):
            value.hint = f"If the column has plain text, name it: --column {source}."
    id_column = "id" if "id" in raw else "custom_id"
    used = {id_column, source, *(("method", "url") if source == "body" and column is None else ())}
    fields = {name: raw[name] for name in ("url",) if name in used and raw.get(name) not in (None, "")}
    is_prompt = column is not None or isinstance(value, InvalidPromptError)
    kind = "messages" if isinstance(value, list) else "prompt" if is_prompt else source
    columns = {name: each for name, each in raw.items() if name not in used}
    return {kind: "" if value is None else value, **fields}, columns


def _has_prompt(raw: Mapping[str, Any], name: str) -> bool:
    """Whether the cell of a column can be a prompt: it is not empty, and JSON if the column needs that."""
    value = raw.get(name)
    if name == "prompt":
        return value not in (None, "")
    start = "[" if name == "messages" else "{"
    return isinstance(value, list | dict) or (isinstance(value, str) and value.lstrip().startswith(start))


def _row_of(raw: JSON, row_id: str, number: int) -> BatchRow:
    if "prompt" in raw:
        return BatchRow(id=row_id, number=number, conversation=_prompt_of(raw["prompt"]))
    if "body" in raw:
        return _from_request(raw, row_id, number)
    parsed = _parse({"messages": raw.get("messages")})
    return BatchRow(id=row_id, number=number, conversation=to_conversation(parsed.conversation))


def _from_request(raw: JSON, row_id: str, number: int) -> BatchRow:
    """Read a line of OpenAI's Batch API: https://platform.openai.com/docs/guides/batch."""
    url = raw.get("url", "/v1/chat/completions")
    if url != "/v1/chat/completions":
        raise InvalidPromptError(f"the line is for {str(url)[:60]!r}", hint="Only /v1/chat/completions is supported.")
    parsed = _parse(raw["body"])
    return BatchRow(
        id=row_id,
        number=number,
        conversation=to_conversation(parsed.conversation),
        model=raw["body"].get("model"),
        params=parsed.params,
        tools=parsed.tools,
        output=parsed.output,
        extra_body=parsed.extra,
    )


def _parse(body: Any) -> ParsedRequest:
    data = msgspec.json.encode(body)
    try:
        return find_encoder(_CHAT).parse_request(data, model="of the batch")
    except DelugeError as error:
        raise InvalidPromptError(error.message) from error
