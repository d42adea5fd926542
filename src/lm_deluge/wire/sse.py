"""Decoder and encoder of server-sent events on bytes, according to the WHATWG standard.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

Lines end at the bytes LF, CR and CRLF only: `str.splitlines` would also split at U+2028 and similar characters, which
JSON may contain unescaped. A CR at the end of a read ends its line at once; an LF after it is skipped.

One addition to the standard, which ignores unknown fields: llama.cpp and servers built on it report a failure in a
field `error` (https://github.com/ggml-org/llama.cpp/issues/16104, 2025-09). It is read as an event of this type.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from lm_deluge.errors import ResponseLimitError

__all__ = ["SSEDecoder", "ServerSentEvent", "encode_sse"]

_BOM = b"\xef\xbb\xbf"
_SHORTEST = 2  # the blank line that ends an event
_LF, _CR = 10, 13  # `in` finds an int in bytes much faster than a bytes object
_MOST_RETRY_DIGITS = 18  # fits into 64 bits; `int` of unbounded digits takes quadratic time
_MOST_NAMES = 64  # more types than one stream has; bounds the memory that a broken server can fill


class ServerSentEvent(msgspec.Struct, frozen=True, gc=False):
    """One event: its `data` lines, joined by LF, and its type (empty for the default type)."""

    data: bytes
    event: str = ""

    @property
    def text(self) -> str:
        """The data as text; invalid UTF-8 becomes U+FFFD."""
        return self.data.decode("utf-8", "replace")


class SSEDecoder:
    """Splits a byte stream into events, independent of how the bytes are divided into reads.

    Work is linear in the number of bytes; at most one event is buffered. An event larger than `max_event_bytes` sets
    `error`, after the complete events before it were returned. Later bytes are ignored.
    """

    media_types: ClassVar[tuple[str, ...]] = ("text/event-stream", "application/x-ndjson")
    is_json: ClassVar[bool] = False

    def __init__(self, max_event_bytes: int = 16 * 2**20) -> None:
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self.error: ResponseLimitError | None = None
        self._limit = max_event_bytes
        self._rest = bytearray()  # an incomplete line
        self._buffered = 0  # bytes in _rest and _data
        self._data: bytes | bytearray | None = None
        self._event = b""
        self._id = ""  # becomes last_event_id at the end of the event
        self._skip_lf = False
        self._is_start = True
        self._is_between = True  # no line of the next event was parsed
        self._names: dict[bytes, str] = {}  # types by their lines, which repeat

    def may_begin(self, head: bytes) -> bool:
        """Whether a stream can begin with these bytes, whitespace and byte order mark removed."""
        return head.startswith((b"data", b"event", b"id", b"retry", b"error", b":"))

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Feed the next bytes; return the events that they complete."""
        if self._is_between and not self._rest and data[:7] == b"event: ":
            events = self._maybe_one_typed(data) or self._maybe_feed_typed(data)
        else:
            payloads = self.maybe_feed_plain(data)
            if payloads is not None:
                return [ServerSentEvent(payload) for payload in payloads]
            events = self._maybe_feed_typed(data)
        if events is not None:
            return events
        events = self._feed(data)
        self._is_between = self._is_idle()
        return events

    def maybe_feed_plain(self, data: bytes) -> list[bytes] | None:
        """Feed the next bytes if they have the most frequent form; return the data of the complete events.

        In this form all complete events consist of one data line without a type, and lines end with LF. For any other
        form the method returns None without side effects, and the caller must pass the bytes to `feed`.
        """
        if not self._rest and data[:6] != b"data: ":  # other forms, without the check of the whole read
            return None
        is_whole = self._is_between and not self._rest and data[-2:] == b"\n\n"
        if is_whole and _CR not in data and _SHORTEST <= len(data) <= self._limit:  # the usual case
            self._is_start = False
            whole = data
        elif data[-4:] == b"\r\n\r\n":
            return self._crlf_payloads(data)
        else:
            found = self._whole_events(data, b"data: ")
            if found is None:
                return None
            whole = found
        payloads = whole[6:-2].split(b"\n\ndata: ")
        for payload in payloads:
            if _LF in payload:
                return None
        if whole is not data:
            self._parse_rest(whole, data)
        return payloads

    def _crlf_payloads(self, data: bytes) -> list[bytes] | None:
        """Do the same for a read of complete events whose lines end with CRLF, as Google sends them."""
        if not self._is_between or self._rest or data[:6] != b"data: " or len(data) > self._limit:
            return None
        payloads = data[6:-4].split(b"\r\n\r\ndata: ")
        for payload in payloads:
            if _CR in payload or _LF in payload:
                return None
        self._is_start = False
        return payloads

    def _maybe_one_typed(self, data: bytes) -> list[ServerSentEvent] | None:
        """Feed a read of one event, a type that was read before and one data line; return it, otherwise None."""
        start = data.find(b"\ndata: ")
        name = self._names.get(data[:start])
        start += 7
        end = len(data) - 2
        is_whole = name is not None and data[end:] == b"\n\n" and data.find(b"\n", start) == end
        if name is None or not is_whole or end + 2 > self._limit or _CR in data:
            return None
        return [ServerSentEvent(data[start:end], name)]

    def _maybe_feed_typed(self, data: bytes) -> list[ServerSentEvent] | None:
        """Feed the next bytes if each event is a type and one data line; return the events, otherwise None."""
        whole = self._whole_events(data, b"event: ")
        if whole is None:
            return None
        events = []
        for lines in whole[:-2].split(b"\n\n"):
            head, found, payload = lines.partition(b"\ndata: ")
            if not found or head[:7] != b"event: " or _LF in payload or _LF in head:
                return None
            events.append(ServerSentEvent(payload, self._names.get(head) or self._name_of(head)))
        if whole is not data:  # else nothing was buffered and nothing follows: a full slice of bytes is the same object
            self._parse_rest(whole, data)
        return events

    def _name_of(self, head: bytes) -> str:
        name = head[7:].decode("utf-8", "replace")
        if len(self._names) < _MOST_NAMES:
            self._names[head] = name
        return name

    def _whole_events(self, data: bytes, begin: bytes) -> bytes | None:
        """Return the bytes of all complete events if the first one starts with `begin` and lines end with LF."""
        if not self._is_between or _CR in data:
            return None
        rest = self._rest
        size = len(begin)
        if (bytes(rest[:size]) + data[:size] if rest else data)[:size] != begin:
            return None
        self._is_start = False  # no byte order mark
        end = len(data) if data[-2:] == b"\n\n" else data.rfind(b"\n\n") + 2
        if end < _SHORTEST or self._buffered + end > self._limit:
            return None
        return data[:end] if not rest else bytes(rest) + data[:end]

    def _parse_rest(self, whole: bytes, data: bytes) -> None:
        """Parse the bytes after the complete events."""
        end = len(whole) - len(self._rest)
        self._rest.clear()
        self._buffered = 0
        if end < len(data):
            self._feed(data[end:])
            self._is_between = self._is_idle()

    def _is_idle(self) -> bool:
        """Whether nothing but an incomplete line is buffered, and there is no error."""
        is_open = self._data is not None or self._event or self._id != self.last_event_id
        return not (is_open or self._skip_lf or self.error)

    def _feed(self, data: bytes) -> list[ServerSentEvent]:
        if self.error is not None:
            return []
        if self._is_start:
            data = self._without_bom(data)
        if self._skip_lf and data:
            self._skip_lf = False
            if data[0] == _LF:
                data = data[1:]
        if _CR in data:
            self._skip_lf = data[-1] == _CR
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if _LF not in data:
            self._buffer(data)
            return []
        if self._rest:
            self._buffered -= len(self._rest)
            self._rest += data
            data = bytes(self._rest)
            self._rest = bytearray()
        return self._parse(data)

    def close(self) -> ServerSentEvent | None:
        """End the stream; return the last event if its blank line is missing, or None.

        The standard discards such an event. Some hosts omit the last blank line, so the caller may check whether the
        event is complete.
        """
        events: list[ServerSentEvent] = []
        if self._rest:
            line = bytes(self._rest)
            self._rest = bytearray()
            self._line(line, events)
        self._dispatch(events)
        return events[0] if events else None

    def _without_bom(self, data: bytes) -> bytes:
        head = bytes(self._rest) + data
        self._rest = bytearray()
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._rest += head
            return b""
        self._is_start = False
        return head.removeprefix(_BOM)

    def _buffer(self, data: bytes) -> None:
        if not data:
            return
        self._rest += data
        self._buffered += len(data)
        self._check_limit()

    def _parse(self, data: bytes) -> list[ServerSentEvent]:
        """Parse bytes that start at the beginning of a line and contain at least one LF."""
        events: list[ServerSentEvent] = []
        lines = data.split(b"\n")
        rest = lines.pop()
        for line in lines:
            self._line(line, events)
            if self.error is not None:
                return events
        self._buffer(rest)
        return events

    def _line(self, line: bytes, events: list[ServerSentEvent]) -> None:
        if not line:
            self._dispatch(events)
            return
        colon = line.find(b":")
        name = line if colon < 0 else line[:colon]
        # The value starts after the colon and one optional space. A single slice, as it may be megabytes.
        value = b"" if colon < 0 else line[colon + (2 if line[colon + 1 : colon + 2] == b" " else 1) :]
        if name == b"data":
            self._add_data(value)
        elif name == b"event":
            self._event = value
        elif name == b"error" and value:
            self._event = name
            self._add_data(value)
        else:
            self._set_field(name, value)

    def _set_field(self, name: bytes, value: bytes) -> None:
        """Handle a field that is not part of an event. Unknown fields are ignored."""
        if name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) <= _MOST_RETRY_DIGITS:
            self.retry_ms = int(value)

    def _add_data(self, value: bytes) -> None:
        if self._data is None:
            self._data = value
        else:
            if isinstance(self._data, bytes):
                self._data = bytearray(self._data)
            self._data += b"\n"
            self._data += value
            self._buffered += 1
        self._buffered += len(value)
        self._check_limit()

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        self.last_event_id = self._id
        if self._data is not None:
            events.append(ServerSentEvent(bytes(self._data), self._event.decode("utf-8", "replace")))
            self._data = None
            self._buffered = 0
        self._event = b""

    def _check_limit(self) -> None:
        if self._buffered > self._limit:
            self._rest, self._data, self._event = bytearray(), None, b""
            self.error = ResponseLimitError(
                f"an event of the stream is larger than {self._limit} bytes",
                reason="limit",
                hint="Raise max_event_bytes if such events are expected.",
            )


def encode_sse(data: bytes, *, event: str = "", event_id: str | None = None) -> bytes:
    """Encode one event; each line of `data` becomes a `data` line."""
    head = f"event: {event}\n" if event else ""
    head += f"id: {event_id}\n" if event_id is not None else ""
    return head.encode() + b"".join([b"data: %b\n" % line for line in data.split(b"\n")]) + b"\n"
