"""Find the JSON in the text of an answer: inside a code fence, after an introduction, before a second object."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

__all__ = ["JSONInText", "JSONOpening"]

JSONOpening: TypeAlias = Literal["{", "[", "{["]
"""What may begin the JSON: an object, an array, or either."""

IN_FENCE = "The JSON is inside a code fence."
TEXT_BEFORE = "There is text before the JSON; it is ignored."
TEXT_AFTER = "There is text after the JSON; it is ignored."
SECOND_VALUE = "There is a second JSON value after the first; it is ignored."

_SPACE = " \t\n\r"
_FENCE_BEFORE = re.compile(r"(?:```|~~~)[ \t]*[\w+-]*[ \t]*\Z")  # with the name of the language
_FENCE_AFTER = re.compile(r"\s*(?:```|~~~)?\s*")
_MOST_OF_FENCE = 64  # a fence is three characters and the name of a language; white space around it is dropped before
_STRUCTURAL = re.compile(r'["\[\]{}]')
_STRING_END = re.compile(r'["\\]')
_LITERALS = ("true", "false", "null")
_BYTE_ORDER_MARK = "\ufeff"


class _StartFinder:
    """Finds where a JSON object or array starts: the bracket and a first token that fits it.

    `{` must be followed by `"` or `}`, and `[` by a value or `]`, so that `{name}` or `[the list]` in prose is skipped.
    """

    def __init__(self, opening: JSONOpening) -> None:
        self._next = re.compile(f"[{re.escape(opening)}]").search
        self._candidate: list[str] = []  # the bracket, and white space after it
        self._token = ""  # the first characters of the token after that

    @property
    def held(self) -> str:
        """Text of the candidate, which is neither accepted nor skipped yet."""
        return "".join(self._candidate) + self._token

    def find(self, text: str) -> tuple[str, str | None]:
        """Return the skipped text, and the text from the start on; None: no start yet."""
        skipped: list[str] = []
        if self._candidate and not self._token:  # nothing is looked at twice, however long the white space is
            rest = text.lstrip(_SPACE)
            self._candidate.append(text[: len(text) - len(rest)])
            text = rest
        elif self._candidate:
            text, self._token = self._token + text, ""
        while True:
            if not self._candidate:
                found = self._next(text)
                if found is None:
                    return "".join([*skipped, text]), None
                skipped.append(text[: found.start()])
                rest = text[found.start() + 1 :]
                text = rest.lstrip(_SPACE)
                self._candidate = [found.group(), rest[: len(rest) - len(text)]]
            fits = self._fits(text)
            if fits is None:
                self._token = text
                return "".join(skipped), None
            head = "".join(self._candidate)
            self._candidate = []
            if fits:
                return "".join(skipped), head + text
            skipped.append(head)

    def _fits(self, text: str) -> bool | None:
        """Whether the text after the bracket fits it; None: more of the text is needed."""
        if not text:
            return None
        if self._candidate[0] == "{":
            return text[0] in '"}'
        if text[0] not in "tfn":
            return text[0] in '"{[]-0123456789'
        if any(text.startswith(literal) for literal in _LITERALS):
            return True
        return None if any(literal.startswith(text) for literal in _LITERALS) else False


class JSONInText:
    r"""Passes on the first JSON object or array of a text in pieces, and describes what surrounds it as warnings.

    The JSON is passed on unchanged, up to the bracket that closes it; whether it is valid is for its parser. Nothing is
    taken out of it or added to it.

    Attributes:
        warnings: What surrounds the JSON, each kind once; complete after `close`.
        is_found: Whether the start of the JSON was found.
        is_complete: Whether its last bracket was passed on.

    Example:
        >>> text = JSONInText()
        >>> text.feed('Sure:\n```json\n{"a"'), text.feed(': 1}\n```')
        ('{"a"', ': 1}')
        >>> text.close(), text.warnings
        (None, ['There is text before the JSON; it is ignored.', 'The JSON is inside a code fence.'])
    """

    def __init__(self, opening: JSONOpening = "{[") -> None:
        self.warnings: list[str] = []
        self.is_found = False
        self.is_complete = False
        self._finder = _StartFinder(opening)
        self._last_words = ""  # the end of the text before the JSON
        self._has_text_before = False
        self._depth = 0
        self._is_in_string = False
        self._is_escaped = False  # the next character follows a backslash
        self._after: str | None = ""  # the text after the JSON, while it may be a closing fence

    def feed(self, piece: str) -> str:
        """Return what of the piece, and of text held before, belongs to the JSON; may be empty."""
        text = piece if self.is_found else self._find(piece)
        if text is None:
            return ""
        if self.is_complete:
            self._look_after(text)
            return ""
        end = self._end_of_json(text)
        self._look_after(text[end:])
        return text[:end]

    def close(self) -> None:
        """End the text, so that `warnings` is complete."""
        if self._after is not None and not _FENCE_AFTER.fullmatch(self._after + self._finder.held * self.is_complete):
            self._warn(TEXT_AFTER)

    def _find(self, piece: str) -> str | None:
        skipped, text = self._finder.find(piece)
        self._look_before(skipped)
        if text is not None:
            self.is_found = True
            self._warn_before()
        return text

    def _warn(self, warning: str) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)

    def _look_before(self, skipped: str) -> None:
        """Keep the end of the text, in which an opening fence would stand, and one character of the space after it."""
        recent = (self._last_words + skipped).lstrip(_SPACE + _BYTE_ORDER_MARK)
        words = recent.rstrip(_SPACE)
        space = recent[len(words) :]
        if len(words) > _MOST_OF_FENCE:
            self._has_text_before = True
            words = words[-_MOST_OF_FENCE:]
        self._last_words = words + ("\n" if "\n" in space else space[:1])

    def _warn_before(self) -> None:
        words = self._last_words.rstrip(_SPACE)
        fence = _FENCE_BEFORE.search(words)
        if self._has_text_before or (words[: fence.start()] if fence else words).strip():
            self._warn(TEXT_BEFORE)
        if fence:
            self._warn(IN_FENCE)

    def _end_of_json(self, text: str) -> int:
        """Return the position after the JSON, or that of the end of the text."""
        at = 0
        if self._is_escaped and text:
            at, self._is_escaped = 1, False
        while found := (_STRING_END if self._is_in_string else _STRUCTURAL).search(text, at):
            at = found.end()
            character = found.group()
            if character == "\\":
                self._is_escaped = at == len(text)
                at += 1
            elif character == '"':
                self._is_in_string = not self._is_in_string
            else:
                self._depth += 1 if character in "{[" else -1
                if self._depth == 0:
                    self.is_complete = True
                    self._finder = _StartFinder("{[")
                    return at
        return len(text)

    def _look_after(self, text: str) -> None:
        if not text or SECOND_VALUE in self.warnings:
            return
        skipped, second = self._finder.find(text)
        if self._after is not None:
            self._after = (self._after + skipped).strip(_SPACE)
            if len(self._after) > _MOST_OF_FENCE:
                self._warn(TEXT_AFTER)
                self._after = None
        if second is not None:
            self._warn(SECOND_VALUE)
