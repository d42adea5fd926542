"""Encode responses of Mistral's chat completions: the inverse of the adapter of the same name.

https://docs.mistral.ai/api/#tag/chat

Decoding an encoded response gives the same events, except for what this API cannot express:

- A call is written whole when it is finished, as Mistral does, so its fragments are joined; decoded calls end at the
  end of the stream. Usage is reported once, with the finish reason and without the flag `estimated`.
- A refusal is text. `pause`, `refusal` and `content_filter` become `stop`.
- Positions of citations, audio, attempts, warnings, and opaque data except the signatures of reasoning are left out.
- In a response that is not streamed, all calls follow the content.

A truncated response has no `ResponseFinished`, so it gets neither a finish reason nor an end mark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import msgspec

from lm_deluge.encoders.encoder import Encoder, Endpoint
from lm_deluge.encoders.event_writer import EventHandlers, EventWriter
from lm_deluge.encoders.mistral_chat.request import parse_request
from lm_deluge.encoders.openai_chat.errors import error_type_and_code
from lm_deluge.encoders.openai_chat.response_fields import call_fields, image_piece, logprob_fields, usage_fields
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
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ImagePart, ProviderDataPart, ReasoningPart, RefusalPart, TextPart
from lm_deluge.response import ResponseBuilder
from lm_deluge.usage import Usage
from lm_deluge.wire.sse import encode_sse

__all__ = ["ENCODER", "encode_error", "encode_response", "encode_stream", "encode_stream_error"]

JSON = dict[str, Any]

_DONE = b"data: [DONE]\n\n"
_SIGNATURE = "signature"

_FINISH_REASONS: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "stop",
    "refusal": "stop",
    "pause": "stop",
    "error": "error",
}


def encode_stream(events: Iterable[Event], *, created: int = 0, include_usage: bool = True) -> Iterator[bytes]:
    """Yield the frames of a streamed response, each as soon as the events that complete it are read.

    Usage is always in the last chunk; `include_usage` has no effect.
    """
    return _ChunkWriter(created).write_all(events)


class _ChunkWriter(EventWriter[bytes]):
    """State of one streamed response."""

    def __init__(self, created: int) -> None:
        super().__init__()
        self._created = created
        self._head = b""
        self._usage: Usage | None = None
        self._open: dict[int, tuple[ToolCallStarted, list[str]]] = {}  # start and fragments of each unfinished call

    def start(self, event: ResponseStarted) -> list[bytes]:
        head = {
            "id": event.response_id or "",
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": event.model or "",
        }
        self._head = b"data: " + msgspec.json.encode(head)[:-1] + b',"choices":['
        return [self._chunk({"role": "assistant", "content": ""})]

    def _chunk(self, delta: JSON, *, reason: str | None = None, logprobs: JSON | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        if logprobs is not None:
            choice["logprobs"] = logprobs
        usage = b""
        if reason is not None and self._usage is not None:
            usage = b',"usage":' + msgspec.json.encode(usage_fields(self._usage))
        return b"%b%b]%b}\n\n" % (self._head, msgspec.json.encode(choice), usage)

    def add_text(self, event: TextDelta | RefusalDelta) -> list[bytes]:
        logprobs = {"content": logprob_fields(event.logprobs)} if event.logprobs else None
        return [self._chunk({"content": event.text}, logprobs=logprobs)]

    def add_reasoning(self, event: ReasoningDelta) -> list[bytes]:
        return [self._chunk({"content": [_thinking_part(event.text)]})]

    def add_opaque(self, event: ProviderPart) -> list[bytes]:
        if event.kind != _SIGNATURE:
            return []
        return [self._chunk({"content": [{"type": "thinking", "thinking": [], _SIGNATURE: event.data}]})]

    def start_call(self, event: ToolCallStarted) -> list[bytes]:
        self._open[event.index] = (event, [])
        return []

    def _call(self, started: ToolCallStarted, arguments: str) -> bytes:
        call = {**call_fields(started.id, started.name, arguments, custom=False), "index": started.index}
        return self._chunk({"tool_calls": [call]})

    def add_arguments(self, event: ToolCallDelta) -> list[bytes]:
        start = ToolCallStarted(event.index, "", "")
        self._open.setdefault(event.index, (start, []))[1].append(event.arguments)
        return []

    def finish_call(self, event: ToolCallFinished) -> list[bytes]:
        self._open.pop(event.index, None)
        return [self._call(ToolCallStarted(event.index, event.id, event.name), event.arguments_text)]

    def add_citation(self, event: Citation) -> list[bytes]:
        return [self._chunk({"content": [_reference(event)]})]

    def add_media(self, event: MediaDelta) -> list[bytes]:
        if event.media_type.startswith("audio/"):
            return []
        url = event.url or f"data:{event.media_type};base64,{event.data}"
        return [self._chunk({"content": [image_piece(url)]})]

    def keep_usage(self, event: UsageReported) -> list[bytes]:
        self._usage = event.usage
        return []

    def finish(self, event: ResponseFinished) -> list[bytes]:
        reason = event.raw_finish_reason or _FINISH_REASONS[event.finish_reason]
        calls = [self._call(start, "".join(fragments)) for start, fragments in self._open.values()]
        return [*calls, self._chunk({"content": ""}, reason=reason), _DONE]

    HANDLED: ClassVar[EventHandlers] = {
        ResponseStarted: start,
        TextDelta: add_text,
        ReasoningDelta: add_reasoning,
        RefusalDelta: add_text,
        ToolCallStarted: start_call,
        ToolCallDelta: add_arguments,
        ToolCallFinished: finish_call,
        Citation: add_citation,
        MediaDelta: add_media,
        ProviderPart: add_opaque,
        UsageReported: keep_usage,
        ResponseFinished: finish,
    }
    IGNORED = frozenset({Attempt})  # a retry of this library; no wire API reports one
    IMPLICIT_START = True


def encode_response(events: Iterable[Event], *, created: int = 0) -> bytes:
    """Return the response as one JSON document; a truncated response has no finish reason."""
    builder = ResponseBuilder()
    builder.add_all(events)
    response = builder.response()
    finished = builder.finished
    reason = None
    if finished is not None:
        reason = finished.raw_finish_reason or _FINISH_REASONS[finished.finish_reason]
    content = response.content
    references = [_reference(citation) for citation in response.citations]
    message: JSON = {"role": "assistant", "content": _content(content, references)}
    message["tool_calls"] = [
        call_fields(part.id, part.name, part.arguments_text, custom=False) for part in content.tool_calls
    ] or None
    choice: JSON = {"index": 0, "message": message, "finish_reason": reason}
    tokens = [token for part in content.parts if isinstance(part, TextPart) for token in part.logprobs]
    if tokens:
        choice["logprobs"] = {"content": logprob_fields(tuple(tokens))}
    body: JSON = {
        "id": response.response_id or "",
        "object": "chat.completion",
        "created": created,
        "model": response.model_external or "",
        "choices": [choice],
    }
    if response.usage is not None:
        body["usage"] = usage_fields(response.usage)
    return msgspec.json.encode(body)


def _content(content: Message, references: list[JSON]) -> str | list[JSON]:
    """Return the content as one string if all parts are text, else as a list of content parts."""
    parts: list[JSON] = []
    for part in content.parts:
        if isinstance(part, ProviderDataPart) and part.kind == _SIGNATURE and parts:
            parts[-1][_SIGNATURE] = part.data
        elif type(part) in _PARTS:
            parts.append(_PARTS[type(part)](part))
    parts += references
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _text_part(part: Any) -> JSON:
    return {"type": "text", "text": part.text}


def _thinking_part(text: str) -> JSON:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


def _image_part(part: Any) -> JSON:
    media: Media = part.media
    return image_piece(media.url or media.data_url())


_PARTS: dict[type, Callable[[Any], JSON]] = {
    TextPart: _text_part,
    RefusalPart: _text_part,
    ReasoningPart: lambda part: _thinking_part(part.text),
    ImagePart: _image_part,
}


def _reference(citation: Citation) -> JSON:
    raw = citation.raw
    if raw is not None and raw.get("type") in ("reference", "tool_reference"):
        return raw
    return {"type": "tool_reference", "tool": "web_search", "title": citation.title or "", "url": citation.url}


def encode_error(error: APIError) -> bytes:
    """Return the JSON body of an error response. The HTTP status is `error.status_code`, not a field of the body."""
    kind, code = error_type_and_code(error)
    return msgspec.json.encode({"object": "error", "message": error.message, "type": kind, "param": None, "code": code})


def encode_stream_error(error: APIError) -> bytes:
    """Return the frame that reports an error in a started stream. No frame follows it, not even the end mark."""
    return encode_sse(encode_error(error))


ENCODER = Encoder(
    name="mistral-chat",
    parse_request=parse_request,
    encode_stream=encode_stream,
    encode_response=encode_response,
    encode_error=encode_error,
    encode_stream_error=encode_stream_error,
    # OpenAI has the same path: the prefix lets a server that implements both APIs distinguish them.
    routes=(Endpoint(r"/mistral/v1/chat/completions"),),
)
