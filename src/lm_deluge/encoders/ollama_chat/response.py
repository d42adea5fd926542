"""Encode responses of Ollama's own chat API: the inverse of the adapter `ollama-chat`.

https://docs.ollama.com/api/chat

Decoding an encoded response gives the same events, except for what this API cannot express:

- Response ids, details of usage, citations, audio, images by URL, attempts, warnings and opaque data are left out.
- A call is written whole when it is finished, its arguments as a JSON object; other arguments become its field `input`.
- A refusal is text. All finish reasons except `length` become `stop`, unless the event has a raw finish reason.
- In a response that is not streamed, reasoning, text, images and calls are separate fields: their order is lost.

A truncated response has no `ResponseFinished`, so it gets no line with `"done": true`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import msgspec

from lm_deluge.encoders.encoder import Encoder, Endpoint, StreamWriter
from lm_deluge.encoders.event_writer import EventHandlers, EventWriter
from lm_deluge.encoders.ollama_chat.load import read_chat_load, time_of
from lm_deluge.encoders.ollama_chat.request import parse_request
from lm_deluge.encoders.openai_chat.errors import usual_status
from lm_deluge.encoders.openai_chat.response_fields import logprob_fields
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
from lm_deluge.prompt.parts import ImagePart, TextPart, ToolCallPart
from lm_deluge.response import ResponseBuilder
from lm_deluge.usage import Usage

__all__ = ["ENCODER", "encode_error", "encode_response", "encode_stream", "encode_stream_error", "line_writer"]

JSON = dict[str, Any]

_FINISH_REASONS: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "stop",
    "content_filter": "stop",
    "refusal": "stop",
    "pause": "stop",
    "error": "stop",
}


def encode_stream(events: Iterable[Event], *, created: int = 0, include_usage: bool = True) -> Iterator[bytes]:
    """Yield the lines of a streamed response, each as soon as the events that complete it are read.

    Usage is always in the last line; `include_usage` has no effect.
    """
    return _LineWriter(created).write_all(events)


def open_stream(*, created: int, include_usage: bool) -> StreamWriter:
    """Return a writer of one streamed response; the arguments are those of `encode_stream`."""
    return StreamWriter(line_writer(created), bytes, encode_stream_error)


def line_writer(created: int) -> EventWriter[bytes]:
    """Return what writes the lines of one streamed response."""
    return _LineWriter(created)


class _LineWriter(EventWriter[bytes]):
    """State of one streamed response. All lines start with the same fields."""

    def __init__(self, created: int) -> None:
        super().__init__()
        self._head: JSON = {"model": "", "created_at": time_of(created)}
        self._usage: Usage | None = None
        self._open: dict[int, tuple[ToolCallStarted, list[str]]] = {}  # start and fragments of each unfinished call

    def start(self, event: ResponseStarted) -> list[bytes]:
        self._head["model"] = event.model or ""
        return []

    def _line(self, message: JSON, **more: Any) -> bytes:
        fields = {**self._head, "message": {"role": "assistant", **message}, "done": False, **more}
        return msgspec.json.encode(fields) + b"\n"

    def add_text(self, event: TextDelta | RefusalDelta) -> list[bytes]:
        more = {"logprobs": logprob_fields(event.logprobs)} if event.logprobs else {}
        return [self._line({"content": event.text}, **more)]

    def add_reasoning(self, event: ReasoningDelta) -> list[bytes]:
        return [self._line({"content": "", "thinking": event.text})]

    def add_media(self, event: MediaDelta) -> list[bytes]:
        is_image = event.data and not event.media_type.startswith("audio/")
        return [self._line({"content": "", "images": [event.data]})] if is_image else []

    def start_call(self, event: ToolCallStarted) -> list[bytes]:
        self._open[event.index] = (event, [])
        return []

    def add_arguments(self, event: ToolCallDelta) -> list[bytes]:
        if event.index in self._open:
            self._open[event.index][1].append(event.arguments)
        return []

    def finish_call(self, event: ToolCallFinished) -> list[bytes]:
        self._open.pop(event.index, None)
        return [self._line({"content": "", "tool_calls": [_call(event)]})]

    def keep_usage(self, event: UsageReported) -> list[bytes]:
        self._usage = event.usage
        return []

    def finish(self, event: ResponseFinished) -> list[bytes]:
        unfinished = [
            ToolCallPart(start.id, start.name, "".join(fragments)) for start, fragments in self._open.values()
        ]
        calls = [self._line({"content": "", "tool_calls": [_call(call)]}) for call in unfinished]
        return [*calls, self._line({"content": ""}, **_end(event, self._usage))]

    HANDLED: ClassVar[EventHandlers] = {
        ResponseStarted: start,
        TextDelta: add_text,
        ReasoningDelta: add_reasoning,
        RefusalDelta: add_text,
        MediaDelta: add_media,
        ToolCallStarted: start_call,
        ToolCallDelta: add_arguments,
        ToolCallFinished: finish_call,
        UsageReported: keep_usage,
        ResponseFinished: finish,
    }
    IGNORED = frozenset(
        {
            Citation,  # no field for sources
            ProviderPart,  # no field for opaque data
            Attempt,  # a retry of this library; no wire API reports one
        }
    )


def encode_response(events: Iterable[Event], *, created: int = 0) -> bytes:
    """Return the response as one JSON document; a truncated response is not `done`."""
    builder = ResponseBuilder()
    builder.add_all(events)
    response = builder.response()
    body: JSON = {
        "model": response.model_external or "",
        "created_at": time_of(created),
        "message": {"role": "assistant", **_message(response.content)},
        "done": False,
    }
    tokens = [token for part in response.content.parts if isinstance(part, TextPart) for token in part.logprobs]
    if tokens:
        body["logprobs"] = logprob_fields(tuple(tokens))
    if builder.finished is not None:
        body |= _end(builder.finished, response.usage)
    return msgspec.json.encode(body)


def _message(content: Message) -> JSON:
    images = [part.media.base64() for part in content.parts if isinstance(part, ImagePart) and part.media.data]
    optional: JSON = {
        "thinking": content.thinking,
        "images": images,
        "tool_calls": [_call(part) for part in content.tool_calls],
    }
    text = content.completion + content.refusal
    return {"content": text, **{name: value for name, value in optional.items() if value}}


def _call(call: Any) -> JSON:
    """Return the JSON of a `ToolCallFinished` or a `ToolCallPart`, which have the same fields."""
    arguments = call.arguments if isinstance(call.arguments, dict) else {"input": call.arguments_text}
    return {"id": call.id, "function": {"name": call.name, "arguments": arguments}}


def _end(finished: ResponseFinished, usage: Usage | None) -> JSON:
    end: JSON = {"done": True, "done_reason": finished.raw_finish_reason or _FINISH_REASONS[finished.finish_reason]}
    if usage is not None:
        end |= {"total_duration": 0, "load_duration": 0}
        end |= {"prompt_eval_count": usage.input_tokens, "prompt_eval_duration": 0}
        end |= {"eval_count": usage.output_tokens, "eval_duration": 0}
    return end


def encode_error(error: APIError) -> bytes:
    """Return the JSON body of an error response. The HTTP status is `error.status_code`, not a field of the body."""
    return msgspec.json.encode({"error": error.message})


def encode_stream_error(error: APIError) -> bytes:
    """Return the line that reports an error in a started stream. No line follows it.

    Ollama sends only a message. The added `status_code` lets the adapter decode the same error class.
    """
    fields = {"error": error.message, "status_code": usual_status(error)}
    return msgspec.json.encode(fields) + b"\n"


ENCODER = Encoder(
    name="ollama-chat",
    parse_request=parse_request,
    encode_stream=encode_stream,
    encode_response=encode_response,
    encode_error=encode_error,
    encode_stream_error=encode_stream_error,
    open_stream=open_stream,
    routes=(Endpoint(r"/api/chat"),),
    stream_type="application/x-ndjson",
    is_sse=False,
    read_load=read_chat_load,
)
