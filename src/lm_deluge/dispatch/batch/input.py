"""The rows of a batch file, read one by one, so that the file may be larger than memory.

A line is a JSON string, `{"id", "prompt"}`, `{"id", "messages"}`, or a request of OpenAI's Batch API
(`{"custom_id", "method", "url", "body"}`). Tables (CSV, Parquet) have columns of the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from lm_deluge.config import SamplingParams
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import ConfigurationError, DelugeError, InvalidPromptError, MissingExtraError, install_hint
from lm_deluge.prompt.conversation import Conversation, to_conversation
from lm_deluge.prompt.tool import ProviderTool, Tool

__all__ = ["TABLES", "BatchRow", "read_rows"]

JSON = dict[str, Any]

TABLES = (".csv", ".parquet")
"""Suffixes of files that are read and written as tables; other files have JSON lines."""
_NAMES = ("id", "custom_id", "prompt", "messages", "body", "method", "url", "metadata")
_CHAT = "openai-chat"


class BatchRow(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a batch.

    Attributes:
        id: The id in the row, or the row's number counted from 0.
        number: The row's number, counted from 1.
        conversation: The prompt; None if the row cannot be read.
        model: The model that the row names; None for the model of the batch.
        params, tools, output, extra_body: Options of the row, which override those of the batch.
        error: Why the row cannot be sent, or None.
    """

    id: str
    number: int
    conversation: Conversation | None = None
    model: str | None = None
    params: SamplingParams | None = None
    tools: tuple[Tool | ProviderTool, ...] = ()
    output: JSON | None = None
    extra_body: JSON = {}
    error: DelugeError | None = None


def read_rows(path: Path) -> Iterator[BatchRow]:
    """Yield the rows of a file, in order. A line that cannot be read is a row with an error.

    Raises:
        ConfigurationError: The file cannot be read, or two lines have the same id.
        MissingExtraError: The file is a table, and neither polars nor pandas is installed.

    Example:
        >>> for row in read_rows(Path("prompts.jsonl")):
        ...     print(row.id, row.conversation)
    """
    seen: set[str] = set()
    for number, raw in enumerate(_read_table(path) if path.suffix in TABLES else _read_lines(path), start=1):
        row = _read_row(raw, number)
        if row.id in seen:
            raise ConfigurationError(
                f"line {number} has the id {row.id[:80]!r}, which an earlier line has",
                hint="Give each line its own id.",
            )
        seen.add(row.id)
        yield row


def _read_lines(path: Path) -> Iterator[Any]:
    """Yield the JSON value of each line that is not blank, or an error in its place."""
    try:
        with path.open("rb") as file:
            for line in file:
                if line.strip():
                    yield _parsed(line)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path.name}: {error.strerror}") from error


def _parsed(line: bytes) -> Any:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return InvalidPromptError("the line is not JSON", hint='Put a plain prompt in quotes: "like this".')


def _read_table(path: Path) -> Iterator[JSON]:
    """Yield the rows of a table, read with polars if it is installed, else with pandas."""
    for record in _records(path):
        row = {str(name): value for name, value in record.items() if value is not None and value == value}  # noqa: PLR0124 - NaN, an empty cell of pandas, is not equal to itself
        for name in ("messages", "body"):
            if isinstance(row.get(name), str):
                row[name] = _parsed(row[name].encode())
        yield row


def _records(path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        return _polars_records(path)
    except ImportError:
        pass
    try:
        return _pandas_records(path)
    except ImportError as error:
        raise MissingExtraError(
            f"reading {path.suffix} files needs polars or pandas",
            hint=install_hint("polars", otherwise="use a file of JSON lines"),
        ) from error


def _polars_records(path: Path) -> Iterable[Mapping[str, Any]]:
    import polars as pl  # pyright: ignore[reportMissingImports]  # installed where tables are read

    try:
        frame = pl.read_csv(path, infer_schema=False) if path.suffix == ".csv" else pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ConfigurationError(f"cannot read {path.name}: it is not a table") from error
    rows: Iterable[Mapping[str, Any]] = frame.iter_rows(named=True)
    return rows


def _pandas_records(path: Path) -> Iterable[Mapping[str, Any]]:
    import pandas as pd  # pyright: ignore[reportMissingImports]  # installed where tables are read

    try:
        frame = pd.read_csv(path, dtype=str) if path.suffix == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read {path.name}: it is not a table") from error
    records: Iterable[Mapping[str, Any]] = frame.to_dict("records")
    return records


def _read_row(raw: Any, number: int) -> BatchRow:
    row_id = str(number - 1)
    if isinstance(raw, dict):
        named = raw.get("id", raw.get("custom_id"))
        row_id = row_id if named is None else str(named)
    try:
        return _row_of(raw, row_id, number)
    except DelugeError as error:
        return BatchRow(id=row_id, number=number, error=error)


def _row_of(raw: Any, row_id: str, number: int) -> BatchRow:
    if isinstance(raw, DelugeError):
        raise raw
    if isinstance(raw, str):
        return BatchRow(id=row_id, number=number, conversation=to_conversation(raw))
    if not isinstance(raw, dict):
        raise InvalidPromptError("the line is neither a string nor an object")
    unknown = [name for name in raw if name not in _NAMES]
    if unknown:
        raise InvalidPromptError(
            f"the line has an unknown field {unknown[0][:40]!r}", hint=f"Known fields: {', '.join(_NAMES)}."
        )
    if "prompt" in raw:
        return BatchRow(id=row_id, number=number, conversation=to_conversation(raw["prompt"]))
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
