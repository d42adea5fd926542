"""Events of Anthropic's Messages into ours, wherever they come from: by SSE, in Amazon's frames, or as one document.

https://platform.claude.com/docs/en/build-with-claude/streaming

An answer is a list of blocks. What the API wants back on the next turn, and our parts have no place for, is opaque data
right behind the part that it belongs to:

- `signature`, behind reasoning: the thought's signature. Without reasoning before it, of a thought that is not shown.
- `citations`, behind text: the sources of a block of text, as they came. It also ends the block, so it is empty between
  two blocks of text that would run together otherwise.
- `tool_use`, behind a call: its other fields, such as which code made the call.
- `block`, for itself: any other block, whole. Tools that the provider runs and their results, hidden thoughts,
  summaries in place of the conversation, and whatever is not known yet.
- `container`, at the end: where code ran, and runs on where the turn goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

import msgspec

from lm_deluge.adapters.anthropic_messages.usage import merge_usage, read_usage
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
    UsageReported,
)
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError, TolerantDecoder

__all__ = ["AnthropicPayload"]

JSON = dict[str, Any]


class _Message(msgspec.Struct, gc=False):
    type: str | None = None
    id: str | None = None
    model: str | None = None
    content: list[Any] | None = None
    stop_reason: str | None = None
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


class _LastDelta(msgspec.Struct, gc=False):
    stop_reason: str | None = None
    container: JSON | None = None


class _MessageDelta(msgspec.Struct, gc=False):
    delta: _LastDelta | None = None
    usage: JSON | None = None


class _Nothing(msgspec.Struct, gc=False):
    pass


class _Block:
    """A block whose end has not come."""

    __slots__ = ("begin", "citations", "data", "key", "kind", "pieces", "signature")

    def __init__(self, key: int, data: JSON, begin: int) -> None:
        self.key = key
        self.data = data
        self.kind = _text(data, "type")
        self.begin = begin  # in characters of the answer's text
        self.pieces: list[str] = []
        self.signature = _text(data, "signature")
        self.citations: list[JSON] = []


_BlockMethod: TypeAlias = Callable[[Any, _Block, list[Event]], None]
_DeltaMethod: TypeAlias = Callable[[Any, int, _Delta, list[Event]], None]


class AnthropicPayload(TypedPayload):
    """The state machine behind one answer.

    Args:
        provider: Whose opaque data this is: the call's `provider.opaque_owner`.
        model: Our name of the model.
    """

    finish_reasons: ClassVar[Mapping[str, FinishReason]] = {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "max_tokens": "length",
        "model_context_window_exceeded": "length",
        "tool_use": "tool_calls",
        "pause_turn": "pause",
        "compaction": "pause",  # asked for by `pause_after_compaction`
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
        self._length = 0  # of the text so far
        self._is_after_text = False  # a block of text ended, and no opaque data says so

    def _find(self, frame: ServerSentEvent) -> Handler | None:
        """Find a whole message by its type alone: as a name, `message` says only that it is an event."""
        found = super()._find(frame)
        if found is not None or b'"message"' not in frame.data:
            return found
        try:
            message = _MESSAGE.decode(frame.data)
        except NotJSONError:
            return None
        is_whole = message is not None and message.type == "message"
        return (_MESSAGE, AnthropicPayload.add_message) if is_whole else None

    def ping(self, value: _Nothing, events: list[Event]) -> None:
        """Take a sign of life."""

    def begin(self, value: _MessageStart, events: list[Event]) -> None:
        """Take the head of the answer, which may have all of it."""
        message = value.message
        if message is None:
            self.ignored += 1
        elif self.is_complete:
            self.finish(events)
        else:
            self._begin(message, events)

    def add_message(self, message: _Message, events: list[Event]) -> None:
        """Take a whole answer."""
        if not self.is_complete:
            self._begin(message, events)
            if self.reason is not None:
                self.end(events)

    def _begin(self, message: _Message, events: list[Event]) -> None:
        self.start(events, message.id, message.model)
        if self._last_key >= 0:
            self._begin_anew(events)
        self._attempts = max(self._attempts, 1)
        for position, block in enumerate(message.content or ()):
            if isinstance(block, dict):
                self._open(position, block, events)
                self._close(position, events)
        self._container = message.container or self._container
        self._add_usage(message.usage, events)
        self.reason = message.stop_reason or None

    def _begin_anew(self, events: list[Event]) -> None:
        """Give up what came: a proxy that lost its provider in mid-answer asked again (seen 2026)."""
        self.calls.restart(events)
        self._attempts += 1
        self._blocks, self._last_key, self._length, self._is_after_text = {}, -1, 0, False
        self._usage, self._container = {}, None
        if "restarted" not in self.warnings:
            self.warnings.append("restarted")
        message = "the answer began anew in mid-stream"
        events.append(Attempt(self._attempts, "StreamInterruptedError", message, 0.0, self._model))

    def begin_block(self, value: _BlockStart, events: list[Event]) -> None:
        """Take the head of a block."""
        if value.content_block is None:
            self.ignored += 1
            return
        self.start(events)
        self._open(self._last_key + 1 if value.index is None else value.index, value.content_block, events)

    def add_delta(self, value: _BlockDelta, events: list[Event]) -> None:
        """Take a piece of a block."""
        delta = value.delta
        add = None if delta is None else self._deltas.get(delta.type or "")
        if delta is None or add is None:
            self.ignored += 1
            return
        self.start(events)
        add(self, self._last_key if value.index is None else value.index, delta, events)

    def end_block(self, value: _BlockStop, events: list[Event]) -> None:
        """Take the end of a block."""
        self._close(self._last_key if value.index is None else value.index, events)

    def add_end(self, value: _MessageDelta, events: list[Event]) -> None:
        """Take why the answer ends, and what it took."""
        self.start(events)
        self._add_usage(value.usage, events)
        if value.delta is not None:
            self._container = value.delta.container or self._container
            self.reason = self.reason or value.delta.stop_reason or None

    def stop(self, value: _Nothing, events: list[Event]) -> None:
        """Take the last event."""
        if not self._is_started:
            raise ProtocolError("the stream has an end mark and nothing before it", reason="order")
        self.end(events)

    def end(self, events: list[Event]) -> None:
        """Close the answer and what is open in it."""
        self.start(events)
        for key in list(self._blocks):
            self._close(key, events)
        if self._container:
            events.append(ProviderPart(self.provider, "container", self._container))
        super().end(events)

    def _add_usage(self, raw: JSON | None, events: list[Event]) -> None:
        if raw:
            self._usage = merge_usage(self._usage, raw)
            events.append(UsageReported(read_usage(self._usage)))

    # What a block begins with, by kind.

    def _open(self, key: int, data: JSON, events: list[Event]) -> None:
        self._close(key, events)
        block = self._blocks[key] = _Block(key, data, self._length)
        self._last_key = key
        if block.kind == "text" and self._is_after_text:
            events.append(ProviderPart(self.provider, "citations", []))
        self._is_after_text = False
        begin = self._openers.get(block.kind)
        if begin is not None:
            begin(self, block, events)

    def _open_text(self, block: _Block, events: list[Event]) -> None:
        self._say(_text(block.data, "text"), events)
        citations = block.data.get("citations")
        if isinstance(citations, list):
            block.citations += [citation for citation in citations if isinstance(citation, dict)]

    def _open_thought(self, block: _Block, events: list[Event]) -> None:
        self._think(_text(block.data, "thinking"), events)

    def _open_call(self, block: _Block, events: list[Event]) -> None:
        self.calls.start(events, block.key, _text(block.data, "id"), _text(block.data, "name"))
        others = {name: value for name, value in block.data.items() if name not in _CALL_FIELDS}
        if others and others != _CALLED_DIRECTLY:
            events.append(ProviderPart(self.provider, "tool_use", others))

    # What goes on in it, by kind of delta.

    def _say(self, text: str | None, events: list[Event]) -> None:
        if text:
            self._length += len(text)
            events.append(TextDelta(text))

    def _think(self, text: str | None, events: list[Event]) -> None:
        if text:
            events.append(ReasoningDelta(text))

    def _add_text(self, key: int, delta: _Delta, events: list[Event]) -> None:
        self._say(delta.text, events)

    def _add_thought(self, key: int, delta: _Delta, events: list[Event]) -> None:
        self._think(delta.thinking, events)

    def _add_json(self, key: int, delta: _Delta, events: list[Event]) -> None:
        if self.calls.is_open(key):
            self.calls.add(events, key, delta.partial_json or "")
        elif key in self._blocks and delta.partial_json:
            self._blocks[key].pieces.append(delta.partial_json)

    def _sign(self, key: int, delta: _Delta, events: list[Event]) -> None:
        if key in self._blocks and delta.signature:
            self._blocks[key].signature = delta.signature

    def _cite(self, key: int, delta: _Delta, events: list[Event]) -> None:
        if key in self._blocks and delta.citation:
            self._blocks[key].citations.append(delta.citation)

    def _add_summary(self, key: int, delta: _Delta, events: list[Event]) -> None:
        if key in self._blocks:
            data = self._blocks[key].data
            for name in ("content", "encrypted_content"):
                piece = getattr(delta, name)
                if piece:
                    data[name] = _text(data, name) + piece

    # What it ends with, by kind.

    def _close(self, key: int, events: list[Event]) -> None:
        block = self._blocks.pop(key, None)
        if block is not None:
            end = self._closers.get(block.kind)
            if end is None:
                self._close_any(block, events)
            else:
                end(self, block, events)

    def _close_text(self, block: _Block, events: list[Event]) -> None:
        events.extend(_citation(raw, block.begin, self._length) for raw in block.citations)
        self._is_after_text = self._length > block.begin and not block.citations
        if block.citations:
            events.append(ProviderPart(self.provider, "citations", block.citations))

    def _close_thought(self, block: _Block, events: list[Event]) -> None:
        if block.signature:
            events.append(ProviderPart(self.provider, "signature", block.signature))

    def _close_call(self, block: _Block, events: list[Event]) -> None:
        given = block.data.get("input")
        if given and not self.calls.text(block.key):  # it came whole
            self.calls.add(events, block.key, msgspec.json.encode(given).decode())
        self.calls.finish(events, block.key)

    def _close_any(self, block: _Block, events: list[Event]) -> None:
        data = dict(block.data)
        if block.pieces:
            try:
                data["input"] = msgspec.json.decode("".join(block.pieces))
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                self.warnings.append("damaged_block")  # the answer was cut in it
        events.append(ProviderPart(self.provider, "block", data))

    handlers: ClassVar[Handlers] = {
        "content_block_delta": (TolerantDecoder(_BlockDelta), add_delta),
        "content_block_start": (TolerantDecoder(_BlockStart), begin_block),
        "content_block_stop": (TolerantDecoder(_BlockStop), end_block),
        "message_start": (TolerantDecoder(_MessageStart), begin),
        "message_delta": (TolerantDecoder(_MessageDelta), add_end),
        "message_stop": (TolerantDecoder(_Nothing), stop),
        "ping": (TolerantDecoder(_Nothing), ping),
    }
    _openers: ClassVar[Mapping[str, _BlockMethod]] = {
        "text": _open_text,
        "thinking": _open_thought,
        "tool_use": _open_call,
    }
    _deltas: ClassVar[Mapping[str, _DeltaMethod]] = {
        "text_delta": _add_text,
        "thinking_delta": _add_thought,
        "input_json_delta": _add_json,
        "signature_delta": _sign,
        "citations_delta": _cite,
        "compaction_delta": _add_summary,
    }
    _closers: ClassVar[Mapping[str, _BlockMethod]] = {
        "text": _close_text,
        "thinking": _close_thought,
        "tool_use": _close_call,
    }


_CALL_FIELDS = {"type", "id", "name", "input"}
_CALLED_DIRECTLY = {"caller": {"type": "direct"}}  # what holds where nothing is said


def _text(data: JSON, name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""


def _citation(raw: JSON, start: int, end: int) -> Citation:
    """Return the source, which is one of the web or a document of the request; its place is the block's text."""
    source = _text(raw, "url") or _text(raw, "source")
    title = _text(raw, "title") or _text(raw, "document_title")
    return Citation(source or None, title or None, start, end, raw)
