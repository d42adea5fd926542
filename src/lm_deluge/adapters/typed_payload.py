"""Base class for the state machines of APIs whose events have a type.

A subclass provides a table `{type: (decoder of the fields, method)}`. The base class handles errors in the stream,
unknown types and the end of the body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

import msgspec

from lm_deluge.adapters.body_decoder import in_band_error, not_json
from lm_deluge.adapters.payload_state import PayloadState
from lm_deluge.adapters.tool_call_fragments import KeyedCalls
from lm_deluge.errors import APIError
from lm_deluge.events import Event, FinishReason, ResponseFinished, ResponseStarted
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError, TolerantDecoder

__all__ = ["Handler", "Handlers", "TypedPayload"]

Handler: TypeAlias = tuple[TolerantDecoder[Any], Callable[[Any, Any, list[Event]], None]]
"""Decoder of an event's fields, and the method that is called with the payload, the fields and the list of events."""
Handlers: TypeAlias = Mapping[str, Handler]


class _Typed(msgspec.Struct, gc=False):
    type: str | None = None
    event_type: str | None = None  # the name of the field in Gemini's Interactions API
    error: Any = None


_TYPED = TolerantDecoder(_Typed)


class TypedPayload(PayloadState):
    """Dispatches each frame to a method by its type; keeps the state that every API has: start, calls, finish reason.

    Attributes:
        handlers: Decoder and method for each type of event; other types are ignored.
        finish_reasons: Our finish reason for each of the API's.
        provider: Name for the owner of `ProviderPart`s.
        calls: The tool calls of the response.
        reason: The API's finish reason, or None until it is received.
        details: What the API adds to the finish reason, or None.
        has_refusal: Whether the response contains a refusal; it decides the finish reason if the API's is "stop".
        warnings: Warnings for `ResponseFinished`.
    """

    handlers: ClassVar[Handlers]
    finish_reasons: ClassVar[Mapping[str, FinishReason]]

    def __init__(self, provider: str) -> None:
        super().__init__()
        self.provider = provider
        self.calls = KeyedCalls()
        self.reason: str | None = None
        self.details: dict[str, Any] | None = None
        self.has_refusal = False
        self.warnings: list[str] = []
        self._is_started = False

    @property
    def is_complete(self) -> bool:
        """Whether the finish reason was received. Faults after that do not affect the content of the response."""
        return self.reason is not None

    def handle_plain(self, payloads: list[bytes], events: list[Event]) -> None:
        """Decode the data of frames whose SSE event field is missing."""
        for data in payloads:
            self.handle(ServerSentEvent(data), events)

    def handle(self, frame: ServerSentEvent, events: list[Event]) -> None:
        """Decode one frame; append its events."""
        if self.is_finished:
            self.ignored += frame.data.strip() != b"[DONE]"
            return
        found = self.handlers.get(frame.event)
        if found is None:
            before = self.ignored
            found = self._find(frame)
            if found is None:
                self.ignored = before + 1  # a frame counts once, whatever its values are
                return
        decoder, method = found
        try:
            value = decoder.decode_typed(frame.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = self._decoded_tolerantly(frame, decoder)
        if value is not None:
            method(self, value, events)

    def _decoded_tolerantly(self, frame: ServerSentEvent, decoder: TolerantDecoder[Any]) -> Any:
        try:
            return decoder.decode(frame.data, self)
        except NotJSONError:
            if not self.is_complete:
                raise not_json(frame) from None
            self.ignored += 1
            return None

    def _find(self, frame: ServerSentEvent) -> Handler | None:
        """Find the handler of a frame by the type in its JSON: proxies drop the SSE event field, errors lack it."""
        if not frame.data.strip() or frame.data.strip() == b"[DONE]":
            return None
        try:
            typed = _TYPED.decode(frame.data, self)
        except NotJSONError:
            if frame.event and frame.event != "error":
                return None
            typed = _Typed(error=frame.text)
            if frame.event != "error" and not self.is_complete:
                raise not_json(frame) from None
        if typed is None:
            return None
        found = self.handlers.get(typed.type or typed.event_type or "")
        if found is None and (typed.error or "error" in (frame.event, typed.type, typed.event_type)):
            self.fail(in_band_error(frame))
        return found

    def fail(self, error: APIError) -> None:
        """Handle an error inside the stream: a warning if the response is complete, else raised.

        Raises:
            APIError: `error`, if the response is not complete.
        """
        if not self.is_complete:
            raise error
        self.warnings.append("error_after_finish")

    def finish(self, events: list[Event]) -> None:
        """Close a response that has a finish reason but whose last event is missing."""
        self.warnings.append("no_done")
        self.end(events)

    def start(self, events: list[Event], response_id: str | None = None, model: str | None = None) -> None:
        """Append `ResponseStarted`, once."""
        if not self._is_started:
            self._is_started = True
            events.append(ResponseStarted(response_id or None, model or None))

    def end(self, events: list[Event]) -> None:
        """Finish all open calls and append `ResponseFinished`."""
        self.start(events)
        self.is_finished = True
        self.calls.finish_all(events)
        reason = self.finish_reason()
        events.append(ResponseFinished(reason, self.reason, (*self.warnings, *self.type_warnings()), self.details))

    def finish_reason(self) -> FinishReason:
        """Return our finish reason. Some hosts send "stop" although the model called a tool or refused."""
        reason = self.finish_reasons.get(self.reason or "")
        if reason is None:
            self.warnings.append("no_finish_reason" if self.reason is None else "unknown_finish_reason")
        if reason in (None, "stop"):
            return "tool_calls" if self.calls.has_calls else "refusal" if self.has_refusal else "stop"
        return reason
