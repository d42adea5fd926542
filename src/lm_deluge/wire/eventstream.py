"""Decoder and encoder of the binary event stream of AWS (`application/vnd.amazon.eventstream`).

https://docs.aws.amazon.com/transcribe/latest/dg/streaming-setting-up.html#streaming-event-stream

A message consists of a prelude (length of the message, length of its headers, checksum of both), headers, a payload,
and a checksum of everything before it. Numbers are big-endian, checksums are CRC-32.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from lm_deluge.errors import ProtocolError, ResponseLimitError
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError, decode_json

__all__ = ["MEDIA_TYPE", "EventStreamDecoder", "encode_event_message"]

MEDIA_TYPE = "application/vnd.amazon.eventstream"

_PRELUDE = struct.Struct(">III")
_WORD = struct.Struct(">I")
_LENGTH = struct.Struct(">H")
_PRELUDE_SIZE, _WORD_SIZE = _PRELUDE.size, _WORD.size
_CHECKED = _PRELUDE_SIZE - _WORD_SIZE  # bytes of the prelude that its checksum covers
_SHORTEST = _PRELUDE.size + _WORD.size  # a message without headers and payload

# Size of a header's value by its type; None: the value is preceded by its length.
_BYTES, _STRING = 6, 7
_SIZES: dict[int, int | None] = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, _BYTES: None, _STRING: None, 8: 8, 9: 16}

_MOST_KNOWN_HEADS = 64  # more than one stream has; bounds the memory that a broken server can fill


class EventStreamDecoder:
    """Splits a byte stream into messages, independent of how the bytes are divided into reads.

    An event becomes a frame of its type. An exception or an error becomes a frame of the type `error`, whose data is
    `{"error": {"code": ..., "message": ...}}`: on the wire the code is a header and the rest is in the payload.

    Work is linear in the number of bytes; at most one message is buffered. A message larger than `max_event_bytes`, or
    with a wrong checksum, sets `error`, after the complete messages before it were returned. Later bytes are ignored.
    """

    media_types: ClassVar[tuple[str, ...]] = (MEDIA_TYPE,)
    is_json: ClassVar[bool] = False

    def __init__(self, max_event_bytes: int = 16 * 2**20) -> None:
        self.error: ProtocolError | None = None
        self._limit = max_event_bytes
        self._rest = bytearray()  # an incomplete message
        self._wanted = _PRELUDE.size  # bytes that must be buffered before parsing can continue
        self._heads: dict[bytes, dict[str, str]] = {}  # parsed headers by their bytes, which repeat
        self._types: dict[bytes, str] = {}  # types of events by the same bytes

    def may_begin(self, head: bytes) -> bool:
        """Whether a stream can begin with these bytes: messages are smaller than 16 MiB, so the first byte is 0."""
        return head[:1] == b"\0"

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Feed the next bytes; return the messages that they complete."""
        if self.error is not None:
            return []
        if not self._rest and len(data) >= _SHORTEST:
            whole = self._maybe_one_event(data)
            if whole is not None:
                return whole
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return []
            data = bytes(self._rest)
            self._rest = bytearray()
        frames: list[ServerSentEvent] = []
        try:
            position = self._cut(data, frames)
        except ProtocolError as error:
            self.error = error
            return frames
        if position < len(data):
            self._rest += data[position:]
        return frames

    def maybe_feed_plain(self, data: bytes) -> list[bytes] | None:
        """Return None: every message has a type, so `feed` must be used."""
        return None

    def close(self) -> None:
        """End the stream. An incomplete message is dropped, as its checksum is missing."""

    def _maybe_one_event(self, data: bytes) -> list[ServerSentEvent] | None:
        """Return the event of a read that is one message with known headers, otherwise None."""
        total, headers, checksum = _PRELUDE.unpack_from(data)
        if total != len(data) or total > self._limit:
            return None
        start, end = _PRELUDE_SIZE + headers, total - _WORD_SIZE
        kind = self._types.get(data[_PRELUDE_SIZE:start])
        known = zlib.crc32(data[:_CHECKED])
        if kind is None or known != checksum or start > end:
            return None
        # The checksum of the message goes on from the checksum of the prelude.
        if zlib.crc32(data[_CHECKED:end], known) != _WORD.unpack_from(data, end)[0]:
            return None
        return [ServerSentEvent(data[start:end], kind)]

    def _cut(self, data: bytes, frames: list[ServerSentEvent]) -> int:
        """Append the complete messages to `frames`; return the offset of the first incomplete one."""
        start, end = 0, len(data)
        while end - start >= _PRELUDE_SIZE:
            total, headers, checksum = _PRELUDE.unpack_from(data, start)
            known = zlib.crc32(data[start : start + _CHECKED])
            if known != checksum or total < _SHORTEST + headers or total > self._limit:
                raise self._bad_prelude(data[start:], total, is_checked=known == checksum)
            if end - start < total:
                self._wanted = total
                return start
            last = start + total - _WORD_SIZE
            if zlib.crc32(data[start + _CHECKED : last], known) != _WORD.unpack_from(data, last)[0]:
                raise _broken("a message fails its checksum", data[start:])
            payload = start + _PRELUDE_SIZE + headers
            head = data[start + _PRELUDE_SIZE : payload]
            kind = self._types.get(head)
            if kind is not None:
                frames.append(ServerSentEvent(data[payload:last], kind))
            else:
                frames.append(self._read_message(head, data[payload:last]))
            start += total
        self._wanted = _PRELUDE_SIZE
        return start

    def _bad_prelude(self, data: bytes, total: int, *, is_checked: bool) -> ProtocolError:
        if not is_checked:
            return _broken("the prelude of a message fails its checksum", data)
        if total <= self._limit:
            return _broken("the headers of a message are longer than the message", data)
        return ResponseLimitError(
            f"an event of the stream is larger than {self._limit} bytes",
            reason="limit",
            hint="Raise max_event_bytes if such events are expected.",
        )

    def _read_message(self, head: bytes, payload: bytes) -> ServerSentEvent:
        """Return a message whose headers are not known to be those of an event."""
        named = self._heads.get(head)
        if named is None:
            named = _read_headers(head)
            if len(self._heads) < _MOST_KNOWN_HEADS:
                self._heads[head] = named
        if named.get(":message-type", "event") == "event":
            kind = named.get(":event-type", "")
            if head in self._heads:
                self._types[head] = kind
            return ServerSentEvent(payload, kind)
        return ServerSentEvent(_error_object(named, payload), "error")


def _broken(message: str, excerpt: bytes) -> ProtocolError:
    return ProtocolError(message, reason="framing", excerpt=excerpt[:200], billed="maybe")


def _read_headers(head: bytes) -> dict[str, str]:
    """Return the headers with text values; others are skipped."""
    found: dict[str, str] = {}
    position = 0
    try:
        while position < len(head):
            start = position + 1
            position = start + head[position]
            name, kind = head[start:position], head[position]
            position += 1
            size = _SIZES[kind]
            if size is None:
                size = _LENGTH.unpack_from(head, position)[0]
                position += _LENGTH.size
            value = head[position : position + size]
            position += size
            if kind == _STRING:
                found[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    except (IndexError, KeyError, struct.error):
        position = len(head) + 1
    if position != len(head):
        raise _broken("the headers of a message cannot be read", head)
    return found


def _error_object(named: Mapping[str, str], payload: bytes) -> bytes:
    """Return an exception (fields in the payload) or an error (fields in the headers) as one JSON object."""
    code = named.get(":exception-type") or named.get(":error-code")
    fields: dict[str, Any] = {}
    try:
        found = decode_json(payload) if payload else {}
    except NotJSONError:
        found = payload.decode("utf-8", "replace")
    if isinstance(found, dict):
        fields = found
        message = found.get("message") or found.get("Message")
    else:
        message = found if isinstance(found, str) else None
    return msgspec.json.encode({"error": {**fields, "code": code, "message": message or named.get(":error-message")}})


def encode_event_message(payload: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """Encode one message with text headers."""
    head = b"".join([_header(name.encode(), value.encode()) for name, value in (headers or {}).items()])
    start = _WORD.pack(_SHORTEST + len(head) + len(payload)) + _WORD.pack(len(head))
    message = start + _WORD.pack(zlib.crc32(start)) + head + payload
    return message + _WORD.pack(zlib.crc32(message))


def _header(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + bytes([_STRING]) + _LENGTH.pack(len(value)) + value
