"""Newline-delimited JSON on bytes: one document a line.

https://github.com/ndjson/ndjson-spec. Lines are cut at LF alone; a CR in front of it is a blank of JSON's.
"""

from __future__ import annotations

from typing import ClassVar

from lm_deluge.errors import ResponseLimitError
from lm_deluge.wire.sse import ServerSentEvent

__all__ = ["NDJSONDecoder"]


class NDJSONDecoder:
    """Cuts a byte stream into lines, however the bytes are cut; empty lines are none.

    Work is linear in the bytes; what is held is at most one line. A line beyond `max_event_bytes` sets `error`,
    behind the lines that came whole; from then on nothing more is read.
    """

    media_types: ClassVar[tuple[str, ...]] = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
    is_json: ClassVar[bool] = True

    def __init__(self, max_event_bytes: int = 16 * 2**20) -> None:
        self.error: ResponseLimitError | None = None
        self._limit = max_event_bytes
        self._rest = bytearray()  # a line whose end has not come

    def may_begin(self, head: bytes) -> bool:
        """Whether a stream can begin with these bytes, blanks and byte order mark taken off."""
        return head.startswith(b"{")

    def maybe_feed_plain(self, data: bytes) -> list[bytes] | None:
        """Take the next bytes, unless a line in them may be too long; return the lines that they complete."""
        if self.error is not None or len(self._rest) + len(data) > self._limit:
            return None
        return self._cut(data)

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take the next bytes; return the lines that they complete."""
        if self.error is not None:
            return []
        frames: list[ServerSentEvent] = []
        for line in self._cut(data):
            if len(line) > self._limit:
                self._fail()
                return frames
            frames.append(ServerSentEvent(line))
        if len(self._rest) > self._limit:
            self._fail()
        return frames

    def close(self) -> ServerSentEvent | None:
        """Return the line that the end of the stream cut off before its LF, or None: it may be whole."""
        line = bytes(self._rest)
        self._rest.clear()
        return ServerSentEvent(line) if line.strip() else None

    def _cut(self, data: bytes) -> list[bytes]:
        end = data.rfind(b"\n")
        if end < 0:
            self._rest += data
            return []
        whole = data[:end]
        if self._rest:
            self._rest += whole
            whole = bytes(self._rest)
            self._rest.clear()
        self._rest += data[end + 1 :]
        return [line for line in whole.split(b"\n") if line.strip()]

    def _fail(self) -> None:
        self._rest.clear()
        self.error = ResponseLimitError(
            f"a line of the stream is larger than {self._limit} bytes",
            reason="limit",
            hint="Raise max_event_bytes if such lines are expected.",
        )
