"""Hypothesis strategies for the events of responses that Converse can express."""

from __future__ import annotations

import base64
import json

from hypothesis import strategies as st

from encoders.answers import counts, texts
from lm_deluge.events import (
    Citation,
    Event,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.usage import Usage

WORDS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "malformed_model_output": "error",
    "malformed_tool_use": "error",
}

_base64 = st.binary(min_size=1, max_size=9).map(lambda data: base64.b64encode(data).decode())
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)
_objects = st.dictionaries(texts, _values, max_size=3)
text = st.lists(st.builds(TextDelta, texts), min_size=1, max_size=3)
citation = st.builds(lambda title, url: [Citation(url, title)], texts, st.just("https://example.org/1"))
images = st.builds(lambda data: [MediaDelta("image/png", data)], _base64) | st.just(
    [MediaDelta("image/jpeg", url="s3://bucket/image.jpeg")]
)


@st.composite
def call(draw: st.DrawFn) -> list[Event]:
    """The events of a call with the index 0, whose arguments are an object or empty."""
    value = draw(_objects)
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":")) if value else ""
    cut = draw(st.integers(0, len(written)))
    pieces = [piece for piece in (written[:cut], written[cut:]) if piece]
    name = draw(st.sampled_from(["weather", "search"]))
    return [
        ToolCallStarted(0, "id", name),
        *(ToolCallDelta(0, piece) for piece in pieces),
        ToolCallFinished(0, "id", name, written, value),
    ]


@st.composite
def reasoning(draw: st.DrawFn, owner: str) -> list[Event]:
    events: list[Event] = draw(st.lists(st.builds(ReasoningDelta, texts), max_size=2))
    signed = [ProviderPart(owner, "reasoning_signature", draw(texts))] if not events or draw(st.booleans()) else []
    return [*events, *signed]


@st.composite
def server_tools(draw: st.DrawFn, owner: str) -> list[Event]:
    fields = {"toolUseId": "tooluse_1", "name": "nova_code_interpreter", "type": "server_tool_use"}
    result = {"toolUseId": "tooluse_1", "status": "success", "content": draw(st.lists(_objects, max_size=2))}
    return [
        ProviderPart(owner, "server_tool", {"toolUse": {**fields, "input": draw(_objects)}}),
        ProviderPart(owner, "server_tool", {"toolResult": result}),
    ]


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    read, written = draw(st.none() | counts), draw(st.none() | counts)
    plain = draw(counts)
    return Usage(
        input_tokens=plain + (read or 0) + (written or 0),
        output_tokens=draw(counts),
        cache_read_tokens=read,
        cache_write_tokens=written,
    )


def numbered(events: list[Event]) -> list[Event]:
    """Number the calls in order of appearance."""
    number = -1
    found: list[Event] = []
    for event in events:
        number += isinstance(event, ToolCallStarted)
        if isinstance(event, ToolCallStarted):
            found.append(ToolCallStarted(number, f"id_{number}", event.name))
        elif isinstance(event, ToolCallDelta):
            found.append(ToolCallDelta(number, event.arguments))
        elif isinstance(event, ToolCallFinished):
            found.append(ToolCallFinished(number, f"id_{number}", event.name, event.arguments_text, event.arguments))
        else:
            found.append(event)
    return found


@st.composite
def converse_answers(draw: st.DrawFn, owner: str) -> list[Event]:
    redacted = st.builds(lambda data: [ProviderPart(owner, "redacted_reasoning", data)], _base64)
    kinds = [text, citation, reasoning(owner), redacted, call(), server_tools(owner), images]
    blocks = draw(st.lists(st.one_of(kinds), max_size=6))
    events = numbered([event for block in blocks for event in block])
    word = draw(st.sampled_from(sorted(WORDS)))
    reason = WORDS[word]
    if reason == "stop" and any(isinstance(event, ToolCallStarted) for event in events):
        reason = "tool_calls"
    usage = [UsageReported(usage) for usage in draw(st.lists(usages(), max_size=1))]
    return [ResponseStarted(), *events, *usage, ResponseFinished(reason, word)]
