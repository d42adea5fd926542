"""Encode a response as events and blocks of Converse, which Nova's own API shares.

Decoding an encoded response gives the same events, except for what Converse cannot express:

- The start contains neither the id nor the model. Usage is reported once, after the stop reason and without reasoning
  tokens.
- A refusal is text. The finish reason `refusal` becomes `content_filtered`, and `pause` becomes `end_turn`.
- Citations keep their title and their URL; generated audio, and opaque data of other kinds, are left out.
- Calls whose fragments interleave are blocks that are open at the same time.

A truncated response has no `ResponseFinished`, so it gets no stop reason: the encoder never invents a terminal event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import msgspec

from lm_deluge.encoders.event_writer import EventHandlers, EventWriter
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
from lm_deluge.prompt.parts import (
    ImagePart,
    Part,
    ProviderDataPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
)
from lm_deluge.response import ResponseBuilder
from lm_deluge.usage import Usage

__all__ = ["REDACTED", "SERVER_TOOL", "SIGNATURE", "ConverseWriter", "build_answer"]

JSON = dict[str, Any]
Named = tuple[str, JSON]

SIGNATURE = "reasoning_signature"
REDACTED = "redacted_reasoning"
SERVER_TOOL = "server_tool"

_FINISH_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "content_filtered",
    "refusal": "content_filtered",
    "pause": "end_turn",
    "error": "malformed_model_output",
}
_STOP_REASONS = {
    *("end_turn", "tool_use", "max_tokens", "stop_sequence", "guardrail_intervened", "content_filtered"),
    *("malformed_model_output", "malformed_tool_use", "model_context_window_exceeded"),
}


class ConverseWriter(EventWriter[Named]):
    """State of one streamed response."""

    def __init__(self) -> None:
        super().__init__()
        self._block_count = 0  # also the index of the next block
        self._open: tuple[str, int] | None = None  # type and index of the open text or reasoning block
        self._calls: dict[
            int, tuple[int, bool]
        ] = {}  # index of the block of each open call, and whether it has arguments
        self._usage: Usage | None = None

    def start(self, event: ResponseStarted) -> list[Named]:
        """Open the message; the API has no field for the id and the model."""
        return [("messageStart", {"role": "assistant"})]

    def add_text(self, event: TextDelta | RefusalDelta) -> list[Named]:
        """Write a text delta."""
        return self._extend("text", {"text": event.text}) if event.text else []

    def add_reasoning(self, event: ReasoningDelta) -> list[Named]:
        """Write a reasoning delta."""
        return self._extend("reasoning", {"reasoningContent": {"text": event.text}})

    def add_citation(self, event: Citation) -> list[Named]:
        """Write a citation into the open text block."""
        return self._extend("text", {"citation": _citation(event)})

    def _extend(self, kind: str, delta: JSON) -> list[Named]:
        written: list[Named] = []
        if self._open is None or self._open[0] != kind:
            written = self._close()
            self._open = kind, self._next_index()
        return [*written, _delta(self._open[1], delta)]

    def _close(self) -> list[Named]:
        found, self._open = self._open, None
        return [] if found is None else [_stop(found[1])]

    def _next_index(self) -> int:
        self._block_count += 1
        return self._block_count - 1

    def _block(self, start: JSON | None, *deltas: JSON) -> list[Named]:
        """Write a whole block."""
        written = self._close()
        number = self._next_index()
        if start is not None:
            written.append(_start(number, start))
        return [*written, *(_delta(number, delta) for delta in deltas), _stop(number)]

    def start_call(self, event: ToolCallStarted) -> list[Named]:
        """Start the block of a call."""
        written = self._close()
        number = self._next_index()
        self._calls[event.index] = number, False
        return [*written, _start(number, {"toolUse": {"toolUseId": event.id, "name": event.name}})]

    def add_arguments(self, event: ToolCallDelta) -> list[Named]:
        """Write a fragment of arguments into the block of its call."""
        if event.index not in self._calls:
            return []
        number, _ = self._calls[event.index]
        self._calls[event.index] = number, True
        return [_delta(number, {"toolUse": {"input": event.arguments}})]

    def finish_call(self, event: ToolCallFinished) -> list[Named]:
        """Write what no `ToolCallDelta` delivered: a response that was not streamed has complete calls only."""
        written = []
        if event.index not in self._calls:
            written += self.start_call(ToolCallStarted(event.index, event.id, event.name))
        if event.arguments_text and not self._calls[event.index][1]:
            written += self.add_arguments(ToolCallDelta(event.index, event.arguments_text))
        return [*written, _stop(self._calls.pop(event.index)[0])]

    def add_media(self, event: MediaDelta) -> list[Named]:
        """Write an image as a block of its own."""
        if not event.media_type.startswith("image/"):
            return []
        source = {"bytes": event.data} if event.data else {"s3Location": {"uri": event.url or ""}}
        start = {"image": {"format": event.media_type.removeprefix("image/")}}
        return self._block(start, {"image": {"source": source}})

    def add_opaque(self, event: ProviderPart) -> list[Named]:
        """Write opaque data of this API as the block that it was decoded from."""
        if not _is_writable(event):
            return []
        if event.kind == SIGNATURE:
            return [*self._extend("reasoning", {"reasoningContent": {"signature": event.data}}), *self._close()]
        if event.kind == REDACTED:
            return self._block(None, {"reasoningContent": {"redactedContent": event.data}})
        ((name, fields),) = event.data.items()
        head = {key: value for key, value in fields.items() if key not in ("input", "content")}
        if name == "toolResult":
            return self._block({name: head}, {name: fields.get("content", [])})
        tool_input = fields.get("input")
        text = tool_input if isinstance(tool_input, str) else msgspec.json.encode(tool_input).decode()
        return self._block({name: head}, {name: {"input": text}})

    def keep_usage(self, event: UsageReported) -> list[Named]:
        """Keep the usage for the last event."""
        self._usage = event.usage
        return []

    def finish(self, event: ResponseFinished) -> list[Named]:
        """End the message; the usage follows the stop reason."""
        metadata: JSON = {"metrics": {"latencyMs": 0}}
        if self._usage is not None:
            metadata = {"usage": _usage(self._usage), **metadata}
        return [*self._close(), ("messageStop", {"stopReason": _reason(event)}), ("metadata", metadata)]

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


def _start(number: int, start: JSON) -> Named:
    return "contentBlockStart", {"start": start, "contentBlockIndex": number}


def _delta(number: int, delta: JSON) -> Named:
    return "contentBlockDelta", {"delta": delta, "contentBlockIndex": number}


def _stop(number: int) -> Named:
    return "contentBlockStop", {"contentBlockIndex": number}


def build_answer(events: Iterable[Event]) -> JSON:
    """Return the response as one JSON document; a truncated response has no stop reason."""
    builder = ResponseBuilder()
    builder.add_all(events)
    response = builder.response()
    blocks: list[JSON] = []
    for part in response.content.parts:
        build = _BLOCKS.get(type(part))
        if build is not None:
            build(blocks, part)
    if response.citations:
        _cite(blocks, [_citation(each) for each in response.citations])
    answer: JSON = {"output": {"message": {"role": "assistant", "content": blocks}}}
    if builder.finished is not None:
        answer["stopReason"] = _reason(builder.finished)
    if response.usage is not None:
        answer["usage"] = _usage(response.usage)
    return {**answer, "metrics": {"latencyMs": 0}}


def _add_text(blocks: list[JSON], part: Any) -> None:
    if part.text:
        blocks.append({"text": part.text})


def _add_reasoning(blocks: list[JSON], part: Any) -> None:
    blocks.append({"reasoningContent": {"reasoningText": {"text": part.text}}})


def _add_call(blocks: list[JSON], part: Any) -> None:
    tool_input = part.arguments_text if part.arguments_error or part.custom else part.arguments
    blocks.append({"toolUse": {"toolUseId": part.id, "name": part.name, "input": tool_input}})


def _add_image(blocks: list[JSON], part: Any) -> None:
    media = part.media
    source = {"bytes": media.base64()} if media.data else {"s3Location": {"uri": media.url or ""}}
    blocks.append({"image": {"format": (media.media_type or "").removeprefix("image/"), "source": source}})


def _is_writable(opaque: ProviderPart | ProviderDataPart) -> bool:
    """Whether the data are of this API: other providers have other kinds of opaque data."""
    data = opaque.data
    if opaque.kind == SERVER_TOOL:
        return isinstance(data, dict) and list(data) in (["toolUse"], ["toolResult"])
    return opaque.kind in (SIGNATURE, REDACTED) and isinstance(data, str)


def _add_opaque(blocks: list[JSON], part: Any) -> None:
    if not _is_writable(part):
        return
    if part.kind == REDACTED:
        blocks.append({"reasoningContent": {"redactedContent": part.data}})
    elif part.kind == SERVER_TOOL:
        blocks.append(part.data)
    else:
        last = blocks[-1].get("reasoningContent", {}).get("reasoningText") if blocks else None
        if last is None or "signature" in last:
            _add_reasoning(blocks, ReasoningPart(""))
        blocks[-1]["reasoningContent"]["reasoningText"]["signature"] = part.data


_BLOCKS: dict[type[Part], Callable[[list[JSON], Any], None]] = {
    TextPart: _add_text,
    RefusalPart: _add_text,
    ReasoningPart: _add_reasoning,
    ToolCallPart: _add_call,
    ImagePart: _add_image,
    ProviderDataPart: _add_opaque,
}


def _cite(blocks: list[JSON], citations: list[JSON]) -> None:
    """Attach the citations to the last text block."""
    for position in reversed(range(len(blocks))):
        if "text" in blocks[position]:
            blocks[position] = {"citationsContent": {"content": [blocks[position]], "citations": citations}}
            return
    blocks.append({"citationsContent": {"content": [], "citations": citations}})


def _citation(event: Citation) -> JSON:
    if event.raw is not None and ("location" in event.raw or "sourceContent" in event.raw):
        return event.raw
    fields = {"title": event.title, "location": {"web": {"url": event.url}} if event.url else None}
    return {name: value for name, value in fields.items() if value is not None}


def _usage(usage: Usage) -> JSON:
    cached = {"cacheReadInputTokens": usage.cache_read_tokens, "cacheWriteInputTokens": usage.cache_write_tokens}
    known = {name: count for name, count in cached.items() if count is not None}
    return {
        "inputTokens": max(usage.input_tokens - sum(known.values()), 0),
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.total_tokens,
        **known,
    }


def _reason(event: ResponseFinished) -> str:
    raw = event.raw_finish_reason
    return raw if raw in _STOP_REASONS else _FINISH_REASONS[event.finish_reason]
