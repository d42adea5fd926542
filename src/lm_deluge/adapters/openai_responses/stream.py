"""Decode the events of the Responses API.

https://platform.openai.com/docs/api-reference/responses-streaming

This module dispatches the events and handles the response as a whole; `output.py` makes events of its items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec

from lm_deluge.adapters.errors import classify_in_band
from lm_deluge.adapters.openai_chat.usage import read_usage
from lm_deluge.adapters.openai_responses.frames import Delta, ItemEvent, Piece, Response, ResponseEvent
from lm_deluge.adapters.openai_responses.output import ResponseOutput
from lm_deluge.adapters.openai_responses.output_items import OutputItem, TextPiece
from lm_deluge.adapters.openai_responses.pieces import field_of
from lm_deluge.adapters.openai_responses.tool_uses import count_tool_uses
from lm_deluge.adapters.snapshot import SNAPSHOT_DIFFERS
from lm_deluge.adapters.token_counts import add_usage
from lm_deluge.adapters.typed_payload import Handlers, TypedPayload
from lm_deluge.errors import APIError
from lm_deluge.events import Event, FinishReason
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError, TolerantDecoder, convert_tolerantly

__all__ = ["ResponsesPayload"]

_DELTA = TolerantDecoder(Delta)
_ITEM = TolerantDecoder(ItemEvent)
_RESPONSE = TolerantDecoder(ResponseEvent)
_DOCUMENT = TolerantDecoder(Response)

_INCOMPLETE: dict[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}


class ResponsesPayload(TypedPayload):
    """State machine for one response, which may arrive in several streams if it is resumed.

    Attributes:
        response_id: The provider's id of the response, or None until it is received.
        cursor: Sequence number of the last decoded event, or None if events have no numbers. A resumed stream starts
            after this event.
        failure: The error of a response that failed without a reason, or None. Azure sends the reason in an `error`
            event after `response.failed` (seen 2026-08), so this error is raised at the end of the stream only.
    """

    handlers: ClassVar[Handlers]
    finish_reasons: ClassVar[Mapping[str, FinishReason]] = {"completed": "stop", "incomplete": "length"}

    def __init__(self, provider: str) -> None:
        super().__init__(provider)
        self.response_id: str | None = None
        self.cursor: int | None = None
        self.failure: APIError | None = None
        self._resumed_after: int | None = None  # in a resumed stream: events up to this number are decoded already
        self._incomplete_reason: str | None = None
        self._output = ResponseOutput(provider, self.calls, self.start, self._ignore, self)
        # Where the last text delta belongs, and its address: nearly all deltas have the address of the one before.
        self._address: tuple[int | None, str | None, int | None] | None = None
        self._piece: TextPiece | None = None

    def resume(self) -> None:
        """Expect the rest of the response in another stream."""
        self._resumed_after = self.cursor
        self.failure = None

    def handle(self, frame: ServerSentEvent, events: list[Event]) -> None:
        """Decode one frame, unless it was decoded before the stream broke."""
        if self.failure is not None and frame.data.strip() == b"[DONE]":
            raise self.failure
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
            self._ends.get(response.status or "", ResponsesPayload._skip)(self, response, events)
        if self.failure is not None:
            raise self.failure

    def _ignore(self) -> None:
        self.ignored += 1

    def _skip(self, response: Response, events: list[Event]) -> None:
        """Ignore a response that is not finished."""

    # --- the response ---

    def begin(self, event: ResponseEvent, events: list[Event]) -> None:
        """Decode an event that starts the response or reports its state."""
        self._set_cursor(event.sequence_number)
        response = event.response or Response()
        self.response_id = self.response_id or response.id
        self.start(events, response.id, response.model)

    def finish_event(self, event: ResponseEvent, events: list[Event]) -> None:
        """Decode the last event, which contains the whole response and its usage."""
        self._set_cursor(event.sequence_number)
        response = event.response or Response()
        # The status decides, because the event type may be missing or wrong behind a proxy.
        self._ends.get(response.status or "", ResponsesPayload._complete)(self, response, events)

    def fail_event(self, event: ResponseEvent, events: list[Event]) -> None:
        """Decode the last event of a response that failed; it may lack the status."""
        self._set_cursor(event.sequence_number)
        response = event.response or Response()
        self._ends.get(response.status or "", ResponsesPayload._fail)(self, response, events)

    def _complete(self, response: Response, events: list[Event]) -> None:
        if response.error or self.failure is not None:
            self._fail(response, events)
            return
        self.response_id = self.response_id or response.id
        self.start(events, response.id, response.model)
        self._output.end_all(response.output or [], events, is_last=True)
        self._add_usage(response, events)
        self.has_refusal = self._output.has_refusal
        if self._output.differs:
            self.warnings.append(SNAPSHOT_DIFFERS)
        self.reason = response.status or "completed"
        self._incomplete_reason = response.incomplete_details.reason if response.incomplete_details else None
        self.end(events)

    def _add_usage(self, response: Response, events: list[Event]) -> None:
        usage = read_usage(response.usage, response.service_tier) if response.usage else None
        if usage is not None and not usage.tool_uses:
            usage = msgspec.structs.replace(usage, tool_uses=count_tool_uses(response.output or []))
        add_usage(usage, events)

    def _fail(self, response: Response, events: list[Event]) -> None:
        self._output.end_all(response.output or [], events, is_last=False)
        self._add_usage(response, events)
        error = response.error or {"message": f"the answer was {response.status or 'broken off'}"}
        found = classify_in_band({"error": error})
        found.billed = "maybe"
        if response.error:
            self.fail(found)
        elif self.failure is None:
            self.failure = found

    def finish_reason(self) -> FinishReason:
        """Return our finish reason. An incomplete response has its reason in `incomplete_details`."""
        reason = super().finish_reason()
        return _INCOMPLETE.get(self._incomplete_reason or "", reason) if self.reason == "incomplete" else reason

    def _set_cursor(self, number: int | None) -> None:
        if number is not None:
            self.cursor = number

    # --- texts ---

    def add_text(self, event: Delta, events: list[Event]) -> None:
        """Decode a fragment of the text."""
        if event.sequence_number is not None:
            self.cursor = event.sequence_number
        text = event.delta
        piece = self._piece
        address = (event.output_index, event.item_id, event.content_index)
        if text and piece is not None and not event.logprobs and address == self._address:
            self._output.add_delta(piece, text, events)  # the fast path for nearly all events
        elif text or event.logprobs:
            item = self._item("message", event)
            piece = self._output.find_piece(item, "text", event.content_index or 0)
            self._output.add_text(item, piece, text or "", tuple(event.logprobs or ()), events)
            self._address, self._piece = address, piece

    def end_text(self, event: Delta, events: list[Event]) -> None:
        """Decode a finished text."""
        self._end_piece(event, Piece("output_text", event.text, logprobs=event.logprobs), event.content_index, events)

    def add_refusal(self, event: Delta, events: list[Event]) -> None:
        """Decode a fragment of a refusal."""
        self._add("message", "refusal", event, event.content_index, events)

    def end_refusal(self, event: Delta, events: list[Event]) -> None:
        """Decode a finished refusal."""
        self._end_piece(event, Piece("refusal", refusal=event.refusal), event.content_index, events)

    def add_summary(self, event: Delta, events: list[Event]) -> None:
        """Decode a fragment of the reasoning summary."""
        self._add("reasoning", "summary", event, event.summary_index, events)

    def end_summary(self, event: Delta, events: list[Event]) -> None:
        """Decode a finished part of the reasoning summary."""
        self._end_piece(event, Piece("summary_text", event.text), event.summary_index, events)

    def end_summary_part(self, event: Delta, events: list[Event]) -> None:
        """Decode a finished part of the reasoning summary, as an object."""
        part = convert_tolerantly(event.part, Piece, self)
        if part is not None:
            self._end_piece(event, Piece("summary_text", part.text), event.summary_index, events, "part")

    def add_reasoning(self, event: Delta, events: list[Event]) -> None:
        """Decode a fragment of the reasoning itself."""
        self._add("reasoning", "reasoning", event, event.content_index, events)

    def end_reasoning(self, event: Delta, events: list[Event]) -> None:
        """Decode the finished reasoning."""
        self._end_piece(event, Piece("reasoning_text", event.text), event.content_index, events)

    def end_part(self, event: Delta, events: list[Event]) -> None:
        """Decode a finished piece of a message or of reasoning."""
        piece = convert_tolerantly(event.part, Piece, self)
        if piece is not None:
            self._end_piece(event, piece, event.content_index, events, "part")

    def add_annotation(self, event: Delta, events: list[Event]) -> None:
        """Decode a citation."""
        self._set_cursor(event.sequence_number)
        self._output.cite(self._item("message", event), event.content_index or 0, event.annotation, events)

    def _add(self, kind: str, field: str, event: Delta, index: int | None, events: list[Event]) -> None:
        self._set_cursor(event.sequence_number)
        if event.delta:
            item = self._item(kind, event)
            piece = self._output.find_piece(item, field, index or 0)
            self._output.add_text(item, piece, event.delta, (), events)

    def _end_piece(
        self, event: Delta, piece: Piece, index: int | None, events: list[Event], stage: str = "text"
    ) -> None:
        self._set_cursor(event.sequence_number)
        field = field_of(piece)
        item = self._item("reasoning" if field in ("summary", "reasoning") else "message", event)
        self._output.end_piece(item, field, index or 0, piece, stage, events)

    # --- calls and items ---

    def add_arguments(self, event: Delta, events: list[Event]) -> None:
        """Decode a fragment of the arguments of a function."""
        self._add_arguments("function_call", event, events)

    def add_input(self, event: Delta, events: list[Event]) -> None:
        """Decode a fragment of the input of a custom tool."""
        self._add_arguments("custom_tool_call", event, events)

    def _add_arguments(self, kind: str, event: Delta, events: list[Event]) -> None:
        self._set_cursor(event.sequence_number)
        if event.delta:
            self._output.add_arguments(self._item(kind, event), event.delta, events)

    def end_arguments(self, event: Delta, events: list[Event]) -> None:
        """Decode the finished arguments of a function."""
        self._end_arguments("function_call", event, events)

    def end_input(self, event: Delta, events: list[Event]) -> None:
        """Decode the finished input of a custom tool."""
        self._end_arguments("custom_tool_call", event, events)

    def _end_arguments(self, kind: str, event: Delta, events: list[Event]) -> None:
        self._set_cursor(event.sequence_number)
        whole = event.arguments if event.input is None else event.input
        if isinstance(whole, dict):
            whole = msgspec.json.encode(whole).decode()
        item = self._item(kind, event)
        self._output.name_call(item, event.name or "", event.call_id or "", events)
        if isinstance(whole, str):
            self._output.end_arguments(item, whole, events)
            item.is_confirmed = True

    def begin_item(self, event: ItemEvent, events: list[Event]) -> None:
        """Decode the start of an item."""
        self._set_cursor(event.sequence_number)
        self._output.begin(event.output_index, event.item or {}, events)
        self._address = None  # the next delta may belong to this item

    def end_item(self, event: ItemEvent, events: list[Event]) -> None:
        """Decode a finished item."""
        self._set_cursor(event.sequence_number)
        self._output.end(event.output_index, event.item or {}, events)

    def _item(self, kind: str, event: Delta) -> OutputItem:
        return self._output.items.find_for_delta(kind, event.output_index, event.item_id or "")

    _ends: ClassVar[Mapping[str, Callable[[Any, Response, list[Event]], None]]] = {
        "completed": _complete,
        "incomplete": _complete,
        "failed": _fail,
        "cancelled": _fail,
    }


ResponsesPayload.handlers = {
    "response.output_text.delta": (_DELTA, ResponsesPayload.add_text),
    "response.output_text.done": (_DELTA, ResponsesPayload.end_text),
    "response.output_text.annotation.added": (_DELTA, ResponsesPayload.add_annotation),
    "response.refusal.delta": (_DELTA, ResponsesPayload.add_refusal),
    "response.refusal.done": (_DELTA, ResponsesPayload.end_refusal),
    "response.reasoning_summary_text.delta": (_DELTA, ResponsesPayload.add_summary),
    "response.reasoning_summary_text.done": (_DELTA, ResponsesPayload.end_summary),
    "response.reasoning_summary_part.done": (_DELTA, ResponsesPayload.end_summary_part),
    "response.reasoning_text.delta": (_DELTA, ResponsesPayload.add_reasoning),
    "response.reasoning_text.done": (_DELTA, ResponsesPayload.end_reasoning),
    # The names of the same events until mid-2025.
    "response.reasoning_summary.delta": (_DELTA, ResponsesPayload.add_summary),
    "response.reasoning_summary.done": (_DELTA, ResponsesPayload.end_summary),
    "response.reasoning.delta": (_DELTA, ResponsesPayload.add_reasoning),
    "response.reasoning.done": (_DELTA, ResponsesPayload.end_reasoning),
    "response.function_call_arguments.delta": (_DELTA, ResponsesPayload.add_arguments),
    "response.function_call_arguments.done": (_DELTA, ResponsesPayload.end_arguments),
    "response.custom_tool_call_input.delta": (_DELTA, ResponsesPayload.add_input),
    "response.custom_tool_call_input.done": (_DELTA, ResponsesPayload.end_input),
    "response.content_part.done": (_DELTA, ResponsesPayload.end_part),
    "response.output_item.added": (_ITEM, ResponsesPayload.begin_item),
    "response.output_item.done": (_ITEM, ResponsesPayload.end_item),
    "response.created": (_RESPONSE, ResponsesPayload.begin),
    "response.queued": (_RESPONSE, ResponsesPayload.begin),
    "response.in_progress": (_RESPONSE, ResponsesPayload.begin),
    "response.completed": (_RESPONSE, ResponsesPayload.finish_event),
    "response.incomplete": (_RESPONSE, ResponsesPayload.finish_event),
    "response.failed": (_RESPONSE, ResponsesPayload.fail_event),
    "response.cancelled": (_RESPONSE, ResponsesPayload.fail_event),
}
