"""Encode responses of Anthropic's Messages: the inverse of the adapter of the same name.

https://platform.claude.com/docs/en/build-with-claude/streaming

Decoding an encoded response gives the same events, except for what this API cannot express:

- The response id, the model and the ids of tool calls are required strings: a missing one is decoded as None, or as an
  id of the decoder.
- Usage is in the first and in the last event: reports in between are lost. A response without usage has zeros, because
  clients require numbers.
- A refusal is text; the input of a custom tool is the field `input` of an object. A call that has no end is ended
  together with the response.
- Citations are decoded at the end of their text block, each with the position of the whole block.
- `content_filter` becomes `refusal`. `error` becomes an error event, which ends the stream.
- Generated media, log probabilities, attempts, warnings, and opaque data of other kinds are left out.

A truncated response has no `ResponseFinished`, so it gets neither a stop reason nor an end mark: the encoder never
invents a terminal event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import msgspec

from lm_deluge.encoders.anthropic_messages.errors import encode_error, encode_stream_error
from lm_deluge.encoders.anthropic_messages.request import parse_request
from lm_deluge.encoders.encoder import Encoder, Endpoint, StreamWriter
from lm_deluge.encoders.event_writer import EventHandlers, EventWriter
from lm_deluge.errors import ServerError
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
from lm_deluge.usage import Usage

__all__ = ["ENCODER", "encode_response", "encode_stream", "write_events"]

JSON = dict[str, Any]

_FINISH_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
    "pause": "pause_turn",
}
_STOP_REASONS = {*_FINISH_REASONS.values(), "stop_sequence", "model_context_window_exceeded", "compaction"}


def encode_stream(events: Iterable[Event], *, created: int = 0, include_usage: bool = True) -> Iterator[bytes]:
    """Yield the frames of a streamed response, each as soon as the events that complete it are read.

    Usage is always reported; `include_usage` and `created` have no effect.
    """
    yield from map(_frame, write_events(events))


def _frame(event: JSON) -> bytes:
    if event["type"] == "error":
        return encode_stream_error(ServerError(event["error"]["message"]))
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event))


def open_stream(*, created: int, include_usage: bool) -> StreamWriter:
    """Return a writer of one streamed response; the arguments are those of `encode_stream`."""
    return StreamWriter(_Writer(), _frame, encode_stream_error)


def encode_response(events: Iterable[Event], *, created: int = 0) -> bytes:
    """Return the response as one JSON document; a truncated response has no stop reason."""
    message: JSON = {}
    for event in write_events(events):
        fold = _FOLDS.get(event["type"])
        if event["type"] == "message_start":
            message = event["message"]
        elif fold is not None:
            fold(message, event)
    for block in message.get("content", ()):  # only in a truncated response
        block.pop("partial_json", None)
    return msgspec.json.encode(message)


def write_events(events: Iterable[Event]) -> Iterator[JSON]:
    """Yield the API's events as JSON objects, before they are framed."""
    return _Writer().write_all(events)


class _Writer(EventWriter[JSON]):
    """State of one response."""

    def __init__(self) -> None:
        super().__init__()
        self._head: JSON | None = {"type": "message", "role": "assistant", "content": []}
        self._usage = _usage(Usage())
        self._container: Any = None
        self._block_type = ""  # type of the open block, or empty
        self._index = -1  # index of the last block
        self._citation_count = 0  # number of citations written in the open block
        self._calls: dict[int, int] = {}  # index of each open call -> index of its block
        self._started_calls: set[int] = set()  # calls whose block was started
        self._calls_with_input: set[int] = set()  # calls that have some input already
        self._custom_calls: set[int] = set()
        self._pending_head: JSON | None = None  # start of a call's block: the next event may add fields to it

    def write(self, event: Event) -> list[JSON]:
        """Return the events that `event` completes."""
        if type(event) in _LEAVING_HEAD_OPEN or _is_call_field(event):
            return list(super().write(event))
        return [*self._send_head(), *self._flush(), *super().write(event)]

    def start(self, event: ResponseStarted) -> Iterator[JSON]:
        """Keep the head of the message until the next event, which may be the usage that belongs into it."""
        self._head = {"id": event.response_id or "", **(self._head or {}), "model": event.model or ""}
        yield from ()

    def _send_head(self) -> Iterator[JSON]:
        if self._head is not None:
            head = {"id": "", "model": "", **self._head, "stop_reason": None, "stop_sequence": None}
            self._head = None
            yield {"type": "message_start", "message": {**head, "usage": self._usage}}

    def _flush(self) -> Iterator[JSON]:
        if self._pending_head is not None:
            head, self._pending_head = self._pending_head, None
            yield head

    def _open(self, kind: str, block: JSON) -> Iterator[JSON]:
        yield from self._close()
        self._block_type = kind
        self._index += 1
        self._citation_count = 0
        yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _close(self) -> Iterator[JSON]:
        if self._block_type:
            self._block_type = ""
            yield _stop(self._index)

    def _delta(self, kind: str, name: str, value: Any) -> JSON:
        return {"type": "content_block_delta", "index": self._index, "delta": {"type": kind, name: value}}

    def add_text(self, event: TextDelta | RefusalDelta) -> Iterator[JSON]:
        """Write text into the open text block."""
        if event.text:
            yield from self._open_text()
            yield self._delta("text_delta", "text", event.text)

    def _open_text(self) -> Iterator[JSON]:
        if self._block_type != "text":
            yield from self._open("text", {"type": "text", "text": ""})

    def add_reasoning(self, event: ReasoningDelta) -> Iterator[JSON]:
        """Write reasoning into the open thinking block."""
        if self._block_type != "thinking":
            yield from self._open("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        yield self._delta("thinking_delta", "thinking", event.text)

    def add_citation(self, event: Citation) -> Iterator[JSON]:
        """Write a citation into the open text block."""
        citation = _citation(event)
        if citation is not None:
            yield from self._open_text()
            self._citation_count += 1
            yield self._delta("citations_delta", "citation", citation)

    def start_call(self, event: ToolCallStarted) -> Iterator[JSON]:
        """Start the block of a call. Several of these blocks can be open, because fragments of calls may interleave."""
        yield from self._close()
        self._index += 1
        self._calls[event.index] = self._index
        self._started_calls.add(event.index)
        if event.custom:
            self._custom_calls.add(event.index)
        block = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
        self._pending_head = {"type": "content_block_start", "index": self._index, "content_block": block}

    def add_arguments(self, event: ToolCallDelta) -> Iterator[JSON]:
        """Write a fragment of a call's input; free text is quoted as a whole by `finish_call`."""
        index = self._calls.get(event.index)
        if index is not None and event.index not in self._custom_calls:
            self._calls_with_input.add(event.index)
            yield _input(index, event.arguments)

    def finish_call(self, event: ToolCallFinished) -> Iterator[JSON]:
        """End a call; first write its input if no `ToolCallDelta` did: a response that was not streamed has none."""
        if event.index not in self._started_calls:
            yield from self.start_call(ToolCallStarted(event.index, event.id, event.name, event.custom))
            yield from self._flush()
        index = self._calls.pop(event.index, None)
        if index is None:
            return
        if event.custom:
            yield _input(index, msgspec.json.encode({"input": event.arguments_text}).decode())
        elif event.arguments_text and event.index not in self._calls_with_input:
            yield _input(index, event.arguments_text)
        yield _stop(index)

    def add_opaque(self, event: ProviderPart) -> Iterator[JSON]:
        """Write opaque data of this API at its original position."""
        write = _OPAQUE.get(event.kind)
        return iter(()) if write is None else write(self, event.data)

    def add_signature(self, data: Any) -> Iterator[JSON]:
        """Sign and end a thinking block; a signature without visible reasoning gets an empty block."""
        if self._block_type != "thinking":
            yield from self._open("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        yield self._delta("signature_delta", "signature", data)
        yield from self._close()

    def add_citations(self, data: Any) -> Iterator[JSON]:
        """End a text block, with its citations if they are not written yet."""
        if data and not self._citation_count:
            yield from self._open_text()
            for citation in data:
                yield self._delta("citations_delta", "citation", citation)
        if self._block_type == "text":
            yield from self._close()

    def add_block(self, data: Any) -> Iterator[JSON]:
        """Write a whole block; the input of a tool is sent as a delta, because clients expect it there."""
        tool_input = data.get("input")
        yield from self._open("block", {**data, "input": {}} if tool_input else data)
        if tool_input:
            yield _input(self._index, msgspec.json.encode(tool_input).decode())
        yield from self._close()

    def add_call_fields(self, data: Any) -> Iterator[JSON]:
        """Add fields to the start of the call's block, which is not sent yet."""
        if self._pending_head is not None:
            self._pending_head["content_block"] |= data
        yield from ()

    def keep_container(self, data: Any) -> Iterator[JSON]:
        """Keep the container for `message_delta`."""
        self._container = data
        yield from ()

    def keep_usage(self, event: UsageReported) -> Iterator[JSON]:
        """Keep the usage for `message_delta`; the first usage completes the head of the message."""
        self._usage = _usage(event.usage)
        yield from self._send_head()

    def finish(self, event: ResponseFinished) -> Iterator[JSON]:
        """End all open blocks and the message."""
        yield from self._close()
        for index in self._calls.values():
            yield _stop(index)
        if event.finish_reason == "error":
            message = f"the response ended with an error: {event.raw_finish_reason or 'error'}"
            yield {"type": "error", "error": {"type": "api_error", "message": message}}
            return
        raw = event.raw_finish_reason
        reason = raw if raw in _STOP_REASONS else _FINISH_REASONS[event.finish_reason]
        delta: JSON = {"stop_reason": reason, "stop_sequence": None}
        if event.finish_details is not None:
            delta["stop_details"] = event.finish_details
        if self._container is not None:
            delta["container"] = self._container
        yield {"type": "message_delta", "delta": delta, "usage": self._usage}
        yield {"type": "message_stop"}

    HANDLED: ClassVar[EventHandlers] = {
        ResponseStarted: start,
        TextDelta: add_text,
        RefusalDelta: add_text,
        ReasoningDelta: add_reasoning,
        Citation: add_citation,
        ToolCallStarted: start_call,
        ToolCallDelta: add_arguments,
        ToolCallFinished: finish_call,
        ProviderPart: add_opaque,
        UsageReported: keep_usage,
        ResponseFinished: finish,
    }
    IGNORED = frozenset(
        {
            MediaDelta,  # Claude generates no media
            Attempt,  # a retry of this library; no wire API reports one
        }
    )


# These events send neither the head of the message nor that of a call: the events after them may add fields to it.
_LEAVING_HEAD_OPEN = _Writer.IGNORED | {ResponseStarted, UsageReported}


def _is_call_field(event: Event) -> bool:
    return isinstance(event, ProviderPart) and event.kind == "tool_use"


_OPAQUE: dict[str, Callable[[_Writer, Any], Iterator[JSON]]] = {
    "signature": _Writer.add_signature,
    "citations": _Writer.add_citations,
    "block": _Writer.add_block,
    "tool_use": _Writer.add_call_fields,
    "container": _Writer.keep_container,
}


def _stop(index: int) -> JSON:
    return {"type": "content_block_stop", "index": index}


def _input(index: int, text: str) -> JSON:
    delta = {"type": "input_json_delta", "partial_json": text}
    return {"type": "content_block_delta", "index": index, "delta": delta}


def _citation(event: Citation) -> JSON | None:
    if event.raw is not None and "cited_text" in event.raw:
        return event.raw
    if event.url is None:
        return None
    found = {"type": "web_search_result_location", "cited_text": "", "url": event.url, "title": event.title}
    return {**found, "encrypted_index": ""}


def _usage(usage: Usage) -> JSON:
    read, written = usage.cache_read_tokens, usage.cache_write_tokens
    fields: JSON = {
        "input_tokens": max(usage.input_tokens - (read or 0) - (written or 0), 0),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": usage.output_tokens,
    }
    hour = usage.cache_write_1h_tokens
    if hour is not None:
        short = max((written or 0) - hour, 0)
        fields["cache_creation"] = {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": hour}
    if usage.service_tier is not None:
        fields["service_tier"] = usage.service_tier
    if usage.reasoning_tokens is not None:
        fields["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return fields


def _add_block(message: JSON, event: JSON) -> None:
    message["content"].append(dict(event["content_block"]))


def _add_delta(message: JSON, event: JSON) -> None:
    delta = event["delta"]
    block = message["content"][event["index"]]
    name = _FIELDS[delta["type"]]
    value = delta[name]
    if name == "citation":
        block.setdefault("citations", []).append(value)
    else:
        block[name] = block.get(name, "") + value


def _end_block(message: JSON, event: JSON) -> None:
    block = message["content"][event["index"]]
    text = block.pop("partial_json", None)
    if text is not None:
        block["input"] = _parse_input(text)


def _parse_input(text: str) -> Any:
    """Return the input of a call; invalid JSON becomes `INVALID_JSON`, the field name that Anthropic proposes."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {"INVALID_JSON": text}


def _end_message(message: JSON, event: JSON) -> None:
    message.update(event["delta"])
    message["usage"] = event["usage"]


_FIELDS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "citations_delta": "citation",
    "input_json_delta": "partial_json",
}

_FOLDS: dict[str, Callable[[JSON, JSON], None]] = {
    "content_block_start": _add_block,
    "content_block_delta": _add_delta,
    "content_block_stop": _end_block,
    "message_delta": _end_message,
}


ENCODER = Encoder(
    name="anthropic-messages",
    parse_request=parse_request,
    encode_stream=encode_stream,
    encode_response=encode_response,
    encode_error=encode_error,
    encode_stream_error=encode_stream_error,
    open_stream=open_stream,
    # With and without the version, because clients configure base URLs in both forms; then Vertex AI's paths.
    routes=(
        Endpoint(r"(/v1)?/messages"),
        Endpoint(r"(.*/publishers/anthropic)?/models/(?P<model>[^/]+):streamRawPredict", is_streamed=True),
        Endpoint(r"(.*/publishers/anthropic)?/models/(?P<model>[^/]+):rawPredict", is_streamed=False),
    ),
    id_prefix="msg_",
)
