"""The value of an incremental parser as objects that do not change, a new one after each read. Pure.

Complete values are shared between the parser and all snapshots. Copying the open ones for each read would take
quadratic time: a list of 30,000 numbers that arrives in as many reads would be copied 30,000 times. So the copy of the
snapshot before the last is brought up to date instead of made again, if the consumer has dropped it, as CPython does
with `text += more`. A consumer that keeps every snapshot gets copies.
"""

from __future__ import annotations

import sys
from itertools import islice
from typing import Any

from lm_deluge.wire.partial_json import IncrementalParser

__all__ = ["Snapshots"]

_count_references = getattr(sys, "getrefcount", None)  # other implementations of Python have no such counts


def _count_own() -> int | None:
    """Return the count for an object that only a local variable refers to: 2, and fewer from Python 3.14 on."""
    copy: list[Any] = []
    return None if _count_references is None else _count_references(copy)


_OWN_REFERENCES = _count_own()


def _is_unused(copies: list[Any]) -> bool:
    """Whether only the list refers to the object in it, which a consumer therefore has dropped."""
    copy = copies.pop()
    is_unused = _count_references is not None and _count_references(copy) == _OWN_REFERENCES
    copies.append(copy)
    return is_unused


class _Copies:
    """The last two copies of an open dict or list, which grows at its end."""

    __slots__ = ("_newer", "_older", "source")

    def __init__(self, source: Any) -> None:
        self.source = source
        self._older: Any = None
        self._newer: Any = None

    def take(self, *, is_append_only: bool) -> Any:
        """Return a copy that is up to date."""
        older, self._older = [self._older], self._newer
        if older[0] and is_append_only and _is_unused(older):
            _extend(older[0], self.source)
        else:
            older[0] = self.source.copy()
        self._newer = older[0]
        return self._newer


def _extend(copy: Any, source: Any) -> None:
    """Add to an older copy what the source has since; its last value may have been incomplete."""
    if type(copy) is list:
        copy[-1:] = source[len(copy) - 1 :]
        return
    recent = list(islice(reversed(source), len(source) - len(copy) + 1))
    for key in reversed(recent):
        copy[key] = source[key]


class _Texts:
    """The last two copies of an open string. CPython appends in place to one that nothing else refers to."""

    __slots__ = ("_newer", "_older")

    def __init__(self) -> None:
        self._older = ""
        self._newer = ""

    def take(self, whole: str) -> str:
        """Return a copy that is up to date."""
        text, self._older = self._older, self._newer
        text += whole[len(text) :]
        self._newer = text
        return text


class Snapshots:
    """Makes snapshots of the value of a parser.

    Args:
        parser: The parser.
    """

    def __init__(self, parser: IncrementalParser) -> None:
        self._parser = parser
        self._copies: list[_Copies] = []  # of the open containers, the outermost first
        self._texts = _Texts()
        self._text_place: tuple[Any, Any] = (None, None)  # of the open string: its container in the parser, and its key

    def take(self) -> Any:
        """Return the value so far: plain data, which the caller must not modify; None before anything is visible."""
        parser = self._parser
        spine = parser.open_containers
        if not spine:
            self._copies.clear()
            return parser.value
        del self._copies[len(spine) :]
        is_append_only = not parser.has_duplicate_keys
        whole: Any = None
        inner: Any = None
        place: Any = None
        for depth, (source, key) in enumerate(spine):
            if depth == len(self._copies) or self._copies[depth].source is not source:
                self._copies[depth:] = [_Copies(source)]
            copy = self._copies[depth].take(is_append_only=is_append_only)
            if depth == 0:
                whole = copy
            else:
                inner[place] = copy
            inner, place = copy, key
        if parser.is_in_string:
            self._share_text(spine[-1][0], inner, place)
        return whole

    def _share_text(self, source: Any, copy: Any, key: Any) -> None:
        """Put a copy of the open string into the snapshot: the parser's own grows in place only while it is alone."""
        if self._text_place[0] is not source or self._text_place[1] != key:
            self._texts = _Texts()
            self._text_place = (source, key)
        copy[key] = None
        copy[key] = self._texts.take(source[key])
