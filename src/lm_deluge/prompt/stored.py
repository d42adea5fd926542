"""Conversations as JSON: written to files, and read again by this version and later ones.

The format is `{"version": 1, "messages": [...]}`, with the fields of `Message` and of the parts; binary data is base64.
A file without a version, as `/save` of `deluge chat` writes it, has the same messages.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from lm_deluge.errors import ConfigurationError, InvalidPromptError
from lm_deluge.prompt.message import Message

__all__ = ["encode_messages", "read_file", "read_messages", "to_data", "write_file"]

VERSION = 1
"""The version of the format that is written. A change that older versions cannot read needs the next number."""

_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair, which UTF-8 cannot encode
_FORM = '{"version": 1, "messages": [...]}'


class _Stored(msgspec.Struct):
    messages: list[Message]


def to_data(messages: Sequence[Message]) -> dict[str, Any]:
    """Return messages as data that can be encoded as JSON.

    Raises:
        InvalidPromptError: The arguments of a tool call, or opaque data, are of a type that JSON does not have.
    """
    found = []
    for number, message in enumerate(messages):
        try:
            found.append(msgspec.to_builtins(message, str_keys=True))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidPromptError(f"messages[{number}] cannot be stored as JSON: {error}") from error
    return {"version": VERSION, "messages": found}


def encode_messages(messages: Sequence[Message]) -> str:
    """Return messages as JSON text.

    Raises:
        InvalidPromptError: As in `to_data`.
    """
    try:
        text = json.dumps(to_data(messages), ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidPromptError(f"the conversation cannot be stored as JSON: {error}") from error
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def read_messages(stored: str | bytes | Mapping[str, Any]) -> list[Message]:
    """Return the messages in JSON text, or in the data of such a text.

    Raises:
        InvalidPromptError: The text is damaged, or of a newer version; the message has the place.
    """
    data = _parsed(stored) if isinstance(stored, str | bytes) else stored
    if not isinstance(data, Mapping) or "messages" not in data:
        raise InvalidPromptError("the data is not a stored conversation", hint=f"It has the form {_FORM}.")
    version = data.get("version", 0)
    if not isinstance(version, int) or version > VERSION:
        raise InvalidPromptError(
            f"the conversation has version {version!r} of the format, and this version reads up to {VERSION}",
            hint="Update lm-deluge.",
        )
    try:
        return msgspec.convert({"messages": data["messages"]}, _Stored).messages
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidPromptError(f"the stored conversation is damaged: {error}") from error


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidPromptError(
            f"the stored conversation is damaged: no JSON at line {error.lineno}, column {error.colno}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InvalidPromptError(f"the stored conversation is damaged: {type(error).__name__}") from None


def write_file(path: Path, text: str) -> None:
    """Write a file that only its owner can read. Until it is complete, a file of that name stays as it was.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    import tempfile

    try:
        path = path.expanduser().resolve()  # a link stays, and the file that it names is replaced
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"cannot write {path.name!r}: {_reason(error)}") from error


def read_file(path: Path) -> list[Message]:
    """Return the messages that are stored in a file.

    Raises:
        ConfigurationError: The file cannot be read.
        InvalidPromptError: It is damaged, or of a newer version; the message has the file and the place.
    """
    try:
        data = path.expanduser().read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"cannot read {path.name!r}: {_reason(error)}") from error
    try:
        return read_messages(data)
    except InvalidPromptError as error:
        raise InvalidPromptError(f"{path.name}: {error.message}", hint=error.hint) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or "it is not a path of a file"
