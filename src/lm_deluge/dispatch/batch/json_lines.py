"""Lines of JSON or of plain text, and a description of what is wrong with a line. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from lm_deluge.errors import InvalidPromptError

__all__ = ["not_utf8", "numbered", "parse_json", "parse_text"]

_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")  # half of a surrogate pair, encoded like a character
_ESCAPES = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_HIGH, _LOW, _END = 0xD800, 0xDC00, 0xE000
"""Code units of UTF-16: the first halves of surrogate pairs, the second halves, and the end of these."""


def numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each line that is not blank, without its end and without a byte order mark.

    Files that were joined have a byte order mark at the start of each.
    """
    for number, line in enumerate(lines, start=1):
        content = line.removeprefix(_BOM).rstrip(b"\r\n")
        if content.strip():
            yield number, content


def parse_text(line: bytes) -> str | InvalidPromptError:
    """Return a line as text, or the error of a line that is not UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        return not_utf8(line, error.start)


def parse_json(line: bytes, subject: str = "the line") -> Any:
    """Return the value of a line, or an `InvalidPromptError` with the reason why it is not JSON."""
    try:
        return msgspec.json.decode(line)
    except (ValueError, RecursionError):  # ValueError: msgspec's DecodeError and UnicodeDecodeError
        pass
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return not_utf8(line, error.start, subject)
    why = _reason(text)
    hint = None if text.lstrip()[:1] in tuple('{["') else 'Put a plain prompt in quotes: "like this".'
    return InvalidPromptError(f"{subject} is not JSON: {why}", hint=hint)


def not_utf8(data: bytes, at: int, subject: str = "the line") -> InvalidPromptError:
    """Return the error of bytes that are not UTF-8 from the index `at` on."""
    place = f"at column {len(data[:at].decode('utf-8', 'replace')) + 1}"
    if _SURROGATE.match(data, at):
        return InvalidPromptError(
            f"{subject} has a lone surrogate, half of a character, {place}", hint="Remove it, or replace it by U+FFFD."
        )
    return InvalidPromptError(
        f"{subject} is not UTF-8: byte 0x{data[at]:02X} {place}",
        hint="If the file is Latin-1 or Windows-1252, convert it: iconv -f WINDOWS-1252 -t UTF-8 IN > NEW.",
    )


def _reason(text: str) -> str:
    """Return the reason why a text is not JSON, without quoting it."""
    constants: list[str] = []
    try:
        json.loads(text, parse_constant=constants.append)
    except json.JSONDecodeError as error:
        return f"{error.msg[:1].lower()}{error.msg[1:]}, at column {error.colno}"
    except RecursionError:
        return "it is nested too deeply"
    except ValueError:
        return "a number in it is too large"
    if constants:
        return f"it contains {constants[0]}, which JSON does not have; write null"
    column = _lone_surrogate(text)
    if column is not None:
        return f"it has a lone surrogate, half of a character, at column {column}"
    return "a number in it is too large"


def _lone_surrogate(text: str) -> int | None:
    """Return the column of an escape of half of a surrogate pair without the other half; None without one."""
    first: re.Match[str] | None = None  # an escape of a first half
    for found in _ESCAPES.finditer(text):
        unit = int(found[1] or "0", 16)
        is_second = _LOW <= unit < _END and first is not None and first.end() == found.start()
        if is_second:
            first = None
        elif first is not None or _LOW <= unit < _END:
            return (first or found).start() + 1
        elif _HIGH <= unit < _LOW:
            first = found
    return None if first is None else first.start() + 1
