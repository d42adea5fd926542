"""Encode responses of Cohere's Chat API: the inverse of the adapter `cohere-v2`.

https://docs.cohere.com/v2/reference/chat-stream

Decoding an encoded response gives the same events, except for what this API cannot express:

- The model's name, generated media, attempts, warnings, and opaque data except the plan before tool calls are left out.
- A refusal is text. `pause` and `refusal` become `COMPLETE`; `error` is decoded as an error.
- Several log probabilities of one text delta are decoded as one, their sum.
- A response that is not streamed has its content first, then the plan, the calls and the citations.

A truncated response has no `ResponseFinished`, so it gets neither `message-end` nor an end mark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import msgspec

from lm_deluge.encoders.cohere_v2.request import parse_request
from lm_deluge.encoders.encoder import Encoder, Endpoint
from lm_deluge.encoders.event_writer import EventHandlers, EventWriter
from lm_deluge.encoders.openai_chat.errors import usual_status
from lm_deluge.encoders.openai_chat.response_fields import call_fields
from lm_deluge.errors import APIError
from lm_deluge.events import (
    Attempt,
    Citation,
    Event,
    FinishReason,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ProviderDataPart, ReasoningPart, RefusalPart, TextPart, TokenLogprob
from lm_deluge.response import ResponseBuilder
from lm_deluge.usage import Usage
from lm_deluge.wire.sse import encode_sse

__all__ = ["ENCODER", "encode_error", "encode_response", "encode_stream", "encode_stream_error"]

JSON = dict[str, Any]

_DONE = b"data: [DONE]\n\n"
_PLAN = "tool_plan"
_LEAST_LOGPROB = -9999.0  # replaces -Infinity, which JSON lacks; OpenAI's value for very unlikely tokens

_FINISH_REASONS: dict[FinishReason, str] = {
    "stop": "COMPLETE",
    "length": "MAX_TOKENS",
    "tool_calls": "TOOL_CALL",
    "content_filter": "ERROR_TOXIC",
    "refusal": "COMPLETE",
    "pause": "COMPLETE",
    "error": "ERROR",
}


def encode_stream(events: Iterable[Event], *, created: int = 0, include_usage: bool = True) -> Iterator[bytes]:
    """Yield the frames of a streamed response, each as soon as the events that complete it are read.

    Usage is always in the last event, and the API has no creation time: `include_usage` and `created` have no effect.
    """
    return _EventWriter().write_all(events)


class _EventWriter(EventWriter[bytes]):
    """State of one streamed response."""

    def __init__(self) -> None:
        super().__init__()
        self._block = -1  # index of the last content block
        self._kind = ""  # type of the open content block, or empty
        self._citations = 0
        self._calls: dict[int, bool] = {}  # index of each call -> whether it has arguments
        self._usage: Usage | None = None

    def start(self, event: ResponseStarted) -> list[bytes]:
        message = {"role": "assistant", "content": [], _PLAN: "", "tool_calls": [], "citations": []}
        return [_frame("message-start", id=event.response_id, delta={"message": message})]

    def add_text(self, event: TextDelta | RefusalDelta) -> list[bytes]:
        more = {"logprobs": _logprobs(event.text, event.logprobs)} if event.logprobs else {}
        return [*self._open("text"), self._delta({"text": event.text}, **more)]

    def add_reasoning(self, event: ReasoningDelta) -> list[bytes]:
        return [*self._open("thinking"), self._delta({"thinking": event.text})]

    def _delta(self, content: JSON, **more: Any) -> bytes:
        return _frame("content-delta", index=self._block, delta={"message": {"content": content}}, **more)

    def _open(self, kind: str) -> list[bytes]:
        """Return the frames that end the open content block and start one of this type, unless it is open already."""
        if kind == self._kind:
            return []
        frames = self._close()
        self._kind = kind
        self._block += 1
        start = {"message": {"content": {"type": kind, kind: ""}}}
        return [*frames, _frame("content-start", index=self._block, delta=start)]

    def _close(self) -> list[bytes]:
        if not self._kind:
            return []
        self._kind = ""
        return [_frame("content-end", index=self._block)]

    def add_opaque(self, event: ProviderPart) -> list[bytes]:
        if event.kind != _PLAN:
            return []
        return [*self._close(), _frame("tool-plan-delta", delta={"message": {_PLAN: event.data}})]

    def start_call(self, event: ToolCallStarted) -> list[bytes]:
        self._calls[event.index] = False
        call = {"message": {"tool_calls": call_fields(event.id, event.name, "", custom=False)}}
        return [*self._close(), _frame("tool-call-start", index=event.index, delta=call)]

    def add_arguments(self, event: ToolCallDelta) -> list[bytes]:
        self._calls[event.index] = True
        call = {"message": {"tool_calls": {"function": {"arguments": event.arguments}}}}
        return [_frame("tool-call-delta", index=event.index, delta=call)]

    def finish_call(self, event: ToolCallFinished) -> list[bytes]:
        """Write what no `ToolCallDelta` delivered: a response that was not streamed has complete calls only."""
        frames = []
        if event.index not in self._calls:
            frames += self.start_call(ToolCallStarted(event.index, event.id, event.name))
        if event.arguments_text and not self._calls[event.index]:
            frames += self.add_arguments(ToolCallDelta(event.index, event.arguments_text))
        return [*frames, _frame("tool-call-end", index=event.index)]

    def add_citation(self, event: Citation) -> list[bytes]:
        number = self._citations
        self._citations += 1
        citation = {"message": {"citations": _citation(event)}}
        return [_frame("citation-start", index=number, delta=citation), _frame("citation-end", index=number)]

    def keep_usage(self, event: UsageReported) -> list[bytes]:
        self._usage = event.usage
        return []

    def finish(self, event: ResponseFinished) -> list[bytes]:
        end: JSON = {"finish_reason": event.raw_finish_reason or _FINISH_REASONS[event.finish_reason]}
        if self._usage is not None:
            end["usage"] = _usage(self._usage)
        return [*self._close(), _frame("message-end", delta=end), _DONE]

    HANDLED: ClassVar[EventHandlers] = {
        ResponseStarted: start,
        TextDelta: add_text,
        ReasoningDelta: add_reasoning,
        RefusalDelta: add_text,
        ToolCallStarted: start_call,
        ToolCallDelta: add_arguments,
        ToolCallFinished: finish_call,
        Citation: add_citation,
        ProviderPart: add_opaque,
        UsageReported: keep_usage,
        ResponseFinished: finish,
    }
    IGNORED = frozenset(
        {
            MediaDelta,  # Cohere's chat generates no media
            Attempt,  # a retry of this library; no wire API reports one
        }
    )
    IMPLICIT_START = True


def _frame(kind: str, **fields: Any) -> bytes:
    return encode_sse(msgspec.json.encode({"type": kind, **fields}), event=kind)


def encode_response(events: Iterable[Event], *, created: int = 0) -> bytes:
    """Return the response as one JSON document; a truncated response has no finish reason."""
    builder = ResponseBuilder()
    builder.add_all(events)
    response = builder.response()
    finished = builder.finished
    reason = None
    if finished is not None:
        reason = finished.raw_finish_reason or _FINISH_REASONS[finished.finish_reason]
    body: JSON = {
        "id": response.response_id,
        "finish_reason": reason,
        "message": _message(response.content, response.citations),
    }
    tokens = [_logprobs(token.token, (token,)) for part in _texts(response.content) for token in part.logprobs]
    if response.usage is not None:
        body["usage"] = _usage(response.usage)
    return msgspec.json.encode({**body, "logprobs": tokens} if tokens else body)


def _texts(content: Message) -> list[TextPart]:
    return [part for part in content.parts if isinstance(part, TextPart)]


def _message(content: Message, citations: tuple[Citation, ...]) -> JSON:
    parts = [_PIECES[type(part)](part) for part in content.parts if type(part) in _PIECES]
    calls = [call_fields(part.id, part.name, part.arguments_text, custom=False) for part in content.tool_calls]
    plan = "".join(part.data for part in content.parts if isinstance(part, ProviderDataPart) and part.kind == _PLAN)
    optional: JSON = {
        "content": parts,
        _PLAN: plan,
        "tool_calls": calls,
        "citations": [_citation(citation) for citation in citations],
    }
    return {"role": "assistant", **{name: value for name, value in optional.items() if value}}


_PIECES: dict[type, Callable[[Any], JSON]] = {
    TextPart: lambda part: {"type": "text", "text": part.text},
    RefusalPart: lambda part: {"type": "text", "text": part.text},
    ReasoningPart: lambda part: {"type": "thinking", "thinking": part.text},
}


def _citation(citation: Citation) -> JSON:
    if citation.raw is not None and "sources" in citation.raw:
        return citation.raw
    found: JSON = {"start": citation.start, "end": citation.end, "text": "", "type": "TEXT_CONTENT", "sources": []}
    document = {"url": citation.url, "title": citation.title}
    named = {name: value for name, value in document.items() if value is not None}
    if named:
        found["sources"] = [{"type": "document", "id": citation.url or citation.title, "document": named}]
    return found


def _logprobs(text: str, tokens: tuple[TokenLogprob, ...]) -> JSON:
    """Return the JSON of log probabilities; events have no token ids, so `token_ids` is empty."""
    return {"text": text, "token_ids": [], "logprobs": [max(token.logprob, _LEAST_LOGPROB) for token in tokens]}


def _usage(usage: Usage) -> JSON:
    tokens = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    fields: JSON = {"billed_units": dict(tokens), "tokens": tokens}
    if usage.reasoning_tokens is not None:
        tokens["reasoning_tokens"] = usage.reasoning_tokens
    return fields if usage.cache_read_tokens is None else {**fields, "cached_tokens": usage.cache_read_tokens}


def encode_error(error: APIError) -> bytes:
    """Return the JSON body of an error response. The HTTP status is `error.status_code`, not a field of the body."""
    return msgspec.json.encode({"message": error.message})


def encode_stream_error(error: APIError) -> bytes:
    """Return the frame that reports an error in a started stream. No frame follows it, not even the end mark.

    Cohere sends only a message. The added `status_code` lets the adapter decode the same error class.
    """
    status = usual_status(error)
    return _frame("message-end", delta={"error": error.message, "finish_reason": "ERROR", "status_code": status})


ENCODER = Encoder(
    name="cohere-v2",
    parse_request=parse_request,
    encode_stream=encode_stream,
    encode_response=encode_response,
    encode_error=encode_error,
    encode_stream_error=encode_stream_error,
    routes=(Endpoint(r"/v2/chat"),),
)
