"""Reconcile streamed deltas with a snapshot: a later event that repeats the whole content.

One rule for all wire APIs, by prefix. A snapshot equal to the streamed text adds nothing; a longer one adds its rest;
an empty one is not a snapshot. If the two disagree, the streamed text stays, because it is delivered already, and the
response gets the warning `SNAPSHOT_DIFFERS`. So text is neither lost nor repeated, and never a mixture of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from lm_deluge.wire.tolerant_json import NotJSONError, decode_json

__all__ = ["SNAPSHOT_DIFFERS", "StreamedText", "extend_json", "is_same_json", "joined", "warn_once"]

SNAPSHOT_DIFFERS = "snapshot_differs"
"""Warning for a response whose final text, arguments or names are not those that were streamed."""

_SMALL_PIECES = 128
"""Pieces joined at once, as in `ResponseBuilder`: each string takes 49 bytes more than its text."""


def warn_once(warnings: list[str], warning: str) -> None:
    """Append a warning, unless the list contains it."""
    if warning not in warnings:
        warnings.append(warning)


class StreamedText:
    """A text that arrives in deltas. Comparing it with a snapshot takes time linear in the snapshot."""

    __slots__ = ("_most", "_pieces", "length")

    def __init__(self, pieces: Iterable[str] = ()) -> None:
        self._pieces = list(pieces)
        self.length = sum(map(len, self._pieces))  # in characters
        self._most = len(self._pieces) + _SMALL_PIECES

    def add(self, piece: str) -> None:
        """Add a delta."""
        self.length += len(piece)
        self._pieces.append(piece)
        if len(self._pieces) >= self._most:
            start = self._most - _SMALL_PIECES
            self._pieces[start:] = ["".join(self._pieces[start:])]
            self._most = len(self._pieces) + _SMALL_PIECES

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __str__(self) -> str:
        self._pieces = ["".join(self._pieces)]
        self._most = 1 + _SMALL_PIECES
        return self._pieces[0]

    def rest_of(self, snapshot: str) -> str | None:
        """Return the part of a snapshot that was not streamed, "" if there is none, None if the two disagree."""
        return rest_of(self._pieces, snapshot)

    def agrees(self, snapshot: str) -> bool:
        """Whether one of the two texts begins with the other."""
        return agrees(self._pieces, snapshot)


def joined(texts: Iterable[StreamedText]) -> StreamedText:
    """Return the concatenation of texts, for comparisons only: it shares their pieces."""
    return StreamedText(chain.from_iterable(texts))


def rest_of(pieces: Iterable[str], snapshot: str) -> str | None:
    """Return the part of `snapshot` after `pieces`, "" if there is none, None if it does not begin with them."""
    position = 0
    for piece in pieces if snapshot else ():
        if not snapshot.startswith(piece, position):
            return None
        position += len(piece)
    return snapshot[position:]


def agrees(pieces: Iterable[str], snapshot: str) -> bool:
    """Whether `snapshot` begins with `pieces`, or `pieces` with `snapshot`."""
    position = 0
    for piece in pieces:
        if not snapshot.startswith(piece, position):
            return piece.startswith(snapshot[position:])
        position += len(piece)
    return True


def is_same_json(text: str, snapshot: str) -> bool:
    """Whether two texts are the same JSON value, possibly with other whitespace or order of fields."""
    try:
        return bool(decode_json(text) == decode_json(snapshot))
    except (NotJSONError, RecursionError):
        return False


def extend_json(streamed: Any, snapshot: Any) -> Any:
    """Return `streamed` with what only `snapshot` has; `streamed` itself if that is nothing.

    Objects get missing fields, null and empty values are replaced, and lists and texts are replaced by longer ones that
    begin with them. Where the two disagree, `streamed` stays.
    """
    if streamed is None or streamed in ("", [], {}):
        return streamed if snapshot is None or snapshot in ("", [], {}) else snapshot
    if isinstance(streamed, dict) and isinstance(snapshot, dict):
        new = {name: value for name, value in snapshot.items() if name not in streamed and value is not None}
        longer = {name: extend_json(value, snapshot.get(name)) for name, value in streamed.items()}
        has_more = new or any(longer[name] is not value for name, value in streamed.items())
        return {**longer, **new} if has_more else streamed
    if isinstance(streamed, list) and isinstance(snapshot, list):
        return snapshot if len(snapshot) > len(streamed) and snapshot[: len(streamed)] == streamed else streamed
    is_longer = isinstance(streamed, str) and isinstance(snapshot, str) and snapshot.startswith(streamed)
    return snapshot if is_longer and snapshot != streamed else streamed
