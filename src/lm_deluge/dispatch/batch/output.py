"""The answers of a batch as a file: one line for each call, in order, and never half of it.

JSON lines (any name), or a table (`.csv`, `.parquet`). The file is written beside its place and moved there when it is
whole and on the disk.
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
from lm_deluge.errors import ConfigurationError, DelugeError, JournalError, MissingExtraError
from lm_deluge.response import APIResponse

__all__ = ["Answer", "check_output", "line_of", "write_answers", "write_whole"]

JSON = dict[str, Any]

_encoder = msgspec.json.Encoder()
_COLUMNS = ("id", "completion", "finish_reason", "error", "input_tokens", "output_tokens", "cost", "response")


class Answer(msgspec.Struct, frozen=True):
    """What is written for one call. `twin_of`: the call that asked the same and was asked in its place."""

    id: str
    response: APIResponse
    twin_of: str | None = None


def check_output(path: Path) -> None:
    """See that such a file can be written here.

    Raises:
        ConfigurationError: It is a folder or a device, or its folder is not there.
        MissingExtraError: It is a table, and nothing that writes tables is installed.
    """
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{path.name} is no file that could be written")
    if not path.parent.is_dir():
        raise ConfigurationError(f"there is no folder {path.parent} for {path.name}")
    if path.suffix in TABLES:
        _table_writer(path)


def write_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Write all answers, or change nothing.

    Raises:
        JournalError: The disk refuses, or an answer cannot be read any more.
    """
    if path.suffix in TABLES:
        write_whole(path, [_table_writer(path)([_record_of(answer) for answer in answers], path.suffix)])
    else:
        write_whole(path, (_encoder.encode(line_of(answer)) + b"\n" for answer in answers))


def write_whole(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file, or change nothing.

    Raises:
        JournalError: The disk refuses.
    """
    target = path.resolve()
    beside = target.with_name(target.name + ".part")
    try:
        with beside.open("wb", buffering=1 << 20) as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except BaseException as error:  # whatever it was, no half file stays
        with contextlib.suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError):
            raise JournalError(f"cannot write {path}: {error.strerror}", path=str(path)) from error
        raise


def line_of(answer: Answer) -> JSON:
    """Return the line of a call: `response` or `error` is set, the other one is None."""
    response = answer.response
    data = response.to_dict()
    del data["error"]
    line: JSON = {"id": answer.id, "response": None, "error": None, "usage": data["usage"], "cost": data["cost"]}
    if answer.twin_of is not None:
        line["duplicate_of"] = answer.twin_of
    if isinstance(response.error, DelugeError):
        line["error"] = _told(response.error)
        line["error"]["partial"] = data if response.content.parts else None
    else:
        line["response"] = data
    return line


def _told(error: DelugeError) -> JSON:
    said = error.to_dict()
    said.pop("body", None)  # where a provider may have quoted the prompt
    return {"status_code": None, **said, "retryable": error.retryable}


def _record_of(answer: Answer) -> JSON:
    """Return the row of a call in a table."""
    line, response = line_of(answer), answer.response
    usage = response.usage
    whole = line["response"] if line["error"] is None else line["error"]["partial"]
    return {
        "id": answer.id,
        "completion": response.completion if whole is not None else None,
        "finish_reason": response.finish_reason,
        "error": response.error_message,
        "input_tokens": None if usage is None else usage.input_tokens,
        "output_tokens": None if usage is None else usage.output_tokens,
        "cost": response.cost,
        "response": None if whole is None else _encoder.encode(whole).decode(),
    }


def _table_writer(path: Path) -> Any:
    """Return what makes the bytes of a table: of polars or pandas, whichever is installed."""
    with_pandas = ("pandas",) if path.suffix == ".csv" else ("pandas", "pyarrow")
    for write, names in ((_with_polars, ("polars",)), (_with_pandas, with_pandas)):
        with contextlib.suppress(ImportError):
            for name in names:
                importlib.import_module(name)
            return write
    raise MissingExtraError(
        f"writing {path.suffix} files needs polars, or {' and '.join(with_pandas)}",
        hint="pip install polars, or name a .jsonl file.",
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
    import pandas as pd  # pyright: ignore[reportMissingImports]  # likewise

    frame = pd.DataFrame(records, columns=list(_COLUMNS))
    frame = frame.astype({"input_tokens": "Int64", "output_tokens": "Int64", "cost": "Float64"})
    buffer = io.BytesIO()
    if suffix == ".csv":
        frame.to_csv(buffer, index=False)
    else:
        frame.to_parquet(buffer)
    return buffer.getvalue()
