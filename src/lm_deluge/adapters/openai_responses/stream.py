"""Decode the events of the Responses API.

https://platform.openai.com/docs/api-reference/responses-streaming

A response is a list of items. The API sends the content of an item up to four times: in deltas, in the `done` events of
its pieces, in the finished item, and in the last event, which repeats all items. Hosts omit any of these, so each level
emits only the content that earlier levels did not contain. Pieces are identified by their indexes rather than by the id
of the item: GitHub Copilot sends a new id with every event, OpenRouter another id in the last event (seen 2025-11 and
2026-02).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import msgspec

from lm_deluge.adapters.errors import classify_in_band
from lm_deluge.adapters.openai_chat.usage import read_usage
from lm_deluge.adapters.openai_responses.items import opaque_of
from lm_deluge.adapters.typed_payload import Handlers, TypedPayload
from lm_deluge.events import (
    Citation,
    Event,
    FinishReason,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TokenLogprob,
    UsageReported,
)
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError, TolerantDecoder, convert_tolerantly

__all__ = ["ResponsesPayload"]

_Key: TypeAlias = int | str


class _Delta(msgspec.Struct, gc=False):
    """A fragment of an item, in one of the text fields, or a finished piece. The event type decides which field."""

    delta: str | None = None
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    sequence_number: int | None = None
    item_id: str | None = None
    logprobs: list[TokenLogprob] | None = None
    text: str | None = None
    refusal: str | None = None
    arguments: str | None = None
    input: str | None = None
    annotation: dict[str, Any] | None = None
    part: dict[str, Any] | None = None


class _ItemEvent(msgspec.Struct, gc=False):
    item: dict[str, Any] | None = None
    output_index: int | None = None
    sequence_number: int | None = None


class _Incomplete(msgspec.Struct, gc=False):
    reason: str | None = None


class _Response(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    status: str | None = None
    output: list[Any] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None
    incomplete_details: _Incomplete | None = None
    service_tier: str | None = None


class _ResponseEvent(msgspec.Struct, gc=False):
    response: _Response | None = None
    sequence_number: int | None = None


class _Piece(msgspec.Struct, gc=False):
    """A piece of a finished message or of finished reasoning."""

    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    logprobs: list[TokenLogprob] | None = None
    annotations: list[Any] | None = None


class _Source(msgspec.Struct, gc=False):
    url: str | None = None
    title: str | None = None
    filename: str | None = None
    start_index: int | None = None
    end_index: int | None = None


_DELTA = TolerantDecoder(_Delta)
_ITEM = TolerantDecoder(_ItemEvent)
_RESPONSE = TolerantDecoder(_ResponseEvent)

_INCOMPLETE: dict[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}

# Types of items that are tool calls for the client, with the field that contains their arguments.
_ARGUMENTS = {"function_call": "arguments", "custom_tool_call": "input"}


class ResponsesPayload(TypedPayload):
    """State machine for one response, which may arrive in several streams if it is resumed.

    Attributes:
        response_id: The provider's id of the response, or None until it is received.
        cursor: Sequence number of the last decoded event, or None if events have no numbers. A resumed stream starts
            after this event.
    """

    handlers: ClassVar[Handlers]
    finish_reasons: ClassVar[Mapping[str, FinishReason]] = {"completed": "stop", "incomplete": "length"}

    def __init__(self, provider: str) -> None:
        super().__init__(provider)
        self.response_id: str | None = None
        self.cursor: int | None = None
        self._resumed_after: int | None = None  # in a resumed stream: events up to this number are decoded already
        self._incomplete_reason: str | None = None
        self._emitted: dict[tuple[Any, ...], int] = {}  # number of emitted characters of each piece
        self._starts: dict[tuple[Any, ...], int] = {}  # offset of each piece in the response's text
        self._length = 0  # characters of the response's text
        self._sources: set[tuple[Any, ...]] = set()
        self._done: dict[_Key, str] = {}  # type and id of each finished item
        self._kinds: set[str] = set()  # types of all items received so far

    def resume(self) -> None:
        """Expect the rest of the response in another stream."""
        self._resumed_after = self.cursor

    def handle(self, frame: ServerSentEvent, events: list[Event]) -> None:
        """Decode one frame, unless it was decoded before the stream broke."""
        if self._resumed_after is not None and self._is_old(frame):
            self.ignored += 1
        else:
            super().handle(frame, events)

    def _is_old(self, frame: ServerSentEvent) -> bool:
        try:
            event = _RESPONSE.decode(frame.data)
        except NotJSONError:
            return False
        number = None if event is None else event.sequence_number
        return number is not None and self._resumed_after is not None and number <= self._resumed_after

    def handle_document(self, body: bytes, events: list[Event]) -> None:
        """Decode a plain response. It has the same structure as the response in the last event of a stream."""
        response = _DOCUMENT.decode(body, self)
        if response is not None:
            # After a broken stream all items are read again; `_emitted` prevents repeated text.
            self._kinds.clear()
            _ENDS.get(response.status or "", ResponsesPayload._skip)(self, response, events)

    def _skip(self, response: _Response, events: list[Event]) -> None:
        """Ignore a response that is not finished."""

    # --- the response ---

    def begin(self, event: _ResponseEvent, events: list[Event]) -> None:
        """Decode an event that starts the response or reports its state."""
        self._set_cursor(event.sequence_number)
        response = event.response or _Response()
        self.response_id = self.response_id or response.id
        self.start(events, response.id, response.model)

    def finish_event(self, event: _ResponseEvent, events: list[Event]) -> None:
        """Decode the last event, which contains the whole response and its usage."""
        self._set_cursor(event.sequence_number)
        response = event.response or _Response()
        # The status decides, because the event type may be missing or wrong behind a proxy.
        _ENDS.get(response.status or "", ResponsesPayload._complete)(self, response, events)

    def _complete(self, response: _Response, events: list[Event]) -> None:
        self.response_id = self.response_id or response.id
        self.start(events, response.id, response.model)
        seen = set(self._kinds)
        for index, item in enumerate(response.output or ()):
            # Items may have other indexes here than in the stream, so only types that were not streamed are read.
            if isinstance(item, dict) and str(item.get("type")) not in seen:
                self._finish_item(index, item, events)
        self._add_usage(response, events)
        self.reason = response.status or "completed"
        self._incomplete_reason = response.incomplete_details.reason if response.incomplete_details else None
        self.end(events)

    def _add_usage(self, response: _Response, events: list[Event]) -> None:
        if response.usage:
            events.append(UsageReported(read_usage(response.usage, response.service_tier)))

    def _fail(self, response: _Response, events: list[Event]) -> None:
        self._add_usage(response, events)
        error = response.error or {"message": f"the answer was {response.status or 'broken off'}"}
        found = classify_in_band({"error": error})
        found.billed = "maybe"
        self.fail(found)

    def finish_reason(self) -> FinishReason:
        """Return our finish reason. An incomplete response has its reason in `incomplete_details`."""
        reason = super().finish_reason()
        return _INCOMPLETE.get(self._incomplete_reason or "", reason) if self.reason == "incomplete" else reason

    def _set_cursor(self, number: int | None) -> None:
        if number is not None:
            self.cursor = number

    # --- deltas ---

    def add_text(self, event: _Delta, events: list[Event]) -> None:
        """Decode a fragment of the text."""
        if event.sequence_number is not None:
            self.cursor = event.sequence_number
        text, index = event.delta or "", event.output_index
        piece_key = (event.item_id or 0 if index is None else index, "text", event.content_index or 0)
        emitted = self._emitted.get(piece_key)
        if emitted is None or event.logprobs:
            if text or event.logprobs:
                self._add_text(piece_key, text, tuple(event.logprobs or ()), events)
        elif text:
            # Fast path for nearly all events.
            length = len(text)
            self._emitted[piece_key] = emitted + length
            self._length += length
            events.append(TextDelta(text))

    def _add_text(
        self, piece_key: tuple[Any, ...], text: str, logprobs: tuple[TokenLogprob, ...], events: list[Event]
    ) -> None:
        emitted = self._emitted.get(piece_key)
        if emitted is None:
            emitted = 0
            self._starts[piece_key] = self._length
            self._kinds.add("message")
        self.start(events)
        self._emitted[piece_key] = emitted + len(text)
        self._length += len(text)
        events.append(TextDelta(text, logprobs))

    def end_text(self, event: _Delta, events: list[Event]) -> None:
        """Decode a finished text: emit the part that was not in deltas."""
        self._set_cursor(event.sequence_number)
        self._end_text(self._piece_key(event, "text", event.content_index), event.text, event.logprobs, events)

    def _end_text(
        self, piece_key: tuple[Any, ...], text: str | None, logprobs: list[TokenLogprob] | None, events: list[Event]
    ) -> None:
        emitted = self._emitted.get(piece_key, 0)
        if text and len(text) > emitted:
            self._add_text(piece_key, text[emitted:], tuple(logprobs or ()) if not emitted else (), events)

    def add_refusal(self, event: _Delta, events: list[Event]) -> None:
        """Decode a fragment of a refusal, or a finished refusal."""
        self._set_cursor(event.sequence_number)
        piece_key = self._piece_key(event, "refusal", event.content_index)
        if event.delta:
            self._add_refusal(piece_key, event.delta, events)
        else:
            self._add_refusal(piece_key, (event.refusal or "")[self._emitted.get(piece_key, 0) :], events)

    def _add_refusal(self, piece_key: tuple[Any, ...], text: str, events: list[Event]) -> None:
        if text:
            self.start(events)
            self.has_refusal = True
            self._kinds.add("message")
            self._emitted[piece_key] = self._emitted.get(piece_key, 0) + len(text)
            events.append(RefusalDelta(text))

    def add_summary(self, event: _Delta, events: list[Event]) -> None:
        """Decode a fragment of the reasoning summary, or a finished part of the summary."""
        self._set_cursor(event.sequence_number)
        self._reason(self._piece_key(event, "summary", event.summary_index), event.delta, event.text, events)

    def add_reasoning(self, event: _Delta, events: list[Event]) -> None:
        """Decode a fragment of the reasoning itself, or the finished reasoning."""
        self._set_cursor(event.sequence_number)
        self._reason(self._piece_key(event, "reasoning", event.content_index), event.delta, event.text, events)

    def _reason(self, piece_key: tuple[Any, ...], delta: str | None, whole: str | None, events: list[Event]) -> None:
        emitted = self._emitted.get(piece_key, 0)
        text = delta or (whole or "")[emitted:]
        if text:
            self.start(events)
            self._kinds.add("reasoning")
            self._emitted[piece_key] = emitted + len(text)
            events.append(ReasoningDelta(text))

    def add_arguments(self, event: _Delta, events: list[Event]) -> None:
        """Decode a fragment of a tool call's arguments, or the finished arguments."""
        self._set_cursor(event.sequence_number)
        key = self._key(event)
        if event.delta:
            self.calls.add(events, key, event.delta)
        else:
            self._end_arguments(key, event.arguments or event.input, events)

    def _end_arguments(self, key: _Key, whole: Any, events: list[Event]) -> None:
        emitted = self.calls.text(key)
        if isinstance(whole, str) and whole.startswith(emitted):
            self.calls.add(events, key, whole[len(emitted) :])

    def add_annotation(self, event: _Delta, events: list[Event]) -> None:
        """Decode a citation."""
        self._set_cursor(event.sequence_number)
        self._cite(self._piece_key(event, "text", event.content_index), event.annotation, events)

    def _cite(self, piece_key: tuple[Any, ...], raw: Any, events: list[Event]) -> None:
        source = convert_tolerantly(raw, _Source, self)
        if source is None:
            return
        identity = (piece_key, str(raw.get("type")), str(raw.get("file_id")), *msgspec.structs.astuple(source))
        if identity in self._sources:
            return
        self._sources.add(identity)
        # The API's offsets are relative to the piece, ours to the text of the response.
        first = self._starts.get(piece_key, self._length)
        start = None if source.start_index is None else source.start_index + first
        end = None if source.end_index is None else source.end_index + first
        self.start(events)
        events.append(Citation(source.url, source.title or source.filename, start, end, raw))

    def end_part(self, event: _Delta, events: list[Event]) -> None:
        """Decode a finished piece of a message."""
        self._set_cursor(event.sequence_number)
        piece = convert_tolerantly(event.part, _Piece, self)
        if piece is not None:
            self._finish_piece(self._key(event), event.content_index or 0, piece, events)

    # --- items ---

    def begin_item(self, event: _ItemEvent, events: list[Event]) -> None:
        """Decode the start of an item."""
        self._set_cursor(event.sequence_number)
        item = event.item or {}
        self.start(events)
        key = self._item_key(event.output_index, item)
        kind = str(item.get("type"))
        self._kinds.add(kind)
        if self._done.pop(key, None) is not None:
            # The host reuses the key for a new item: the emitted characters belong to the previous item.
            self._emitted = {piece: count for piece, count in self._emitted.items() if piece[0] != key}
        if kind in _ARGUMENTS:
            self._start_call(key, item, events)

    def end_item(self, event: _ItemEvent, events: list[Event]) -> None:
        """Decode a finished item."""
        self._set_cursor(event.sequence_number)
        item = event.item or {}
        self.start(events)
        key = self._item_key(event.output_index, item)
        self._finish_item(key, item, events)

    def _finish_item(self, key: _Key, item: dict[str, Any], events: list[Event]) -> None:
        kind = str(item.get("type"))
        self._kinds.add(kind)
        own = f"{kind} {item.get('call_id') or item.get('id')}"
        if self._done.get(key) == own:
            self.ignored += 1
            return
        self._done[key] = own
        finish = _FINISHERS.get(kind)
        if finish is not None:
            finish(self, key, item, events)
        opaque = opaque_of(item)
        if opaque is not None:
            events.append(ProviderPart(self.provider, *opaque))

    def _start_call(self, key: _Key, item: dict[str, Any], events: list[Event]) -> None:
        self.calls.start(
            events,
            key,
            self.text_of(item, "call_id") or self.text_of(item, "id"),
            self.text_of(item, "name"),
            custom=item.get("type") == "custom_tool_call",
        )

    def _finish_call(self, key: _Key, item: dict[str, Any], events: list[Event]) -> None:
        if not self.calls.is_open(key):
            self._start_call(key, item, events)
        self._end_arguments(key, item.get(_ARGUMENTS[item["type"]]), events)
        self.calls.finish(events, key)

    def _finish_message(self, key: _Key, item: dict[str, Any], events: list[Event]) -> None:
        for index, raw in enumerate(self.list_of(item, "content")):
            piece = convert_tolerantly(raw, _Piece, self)
            if piece is not None:
                self._finish_piece(key, index, piece, events)

    def _finish_piece(self, key: _Key, index: int, piece: _Piece, events: list[Event]) -> None:
        if piece.type == "refusal":
            piece_key = (key, "refusal", index)
            self._add_refusal(piece_key, (piece.refusal or "")[self._emitted.get(piece_key, 0) :], events)
        elif piece.type == "reasoning_text":
            self._reason((key, "reasoning", index), None, piece.text, events)
        else:
            piece_key = (key, "text", index)
            self._end_text(piece_key, piece.text, piece.logprobs, events)
            for annotation in piece.annotations or ():
                self._cite(piece_key, annotation, events)

    def _finish_reasoning(self, key: _Key, item: dict[str, Any], events: list[Event]) -> None:
        for name, field in (("summary", "summary"), ("reasoning", "content")):
            for index, raw in enumerate(self.list_of(item, field)):
                piece = convert_tolerantly(raw, _Piece, self)
                if piece is not None:
                    self._reason((key, name, index), None, piece.text, events)

    def _finish_image(self, key: _Key, item: dict[str, Any], events: list[Event]) -> None:
        data = item.get("result")
        if isinstance(data, str) and data:
            kind = item.get("output_format")
            identity = item.get("id")
            events.append(
                MediaDelta(
                    f"image/{kind if isinstance(kind, str) and kind else 'png'}",
                    data,
                    id=identity if isinstance(identity, str) else None,
                )
            )

    def _key(self, event: _Delta) -> _Key:
        return event.output_index if event.output_index is not None else event.item_id or 0

    @staticmethod
    def _item_key(index: int | None, item: dict[str, Any]) -> _Key:
        return index if index is not None else str(item.get("id") or 0)

    def _piece_key(self, event: _Delta, kind: str, index: int | None) -> tuple[Any, ...]:
        return (self._key(event), kind, index or 0)


_DOCUMENT = TolerantDecoder(_Response)

_ENDS = {
    "completed": ResponsesPayload._complete,  # noqa: SLF001 - of this module
    "incomplete": ResponsesPayload._complete,  # noqa: SLF001
    "failed": ResponsesPayload._fail,  # noqa: SLF001
    "cancelled": ResponsesPayload._fail,  # noqa: SLF001
}

_FINISHERS = {
    "message": ResponsesPayload._finish_message,  # noqa: SLF001
    "reasoning": ResponsesPayload._finish_reasoning,  # noqa: SLF001
    "function_call": ResponsesPayload._finish_call,  # noqa: SLF001
    "custom_tool_call": ResponsesPayload._finish_call,  # noqa: SLF001
    "image_generation_call": ResponsesPayload._finish_image,  # noqa: SLF001
}

ResponsesPayload.handlers = {
    "response.output_text.delta": (_DELTA, ResponsesPayload.add_text),
    "response.output_text.done": (_DELTA, ResponsesPayload.end_text),
    "response.output_text.annotation.added": (_DELTA, ResponsesPayload.add_annotation),
    "response.refusal.delta": (_DELTA, ResponsesPayload.add_refusal),
    "response.refusal.done": (_DELTA, ResponsesPayload.add_refusal),
    "response.reasoning_summary_text.delta": (_DELTA, ResponsesPayload.add_summary),
    "response.reasoning_summary_text.done": (_DELTA, ResponsesPayload.add_summary),
    "response.reasoning_text.delta": (_DELTA, ResponsesPayload.add_reasoning),
    "response.reasoning_text.done": (_DELTA, ResponsesPayload.add_reasoning),
    # The names of the same events until mid-2025.
    "response.reasoning_summary.delta": (_DELTA, ResponsesPayload.add_summary),
    "response.reasoning_summary.done": (_DELTA, ResponsesPayload.add_summary),
    "response.reasoning.delta": (_DELTA, ResponsesPayload.add_reasoning),
    "response.reasoning.done": (_DELTA, ResponsesPayload.add_reasoning),
    "response.function_call_arguments.delta": (_DELTA, ResponsesPayload.add_arguments),
    "response.function_call_arguments.done": (_DELTA, ResponsesPayload.add_arguments),
    "response.custom_tool_call_input.delta": (_DELTA, ResponsesPayload.add_arguments),
    "response.custom_tool_call_input.done": (_DELTA, ResponsesPayload.add_arguments),
    "response.content_part.done": (_DELTA, ResponsesPayload.end_part),
    "response.output_item.added": (_ITEM, ResponsesPayload.begin_item),
    "response.output_item.done": (_ITEM, ResponsesPayload.end_item),
    "response.created": (_RESPONSE, ResponsesPayload.begin),
    "response.queued": (_RESPONSE, ResponsesPayload.begin),
    "response.in_progress": (_RESPONSE, ResponsesPayload.begin),
    "response.completed": (_RESPONSE, ResponsesPayload.finish_event),
    "response.incomplete": (_RESPONSE, ResponsesPayload.finish_event),
    "response.failed": (_RESPONSE, ResponsesPayload.finish_event),
    "response.cancelled": (_RESPONSE, ResponsesPayload.finish_event),
}
