"""Convert the chunks of Bedrock's native API, each of which contains a frame of the model's own stream.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html

The first chunk shows the format of the stream, because the model's id may not contain the vendor.
"""

from __future__ import annotations

import binascii
import re
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

import msgspec

from lm_deluge.adapters.anthropic_messages.stream import AnthropicPayload
from lm_deluge.adapters.bedrock_converse.errors import maybe_document_error, stream_error
from lm_deluge.adapters.bedrock_converse.stream import ConversePayload
from lm_deluge.adapters.bedrock_converse.usage import read_metrics
from lm_deluge.adapters.bedrock_invoke.text_models import TextPayload
from lm_deluge.adapters.body_decoder import not_json
from lm_deluge.adapters.openai_chat.stream import ChatPayload
from lm_deluge.adapters.token_counts import add_usage
from lm_deluge.errors import DelugeError, ProtocolError
from lm_deluge.events import Event
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError, TolerantDecoder, decode_json

__all__ = ["InvokePayload"]

JSON = dict[str, Any]


class _Chunk(msgspec.Struct, gc=False):
    data: str | None = msgspec.field(default=None, name="bytes")


class _Bytes(msgspec.Struct, gc=False):
    data: bytes = msgspec.field(name="bytes")  # msgspec decodes base64


class _Shape(msgspec.Struct, gc=False):
    type: str | None = None
    object: str | None = None
    choices: list[Any] | None = None
    id: Any = None
    metrics: JSON | None = msgspec.field(default=None, name="amazon-bedrock-invocationMetrics")


_CHUNKS = TolerantDecoder(_Chunk)
_decode_bytes = msgspec.json.Decoder(_Bytes).decode
_SHAPES = TolerantDecoder(_Shape)

# Claude's events start with their type. An event with its type elsewhere is decoded in full.
_TYPE = re.compile(rb'\s*\{\s*"type"\s*:\s*"([a-z_]+)"')
_CONVERSE = re.compile(rb'\s*\{\s*"(messageStart|contentBlock(?:Start|Delta|Stop)|messageStop|metadata)"')
_METRICS = b"amazon-bedrock-invocationMetrics"


class _NativeChat(ChatPayload):
    """Chat Completions as Bedrock sends it: with its metrics, with Mistral's name of the finish reason, and no mark."""

    def handle(self, frame: ServerSentEvent, events: list[Event]) -> None:
        """Decode a chunk; finish a complete response with Bedrock's metrics, which are the last data."""
        data = frame.data
        super().handle(ServerSentEvent(_with_finish_reason(data)) if b'"stop_reason"' in data else frame, events)
        if _METRICS in data and self.is_complete and not self.is_finished:
            self._end_with_metrics(data, events)

    def _end_with_metrics(self, data: bytes, events: list[Event]) -> None:
        try:
            shape = _SHAPES.decode(data)
        except NotJSONError:  # the response is already complete, so the frame may be ignored
            return
        if shape is not None and shape.metrics is not None:
            if not self.has_usage:
                add_usage(read_metrics(shape.metrics), events)
            self.finish_document(events)


_Inner: TypeAlias = ConversePayload | TextPayload | AnthropicPayload | _NativeChat


class InvokePayload:
    """The state machine of one response: unwraps the chunks and passes them to the payload of the model's format."""

    def __init__(self, provider: str, model: str) -> None:
        self._provider = provider
        self._model = model
        self._inner: _Inner | None = None
        self._chat: _NativeChat | None = None  # the same payload, if it is of this class
        self._is_started = False
        self._ignored = 0
        self._skipped: list[Any] = []  # values of wrong types in chunks before the format is known

    @property
    def is_finished(self) -> bool:
        """Whether `ResponseFinished` was emitted."""
        return self._inner is not None and self._inner.is_finished

    @property
    def is_complete(self) -> bool:
        """Whether the terminal event was seen."""
        return self._inner is not None and self._inner.is_complete

    @property
    def failure(self) -> DelugeError | None:
        """The error that the provider reported, if its reason may still follow."""
        return None if self._inner is None else self._inner.failure

    @property
    def ignored(self) -> int:
        """The number of ignored frames."""
        return self._ignored + (0 if self._inner is None else self._inner.ignored)

    def handle_plain(self, payloads: list[bytes], events: list[Event]) -> None:
        """Handle the data of frames without a type."""
        for data in payloads:
            self.handle(ServerSentEvent(data), events)

    def handle(self, frame: ServerSentEvent, events: list[Event]) -> None:
        """Handle one frame."""
        if (
            self._chat is not None and frame.event == "chunk" and not self._skipped
        ):  # the fast path for nearly all frames
            try:
                data = _decode_bytes(frame.data).data
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
            else:
                self._chat.handle_plain([data], events)
                return
        if frame.event == "error":
            if not self.is_complete:
                raise stream_error(frame)
            self._ignored += 1
            return
        inner = self._unwrap(frame) if frame.event == "chunk" else None
        if inner is None:
            self._ignored += 1
        else:
            self._forward(inner, events)

    def maybe_handle_tail(self, frame: ServerSentEvent, events: list[Event]) -> None:
        """Ignore a truncated message."""

    def finish(self, events: list[Event]) -> None:
        """Finish a complete response. Bedrock never sends OpenAI's `[DONE]`, so its absence is no warning."""
        if isinstance(self._inner, ChatPayload):
            self._inner.finish_document(events)
        elif self._inner is not None:
            self._inner.finish(events)

    def read_document(self, body: bytes, events: list[Event]) -> None:
        """Handle a response that is not streamed.

        Raises:
            ProtocolError: The body is not a response of a known format.
            APIError: The body is an error document.
        """
        payload = self._inner = _payload_for_document(body, self._provider, self._model)
        if isinstance(payload, ConversePayload | TextPayload):
            payload.read_document(body, events)
            return
        if isinstance(payload, ChatPayload):
            payload.read_document(body, events)
            return
        payload.handle(ServerSentEvent(body), events)
        if not payload.is_complete:
            raise ProtocolError("the response is JSON, but not in a known model's format", reason="order", excerpt=body)

    def skip_value(self, value: Any) -> None:
        """Remember a value of a wrong type in the chunk around a frame; the frame itself counts as ignored."""
        self._skipped.append(value)

    def _unwrap(self, frame: ServerSentEvent) -> bytes | None:
        """Return the data in a chunk, or None if the chunk has none."""
        try:
            return _decode_bytes(frame.data).data
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        try:
            chunk = _CHUNKS.decode(frame.data, self)
            return a2b_base64(chunk.data) if chunk is not None and chunk.data is not None else None
        except (NotJSONError, binascii.Error, ValueError):
            if self.is_complete:
                return None
            raise not_json(frame) from None

    def _forward(self, data: bytes, events: list[Event]) -> None:
        if self._inner is None:
            self._inner = _payload_for_chunk(data, self._provider, self._model)
            self._chat = self._inner if isinstance(self._inner, _NativeChat) else None
        if self._skipped:
            self._report_skipped(self._inner)
        self._forwarders[type(self._inner)](self, self._inner, data, events)

    def _report_skipped(self, inner: _Inner) -> None:
        self._ignored -= len(self._skipped)
        for value in self._skipped:
            inner.skip_value(value)
        self._skipped = []

    def _forward_claude(self, inner: AnthropicPayload, data: bytes, events: list[Event]) -> None:
        kind = _TYPE.match(data)
        inner.handle(ServerSentEvent(data, kind[1].decode() if kind else ""), events)

    def _forward_nova(self, inner: ConversePayload, data: bytes, events: list[Event]) -> None:
        inner.handle_wrapped(data, events)

    def _forward_chat(self, inner: _NativeChat, data: bytes, events: list[Event]) -> None:
        inner.handle_plain([data], events)

    def _forward_text(self, inner: TextPayload, data: bytes, events: list[Event]) -> None:
        before = len(events)
        inner.handle(ServerSentEvent(data), events)
        if len(events) == before and not self._is_started:
            # A chunk without events does not show the format either.
            self._ignored, self._inner = self.ignored, None
        self._is_started = self._is_started or bool(events)

    _forwarders: ClassVar[Mapping[type, Callable[[Any, Any, bytes, list[Event]], None]]] = {
        AnthropicPayload: _forward_claude,
        ConversePayload: _forward_nova,
        _NativeChat: _forward_chat,
        TextPayload: _forward_text,
    }


def _with_finish_reason(data: bytes) -> bytes:
    """Return a chunk of Mistral with its `stop_reason` renamed to OpenAI's `finish_reason`.

    https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-mistral-chat-completion.html (2026-11)
    """
    if b'"finish_reason"' in data:
        return data
    try:
        chunk = decode_json(data)
        choices = [{**choice, "finish_reason": choice.get("stop_reason")} for choice in chunk["choices"]]
        return msgspec.json.encode({**chunk, "choices": choices})
    except (NotJSONError, AttributeError, KeyError, TypeError):
        return data


def _payload_for_chunk(data: bytes, provider: str, model: str) -> _Inner:
    """Return the payload for the stream that starts with this chunk."""
    if _CONVERSE.match(data):
        return ConversePayload(provider)
    try:
        shape = _SHAPES.decode(data)
    except NotJSONError:
        raise not_json(ServerSentEvent(data)) from None
    if shape is not None and shape.type is not None:
        return AnthropicPayload(provider, model)
    if shape is not None and _is_chat(shape):
        return _NativeChat(provider)
    return TextPayload(provider)


def _is_chat(shape: _Shape) -> bool:
    """Whether this is OpenAI's chat format, whose choices have `delta` or `message`, not `text`."""
    first = shape.choices[0] if shape.choices else None
    if isinstance(first, dict):
        return "delta" in first or "message" in first
    return shape.object is not None and shape.object.startswith("chat.completion")


class _DocumentShape(msgspec.Struct, gc=False):
    output: Any = None
    type: str | None = None
    object: str | None = None
    choices: list[Any] | None = None


_DOCUMENTS = TolerantDecoder(_DocumentShape)


def _payload_for_document(body: bytes, provider: str, model: str) -> _Inner:
    """Return the payload for a response that is not streamed.

    Raises:
        ProtocolError: The body is not a JSON object.
        APIError: The body is an error document.
    """
    try:
        shape = _DOCUMENTS.decode(body)
    except NotJSONError:
        raise not_json(ServerSentEvent(body)) from None
    if shape is not None and shape.type == "message":
        return AnthropicPayload(provider, model)
    if shape is not None and _is_chat(_Shape(object=shape.object, choices=shape.choices)):
        return _NativeChat(provider)
    if shape is not None and shape.output is not None:
        return ConversePayload(provider)
    failure = maybe_document_error(body)
    if failure is not None:
        raise failure
    return TextPayload(provider)
