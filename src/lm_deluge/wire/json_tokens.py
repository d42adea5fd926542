"""The tokens of JSON (RFC 8259), and text input in pieces, for `wire/partial_json.py`."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import Literal, cast

from lm_deluge.errors import InvalidJSONError, ProtocolError, ResponseLimitError

__all__ = [
    "AFTER_NUMBER",
    "DIGITS",
    "LITERALS",
    "NUMBER_RUN",
    "NUMBER_START",
    "SPACE",
    "TextInput",
    "bad_escape_at",
    "parse_number",
    "scan_string",
]


def _run(pattern: str) -> Callable[[str, int], re.Match[str]]:
    """Return the `match` of a pattern that matches the empty string, too, and so always."""
    return cast("Callable[[str, int], re.Match[str]]", re.compile(pattern).match)


SPACE = _run(r"[ \t\n\r]*")
_STRING_RUN = _run(r'[^"\\\x00-\x1f]*')
NUMBER_RUN = _run(r"[-+.0-9eE]*")
# The longest beginning of a number. One that ends with a digit is a whole number, too.
NUMBER_START = _run(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:(?<=[0-9])[eE][-+]?[0-9]*)?)?")
DIGITS = frozenset("0123456789")
AFTER_NUMBER = frozenset(" \t\n\r,]}")
LITERALS = {"t": ("true", True), "f": ("false", False), "n": ("null", None)}

_SHORT_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_match_escape = re.compile(
    r'\\(?:["\\/bfnrt]|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4})'
).match
# At the end of a piece: an escape that lacks characters, or a high surrogate whose low half may follow.
_is_open_escape = re.compile(
    r"\\(?:u(?:[0-9a-fA-F]{0,3}|[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?))?\Z"
).match
_ESCAPE_START = _run(r"(?:\\(?:u[0-9a-fA-F]{0,3})?)?")

_REPLACEMENT = "\ufffd"
_SURROGATE = re.compile("[\ud800-\udfff]").search
_HIGH_SURROGATES = range(0xD800, 0xDC00)  # the first half of a pair in UTF-16
_SURROGATES = range(0xD800, 0xE000)  # both halves
_PAIR_CHARACTERS = 12  # of \uXXXX\uXXXX


def scan_string(text: str, at: int) -> tuple[str, int, Literal["", "quote", "escape", "error"]]:
    """Read the inside of a string from `at` on.

    Returns:
        The decoded characters, the position after them, and what ends them there: the end of the text, the quote (which
        the position is after), an escape that may be incomplete, or a character that a string must not contain.
    """
    stop = _STRING_RUN(text, at).end()
    if stop == len(text):
        return text[at:], stop, ""
    if text[stop] == '"':
        return text[at:stop], stop + 1, "quote"
    pieces = [text[at:stop]]
    while text[stop] == "\\" and not _is_open_escape(text, stop):
        escape = _match_escape(text, stop)
        if escape is None:
            break
        at = escape.end()
        stop = _STRING_RUN(text, at).end()
        pieces += (_decode_escape(escape.group()), text[at:stop])
        if stop == len(text):
            return "".join(pieces), stop, ""
        if text[stop] == '"':
            return "".join(pieces), stop + 1, "quote"
    return "".join(pieces), stop, "escape" if _is_open_escape(text, stop) else "error"


def _decode_escape(escape: str) -> str:
    """Return the character of an escape; a lone surrogate becomes U+FFFD."""
    if escape[1] != "u":
        return _SHORT_ESCAPES[escape[1]]
    code = int(escape[2:6], 16)
    if len(escape) == _PAIR_CHARACTERS:  # RFC 8259, section 7
        return chr(0x10000 + ((code & 0x3FF) << 10) + (int(escape[8:], 16) & 0x3FF))
    return _REPLACEMENT if code in _SURROGATES else chr(code)


def bad_escape_at(text: str, at: int) -> int:
    """Return the position of the first wrong character of the invalid escape at `at`."""
    return _ESCAPE_START(text, at).end()


def parse_number(digits: str) -> int | float:
    """Return an int for an integer of any size, else a float as `json.loads` does: 1e999 is infinity.

    Raises:
        ValueError: The integer has more digits than `sys.get_int_max_str_digits()`.
    """
    is_float = "." in digits or "e" in digits or "E" in digits
    return float(digits) if is_float else int(digits)


class TextInput:
    """Text in pieces of UTF-8 or str, which may divide characters: bytes of UTF-8, or the surrogates of a pair.

    Attributes:
        size: Bytes of UTF-8 that `take` returned so far.
        error: Why the text ends here: invalid UTF-8, or more bytes than the limit. Valid text before it was returned.
    """

    __slots__ = ("_limit", "_rest", "_surrogate", "error", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = b""  # the start of a character
        self._surrogate = ""  # the first half of a pair
        self.size = 0
        self.error: ProtocolError | None = None

    @property
    def is_open(self) -> bool:
        """Whether the last piece ended inside a character."""
        return bool(self._rest or self._surrogate)

    def take(self, piece: bytes | str) -> str:
        """Return the characters that the piece completes, with U+FFFD in place of lone surrogates."""
        text = piece if isinstance(piece, str) else self._decode(piece)
        if text.isascii() and not self._surrogate:
            size = len(text)
        else:
            text = self._join_surrogates(text)
            size = len(text.encode())
        if self.size + size > self._limit:
            return self._cut(text)
        self.size += size
        return text

    def _decode(self, piece: bytes) -> str:
        data = self._rest + piece if self._rest else piece
        try:
            text, used = codecs.utf_8_decode(data, "strict", False)
        except UnicodeDecodeError as error:
            text = data[: error.start].decode()
            self._rest = b""
            offset = self.size + error.start
            self.error = InvalidJSONError(f"the JSON is not valid UTF-8 at byte {offset}", offset=offset)
            return text
        self._rest = data[used:] if used < len(data) else b""
        return text

    def _join_surrogates(self, text: str) -> str:
        text = self._surrogate + text
        self._surrogate = ""
        if _SURROGATE(text) is None:
            return text
        if ord(text[-1]) in _HIGH_SURROGATES:
            self._surrogate = text[-1]
            text = text[:-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def _cut(self, text: str) -> str:
        text = text.encode()[: self._limit - self.size].decode("utf-8", "ignore")
        self.size += len(text.encode())
        self.error = ResponseLimitError(
            f"the JSON is larger than {self._limit} bytes",
            reason="limit",
            hint="Raise max_bytes if such answers are expected.",
        )
        return text
