"""Decode the JSON lines of Ollama's chat API."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from lm_deluge.adapters.body_decoder import check_end, in_band_error, not_json
from lm_deluge.adapters.payload_state import PayloadState
from lm_deluge.adapters.token_counts import add_usage, build_usage, read_count
from lm_deluge.adapters.tool_call_fragments import KeyedCalls
from lm_deluge.events import (
    Event,
    FinishReason,
    MediaDelta,
    ReasoningDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    TokenLogprob,
)
from lm_deluge.prompt.media import sniff_media_type
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError, TolerantDecoder

__all__ = ["OllamaPayload"]


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _ToolCall(msgspec.Struct, gc=False):
    id: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_ToolCall] | None = None
    images: list[str] | None = None


class _Line(msgspec.Struct, gc=False):
    model: str | None = None
    message: _Message | None = None
    logprobs: list[TokenLogprob] | None = None
    done: bool | None = None
    done_reason: str | None = None
    error: Any = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_duration: int | None = None
    eval_duration: int | None = None


_DECODER = TolerantDecoder(_Line)
_COUNTED = (
    "prompt_eval_count",
    "eval_count",
    "total_duration",
    "load_duration",
    "prompt_eval_duration",
    "eval_duration",
)

# `load` and `unload` answer a request without messages. `tool_calls` is of servers that imitate Ollama, which itself
# sends `stop` after tool calls.
_FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "load": "stop",
    "unload": "stop",
}


class OllamaPayload(PayloadState):
    """State machine for one stream of lines. The line with `done` is the terminal event."""

    def __init__(self) -> None:
        super().__init__()
        self._is_started = False
        self._calls = KeyedCalls()

    @property
    def is_complete(self) -> bool:
        """Whether the line with `done` was received."""
        return self.is_finished

    def handle_plain(self, payloads: list[bytes], events: list[Event]) -> None:
        """Decode lines, all from one read."""
        for data in payloads:
            self.handle(ServerSentEvent(data), events)

    def handle(self, frame: ServerSentEvent, events: list[Event]) -> None:
        """Decode one line; append its events."""
        if self.is_finished:
            self.ignored += 1
            return
        try:
            line = _DECODER.decode(frame.data, self)
        except NotJSONError:
            raise not_json(frame) from None
        if line is None:
            return
        if line.error:
            raise in_band_error(frame)
        self._add_line(line, events)

    def finish(self, events: list[Event]) -> None:
        """Do nothing: the line with `done` has closed the response."""

    def _add_line(self, line: _Line, events: list[Event]) -> None:
        message = line.message
        if message is None and not line.done:
            self.ignored += 1
            return
        if not self._is_started:
            self._is_started = True
            events.append(ResponseStarted(None, line.model or None))
        if message is not None:
            self._add_message(message, tuple(line.logprobs or ()), events)
        if line.done:
            self._end(line, events)

    def _add_message(self, message: _Message, tokens: tuple[TokenLogprob, ...], events: list[Event]) -> None:
        if message.thinking:
            events.append(ReasoningDelta(message.thinking))
        if message.content or tokens:
            events.append(TextDelta(message.content or "", tokens))
        events += [MediaDelta(_image_type(data), data) for data in message.images or ()]
        for call in message.tool_calls or ():
            self._add_call(call, events)

    def _add_call(self, call: _ToolCall, events: list[Event]) -> None:
        """Emit a tool call, which is always complete. Its index is ignored, because it may restart with each line."""
        function = call.function or _Function()
        arguments = function.arguments
        if arguments is not None and not isinstance(arguments, str):
            arguments = msgspec.json.encode(arguments).decode()
        self._calls.start(events, None, call.id or "", function.name or "")
        self._calls.add(events, None, arguments or "")
        self._calls.finish(events, None)

    def _end(self, line: _Line, events: list[Event]) -> None:
        counted = {name: getattr(line, name) for name in _COUNTED if getattr(line, name) is not None}
        check_end(line.done_reason, counted)  # Ollama before 2024-05 sends no reason
        self.is_finished = True
        if line.prompt_eval_count is not None or line.eval_count is not None:
            # Ollama omits counts of zero.
            counts = (read_count(count or 0) for count in (line.prompt_eval_count, line.eval_count))
            add_usage(build_usage(counted, *counts), events)
        warnings = []
        reason = _FINISH_REASONS.get(line.done_reason or "")
        if reason is None:
            warnings.append("unknown_finish_reason" if line.done_reason else "no_finish_reason")
        if reason in (None, "stop"):
            # Ollama has no finish reason for tool calls.
            reason = "tool_calls" if self._calls.has_calls else "stop"
        events.append(ResponseFinished(reason, line.done_reason or None, (*warnings, *self.type_warnings())))


def _image_type(data: str) -> str:
    try:
        return sniff_media_type(base64.b64decode(data[:64])) or "image/*"
    except (binascii.Error, ValueError):
        return "image/*"
