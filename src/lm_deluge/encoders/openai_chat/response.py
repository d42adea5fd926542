"""Encode responses of Chat Completions: the inverse of the adapter of the same name.

https://platform.openai.com/docs/api-reference/chat-streaming

Decoding an encoded response gives the same events, except for what this API cannot express:

- The response id, the model and the ids of tool calls are required strings: a missing one is decoded as None, or as an
  id of the decoder.
- A decoded call starts with its first fragment of arguments, and all calls end at the end of the stream. Usage is
  reported once, before that, in OpenAI's format and without the flag `estimated`.
- In a response that is not streamed, reasoning, text, refusal and calls are separate fields: their order is lost.
- `pause` becomes `stop`. `refusal` becomes `stop` after a refusal text, and `content_filter` without one.
- Attempts, warnings, citations without a URL, and opaque data of kinds that this API does not have are left out.

A truncated response has no `ResponseFinished`, so it gets neither a finish reason nor an end mark: the encoder never
invents a terminal event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import msgspec

from lm_deluge.encoders.encoder import Encoder, Endpoint, StreamWriter
from lm_deluge.encoders.event_writer import EventHandlers, EventWriter
from lm_deluge.encoders.openai_chat.errors import encode_error, encode_stream_error
from lm_deluge.encoders.openai_chat.request import parse_request
from lm_deluge.encoders.openai_chat.response_fields import (
    call_fields,
    image_piece,
    logprob_fields,
    signature_field,
    usage_fields,
)
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
from lm_deluge.prompt.parts import AudioPart, ImagePart, ProviderDataPart, TextPart, ToolCallPart
from lm_deluge.response import ResponseBuilder
from lm_deluge.usage import Usage

__all__ = ["ENCODER", "encode_response", "encode_stream"]

JSON = dict[str, Any]

_DONE = b"data: [DONE]\n\n"

_FINISH_REASONS: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
    "pause": "stop",
    "error": "error",  # OpenRouter's value; OpenAI has none
}

_SIGNATURE = "thought_signature"  # kind of opaque data: Google's signature of a call or of the text
# Kinds of opaque data that hosts of this API send in a field of the same name.
_OPAQUE_FIELDS = ("reasoning_details", "executed_tools")


def encode_stream(events: Iterable[Event], *, created: int = 0, include_usage: bool = True) -> Iterator[bytes]:
    """Yield the frames of a streamed response, each as soon as the events that complete it are read.

    Args:
        events: The response.
        created: Time of the request, in seconds since 1970.
        include_usage: Whether the client asked for usage (`stream_options.include_usage`).
    """
    return _ChunkWriter(created, include_usage=include_usage).write_all(events)


def open_stream(*, created: int, include_usage: bool) -> StreamWriter:
    """Return a writer of one streamed response; the arguments are those of `encode_stream`."""
    return StreamWriter(_ChunkWriter(created, include_usage=include_usage), bytes, encode_stream_error)


class _ChunkWriter(EventWriter[bytes]):
    """State of one streamed response. All chunks start with the same bytes, so those are encoded once."""

    def __init__(self, created: int, *, include_usage: bool) -> None:
        super().__init__()
        self._created = created
        self._include_usage = include_usage
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._head = b""
        self._usage: Usage | None = None
        self._calls: dict[int, ToolCallStarted] = {}
        self._has_arguments: set[int] = set()
        self._has_refusal = False

    def start(self, event: ResponseStarted) -> list[bytes]:
        head = {
            "id": event.response_id or "",
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": event.model or "",
            "system_fingerprint": None,
        }
        self._head = b"data: " + msgspec.json.encode(head)[:-1] + b',"choices":['
        return [self._chunk({"role": "assistant", "content": "", "refusal": None})]

    def _chunk(self, delta: JSON, *, logprobs: JSON | None = None, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return b"%b%b]%b" % (self._head, msgspec.json.encode(choice), self._tail)

    def add_text(self, event: TextDelta) -> list[bytes]:
        logprobs = {"content": logprob_fields(event.logprobs), "refusal": None} if event.logprobs else None
        return [self._chunk({"content": event.text}, logprobs=logprobs)]

    def add_reasoning(self, event: ReasoningDelta) -> list[bytes]:
        return [self._chunk({"reasoning_content": event.text})]

    def add_refusal(self, event: RefusalDelta) -> list[bytes]:
        self._has_refusal = True
        logprobs = {"content": None, "refusal": logprob_fields(event.logprobs)} if event.logprobs else None
        return [self._chunk({"refusal": event.text}, logprobs=logprobs)]

    def start_call(self, event: ToolCallStarted) -> list[bytes]:
        self._calls[event.index] = event
        call = {"index": event.index, **call_fields(event.id, event.name, "", custom=event.custom)}
        return [self._chunk({"tool_calls": [call]})]

    def add_arguments(self, event: ToolCallDelta) -> list[bytes]:
        self._has_arguments.add(event.index)
        started = self._calls.get(event.index)
        is_custom = started is not None and started.custom
        inner = {"custom": {"input": event.arguments}} if is_custom else {"function": {"arguments": event.arguments}}
        return [self._chunk({"tool_calls": [{"index": event.index, **inner}]})]

    def finish_call(self, event: ToolCallFinished) -> list[bytes]:
        """Write what no `ToolCallDelta` delivered: a response that was not streamed has complete calls only."""
        frames = []
        if event.index not in self._calls:
            frames += self.start_call(ToolCallStarted(event.index, event.id, event.name, event.custom))
        if event.arguments_text and event.index not in self._has_arguments:
            frames += self.add_arguments(ToolCallDelta(event.index, event.arguments_text))
        return frames

    def add_citation(self, event: Citation) -> list[bytes]:
        return [self._chunk({"annotations": [_annotation(event)]})] if event.url else []

    def add_media(self, event: MediaDelta) -> list[bytes]:
        if not event.media_type.startswith("audio/"):
            url = event.url or f"data:{event.media_type};base64,{event.data}"
            return [self._chunk({"images": [image_piece(url)]})]
        audio = {"id": event.id, "data": event.data or None, "transcript": event.transcript}
        return [self._chunk({"audio": {name: value for name, value in audio.items() if value is not None}})]

    def add_opaque(self, event: ProviderPart) -> list[bytes]:
        if event.kind == _SIGNATURE and isinstance(event.data, str):
            extra = signature_field(event.data)
            if not self._calls:
                return [self._chunk(extra)]
            # A signature follows the call that it belongs to, before the next call starts. Clients expect a `function`
            # in each piece of a call (openai 3.54, langchain-openai 1.7).
            return [self._chunk({"tool_calls": [{"index": max(self._calls), "function": {"arguments": ""}, **extra}]})]
        return [self._chunk({event.kind: event.data})] if event.kind in _OPAQUE_FIELDS else []

    def keep_usage(self, event: UsageReported) -> list[bytes]:
        self._usage = event.usage
        return []

    def finish(self, event: ResponseFinished) -> list[bytes]:
        reason = _reason(event.finish_reason, event.raw_finish_reason, has_refusal=self._has_refusal)
        frames = [self._chunk({}, reason=reason)]
        if self._include_usage and self._usage is not None:
            usage_chunk = msgspec.json.encode({**_tier(self._usage), "usage": usage_fields(self._usage)})
            frames.append(b"%b],%b\n\n" % (self._head, usage_chunk[1:]))
        return [*frames, _DONE]

    HANDLED: ClassVar[EventHandlers] = {
        ResponseStarted: start,
        TextDelta: add_text,
        ReasoningDelta: add_reasoning,
        RefusalDelta: add_refusal,
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
        has_refusal = bool(response.content.refusal)
        reason = _reason(finished.finish_reason, finished.raw_finish_reason, has_refusal=has_refusal)
    message = _message(response.content)
    annotations = [_annotation(citation) for citation in response.citations if citation.url]
    body: JSON = {
        "id": response.response_id or "",
        "object": "chat.completion",
        "created": created,
        "model": response.model_external or "",
        "choices": [
            {
                "index": 0,
                "message": {**message, "annotations": annotations},
                "logprobs": _message_logprobs(response.content),
                "finish_reason": reason,
            }
        ],
    }
    if response.usage is not None:
        body |= {**_tier(response.usage), "usage": usage_fields(response.usage)}
    return msgspec.json.encode({**body, "system_fingerprint": None})


def _message(content: Message) -> JSON:
    audio = [part for part in content.parts if isinstance(part, AudioPart)]
    images = [part.media for part in content.parts if isinstance(part, ImagePart)]
    optional: JSON = {
        "reasoning_content": content.thinking,
        "tool_calls": _calls(content),
        "images": [image_piece(media.url or media.data_url()) for media in images],
        "audio": _join_audio(audio) if audio else None,
        **_opaque(content),
    }
    message: JSON = {"role": "assistant", "content": content.completion or None, "refusal": content.refusal or None}
    return {**message, **{name: value for name, value in optional.items() if value}}


def _calls(content: Message) -> list[JSON]:
    """Return the tool calls, each with the signature that follows it."""
    calls: list[JSON] = []
    for part in content.parts:
        if isinstance(part, ToolCallPart):
            calls.append(call_fields(part.id, part.name, part.arguments_text, custom=part.custom))
        elif isinstance(part, ProviderDataPart) and part.kind == _SIGNATURE and isinstance(part.data, str) and calls:
            calls[-1] |= signature_field(part.data)
    return calls


def _join_audio(parts: list[AudioPart]) -> JSON:
    media = Media(data=b"".join(part.media.data or b"" for part in parts))
    return {
        "id": parts[0].media.file_id,
        "expires_at": 0,
        "data": media.base64(),
        "transcript": "".join(part.transcript or "" for part in parts),
    }


def _opaque(content: Message) -> JSON:
    fields: JSON = {}
    for part in content.parts:
        if isinstance(part, ProviderDataPart) and part.kind in _OPAQUE_FIELDS:
            fields[part.kind] = [*fields.get(part.kind, ()), *part.data]
    return fields


def _message_logprobs(content: Message) -> JSON | None:
    tokens = [token for part in content.parts if isinstance(part, TextPart) for token in part.logprobs]
    return {"content": logprob_fields(tuple(tokens)), "refusal": None} if tokens else None


def _annotation(citation: Citation) -> JSON:
    if citation.raw is not None and isinstance(citation.raw.get("url_citation"), dict):
        return citation.raw
    fields = {"start_index": citation.start, "end_index": citation.end, "title": citation.title, "url": citation.url}
    return {
        "type": "url_citation",
        "url_citation": {name: value for name, value in fields.items() if value is not None},
    }


def _tier(usage: Usage) -> JSON:
    return {} if usage.service_tier is None else {"service_tier": usage.service_tier}


def _reason(reason: FinishReason, raw: str | None, *, has_refusal: bool) -> str:
    if raw is not None:
        return raw
    return "stop" if has_refusal and reason == "refusal" else _FINISH_REASONS[reason]


ENCODER = Encoder(
    name="openai-chat",
    parse_request=parse_request,
    encode_stream=encode_stream,
    encode_response=encode_response,
    encode_error=encode_error,
    encode_stream_error=encode_stream_error,
    open_stream=open_stream,
    # With and without the version, because clients configure base URLs in both forms.
    routes=(Endpoint(r"(/v1)?/chat/completions"),),
    id_prefix="chatcmpl-",
)
