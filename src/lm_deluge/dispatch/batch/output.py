"""The answers of a batch as a file: one line for each call, in order.

The file has JSON lines, or is a table (`.csv`, `.parquet`). It is written under another name and renamed after it is
complete and on the disk, so there is never half a file.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from lm_deluge.dispatch.batch.input import TABLES
from lm_deluge.errors import ConfigurationError, DelugeError, JournalError, MissingExtraError, install_hint
from lm_deluge.response import APIResponse

__all__ = ["Answer", "check_output", "line_of", "write_answers", "write_whole"]

JSON = dict[str, Any]

_encoder = msgspec.json.Encoder()
_COLUMNS = ("id", "completion", "finish_reason", "error", "input_tokens", "output_tokens", "cost", "response")


class Answer(msgspec.Struct, frozen=True):
    """The answer of one call. `duplicate_of`: the id of the call with an equal request whose answer this is."""

    id: str
    response: APIResponse
    duplicate_of: str | None = None


def check_output(path: Path) -> None:
    """Check that an output file can be written.

    Raises:
        ConfigurationError: The path is a folder or a device, or its folder does not exist.
        MissingExtraError: The file is a table, and no package that writes tables is installed.
    """
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{path.name} is no file that could be written")
    if not path.parent.is_dir():
        raise ConfigurationError(f"there is no folder {path.parent} for {path.name}")
    if path.suffix in TABLES:
        _table_writer(path)


def write_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Write all answers to a file; if that fails, an existing file stays unchanged.

    Raises:
        JournalError: The file cannot be written, or an answer cannot be read from the journal.
    """
    if path.suffix in TABLES:
        write_whole(path, [_table_writer(path)([_record_of(answer) for answer in answers], path.suffix)])
    else:
        write_whole(path, (_encoder.encode(line_of(answer)) + b"\n" for answer in answers))


def write_whole(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file; if that fails, an existing file stays unchanged.

    Raises:
        JournalError: The file cannot be written.
    """
    target = path.resolve()
    temporary = target.with_name(target.name + ".part")
    try:
        with temporary.open("wb", buffering=1 << 20) as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:  # after any error no half file stays
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise JournalError(f"cannot write {path}: {error.strerror}", path=str(path)) from error
        raise


def line_of(answer: Answer) -> JSON:
    """Return the JSON object of a call, in which either `response` or `error` is None."""
    response = answer.response
    data = response.to_dict()
    del data["error"]
    line: JSON = {"id": answer.id, "response": None, "error": None, "usage": data["usage"], "cost": data["cost"]}
    if answer.duplicate_of is not None:
        line["duplicate_of"] = answer.duplicate_of
    if isinstance(response.error, DelugeError):
        line["error"] = _error_fields(response.error)
        line["error"]["partial"] = data if response.content.parts else None
    else:
        line["response"] = data
    return line


def _error_fields(error: DelugeError) -> JSON:
    fields = error.to_dict()
    fields.pop("body", None)  # in which a provider may have quoted the prompt
    return {"status_code": None, **fields, "retryable": error.retryable}


def _record_of(answer: Answer) -> JSON:
    """Return the row of a call in a table."""
    line, response = line_of(answer), answer.response
    usage = response.usage
    content = line["response"] if line["error"] is None else line["error"]["partial"]
    return {
        "id": answer.id,
        "completion": response.completion if content is not None else None,
        "finish_reason": response.finish_reason,
        "error": response.error_message,
        "input_tokens": None if usage is None else usage.input_tokens,
        "output_tokens": None if usage is None else usage.output_tokens,
        "cost": response.cost,
        "response": None if content is None else _encoder.encode(content).decode(),
    }


def _table_writer(path: Path) -> Any:
    """Return a function that encodes a table, with polars if it is installed, else with pandas."""
    with_pandas = ("pandas",) if path.suffix == ".csv" else ("pandas", "pyarrow")
    for write, names in ((_with_polars, ("polars",)), (_with_pandas, with_pandas)):
        with contextlib.suppress(ImportError):
            for name in names:
                importlib.import_module(name)
            return write
    raise MissingExtraError(
        f"writing {path.suffix} files needs polars, or {' and '.join(with_pandas)}",
        hint=install_hint("polars", otherwise="name a .jsonl file"),
    )


def _with_polars(records: list[JSON], suffix: str) -> bytes:
    import polars as pl  # pyright: ignore[reportMissingImports]  # installed where tables are written

    kinds = {"input_tokens": pl.Int64, "output_tokens": pl.Int64, "cost": pl.Float64}
    frame = pl.DataFrame(records, schema={name: kinds.get(name, pl.String) for name in _COLUMNS})
    buffer = io.BytesIO()
    if suffix == ".csv":
        frame.write_csv(buffer)
    else:
        frame.write_parquet(buffer)
    return buffer.getvalue()


def _with_pandas(records: list[JSON], suffix: str) -> bytes:
    import pandas as pd  # pyright: ignore[reportMissingImports]  # installed where tables are written

    frame = pd.DataFrame(records, columns=list(_COLUMNS))
    frame = frame.astype({"input_tokens": "Int64", "output_tokens": "Int64", "cost": "Float64"})
    buffer = io.BytesIO()
    if suffix == ".csv":
        frame.to_csv(buffer, index=False)
    else:
        frame.to_parquet(buffer)
    return buffer.getvalue()
