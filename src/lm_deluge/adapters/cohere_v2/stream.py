"""Decode the events of Cohere's Chat API.

A model writes a plan before it calls tools. The plan is neither text nor reasoning: it is kept as opaque data, which
the next request sends back with the calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice
from typing import Any, ClassVar

import msgspec

from lm_deluge.adapters.body_decoder import check_end, in_band_error
from lm_deluge.adapters.cohere_v2.request import TOOL_PLAN
from lm_deluge.adapters.errors import classify_in_band
from lm_deluge.adapters.token_counts import add_usage, build_usage, read_count
from lm_deluge.adapters.typed_payload import Handlers, TypedPayload
from lm_deluge.errors import APIError, ProtocolError
from lm_deluge.events import (
    Citation,
    Event,
    FinishReason,
    ProviderPart,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
)
from lm_deluge.usage import Usage
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError, TolerantDecoder, convert_tolerantly, decode_json

__all__ = ["CoherePayload"]

JSON = dict[str, Any]


class _Piece(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: str | None = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _ToolCall(msgspec.Struct, gc=False):
    id: str | None = None
    function: _Function | None = None


class _Logprobs(msgspec.Struct, gc=False):
    text: str | None = None
    logprobs: list[float] | None = None


class _Start(msgspec.Struct, gc=False):
    id: str | None = None


class _PieceMessage(msgspec.Struct, gc=False):
    content: _Piece | None = None


class _PieceDelta(msgspec.Struct, gc=False):
    message: _PieceMessage | None = None


class _PieceEvent(msgspec.Struct, gc=False):
    delta: _PieceDelta | None = None
    logprobs: _Logprobs | None = None


class _OtherMessage(msgspec.Struct, gc=False):
    tool_plan: str | None = None
    tool_calls: _ToolCall | list[_ToolCall] | None = None
    citations: JSON | list[Any] | None = None


class _OtherDelta(msgspec.Struct, gc=False):
    message: _OtherMessage | None = None


class _OtherEvent(msgspec.Struct, gc=False):
    index: int | None = None
    delta: _OtherDelta | None = None


class _EndDelta(msgspec.Struct, gc=False):
    finish_reason: str | None = None
    usage: JSON | None = None
    error: Any = None
    status_code: int | None = None  # not Cohere's: the simulator sends it to preserve the status of an error


class _End(msgspec.Struct, gc=False):
    delta: _EndDelta | None = None


class _Whole(msgspec.Struct, gc=False):
    content: list[_Piece] | str | None = None
    tool_plan: str | None = None
    tool_calls: list[_ToolCall] | None = None
    citations: list[Any] | None = None


class _Document(msgspec.Struct, gc=False):
    id: str | None = None
    finish_reason: str | None = None
    message: _Whole | None = None
    usage: JSON | None = None
    logprobs: list[_Logprobs] | None = None


_DOCUMENT = TolerantDecoder(_Document)

# Fields of a citation that each of its sources repeats: a citation has six, and copies of more would multiply.
_MOST_FIELDS = 50

# HTTP status of the finish reasons that are failures.
_FAILURES = {"ERROR": 500, "TIMEOUT": 504}


class CoherePayload(TypedPayload):
    """State machine for one stream. The terminal event is `message-end`; an end mark after it is ignored."""

    handlers: ClassVar[Handlers]
    finish_reasons: ClassVar[Mapping[str, FinishReason]] = {
        "COMPLETE": "stop",
        "STOP_SEQUENCE": "stop",
        "MAX_TOKENS": "length",
        "TOOL_CALL": "tool_calls",
        "ERROR_TOXIC": "content_filter",
        "ERROR_LIMIT": "length",
    }

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self._plan: list[str] = []
        self._listed: dict[int | None, int] = {}  # number of the calls with the same index

    def begin(self, event: _Start, events: list[Event]) -> None:
        """Decode `message-start`."""
        self.start(events, event.id)

    def add_content(self, event: _PieceEvent, events: list[Event]) -> None:
        """Decode `content-start`, whose text is mostly empty, or `content-delta`."""
        message = event.delta.message if event.delta is not None else None
        piece = message.content if message is not None else None
        logprobs = (event.logprobs,) if event.logprobs is not None else ()
        if piece is not None and (piece.text or piece.thinking or logprobs):
            self._add_piece(piece, _tokens(logprobs), events)

    def _add_piece(self, piece: _Piece, tokens: tuple[TokenLogprob, ...], events: list[Event]) -> None:
        self.start(events)
        if self._plan:
            self._end_plan(events)
        if piece.thinking:
            events.append(ReasoningDelta(piece.thinking))
        if piece.text or tokens:
            events.append(TextDelta(piece.text or "", tokens))

    def add_plan(self, event: _OtherEvent, events: list[Event]) -> None:
        """Decode `tool-plan-delta`."""
        message = _message(event)
        if message.tool_plan:
            self.start(events)
            self._plan.append(message.tool_plan)

    def _end_plan(self, events: list[Event]) -> None:
        if self._plan:
            events.append(ProviderPart(self.provider, TOOL_PLAN, "".join(self._plan)))
            self._plan = []

    def start_call(self, event: _OtherEvent, events: list[Event]) -> None:
        """Decode `tool-call-start`, which has a call or a list of calls."""
        for key, call in self._keyed_calls(event):
            self._open_call(key, call, events)

    def _keyed_calls(self, event: _OtherEvent) -> list[tuple[Any, _ToolCall]]:
        """Return the calls of an event and their keys: the index of the event, and the position in a longer list."""
        found = _message(event).tool_calls
        calls = found if isinstance(found, list) else [found or _ToolCall()]
        index = event.index
        self._listed[index] = max(len(calls), self._listed.get(index, 1))
        return [(index if position == 0 else (index, position), call) for position, call in enumerate(calls)]

    def _open_call(self, key: Any, call: _ToolCall, events: list[Event]) -> None:
        self.start(events)
        self._end_plan(events)
        function = call.function or _Function()
        self.calls.start(events, key, call.id or "", function.name or "")
        self.calls.add(events, key, _text_of(function.arguments))

    def add_arguments(self, event: _OtherEvent, events: list[Event]) -> None:
        """Decode `tool-call-delta`."""
        for key, call in self._keyed_calls(event):
            function = call.function or _Function()
            self.calls.add(events, key, _text_of(function.arguments))

    def end_call(self, event: _OtherEvent, events: list[Event]) -> None:
        """Decode `tool-call-end`."""
        self.calls.finish(events, event.index)
        for position in range(1, self._listed.pop(event.index, 1)):
            self.calls.finish(events, (event.index, position))

    def cite(self, event: _OtherEvent, events: list[Event]) -> None:
        """Decode `citation-start`."""
        found = _message(event).citations
        self.start(events)
        self._cite(found if isinstance(found, list) else [] if found is None else [found], events)

    def _cite(self, citations: list[Any], events: list[Event]) -> None:
        for citation in self.objects_of(citations):
            events += self._citations(citation)

    def _citations(self, raw: JSON) -> list[Citation]:
        """Return one `Citation` for each source of a citation."""
        start = end = None
        if raw.get("type") in (None, "TEXT_CONTENT"):  # other types have offsets into the plan or a thought
            start, end = self._whole(raw, "start"), self._whole(raw, "end")
        sources = self.list_of(raw, "sources")
        if not sources:
            return [Citation(None, None, start, end, raw)]
        found = []
        fields = raw if len(raw) <= _MOST_FIELDS else dict(islice(raw.items(), _MOST_FIELDS))
        for source in sources:
            document = (convert_tolerantly(source, _Source, self) or _Source()).document or {}
            url, title = self.text_of(document, "url") or None, self.text_of(document, "title") or None
            found.append(Citation(url, title, start, end, {**fields, "sources": [source]}))
        return found

    def _whole(self, raw: JSON, name: str) -> int | None:
        value = raw.get(name)
        count = _whole(value)
        if count is None and value is not None:
            self.skip_value(value)
        return count

    def pass_over(self, event: Any, events: list[Event]) -> None:
        """Ignore `content-end` and `citation-end`, which contain nothing new."""

    def end_message(self, event: _End, events: list[Event]) -> None:
        """Decode `message-end`.

        Raises:
            APIError: The finish reason is a failure, or the event contains an error.
        """
        self._finish(event.delta or _EndDelta(), events)

    def _finish(self, end: _EndDelta, events: list[Event]) -> None:
        self.start(events)
        self._end_plan(events)
        if end.usage:
            add_usage(_usage(end.usage), events)
        if end.error or end.finish_reason in _FAILURES:
            self.fail(_failure(end))
        check_end(end.finish_reason, end.usage)
        self.reason = end.finish_reason or None
        self.end(events)

    def add_document(self, body: bytes, events: list[Event]) -> None:
        """Decode a plain response.

        Raises:
            APIError: The document is an error, or the response failed.
            ProtocolError: The document is neither a response nor an error.
        """
        try:
            document = _DOCUMENT.decode(body, self)
        except NotJSONError:
            document = None
        if document is None or document.message is None or document.finish_reason is None:
            raise _no_answer(body)
        message = document.message
        self.start(events, document.id)
        pieces = [_Piece(message.content)] if isinstance(message.content, str) else message.content or []
        tokens = _tokens(document.logprobs or ())
        for piece in pieces:
            # The log probabilities cover the whole text, and a response has one text piece.
            self._add_piece(piece, tokens if piece.text else (), events)
            tokens = () if piece.text else tokens
        self._plan = [message.tool_plan] if message.tool_plan else []
        for position, call in enumerate(message.tool_calls or ()):
            self._open_call(position, call, events)
            self.calls.finish(events, position)
        self._cite(message.citations or [], events)
        self._finish(_EndDelta(document.finish_reason, document.usage), events)


CoherePayload.handlers = {
    "message-start": (TolerantDecoder(_Start), CoherePayload.begin),
    "content-start": (TolerantDecoder(_PieceEvent), CoherePayload.add_content),
    "content-delta": (TolerantDecoder(_PieceEvent), CoherePayload.add_content),
    "content-end": (TolerantDecoder(_Start), CoherePayload.pass_over),
    "tool-plan-delta": (TolerantDecoder(_OtherEvent), CoherePayload.add_plan),
    "tool-call-start": (TolerantDecoder(_OtherEvent), CoherePayload.start_call),
    "tool-call-delta": (TolerantDecoder(_OtherEvent), CoherePayload.add_arguments),
    "tool-call-end": (TolerantDecoder(_OtherEvent), CoherePayload.end_call),
    "citation-start": (TolerantDecoder(_OtherEvent), CoherePayload.cite),
    "citation-end": (TolerantDecoder(_Start), CoherePayload.pass_over),
    "message-end": (TolerantDecoder(_End), CoherePayload.end_message),
}


def _message(event: _OtherEvent) -> _OtherMessage:
    return (event.delta.message if event.delta is not None else None) or _OtherMessage()


def _text_of(arguments: Any) -> str:
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return msgspec.json.encode(arguments).decode()


def _tokens(items: tuple[_Logprobs, ...] | list[_Logprobs]) -> tuple[TokenLogprob, ...]:
    """Return one entry for each chunk of text; the log probability of a chunk is the sum over its tokens."""
    return tuple(TokenLogprob(item.text or "", math.fsum(item.logprobs)) for item in items if item.logprobs)


class _Source(msgspec.Struct, gc=False):
    document: JSON | None = None


def _whole(value: Any) -> int | None:
    """Return a count as an integer, None if it is invalid. Cohere sends some counts as floats."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _usage(raw: JSON) -> Usage | None:
    """Convert usage: `tokens` counts the processed tokens; `billed_units` is used only if `tokens` is missing."""
    counted = raw.get("tokens") or raw.get("billed_units")
    tokens = counted if isinstance(counted, dict) else {}
    return build_usage(
        raw,
        read_count(tokens.get("input_tokens")),
        read_count(tokens.get("output_tokens")),
        cache_read_tokens=read_count(raw.get("cached_tokens")),
        reasoning_tokens=read_count(tokens.get("reasoning_tokens")),
    )


def _failure(end: _EndDelta) -> APIError:
    reason = end.finish_reason or "ERROR"
    message = end.error if isinstance(end.error, str) and end.error else f"the answer broke off: {reason}"
    payload = end.error if isinstance(end.error, dict) else {"message": message, "type": reason}
    error = classify_in_band({"status_code": end.status_code or _FAILURES.get(reason), **payload})
    error.billed = "maybe"
    return error


def _no_answer(body: bytes) -> APIError | ProtocolError:
    """Return the error for a document that is not a response. Cohere's errors are `{"id": ..., "message": "..."}`."""
    try:
        raw = decode_json(body)
    except NotJSONError:
        return ProtocolError("the answer is not JSON", reason="json", excerpt=body, billed="maybe")
    if isinstance(raw, dict) and (isinstance(raw.get("message"), str) or raw.get("error")):
        return in_band_error(ServerSentEvent(body))
    return ProtocolError("the answer is JSON, but not a chat response", reason="order", excerpt=body, billed="maybe")
