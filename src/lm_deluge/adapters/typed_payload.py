"""The state machine of an API whose events name their type: what all of these share.

An API brings a table `{type: (decoder of its fields, method)}`; errors in the stream, unknown types and the end of the
body are dealt with here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

import msgspec

from lm_deluge.adapters.body_decoder import in_band_error, not_json
from lm_deluge.adapters.tool_call_fragments import KeyedCalls
from lm_deluge.errors import APIError, ProtocolError
from lm_deluge.events import Event, FinishReason, ResponseFinished, ResponseStarted
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError, TolerantDecoder

__all__ = ["Handler", "Handlers", "TypedPayload"]

Handler: TypeAlias = tuple[TolerantDecoder[Any], Callable[[Any, Any, list[Event]], None]]
Handlers: TypeAlias = Mapping[str, Handler]


class _Typed(msgspec.Struct, gc=False):
    type: str | None = None
    event_type: str | None = None  # Gemini's interactions
    error: Any = None


_TYPED = TolerantDecoder(_Typed)


class TypedPayload:
    """Takes frames, looks their types up in `handlers`, and keeps what every answer has: start, calls, reason, end.

    Attributes:
        handlers: What to do with each type of event.
        finish_reasons: The API's words.
    """

    handlers: ClassVar[Handlers]
    finish_reasons: ClassVar[Mapping[str, FinishReason]]

    def __init__(self, provider: str) -> None:
        self.is_finished = False
        self.ignored = 0
        self.provider = provider
        self.calls = KeyedCalls()
        self.reason: str | None = None
        self.has_refusal = False
        self.warnings: list[str] = []
        self._is_started = False

    @property
    def is_complete(self) -> bool:
        """Whether the reason why the answer ends was seen: then what is missing is not the answer's."""
        return self.reason is not None

    def handle_plain(self, payloads: list[bytes], events: list[Event]) -> None:
        """Take the data of frames without a type."""
        for data in payloads:
            self.handle(ServerSentEvent(data), events)

    def handle(self, frame: ServerSentEvent, events: list[Event]) -> None:
        """Take one frame."""
        if self.is_finished:
            self.ignored += frame.data.strip() != b"[DONE]"
            return
        found = self.handlers.get(frame.event) or self._find(frame)
        if found is None:
            self.ignored += 1
            return
        decoder, method = found
        try:
            value = decoder.decode(frame.data)
        except NotJSONError:
            if self.is_complete:
                self.ignored += 1
                return
            raise not_json(frame) from None
        if value is None:
            self.ignored += 1
        else:
            method(self, value, events)

    def _find(self, frame: ServerSentEvent) -> Handler | None:
        """Find what to do with a frame whose type is not in its head: proxies drop it, errors come without."""
        if not frame.data.strip() or frame.data.strip() == b"[DONE]":
            return None
        try:
            typed = _TYPED.decode(frame.data)
        except NotJSONError:
            if frame.event and frame.event != "error":
                return None
            typed = _Typed(error=frame.text)
            if frame.event != "error" and not self.is_complete:
                raise not_json(frame) from None
        if typed is None:
            return None
        found = self.handlers.get(typed.type or typed.event_type or "")
        if found is None and (typed.error or "error" in (frame.event, typed.type)):
            self.fail(in_band_error(frame))
        return found

    def fail(self, error: APIError) -> None:
        """Take an error inside the stream; once the answer is complete it is no matter.

        Raises:
            APIError: The answer is not complete.
        """
        if not self.is_complete:
            raise error
        self.warnings.append("error_after_finish")

    def maybe_handle_tail(self, frame: ServerSentEvent, events: list[Event]) -> None:
        """Take the frame that the end of the body cut: it counts if it is whole JSON."""
        try:
            msgspec.json.decode(frame.text)
            self.handle(frame, events)
        except (ProtocolError, msgspec.DecodeError, RecursionError):
            self.ignored += 1

    def finish(self, events: list[Event]) -> None:
        """Close an answer whose reason came but whose last event did not."""
        self.warnings.append("no_done")
        self.end(events)

    def start(self, events: list[Event], response_id: str | None = None, model: str | None = None) -> None:
        """Open the answer, unless it is open."""
        if not self._is_started:
            self._is_started = True
            events.append(ResponseStarted(response_id or None, model or None))

    def end(self, events: list[Event]) -> None:
        """Close the answer."""
        self.start(events)
        self.is_finished = True
        self.calls.finish_all(events)
        events.append(ResponseFinished(self.finish_reason(), self.reason, tuple(self.warnings)))

    def finish_reason(self) -> FinishReason:
        """Return our word for the provider's. Some say "stop" where the model called a tool."""
        reason = self.finish_reasons.get(self.reason or "")
        if reason is None:
            self.warnings.append("no_finish_reason" if self.reason is None else "unknown_finish_reason")
        if reason in (None, "stop"):
            return "tool_calls" if self.calls.has_calls else "refusal" if self.has_refusal else "stop"
        return reason
