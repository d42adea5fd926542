"""What kind of body is this? The answer is in its first byte; headers are only a hint.

Hosts answer 200 with an HTML page of their proxy, with a JSON error, or with a whole plain answer where a stream
was asked for; others call a stream `application/json`. Here each of them ends up where it is read right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar, Protocol

import msgspec

from lm_deluge.adapters.errors import classify_in_band
from lm_deluge.errors import APIError, ContentTypeError, DelugeError, ProtocolError, ResponseLimitError, TruncatedError
from lm_deluge.events import Event
from lm_deluge.wire.sse import ServerSentEvent, SSEDecoder

__all__ = ["BodyDecoder", "Framing", "Payload", "in_band_error", "not_json"]

# A BOM, and blanks: some recordings and proxies put one before the first field (OpenRouter by way of a proxy, 2025-07).
_BLANK = b"\xef\xbb\xbf \t\r\n"
_ENOUGH_OF_A_PAGE = 2_048
_ENOUGH_OF_A_FIELD = 5
_ANY_TYPES = ("application/json", "text/plain", "")


class Framing(Protocol):
    """How the bytes of a body are cut into frames.

    Attributes:
        media_types: What such a body is called.
        is_json: Its frames are JSON without more, so an object at the beginning is a frame and no document.
    """

    media_types: ClassVar[tuple[str, ...]]
    is_json: ClassVar[bool]

    @property
    def error(self) -> DelugeError | None:
        """What is wrong with the bytes; once set, nothing more comes."""
        ...

    def may_begin(self, head: bytes) -> bool:
        """Whether a body of this framing can begin with these bytes."""
        ...

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take the next bytes; return the frames that they complete."""
        ...

    def maybe_feed_plain(self, data: bytes) -> list[bytes] | None:
        """Take the next bytes if all that they complete are frames without a type; return the data of these."""
        ...

    def close(self) -> ServerSentEvent | None:
        """Take the end of the body; return the frame that it cut, or None."""
        ...


class Payload(Protocol):
    """What a wire API does with its frames. `handle` and `finish` may raise errors of ours."""

    @property
    def is_finished(self) -> bool:
        """Whether the answer was closed."""
        ...

    @property
    def ignored(self) -> int:
        """How many frames were passed over."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether the terminal event was seen."""
        ...

    def handle(self, frame: ServerSentEvent, events: list[Event]) -> None:
        """Take one frame; append its events."""
        ...

    def handle_plain(self, payloads: list[bytes], events: list[Event]) -> None:
        """Take the data of frames without a type, all of one read; append their events."""
        ...

    def maybe_handle_tail(self, frame: ServerSentEvent, events: list[Event]) -> None:
        """Take the last frame, which the end of the stream cut; it counts only if it is whole."""
        ...

    def finish(self, events: list[Event]) -> None:
        """Take the end of a stream whose terminal event was seen; append what closes it."""
        ...


class BodyDecoder:
    """The decoder of every wire API: a framing cuts the bytes, a payload makes events of the frames.

    `parse_document` reads a body that is one JSON document: a plain answer, or an error. Where an API has streams that
    are one JSON array, `array_framing` cuts these.
    """

    def __init__(
        self,
        payload: Payload,
        parse_document: Callable[[bytes], list[Event]],
        *,
        max_event_bytes: int,
        framing: Callable[[int], Framing] = SSEDecoder,
        array_framing: Callable[[int], Framing] | None = None,
    ) -> None:
        self.error: DelugeError | None = None
        self._payload = payload
        self._parse_document = parse_document
        self._limit = max_event_bytes
        self._framing = framing
        self._frames = framing(max_event_bytes)
        self._array_framing = array_framing
        self._head = b""  # of a body of which is not known yet what it is; blanks before it are gone
        self._document: bytearray | None = None
        self._is_known = False
        self._is_suspect = False
        self._is_parsed = False  # a plain answer, read to its end

    @property
    def is_complete(self) -> bool:
        """Whether an end of the body now is a success."""
        return self._is_parsed or self._payload.is_complete

    @property
    def is_finished(self) -> bool:
        """Whether `ResponseFinished` was returned."""
        return self._is_parsed or self._payload.is_finished

    @property
    def ignored(self) -> int:
        """How many frames were passed over."""
        return self._payload.ignored

    def expect(self, content_type: str) -> None:
        """Take the answer's content type: what is none of a stream's is looked at with suspicion."""
        media_type = content_type.partition(";")[0].strip().lower()
        self._is_suspect = media_type not in _ANY_TYPES and media_type not in self._frames.media_types

    def reopen(self) -> None:
        """Forget a fault and the frame that it cut: what comes next is the body of another answer, which goes on."""
        self.error = None
        self._frames = self._framing(self._limit)
        self._head = b""
        self._document = None
        self._is_known = False

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes; return the events that they complete."""
        if not self._is_known:
            self._head = (self._head + data).lstrip(_BLANK)
            if not self._can_tell():
                return []
            data = self._look()
        return self._take(data)

    def _take(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        if self._document is not None:
            self._keep(data)
        else:
            self._run(data, events)
        return events

    def close(self) -> list[Event]:
        """Take the end of the body."""
        events: list[Event] = []
        if self._head:
            events += self._take(self._look())
        if not self.is_finished:
            self._run(None, events)
        return events

    def _run(self, data: bytes | None, events: list[Event]) -> None:
        """Take bytes, None for the end of the body; a fault is noted behind the events that came before it."""
        if self.error is None:
            try:
                if data is None:
                    self._close(events)
                else:
                    self._handle(data, events)
            except DelugeError as error:
                self.error = error
            except RecursionError:
                self.error = _too_deep()

    def _can_tell(self) -> bool:
        """Whether the head is enough to go by: an HTML page should show its title, a suspect its first field."""
        head = self._head
        if head[:1] == b"<":
            return len(head) >= _ENOUGH_OF_A_PAGE or b"</title" in head.lower()
        return bool(head) and (not self._is_suspect or head[:1] in b"{[" or len(head) >= _ENOUGH_OF_A_FIELD)

    def _look(self) -> bytes:
        """Decide what the body is, from its first bytes."""
        self._is_known = True
        data = self._head
        self._head = b""
        first = data[:1]
        if first == b"[" and self._array_framing is not None:
            self._frames = self._array_framing(self._limit)
        elif first in (b"{", b"[") and not self._frames.is_json:
            self._document = bytearray()
        elif first == b"<" or (self._is_suspect and not self._frames.may_begin(data)):
            found = re.search(rb"<title[^>]*>([^<]{1,200})", data, re.IGNORECASE)
            title = f", titled {found.group(1).decode('utf-8', 'replace').strip()!r}" if found else ""
            what = "an HTML page" if first == b"<" else "no stream"
            self.error = ContentTypeError(
                f"the answer is {what}{title}",
                reason="content_type",
                excerpt=data,
                hint="A proxy or a wrong base URL may be in between.",
            )
        return data

    def _keep(self, data: bytes) -> None:
        assert self._document is not None  # noqa: S101 - decided by _look
        if self.error is not None:
            return
        self._document += data
        if len(self._document) > 4 * self._limit:
            self._document = bytearray()
            self.error = ResponseLimitError(
                f"the answer is larger than {4 * self._limit} bytes",
                reason="limit",
                hint="Raise max_event_bytes if such answers are expected.",
            )

    def _handle(self, data: bytes, events: list[Event]) -> None:
        payloads = self._frames.maybe_feed_plain(data)
        if payloads is not None:
            self._payload.handle_plain(payloads, events)
        else:
            for frame in self._frames.feed(data):
                self._payload.handle(frame, events)
        if self._frames.error is not None and not self.is_complete:
            raise self._frames.error

    def _close(self, events: list[Event]) -> None:
        if self._document is not None:
            events.extend(self._parse_document(bytes(self._document)))
            self._is_parsed = True
            return
        tail = self._frames.close()
        if tail is not None:
            self._payload.maybe_handle_tail(tail, events)
        if self.is_finished:
            return
        if not self.is_complete:
            raise TruncatedError(
                "the stream ended without its terminal event",
                hint="The answer is incomplete; what came is in .partial.",
            )
        self._payload.finish(events)


def _too_deep() -> ProtocolError:
    return ProtocolError("a frame is nested too deep", reason="json", billed="maybe")


def not_json(frame: ServerSentEvent) -> ProtocolError:
    """Return the error for a frame whose data should have been JSON."""
    return ProtocolError(
        f"a frame of {len(frame.data)} bytes is not JSON", reason="json", excerpt=frame.data, billed="maybe"
    )


def in_band_error(frame: ServerSentEvent) -> APIError:
    """Return the error that a frame in place of the answer, or of its rest, tells of."""
    try:
        payload = msgspec.json.decode(frame.text)
    except (msgspec.DecodeError, RecursionError):
        payload = frame.text
    error = classify_in_band(payload)
    error.billed = "maybe"
    return error
