"""A JSON array whose items arrive one by one: what Google's streams are where nobody asks for server-sent events.

Only where an item begins and ends is looked at here; whether it is JSON, whoever takes it finds out.
"""

from __future__ import annotations

import re
from typing import ClassVar

from lm_deluge.errors import ResponseLimitError
from lm_deluge.wire.sse import ServerSentEvent

__all__ = ["JSONArrayDecoder"]

_SIGNS = re.compile(rb'[{}\[\]"\\]')
_OPENING, _CLOSING = b"{[", b"}]"


class JSONArrayDecoder:
    """Cuts a JSON array into the objects in it, however the bytes are cut. Work is linear in the bytes.

    An item beyond `max_event_bytes` sets `error`, behind the items that came whole.
    """

    media_types: ClassVar[tuple[str, ...]] = ("application/json",)
    is_json: ClassVar[bool] = True

    def __init__(self, max_event_bytes: int = 16 * 2**20) -> None:
        self.error: ResponseLimitError | None = None
        self._limit = max_event_bytes
        self._item = bytearray()  # the item whose end has not come
        self._depth = 0  # 1: in the array, between two items
        self._is_text = False
        self._skip = 0  # bytes whose signs mean nothing, as a backslash stands before them
        self._is_over = False

    def may_begin(self, head: bytes) -> bool:
        """Whether an array can begin with these bytes."""
        return head.startswith(b"[")

    def maybe_feed_plain(self, data: bytes) -> list[bytes] | None:
        """Take nothing: items are looked for by `feed` alone."""
        return None

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take the next bytes; return the items that they complete."""
        items: list[ServerSentEvent] = []
        start = 0  # of what belongs to the item
        for found in _SIGNS.finditer(data):
            at = found.start()
            if self._is_over or self.error is not None:
                return items
            if at < self._skip:
                continue
            before, after = self._depth, self._step(data[at : at + 1], at)
            if before == 1 and after > 1:
                start = at
            elif before > 1 and after == 1:
                self._item += data[start : at + 1]
                items.append(ServerSentEvent(bytes(self._item)))
                self._item.clear()
        self._skip = max(self._skip - len(data), 0)
        if self._depth > 1:
            self._item += data[start:]
            self._check_size()
        return items

    def close(self) -> ServerSentEvent | None:
        """Take the end of the body; return the item that it cut, or None."""
        return ServerSentEvent(bytes(self._item)) if self._item else None

    def _step(self, sign: bytes, at: int) -> int:
        """Take one sign; return the depth behind it."""
        if sign == b'"':
            self._is_text = not self._is_text
        elif self._is_text:
            if sign == b"\\":
                self._skip = at + 2
        elif sign in _OPENING:
            self._depth += 1
        elif sign in _CLOSING:
            self._depth -= 1
            self._is_over = self._depth <= 0
        return self._depth

    def _check_size(self) -> None:
        if len(self._item) > self._limit:
            self._item.clear()
            self.error = ResponseLimitError(
                f"an item of the answer is larger than {self._limit} bytes",
                reason="limit",
                hint="Raise max_event_bytes if such items are expected.",
            )
