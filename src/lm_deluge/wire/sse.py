"""Server-sent events on bytes, after the WHATWG standard.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

Lines are cut on bytes at LF, CR and CRLF only: `str.splitlines` would also cut at U+2028 and its kin, which stand
unescaped inside JSON. A CR at the end of a read ends its line at once; an LF that follows it is swallowed.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from lm_deluge.errors import ResponseLimitError

__all__ = ["SSEDecoder", "ServerSentEvent", "encode_sse"]

_BOM = b"\xef\xbb\xbf"
_SHORTEST = 2  # the blank line that ends an event
_LF, _CR = 10, 13  # a number in bytes is found far faster than a one-byte string
_MOST_RETRY_DIGITS = 18
_MOST_NAMES = 64


class ServerSentEvent(msgspec.Struct, frozen=True, gc=False):
    """One event: the joined bytes of its `data` lines, and its type (empty for the default)."""

    data: bytes
    event: str = ""

    @property
    def text(self) -> str:
        """The data as text; what is no UTF-8 becomes U+FFFD."""
        return self.data.decode("utf-8", "replace")


class SSEDecoder:
    """Cuts a byte stream into events, however the bytes are cut.

    Work is linear in the bytes; what is held is at most one event. An event beyond `max_event_bytes` sets
    `error`, behind the events that came whole; from then on nothing more is read.
    """

    media_types: ClassVar[tuple[str, ...]] = ("text/event-stream", "application/x-ndjson")
    is_json: ClassVar[bool] = False

    def __init__(self, max_event_bytes: int = 16 * 2**20) -> None:
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self.error: ResponseLimitError | None = None
        self._limit = max_event_bytes
        self._rest = bytearray()  # a line whose end has not come
        self._held = 0  # bytes in _rest and _data
        self._data: bytes | bytearray | None = None
        self._event = b""
        self._id = ""  # becomes last_event_id with the event
        self._skip_lf = False
        self._is_start = True
        self._is_between = True  # no line of the next event was read
        self._names: dict[bytes, str] = {}  # of types: a stream has a few

    def may_begin(self, head: bytes) -> bool:
        """Whether a stream can begin with these bytes, blanks and byte order mark taken off."""
        return head.startswith((b"data", b"event", b"id", b"retry", b":"))

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take the next bytes; return the events that they complete."""
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
        """Take the next bytes if they are what nearly every read is; return the data of the events in them.

        That is events of one data line each and no type, ended by LF, and maybe the beginning of another one. Of
        anything else nothing is taken, and None is returned: then `feed` is to take it.
        """
        is_whole = self._is_between and not self._rest and data[:6] == b"data: " and data[-2:] == b"\n\n"
        if is_whole and _CR not in data and _SHORTEST <= len(data) <= self._limit:  # nearly always
            self._is_start = False
            whole = data
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
            self._go_on_behind(whole, data)
        return payloads

    def _maybe_feed_typed(self, data: bytes) -> list[ServerSentEvent] | None:
        """Take the next bytes if they are events of a type and one data line each; return these, else None."""
        whole = self._whole_events(data, b"event: ")
        if whole is None:
            return None
        events = []
        for lines in whole[:-2].split(b"\n\n"):
            head, found, payload = lines.partition(b"\ndata: ")
            if not found or head[:7] != b"event: " or _LF in payload or _LF in head:
                return None
            events.append(ServerSentEvent(payload, self._names.get(head) or self._name_of(head)))
        if whole is not data:  # a slice of all of it is itself: nothing was held, and nothing follows
            self._go_on_behind(whole, data)
        return events

    def _name_of(self, head: bytes) -> str:
        name = head[7:].decode("utf-8", "replace")
        if len(self._names) < _MOST_NAMES:
            self._names[head] = name
        return name

    def _whole_events(self, data: bytes, begin: bytes) -> bytes | None:
        """Return the bytes up to the end of the last whole event, if the first one begins so and lines end with LF."""
        if not self._is_between or _CR in data:
            return None
        rest = self._rest
        size = len(begin)
        if (bytes(rest[:size]) + data[:size] if rest else data)[:size] != begin:
            return None
        self._is_start = False  # it is no byte order mark
        end = len(data) if data[-2:] == b"\n\n" else data.rfind(b"\n\n") + 2
        if end < _SHORTEST or self._held + end > self._limit:
            return None
        return data[:end] if not rest else bytes(rest) + data[:end]

    def _go_on_behind(self, whole: bytes, data: bytes) -> None:
        """Take what follows the whole events, which are done."""
        end = len(whole) - len(self._rest)
        self._rest.clear()
        self._held = 0
        if end < len(data):
            self._feed(data[end:])
            self._is_between = self._is_idle()

    def _is_idle(self) -> bool:
        """Whether nothing is held, but for a line whose end has not come, and nothing is wrong."""
        held = self._data is not None or self._event or self._id != self.last_event_id
        return not (held or self._skip_lf or self.error)

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
            self._hold(data)
            return []
        if self._rest:
            self._held -= len(self._rest)
            self._rest += data
            data = bytes(self._rest)
            self._rest = bytearray()
        return self._parse(data)

    def close(self) -> ServerSentEvent | None:
        """Return the event that the end of the stream cut off before its blank line, or None.

        The standard discards it. Some hosts leave the last blank line out, so the caller may look whether
        it is whole.
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

    def _hold(self, data: bytes) -> None:
        if not data:
            return
        self._rest += data
        self._held += len(data)
        self._check_limit()

    def _parse(self, data: bytes) -> list[ServerSentEvent]:
        """Parse bytes that begin a line and hold at least one line end."""
        events: list[ServerSentEvent] = []
        lines = data.split(b"\n")
        rest = lines.pop()
        for line in lines:
            self._line(line, events)
            if self.error is not None:
                return events
        self._hold(rest)
        return events

    def _line(self, line: bytes, events: list[ServerSentEvent]) -> None:
        if not line:
            self._dispatch(events)
            return
        colon = line.find(b":")
        name = line if colon < 0 else line[:colon]
        # One copy of what may be megabytes: the value begins behind the colon and one blank.
        value = b"" if colon < 0 else line[colon + (2 if line[colon + 1 : colon + 2] == b" " else 1) :]
        if name == b"data":
            self._add_data(value)
        elif name == b"event":
            self._event = value
        elif name == b"id" and b"\0" not in value:
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
            self._held += 1
        self._held += len(value)
        self._check_limit()

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        self.last_event_id = self._id
        if self._data is not None:
            events.append(ServerSentEvent(bytes(self._data), self._event.decode("utf-8", "replace")))
            self._data = None
            self._held = 0
        self._event = b""

    def _check_limit(self) -> None:
        if self._held > self._limit:
            self._rest, self._data, self._event = bytearray(), None, b""
            self.error = ResponseLimitError(
                f"an event of the stream is larger than {self._limit} bytes",
                reason="limit",
                hint="Raise max_event_bytes if such events are expected.",
            )


def encode_sse(data: bytes, *, event: str = "", event_id: str | None = None) -> bytes:
    """Write one event; data of several lines becomes several `data` lines."""
    head = f"event: {event}\n" if event else ""
    head += f"id: {event_id}\n" if event_id is not None else ""
    return head.encode() + b"".join([b"data: %b\n" % line for line in data.split(b"\n")]) + b"\n"
