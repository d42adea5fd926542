"""Detect the kind of a response body from its first bytes, and decode it. The Content-Type header is only a hint.

Hosts answer status 200 with an HTML page of their proxy, with a JSON error, or with a plain JSON document although a
stream was requested; others label a stream `application/json`. `BodyDecoder` handles each of these bodies.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar, Protocol

from lm_deluge.adapters.errors import classify_in_band, is_error_object
from lm_deluge.errors import APIError, ContentTypeError, DelugeError, ProtocolError, ResponseLimitError, TruncatedError
from lm_deluge.events import Event
from lm_deluge.wire.sse import ServerSentEvent, SSEDecoder
from lm_deluge.wire.tolerant_json import NotJSONError, decode_json

__all__ = ["BodyDecoder", "Framing", "Payload", "check_end", "in_band_error", "maybe_error_document", "not_json"]

# Byte order mark and whitespace: proxies insert them before the first field (OpenRouter behind a proxy, 2025-07).
_BLANK = b"\xef\xbb\xbf \t\r\n"
# Bytes of an HTML page to wait for its title: enough for most pages, few enough to report the error soon.
_ENOUGH_OF_A_PAGE = 2_048
_ENOUGH_OF_A_FIELD = 5  # bytes: "event" and "retry", the longest field names of server-sent events
# Content types that hosts send for streams and documents alike, so they prove nothing.
_ANY_TYPES = ("application/json", "text/plain", "")
# Limit of a plain document, as a multiple of `max_event_bytes`: a document contains what a stream splits into events.
_DOCUMENT_FACTOR = 4
_RECEIVED = "The answer is incomplete; the received part is in .partial."


class Framing(Protocol):
    """Incremental parser that splits the bytes of a body into frames, such as server-sent events or JSON lines.

    Attributes:
        media_types: Content types of bodies in this framing.
        is_json: Whether a frame is bare JSON. Then a body that begins with `{` is a stream, not a plain document.
    """

    media_types: ClassVar[tuple[str, ...]]
    is_json: ClassVar[bool]

    @property
    def error(self) -> DelugeError | None:
        """The fault in the bytes, or None. After it is set, no more frames are returned."""
        ...

    def may_begin(self, head: bytes) -> bool:
        """Whether a body in this framing can begin with these bytes; whitespace before them is removed."""
        ...

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Parse the next bytes; return the frames that they complete."""
        ...

    def maybe_feed_plain(self, data: bytes) -> list[bytes] | None:
        """Parse the next bytes if all frames that they complete have no event type; return the data of these frames.

        Fast path: it spares creating a frame object. None, with the bytes not consumed, if `feed` must be used.
        """
        ...

    def close(self) -> ServerSentEvent | None:
        """Signal the end of the body; return the unterminated last frame, or None."""
        ...


class Payload(Protocol):
    """State machine of one wire API that turns frames into events.

    `handle`, `handle_plain` and `finish` may raise a `DelugeError`; events appended before that are kept.
    """

    @property
    def is_finished(self) -> bool:
        """Whether `ResponseFinished` was appended."""
        ...

    @property
    def ignored(self) -> int:
        """Number of frames that were skipped."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether the terminal event was decoded, so that the stream may end."""
        ...

    @property
    def failure(self) -> DelugeError | None:
        """The error that the provider reported, if its reason may still follow; else None."""
        ...

    def handle(self, frame: ServerSentEvent, events: list[Event]) -> None:
        """Decode one frame; append its events."""
        ...

    def handle_plain(self, payloads: list[bytes], events: list[Event]) -> None:
        """Decode the data of frames without an event type, all from one read; append their events."""
        ...

    def maybe_handle_tail(self, frame: ServerSentEvent, events: list[Event]) -> None:
        """Decode the unterminated last frame of a stream if its data is complete; else count it as ignored."""
        ...

    def finish(self, events: list[Event]) -> None:
        """Append the events that close a complete stream. Called at the end of a body that `is_complete`."""
        ...


class BodyDecoder:
    """The `Decoder` of every wire API: a framing splits the bytes into frames, a payload turns frames into events.

    Args:
        payload: The state machine of the wire API, used for this response only.
        parse_document: Parses a body that is one JSON document, a plain response or an error, and appends its events.
            If it raises, the events appended before that are kept.
        max_event_bytes: Limit of one frame; a document may have four times as many bytes.
        framing: Factory of the parser for streams.
        array_framing: Factory of the parser for streams that are one JSON array, if the API has such streams.
    """

    def __init__(
        self,
        payload: Payload,
        parse_document: Callable[[bytes, list[Event]], None],
        *,
        max_event_bytes: int,
        framing: Callable[[int], Framing] = SSEDecoder,
        array_framing: Callable[[int], Framing] | None = None,
    ) -> None:
        self.error: DelugeError | None = None
        self.is_flowing = False
        self._payload = payload
        self._parse_document = parse_document
        self._limit = max_event_bytes
        self._framing = framing
        self._frames = framing(max_event_bytes)
        self._array_framing = array_framing
        self._head = b""  # first bytes of the body until its kind is known; whitespace before them is removed
        self._document: bytearray | None = None
        self._is_known = False
        self._is_suspect = False
        self._is_parsed = False  # the body was a plain document, and is parsed
        self._has_events = False  # any events were returned before this read

    @property
    def is_complete(self) -> bool:
        """Whether the response would be a success if its body ended now."""
        return self._is_parsed or self._payload.is_complete

    @property
    def is_finished(self) -> bool:
        """Whether `ResponseFinished` was returned."""
        return self._is_parsed or self._payload.is_finished

    @property
    def ignored(self) -> int:
        """Number of frames that were skipped."""
        return self._payload.ignored

    @property
    def failure(self) -> DelugeError | None:
        """The error that the body reported, if its reason may still follow; the error of a body that ends now."""
        return self._payload.failure

    def expect(self, content_type: str) -> None:
        """Set the Content-Type. If it is not a stream's, a body that does not look like a stream is an error."""
        media_type = content_type.partition(";")[0].strip().lower()
        self._is_suspect = media_type not in _ANY_TYPES and media_type not in self._frames.media_types

    def reopen(self) -> None:
        """Clear the fault and the incomplete frame; the next bytes are of a response that continues this response."""
        self.error = None
        self.is_flowing = False
        self._frames = self._framing(self._limit)
        self._head = b""
        self._document = None
        self._is_known = False

    def feed(self, data: bytes) -> list[Event]:
        """Decode the next bytes; return the events that they complete."""
        if not self._is_known or self._document is not None:
            return self._feed_head(data) if self._document is None else self._keep(data)
        events: list[Event] = []
        self.is_flowing = False
        if self.error is None:
            frames, payload = self._frames, self._payload
            try:
                payloads = frames.maybe_feed_plain(data)
                if payloads is not None:
                    payload.handle_plain(payloads, events)
                else:
                    for frame in frames.feed(data):
                        payload.handle(frame, events)
                if frames.error is not None and not (self.is_complete or self.is_finished):
                    raise frames.error
                self.is_flowing = not payload.is_finished and not payload.is_complete and payload.failure is None
            except (DelugeError, RecursionError) as error:
                self._fail(error, events)
            if events:
                self._has_events = True
        return events

    def _feed_head(self, data: bytes) -> list[Event]:
        self._head = (self._head + data).lstrip(_BLANK)
        return self.feed(self._detect()) if self._is_head_enough() else []

    def close(self) -> list[Event]:
        """Signal the end of the body; return the last events."""
        events: list[Event] = []
        if self._head:
            events += self.feed(self._detect())
        self.is_flowing = False
        if not self.is_finished and self.error is None:
            try:
                self._close(events)
            except (DelugeError, RecursionError) as error:
                self._fail(error, events)
        return events

    def _fail(self, error: DelugeError | RecursionError, events: list[Event]) -> None:
        """Store a fault. The events before it are kept."""
        if isinstance(error, RecursionError):
            error = _too_deep()
        elif isinstance(error, TruncatedError):
            is_empty = not events and not self._has_events
            error.hint = error.hint or ("Nothing was received." if is_empty else _RECEIVED)
        self.error = error

    def _is_head_enough(self) -> bool:
        """Whether the first bytes identify the body. An HTML page should include its title, for the error message."""
        head = self._head
        if head[:1] == b"<":
            return len(head) >= _ENOUGH_OF_A_PAGE or b"</title" in head.lower()
        return bool(head) and (not self._is_suspect or head[:1] in b"{[" or len(head) >= _ENOUGH_OF_A_FIELD)

    def _detect(self) -> bytes:
        """Detect the kind of the body from its first bytes, and return these bytes."""
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
            what = "an HTML page" if first == b"<" else "not a stream"
            self.error = ContentTypeError(
                f"the answer is {what}{title}",
                reason="content_type",
                excerpt=data,
                hint="A proxy or a wrong base URL may be in between.",
            )
        return data

    def _keep(self, data: bytes) -> list[Event]:
        """Append bytes to the plain document, which is parsed at its end."""
        if self._document is None or self.error is not None:
            return []
        self._document += data
        if len(self._document) > _DOCUMENT_FACTOR * self._limit:
            self._document = bytearray()
            self.error = ResponseLimitError(
                f"the answer is larger than {_DOCUMENT_FACTOR * self._limit} bytes",
                reason="limit",
                hint="Raise max_event_bytes if such answers are expected.",
            )
        return []

    def _close(self, events: list[Event]) -> None:
        if self._document is not None:
            self._parse(bytes(self._document), events)
            return
        tail = self._frames.close()
        if tail is not None:
            self._payload.maybe_handle_tail(tail, events)
        if self.is_finished:
            return
        if not self.is_complete:
            raise self.failure or TruncatedError("the stream ended without its terminal event")
        self._payload.finish(events)

    def _parse(self, document: bytes, events: list[Event]) -> None:
        try:
            self._parse_document(document, events)
        except ProtocolError:
            error = maybe_error_document(document)
            if error is None:
                raise
            raise error from None
        self._is_parsed = True


def maybe_error_document(body: bytes) -> APIError | None:
    """Return the error in a JSON document that is no response of the API, or None if it contains none."""
    try:
        is_error = is_error_object(decode_json(body))
    except NotJSONError:
        return None
    return in_band_error(ServerSentEvent(body)) if is_error else None


def check_end(*proofs: object, message: str = "the answer ended with neither a finish reason nor usage") -> None:
    """Check that an end mark is the end of a complete answer: servers also send it after an answer that they broke off.

    Args:
        proofs: The finish reason, the usage, and anything else that only a complete answer has; empty if missing.
        message: The message of the error.

    Raises:
        TruncatedError: All of them are missing.
    """
    if not any(proofs):
        raise TruncatedError(message, billed="maybe")


def _too_deep() -> ProtocolError:
    return ProtocolError("a frame is nested too deeply", reason="json", billed="maybe")


def not_json(frame: ServerSentEvent) -> ProtocolError:
    """Return the error for a frame whose data should have been JSON."""
    return ProtocolError(
        f"a frame of {len(frame.data)} bytes is not JSON", reason="json", excerpt=frame.data, billed="maybe"
    )


def in_band_error(frame: ServerSentEvent) -> APIError:
    """Return the error for a frame that contains an error object, in a response with status 200."""
    try:
        payload = decode_json(frame.data)
    except NotJSONError:
        payload = frame.text
    error = classify_in_band(payload)
    error.billed = "maybe"
    return error
