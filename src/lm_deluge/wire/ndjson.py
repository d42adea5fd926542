"""Newline-delimited JSON on bytes: one document per line.

https://github.com/ndjson/ndjson-spec. Lines end at LF only; a CR before it is whitespace, which JSON allows.
"""

from __future__ import annotations

from typing import ClassVar

from lm_deluge.errors import ResponseLimitError
from lm_deluge.wire.sse import ServerSentEvent

__all__ = ["NDJSONDecoder"]


class NDJSONDecoder:
    """Splits a byte stream into lines, independent of how the bytes are divided into reads. Blank lines are skipped.

    Work is linear in the number of bytes; at most one line is buffered. A line larger than `max_event_bytes` sets
    `error`, after the complete lines before it were returned. Later bytes are ignored.
    """

    media_types: ClassVar[tuple[str, ...]] = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
    is_json: ClassVar[bool] = True

    def __init__(self, max_event_bytes: int = 16 * 2**20) -> None:
        self.error: ResponseLimitError | None = None
        self._limit = max_event_bytes
        self._rest = bytearray()  # an incomplete line

    def may_begin(self, head: bytes) -> bool:
        """Whether a stream can begin with these bytes, whitespace and byte order mark removed."""
        return head.startswith(b"{")

    def maybe_feed_plain(self, data: bytes) -> list[bytes] | None:
        """Feed the next bytes, return the complete lines; None without side effects if a line may be too long."""
        if self.error is not None or len(self._rest) + len(data) > self._limit:
            return None
        return self._cut(data)

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Feed the next bytes; return the lines that they complete."""
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
        """End the stream; return the last line if it has no LF, or None. The line may be complete."""
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
