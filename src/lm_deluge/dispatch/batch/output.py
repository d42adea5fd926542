"""The answers of a batch as a file: one line for each call, in order.

The file has JSON lines, or is a table (`.csv`, `.parquet`). It is written under another name and renamed after it is
complete and on the disk, so there is never half a file.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from lm_deluge.dispatch.batch.tables import LARGEST_INTEGER, TABLES, check_table_writer, encode_table
from lm_deluge.errors import ConfigurationError, DelugeError, DispatchError, JournalError
from lm_deluge.response import APIResponse

__all__ = ["Answer", "check_output", "encode_answers", "line_of", "write_answers", "write_stream", "write_whole"]

JSON = dict[str, Any]

_encoder = msgspec.json.Encoder(enc_hook=str)
_COLUMNS: dict[str, type] = {
    "id": str,
    "completion": str,
    "finish_reason": str,
    "error": str,
    "input_tokens": int,
    "output_tokens": int,
    "cost": float,
    "response": str,
}
_FIELDS = ("id", "response", "error", "usage", "cost", "duplicate_of")


class Answer(msgspec.Struct, frozen=True):
    """The answer of one call.

    Attributes:
        id: The id of its row.
        response: The answer.
        duplicate_of: The id of the call with an equal request whose answer this is.
        columns: Further columns of the row. One with the name of a column of the output gets the prefix `input_`.
    """

    id: str
    response: APIResponse
    duplicate_of: str | None = None
    columns: JSON = {}


def check_output(path: Path) -> None:
    """Check that an output file can be written.

    Raises:
        ConfigurationError: The path is a folder or a device, or its folder does not exist.
        MissingExtraError: The file is a Parquet table, and no package that writes it is installed.
    """
    if path.exists() and not path.is_file():
        raise ConfigurationError(
            f"{path.name} is no file that could be written", hint="Name a file, or - to write the answers to stdout."
        )
    if not path.parent.is_dir():
        raise ConfigurationError(f"there is no folder {path.parent} for {path.name}")
    if path.suffix.lower() in TABLES:
        check_table_writer(path.suffix.lower())


def encode_answers(suffix: str, answers: Iterable[Answer]) -> Iterator[bytes]:
    """Yield the bytes of an output file. An answer that cannot be encoded is a line with an error.

    Args:
        suffix: Of its file name: a table, or JSON lines for any other.
        answers: The answers, in order.
    """
    if suffix.lower() in TABLES:
        yield from encode_table(suffix.lower(), [_record_of(answer) for answer in answers], _COLUMNS)
        return
    for answer in answers:
        try:
            data = _encoder.encode(line_of(answer))
        except Exception as error:  # noqa: BLE001 - one answer must not keep all others from the file
            data = _encoder.encode(line_of(_unwritable(answer, error)))
        yield data + b"\n"


def _unwritable(answer: Answer, error: Exception) -> Answer:
    failure = DispatchError(f"the answer cannot be written ({type(error).__name__})")
    return Answer(answer.id, APIResponse(id=answer.response.id, error=failure), answer.duplicate_of)


def write_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Write all answers to a file; if that fails, an existing file stays unchanged.

    Raises:
        JournalError: The file cannot be written, or an answer cannot be read from the journal.
    """
    write_whole(path, encode_answers(path.suffix, answers))


def write_stream(file: BinaryIO, answers: Iterable[Answer]) -> None:
    """Write all answers to an open file, as JSON lines.

    Raises:
        OSError: The file cannot be written.
    """
    file.writelines(encode_answers("", answers))
    file.flush()


def write_whole(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file; if that fails, an existing file stays unchanged, and so do its permissions.

    Raises:
        JournalError: The file cannot be written.
    """
    target = path.resolve()
    temporary = target.with_name(target.name + ".part")
    try:
        with open(temporary, "wb", buffering=1 << 20, opener=_open_private) as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
    except BaseException as error:  # after any error no half file stays
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise JournalError(f"cannot write {path}: {error.strerror}", path=str(path)) from error
        raise


def _open_private(path: str, flags: int) -> int:
    """Open a file that only its owner can read, as the journal: the answers are as private as the prompts."""
    descriptor = os.open(path, flags, 0o600)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        Path(path).chmod(0o600)  # a run that was killed may have left the file
    return descriptor


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
    return line | _renamed(answer.columns, _FIELDS)


def _renamed(columns: JSON, taken: Iterable[str]) -> JSON:
    """Return further columns under names that the output does not use itself."""
    names = set(taken)
    renamed: JSON = {}
    for name, value in columns.items():
        new = name
        while new in names or (new != name and new in columns):
            new = f"input_{new}"
        renamed[new] = value
    return renamed


def _error_fields(error: DelugeError) -> JSON:
    fields = error.to_dict()
    fields.pop("body", None)  # in which a provider may have quoted the prompt
    return {"status_code": None, **fields, "retryable": error.retryable}


def _record_of(answer: Answer) -> JSON:
    """Return the row of a call in a table."""
    try:
        return _cells_of(answer) | _renamed(answer.columns, _COLUMNS)
    except Exception as error:  # noqa: BLE001 - as in `encode_answers`
        return _cells_of(_unwritable(answer, error))


def _cells_of(answer: Answer) -> JSON:
    line, response = line_of(answer), answer.response
    usage = response.usage
    content = line["response"] if line["error"] is None else line["error"]["partial"]
    return {
        "id": answer.id,
        "completion": response.completion if content is not None else None,
        "finish_reason": response.finish_reason,
        "error": response.error_message,
        "input_tokens": None if usage is None else _count(usage.input_tokens),
        "output_tokens": None if usage is None else _count(usage.output_tokens),
        "cost": response.cost,
        "response": None if content is None else _encoder.encode(content).decode(),
    }


def _count(tokens: int) -> int | None:
    """Return a count that fits into a column of integers; None if no request can have it."""
    return tokens if abs(tokens) <= LARGEST_INTEGER else None
