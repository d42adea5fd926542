"""Events of the Responses API into ours.

https://platform.openai.com/docs/api-reference/responses-streaming

An answer is a list of items. Of each item the API says everything up to three times: in deltas, in the `done` events of
its pieces, and as a finished item; the last event repeats all items. Hosts leave out any of these, so each level adds
what the ones before it did not say. What is said is known by its place: GitHub Copilot gives an item a new id with
every event, OpenRouter another one in the last event (seen 2025-11 and 2026-02).
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
    """A piece of an item, or all of one. `delta` and its likes are what the type of the event says they are."""

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

# Items of our own kinds: they are tool calls of the client.
_ARGUMENTS = {"function_call": "arguments", "custom_tool_call": "input"}


class ResponsesPayload(TypedPayload):
    """The state machine behind one answer.

    Attributes:
        response_id: The provider's id of the answer, once it was said.
        cursor: The number of the last event, where events are numbered: a stream that breaks goes on behind it.
    """

    handlers: ClassVar[Handlers]
    finish_reasons: ClassVar[Mapping[str, FinishReason]] = {"completed": "stop", "incomplete": "length"}

    def __init__(self, provider: str) -> None:
        super().__init__(provider)
        self.response_id: str | None = None
        self.cursor: int | None = None
        self._floor: int | None = None  # of a stream that goes on: what is not behind it was read
        self._detail: str | None = None
        self._said: dict[tuple[Any, ...], int] = {}  # how many characters of each piece were said
        self._starts: dict[tuple[Any, ...], int] = {}  # where in the answer's text each piece begins
        self._length = 0
        self._sources: set[tuple[Any, ...]] = set()
        self._done: dict[_Key, str] = {}  # ids of finished items
        self._kinds: set[str] = set()  # of all items that were seen

    def go_on(self) -> None:
        """Expect the rest of the answer from another stream."""
        self._floor = self.cursor

    def handle(self, frame: ServerSentEvent, events: list[Event]) -> None:
        """Take one frame; one that was read before its stream broke is passed over."""
        if self._floor is not None and self._is_old(frame):
            self.ignored += 1
        else:
            super().handle(frame, events)

    def _is_old(self, frame: ServerSentEvent) -> bool:
        try:
            event = _RESPONSE.decode(frame.data)
        except NotJSONError:
            return False
        number = None if event is None else event.sequence_number
        return number is not None and self._floor is not None and number <= self._floor

    def handle_document(self, body: bytes, events: list[Event]) -> None:
        """Take a plain answer: it is what the last event of a stream repeats."""
        response = _DOCUMENT.decode(body)
        if response is not None:
            self._kinds.clear()  # a stream that broke may have said a part of it: that is known by its place
            _ENDS.get(response.status or "", ResponsesPayload._pass)(self, response, events)

    def _pass(self, response: _Response, events: list[Event]) -> None:
        """Take an answer that is not through."""

    # --- the answer ---

    def begin(self, event: _ResponseEvent, events: list[Event]) -> None:
        """Take an event that says who answers."""
        self._note(event.sequence_number)
        response = event.response or _Response()
        self.response_id = self.response_id or response.id
        self.start(events, response.id, response.model)

    def finish_event(self, event: _ResponseEvent, events: list[Event]) -> None:
        """Take the last event: it repeats the answer, and has its usage."""
        self._note(event.sequence_number)
        response = event.response or _Response()
        # The type of the event may be missing or wrong in a proxy's stream, the status is the answer's own.
        _ENDS.get(response.status or "", ResponsesPayload._complete)(self, response, events)

    def _complete(self, response: _Response, events: list[Event]) -> None:
        self.response_id = self.response_id or response.id
        self.start(events, response.id, response.model)
        seen = set(self._kinds)
        for index, item in enumerate(response.output or ()):
            # Where items were streamed, their places here may be others: only kinds that never came are read.
            if isinstance(item, dict) and str(item.get("type")) not in seen:
                self._finish_item(index, item, events)
        self._report(response, events)
        self.reason = response.status or "completed"
        self._detail = response.incomplete_details.reason if response.incomplete_details else None
        self.end(events)

    def _report(self, response: _Response, events: list[Event]) -> None:
        if response.usage:
            events.append(UsageReported(read_usage(response.usage, response.service_tier)))

    def _fail(self, response: _Response, events: list[Event]) -> None:
        self._report(response, events)
        error = response.error or {"message": f"the answer was {response.status or 'broken off'}"}
        found = classify_in_band({"error": error})
        found.billed = "maybe"
        self.fail(found)

    def finish_reason(self) -> FinishReason:
        """Return our word; an answer that is incomplete says why in a field of its own."""
        reason = super().finish_reason()
        return _INCOMPLETE.get(self._detail or "", reason) if self.reason == "incomplete" else reason

    def _note(self, number: int | None) -> None:
        if number is not None:
            self.cursor = number

    # --- deltas ---

    def add_text(self, event: _Delta, events: list[Event]) -> None:
        """Take a piece of the answer."""
        if event.sequence_number is not None:
            self.cursor = event.sequence_number
        text, index = event.delta or "", event.output_index
        place = (event.item_id or 0 if index is None else index, "text", event.content_index or 0)
        said = self._said.get(place)
        if said is None or event.logprobs:
            if text or event.logprobs:
                self._add_text(place, text, tuple(event.logprobs or ()), events)
        elif text:
            # Nearly every event comes here.
            length = len(text)
            self._said[place] = said + length
            self._length += length
            events.append(TextDelta(text))

    def _add_text(
        self, place: tuple[Any, ...], text: str, logprobs: tuple[TokenLogprob, ...], events: list[Event]
    ) -> None:
        said = self._said.get(place)
        if said is None:
            said = 0
            self._starts[place] = self._length
            self._kinds.add("message")
        self.start(events)
        self._said[place] = said + len(text)
        self._length += len(text)
        events.append(TextDelta(text, logprobs))

    def end_text(self, event: _Delta, events: list[Event]) -> None:
        """Take a whole text: what of it was not said in deltas is said now."""
        self._note(event.sequence_number)
        self._end_text(self._place(event, "text", event.content_index), event.text, event.logprobs, events)

    def _end_text(
        self, place: tuple[Any, ...], text: str | None, logprobs: list[TokenLogprob] | None, events: list[Event]
    ) -> None:
        said = self._said.get(place, 0)
        if text and len(text) > said:
            self._add_text(place, text[said:], tuple(logprobs or ()) if not said else (), events)

    def add_refusal(self, event: _Delta, events: list[Event]) -> None:
        """Take a piece of a refusal, or the whole of it."""
        self._note(event.sequence_number)
        place = self._place(event, "refusal", event.content_index)
        if event.delta:
            self._refuse(place, event.delta, events)
        else:
            self._refuse(place, (event.refusal or "")[self._said.get(place, 0) :], events)

    def _refuse(self, place: tuple[Any, ...], text: str, events: list[Event]) -> None:
        if text:
            self.start(events)
            self.has_refusal = True
            self._kinds.add("message")
            self._said[place] = self._said.get(place, 0) + len(text)
            events.append(RefusalDelta(text))

    def add_summary(self, event: _Delta, events: list[Event]) -> None:
        """Take a piece of the reasoning's summary, or the whole of one of its parts."""
        self._note(event.sequence_number)
        self._reason(self._place(event, "summary", event.summary_index), event.delta, event.text, events)

    def add_reasoning(self, event: _Delta, events: list[Event]) -> None:
        """Take a piece of the reasoning itself, or the whole of it."""
        self._note(event.sequence_number)
        self._reason(self._place(event, "reasoning", event.content_index), event.delta, event.text, events)

    def _reason(self, place: tuple[Any, ...], delta: str | None, whole: str | None, events: list[Event]) -> None:
        said = self._said.get(place, 0)
        text = delta or (whole or "")[said:]
        if text:
            self.start(events)
            self._kinds.add("reasoning")
            self._said[place] = said + len(text)
            events.append(ReasoningDelta(text))

    def add_arguments(self, event: _Delta, events: list[Event]) -> None:
        """Take a piece of a call's arguments, or the whole of them."""
        self._note(event.sequence_number)
        key = self._key(event)
        if event.delta:
            self.calls.add(events, key, event.delta)
        else:
            self._end_arguments(key, event.arguments or event.input, events)

    def _end_arguments(self, key: _Key, whole: Any, events: list[Event]) -> None:
        said = self.calls.text(key)
        if isinstance(whole, str) and whole.startswith(said):
            self.calls.add(events, key, whole[len(said) :])

    def add_annotation(self, event: _Delta, events: list[Event]) -> None:
        """Take a source of the answer."""
        self._note(event.sequence_number)
        self._cite(self._place(event, "text", event.content_index), event.annotation, events)

    def _cite(self, place: tuple[Any, ...], raw: Any, events: list[Event]) -> None:
        source = convert_tolerantly(raw, _Source)
        if source is None:
            self.ignored += 1
            return
        told = (str(raw.get(name)) for name in ("type", "file_id", *_Source.__struct_fields__))
        found = (place, *told)
        if found in self._sources:
            return
        self._sources.add(found)
        # The API counts from the beginning of the piece, we from that of the answer.
        first = self._starts.get(place, self._length)
        start, end = (None if index is None else index + first for index in (source.start_index, source.end_index))
        self.start(events)
        events.append(Citation(source.url, source.title or source.filename, start, end, raw))

    def end_part(self, event: _Delta, events: list[Event]) -> None:
        """Take a finished piece of a message."""
        self._note(event.sequence_number)
        piece = convert_tolerantly(event.part, _Piece)
        if piece is not None:
            self._finish_piece(self._key(event), event.content_index or 0, piece, events)

    # --- items ---

    def begin_item(self, event: _ItemEvent, events: list[Event]) -> None:
        """Take the beginning of an item."""
        self._note(event.sequence_number)
        item = event.item or {}
        self.start(events)
        key = self._item_key(event.output_index, item)
        kind = str(item.get("type"))
        self._kinds.add(kind)
        if self._done.pop(key, None) is not None:
            # A host that counts no items: what was said belongs to another one.
            self._said = {place: said for place, said in self._said.items() if place[0] != key}
        if kind in _ARGUMENTS:
            self._start_call(key, item, events)

    def end_item(self, event: _ItemEvent, events: list[Event]) -> None:
        """Take a finished item."""
        self._note(event.sequence_number)
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
        call_id = item.get("call_id") or item.get("id")
        name = item.get("name")
        self.calls.start(
            events,
            key,
            call_id if isinstance(call_id, str) else "",
            name if isinstance(name, str) else "",
            custom=item.get("type") == "custom_tool_call",
        )

    def _finish_call(self, key: _Key, item: dict[str, Any], events: list[Event]) -> None:
        if not self.calls.is_open(key):
            self._start_call(key, item, events)
        self._end_arguments(key, item.get(_ARGUMENTS[item["type"]]), events)
        self.calls.finish(events, key)

    def _finish_message(self, key: _Key, item: dict[str, Any], events: list[Event]) -> None:
        for index, raw in enumerate(_list(item.get("content"))):
            piece = convert_tolerantly(raw, _Piece)
            if piece is not None:
                self._finish_piece(key, index, piece, events)

    def _finish_piece(self, key: _Key, index: int, piece: _Piece, events: list[Event]) -> None:
        if piece.type == "refusal":
            place = (key, "refusal", index)
            self._refuse(place, (piece.refusal or "")[self._said.get(place, 0) :], events)
        elif piece.type == "reasoning_text":
            self._reason((key, "reasoning", index), None, piece.text, events)
        else:
            place = (key, "text", index)
            self._end_text(place, piece.text, piece.logprobs, events)
            for annotation in piece.annotations or ():
                self._cite(place, annotation, events)

    def _finish_reasoning(self, key: _Key, item: dict[str, Any], events: list[Event]) -> None:
        for name, field in (("summary", "summary"), ("reasoning", "content")):
            for index, raw in enumerate(_list(item.get(field))):
                piece = convert_tolerantly(raw, _Piece)
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

    def _place(self, event: _Delta, kind: str, index: int | None) -> tuple[Any, ...]:
        return (self._key(event), kind, index or 0)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


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
    # What the same events were called until mid-2025.
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
