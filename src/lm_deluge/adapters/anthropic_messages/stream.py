"""Convert the events of Anthropic's Messages, from SSE, Amazon's event stream or one JSON document.

https://platform.claude.com/docs/en/build-with-claude/streaming

A response is a list of blocks. Data that the API wants back on the next turn, but that has no field in our parts,
becomes a `ProviderPart` right after the part that it belongs to:

- `signature`, after reasoning: the signature of the thinking block. If no reasoning precedes it, the block has no text.
- `citations`, after text: the raw citations of a text block. It also marks the end of the block, so an empty list
  stands between two adjacent text blocks.
- `tool_use`, after a tool call: the other fields of the block, such as `caller`.
- `block`, on its own: any other block, complete. Server tools and their results, redacted thinking, compaction
  summaries, and block types that this module does not know.
- `container`, at the end: the code execution container, which a continued turn uses again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

import msgspec

from lm_deluge.adapters.anthropic_messages.usage import read_usage
from lm_deluge.adapters.body_decoder import check_end
from lm_deluge.adapters.raw_usage import merge_usage
from lm_deluge.adapters.token_counts import add_usage
from lm_deluge.adapters.typed_payload import Handler, Handlers, TypedPayload
from lm_deluge.errors import ProtocolError
from lm_deluge.events import (
    Attempt,
    Citation,
    Event,
    FinishReason,
    ProviderPart,
    ReasoningDelta,
    TextDelta,
)
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError, TolerantDecoder, decode_json

__all__ = ["AnthropicPayload"]

JSON = dict[str, Any]


class _Message(msgspec.Struct, gc=False):
    type: str | None = None
    id: str | None = None
    model: str | None = None
    content: list[Any] | None = None
    stop_reason: str | None = None
    stop_details: JSON | None = None
    usage: JSON | None = None
    container: JSON | None = None


_MESSAGE = TolerantDecoder(_Message)


class _MessageStart(msgspec.Struct, gc=False):
    message: _Message | None = None


class _BlockStart(msgspec.Struct, gc=False):
    index: int | None = None
    content_block: JSON | None = None


class _Delta(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    signature: str | None = None
    citation: JSON | None = None
    content: str | None = None
    encrypted_content: str | None = None


class _BlockDelta(msgspec.Struct, gc=False):
    index: int | None = None
    delta: _Delta | None = None


class _BlockStop(msgspec.Struct, gc=False):
    index: int | None = None


class _FinalDelta(msgspec.Struct, gc=False):
    stop_reason: str | None = None
    stop_details: JSON | None = None
    container: JSON | None = None


class _MessageDelta(msgspec.Struct, gc=False):
    delta: _FinalDelta | None = None
    usage: JSON | None = None


class _NoFields(msgspec.Struct, gc=False):
    pass


class _Block:
    """An unfinished block."""

    __slots__ = ("begin", "citations", "data", "key", "kind", "pieces", "signature", "summary")

    def __init__(self, key: int, kind: str, data: JSON, begin: int) -> None:
        self.key = key
        self.kind = kind
        self.data = data
        self.begin = begin  # offset in characters of the response's text
        self.pieces: list[str] = []
        self.signature = ""
        self.citations: list[JSON] = []
        self.summary: dict[str, list[str]] = {}  # pieces of the fields of a compaction summary


_BlockMethod: TypeAlias = Callable[[Any, _Block, list[Event]], None]
_DeltaMethod: TypeAlias = Callable[[Any, int, _Delta, list[Event]], None]


class AnthropicPayload(TypedPayload):
    """The state machine of one response.

    Args:
        provider: Owner of the opaque data: the call's `provider.opaque_owner`.
        model: The model's id in our registry.
    """

    finish_reasons: ClassVar[Mapping[str, FinishReason]] = {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "max_tokens": "length",
        "model_context_window_exceeded": "length",
        "tool_use": "tool_calls",
        "pause_turn": "pause",
        "compaction": "pause",  # only if the request sets `pause_after_compaction`
        "refusal": "refusal",
    }

    def __init__(self, provider: str, model: str = "") -> None:
        super().__init__(provider)
        self._model = model
        self._attempts = 0
        self._usage: JSON = {}
        self._container: JSON | None = None
        self._blocks: dict[int, _Block] = {}
        self._last_key = -1
        self._length = 0  # of the text so far, in characters
        self._is_after_text = False  # the last block is a text without citations: its end is not marked yet

    def _find(self, frame: ServerSentEvent) -> Handler | None:
        """Find a complete message by its `type`: as the SSE event name, `message` is only the default."""
        found = super()._find(frame)
        if found is not None or b'"message"' not in frame.data:
            return found
        try:
            message = _MESSAGE.decode(frame.data)
        except NotJSONError:
            return None
        is_whole = message is not None and message.type == "message"
        return (_MESSAGE, AnthropicPayload.on_message) if is_whole else None

    def on_ping(self, value: _NoFields, events: list[Event]) -> None:
        """Ignore a keep-alive."""

    def on_message_start(self, value: _MessageStart, events: list[Event]) -> None:
        """Handle `message_start`, whose message may already be complete."""
        message = value.message
        if message is None:
            self.ignored += 1
        elif self.is_complete:
            self.finish(events)
        else:
            self._start_message(message, events)

    def on_message(self, message: _Message, events: list[Event]) -> None:
        """Handle a complete message."""
        if not self.is_complete:
            self._start_message(message, events)
            if self.reason is not None:
                self.end(events)

    def _start_message(self, message: _Message, events: list[Event]) -> None:
        self.start(events, message.id, message.model)
        if self._last_key >= 0:
            self._restart(events)
        self._attempts = max(self._attempts, 1)
        for position, block in enumerate(self.objects_of(message.content or [])):
            self._open(position, block, events)
            self._close(position, events)
        self._container = message.container or self._container
        self._add_usage(message.usage, events)
        self.reason = message.stop_reason or None
        self.details = message.stop_details

    def _restart(self, events: list[Event]) -> None:
        """Discard the message so far: a proxy that lost its upstream sent the request again (seen 2026)."""
        self.calls.restart(events)
        self._attempts += 1
        self._blocks, self._last_key, self._length, self._is_after_text = {}, -1, 0, False
        self._usage, self._container = {}, None
        if "restarted" not in self.warnings:
            self.warnings.append("restarted")
        message = "the response restarted in mid-stream"
        events.append(Attempt(self._attempts, "StreamInterruptedError", message, 0.0, self._model))

    def on_block_start(self, value: _BlockStart, events: list[Event]) -> None:
        """Handle `content_block_start`."""
        if value.content_block is None:
            self.ignored += 1
            return
        self.start(events)
        self._open(self._last_key + 1 if value.index is None else value.index, value.content_block, events)

    def on_block_delta(self, value: _BlockDelta, events: list[Event]) -> None:
        """Handle `content_block_delta`."""
        delta = value.delta
        add = None if delta is None else self._deltas.get(delta.type or "")
        if delta is None or add is None:
            self.ignored += 1
            return
        self.start(events)
        add(self, self._last_key if value.index is None else value.index, delta, events)

    def on_block_stop(self, value: _BlockStop, events: list[Event]) -> None:
        """Handle `content_block_stop`."""
        self._close(self._last_key if value.index is None else value.index, events)

    def on_message_delta(self, value: _MessageDelta, events: list[Event]) -> None:
        """Handle `message_delta`: the stop reason and the final usage."""
        self.start(events)
        self._add_usage(value.usage, events)
        if value.delta is not None:
            self._container = value.delta.container or self._container
            self.reason = self.reason or value.delta.stop_reason or None
            self.details = self.details or value.delta.stop_details

    def on_message_stop(self, value: _NoFields, events: list[Event]) -> None:
        """Handle `message_stop`.

        Raises:
            ProtocolError: It is the first event.
            TruncatedError: The message has neither a stop reason nor usage.
        """
        if not self._is_started:
            raise ProtocolError("the stream has message_stop but no message before it", reason="order")
        check_end(self.reason, self._usage)
        self.end(events)

    def end(self, events: list[Event]) -> None:
        """Finish the response and its unfinished blocks."""
        self.start(events)
        for key in list(self._blocks):
            self._close(key, events)
        if self._container:
            events.append(ProviderPart(self.provider, "container", self._container))
        super().end(events)

    def _add_usage(self, raw: JSON | None, events: list[Event]) -> None:
        if raw:
            self._usage = merge_usage(self._usage, raw)
            add_usage(read_usage(self._usage), events)

    # Starts of blocks, by type.

    def _open(self, key: int, data: JSON, events: list[Event]) -> None:
        self._close(key, events)
        block = self._blocks[key] = _Block(key, self.text_of(data, "type"), data, self._length)
        self._last_key = key
        if block.kind == "text" and self._is_after_text:
            events.append(ProviderPart(self.provider, "citations", []))
        self._is_after_text = False
        begin = self._openers.get(block.kind)
        if begin is not None:
            begin(self, block, events)

    def _open_text(self, block: _Block, events: list[Event]) -> None:
        self._emit_text(self.text_of(block.data, "text"), events)
        block.citations += self.objects_of(self.list_of(block.data, "citations"))

    def _open_thinking(self, block: _Block, events: list[Event]) -> None:
        self._emit_reasoning(self.text_of(block.data, "thinking"), events)
        block.signature = self.text_of(block.data, "signature")

    def _open_tool_use(self, block: _Block, events: list[Event]) -> None:
        self.calls.start(events, block.key, self.text_of(block.data, "id"), self.text_of(block.data, "name"))
        others = {name: value for name, value in block.data.items() if name not in _CALL_FIELDS}
        if others and others != _CALLED_DIRECTLY:
            events.append(ProviderPart(self.provider, "tool_use", others))

    # Deltas of blocks, by type.

    def _emit_text(self, text: str | None, events: list[Event]) -> None:
        if text:
            self._length += len(text)
            events.append(TextDelta(text))

    def _emit_reasoning(self, text: str | None, events: list[Event]) -> None:
        if text:
            events.append(ReasoningDelta(text))

    def _add_text(self, key: int, delta: _Delta, events: list[Event]) -> None:
        self._emit_text(delta.text, events)

    def _add_thinking(self, key: int, delta: _Delta, events: list[Event]) -> None:
        self._emit_reasoning(delta.thinking, events)

    def _add_json(self, key: int, delta: _Delta, events: list[Event]) -> None:
        if self.calls.is_open(key):
            self.calls.add(events, key, delta.partial_json or "")
        elif key in self._blocks and delta.partial_json:
            self._blocks[key].pieces.append(delta.partial_json)

    def _set_signature(self, key: int, delta: _Delta, events: list[Event]) -> None:
        if key in self._blocks and delta.signature:
            self._blocks[key].signature = delta.signature

    def _add_citation(self, key: int, delta: _Delta, events: list[Event]) -> None:
        if key in self._blocks and delta.citation:
            self._blocks[key].citations.append(delta.citation)

    def _add_summary(self, key: int, delta: _Delta, events: list[Event]) -> None:
        if key in self._blocks:
            summary = self._blocks[key].summary
            for name in ("content", "encrypted_content"):
                piece = getattr(delta, name)
                if piece:
                    summary.setdefault(name, []).append(piece)

    # Ends of blocks, by type.

    def _close(self, key: int, events: list[Event]) -> None:
        block = self._blocks.pop(key, None)
        if block is not None:
            end = self._closers.get(block.kind)
            if end is None:
                self._close_other(block, events)
            else:
                end(self, block, events)

    def _close_text(self, block: _Block, events: list[Event]) -> None:
        events.extend(self._citation(raw, block.begin) for raw in block.citations)
        self._is_after_text = self._length > block.begin and not block.citations
        if block.citations:
            events.append(ProviderPart(self.provider, "citations", block.citations))

    def _close_thinking(self, block: _Block, events: list[Event]) -> None:
        if block.signature:
            events.append(ProviderPart(self.provider, "signature", block.signature))

    def _close_tool_use(self, block: _Block, events: list[Event]) -> None:
        arguments = block.data.get("input")
        if arguments and not self.calls.text(block.key):  # the start had the complete input, no delta followed
            self.calls.add(events, block.key, msgspec.json.encode(arguments).decode())
        self.calls.finish(events, block.key)

    def _close_other(self, block: _Block, events: list[Event]) -> None:
        data = dict(block.data)
        for name, pieces in block.summary.items():
            data[name] = self.text_of(data, name) + "".join(pieces)
        if block.pieces:
            try:
                data["input"] = decode_json("".join(block.pieces))
            except NotJSONError:
                self.warnings.append("damaged_block")  # the response ended inside the block
        events.append(ProviderPart(self.provider, "block", data))

    def _citation(self, raw: JSON, start: int) -> Citation:
        """Return the citation of a web page or of a document in the request; its range is the whole text block."""
        source = self.text_of(raw, "url") or self.text_of(raw, "source")
        title = self.text_of(raw, "title") or self.text_of(raw, "document_title")
        return Citation(source or None, title or None, start, self._length, raw)

    handlers: ClassVar[Handlers] = {
        "content_block_delta": (TolerantDecoder(_BlockDelta), on_block_delta),
        "content_block_start": (TolerantDecoder(_BlockStart), on_block_start),
        "content_block_stop": (TolerantDecoder(_BlockStop), on_block_stop),
        "message_start": (TolerantDecoder(_MessageStart), on_message_start),
        "message_delta": (TolerantDecoder(_MessageDelta), on_message_delta),
        "message_stop": (TolerantDecoder(_NoFields), on_message_stop),
        "ping": (TolerantDecoder(_NoFields), on_ping),
    }
    _openers: ClassVar[Mapping[str, _BlockMethod]] = {
        "text": _open_text,
        "thinking": _open_thinking,
        "tool_use": _open_tool_use,
    }
    _deltas: ClassVar[Mapping[str, _DeltaMethod]] = {
        "text_delta": _add_text,
        "thinking_delta": _add_thinking,
        "input_json_delta": _add_json,
        "signature_delta": _set_signature,
        "citations_delta": _add_citation,
        "compaction_delta": _add_summary,
    }
    _closers: ClassVar[Mapping[str, _BlockMethod]] = {
        "text": _close_text,
        "thinking": _close_thinking,
        "tool_use": _close_tool_use,
    }


_CALL_FIELDS = {"type", "id", "name", "input"}
_CALLED_DIRECTLY = {"caller": {"type": "direct"}}  # the default, so it need not be kept
