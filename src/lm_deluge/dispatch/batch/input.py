"""The lines of a batch: what each asks, read one by one, so that a file larger than memory is no matter.

A line is a text, `{"id", "prompt"}`, `{"id", "messages"}`, or a request of OpenAI's Batch API
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
from lm_deluge.errors import ConfigurationError, DelugeError, InvalidPromptError, MissingExtraError
from lm_deluge.prompt.conversation import Conversation, to_conversation
from lm_deluge.prompt.tool import ProviderTool, Tool

__all__ = ["TABLES", "BatchRow", "read_rows"]

JSON = dict[str, Any]

TABLES = (".csv", ".parquet")
_NAMES = ("id", "custom_id", "prompt", "messages", "body", "method", "url", "metadata")
_CHAT = "openai-chat"


class BatchRow(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a batch.

    Attributes:
        id: The line's own, or its number, from 0.
        number: The line's number, from 1.
        conversation: What is asked; None where the line cannot be read.
        model: What the line itself asks for; None: what the batch does.
        error: Why the line cannot be asked, or None.
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
    """Yield the calls of a file, in order. A line that cannot be read is a row with an error: it ends no batch.

    Raises:
        ConfigurationError: The file cannot be read, two lines have the same id, or a package is missing.
    """
    seen: set[str] = set()
    for number, raw in enumerate(_read_table(path) if path.suffix in TABLES else _read_lines(path), start=1):
        row = _read_row(raw, number)
        if row.id in seen:
            raise ConfigurationError(
                f"line {number} has the id {row.id[:80]!r}, which an earlier one has", hint="Ids must differ."
            )
        seen.add(row.id)
        yield row


def _read_lines(path: Path) -> Iterator[Any]:
    """Yield the JSON of each line that is not blank, or the error of one that is none."""
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
        return InvalidPromptError("the line is not JSON", hint='A text stands in quotes: "like this".')


def _read_table(path: Path) -> Iterator[JSON]:
    """Yield the rows of a table, read with polars or pandas, whichever is installed."""
    for record in _records(path):
        row = {str(name): value for name, value in record.items() if value is not None and value == value}  # noqa: PLR0124 - pandas' empty cells are not equal to themselves
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
            f"reading {path.suffix} files needs polars or pandas", hint="pip install polars, or give JSON lines."
        ) from error


def _polars_records(path: Path) -> Iterable[Mapping[str, Any]]:
    import polars as pl  # pyright: ignore[reportMissingImports]  # installed where tables are read

    try:
        frame = pl.read_csv(path, infer_schema=False) if path.suffix == ".csv" else pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ConfigurationError(f"cannot read {path.name}: it is no table") from error
    rows: Iterable[Mapping[str, Any]] = frame.iter_rows(named=True)
    return rows


def _pandas_records(path: Path) -> Iterable[Mapping[str, Any]]:
    import pandas as pd  # pyright: ignore[reportMissingImports]  # likewise

    try:
        frame = pd.read_csv(path, dtype=str) if path.suffix == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read {path.name}: it is no table") from error
    records: Iterable[Mapping[str, Any]] = frame.to_dict("records")
    return records


def _read_row(raw: Any, number: int) -> BatchRow:
    row_id = str(number - 1)
    if isinstance(raw, dict):
        named = raw.get("id", raw.get("custom_id"))
        row_id = row_id if named is None else str(named)
    try:
        return _asked(raw, row_id, number)
    except DelugeError as error:
        return BatchRow(id=row_id, number=number, error=error)


def _asked(raw: Any, row_id: str, number: int) -> BatchRow:
    if isinstance(raw, DelugeError):
        raise raw
    if isinstance(raw, str):
        return BatchRow(id=row_id, number=number, conversation=to_conversation(raw))
    if not isinstance(raw, dict):
        raise InvalidPromptError("the line is neither a text nor an object")
    unknown = [name for name in raw if name not in _NAMES]
    if unknown:
        raise InvalidPromptError(f"the line has a field {unknown[0][:40]!r}", hint=f"Known: {', '.join(_NAMES)}.")
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
        raise InvalidPromptError(f"the line is for {str(url)[:60]!r}", hint="Only /v1/chat/completions can be asked.")
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
