"""A JSON array whose items arrive one by one: the format of Google's streams without `alt=sse`.

This module only finds the boundaries of items. The caller parses them and detects invalid JSON.
"""

from __future__ import annotations

import re
from typing import ClassVar

from lm_deluge.errors import ResponseLimitError
from lm_deluge.wire.sse import ServerSentEvent

__all__ = ["JSONArrayDecoder"]

_STRUCTURAL = re.compile(rb'[{}\[\]"\\]')
_OPENING, _CLOSING = b"{[", b"}]"


class JSONArrayDecoder:
    """Splits a JSON array into its objects, independent of how the bytes are divided into reads.

    Work is linear in the number of bytes. An item larger than `max_event_bytes` sets `error`, after the complete items
    before it were returned.
    """

    media_types: ClassVar[tuple[str, ...]] = ("application/json",)
    is_json: ClassVar[bool] = True

    def __init__(self, max_event_bytes: int = 16 * 2**20) -> None:
        self.error: ResponseLimitError | None = None
        self._limit = max_event_bytes
        self._item = bytearray()  # the incomplete item
        self._depth = 0  # of nesting; 1: in the array, between two items
        self._is_text = False
        self._skip = 0  # bytes at the start of the data that a backslash escapes
        self._is_over = False

    def may_begin(self, head: bytes) -> bool:
        """Whether an array can begin with these bytes."""
        return head.startswith(b"[")

    def maybe_feed_plain(self, data: bytes) -> list[bytes] | None:
        """Return None: `feed` must be used."""
        return None

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Feed the next bytes; return the items that they complete."""
        items: list[ServerSentEvent] = []
        start = 0  # offset of the item's first byte in `data`
        for found in _STRUCTURAL.finditer(data):
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
        """End the stream; return the incomplete item, or None."""
        return ServerSentEvent(bytes(self._item)) if self._item else None

    def _step(self, character: bytes, at: int) -> int:
        """Process one structural character; return the depth after it."""
        if character == b'"':
            self._is_text = not self._is_text
        elif self._is_text:
            if character == b"\\":
                self._skip = at + 2
        elif character in _OPENING:
            self._depth += 1
        elif character in _CLOSING:
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
