"""Messages: blocks in any order, citations at the end of their text block, usage in the first and last event."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

from encoders.answers import counts, texts
from lm_deluge.events import (
    Citation,
    Event,
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

API = "anthropic-messages"
OWNER = "recording"  # the provider id that the tests decode responses under
REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "pause_turn": "pause",
    "compaction": "pause",
    "refusal": "refusal",
}

words = st.text(min_size=1, max_size=6)
values = st.integers(-9, 9) | st.text(max_size=4) | st.lists(st.booleans(), max_size=2)
inputs = st.dictionaries(words, values, min_size=1, max_size=3)
documents = st.fixed_dictionaries({"type": st.just("page_location"), "cited_text": words, "document_title": words})
pages = st.fixed_dictionaries(
    {"type": st.just("web_search_result_location"), "cited_text": words, "url": words, "title": words}
)
callers = st.fixed_dictionaries(
    {"caller": st.fixed_dictionaries({"type": st.just("code_execution"), "tool_id": words})}
)
blocks = st.one_of(
    st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": words}),
    st.fixed_dictionaries({"type": st.just("server_tool_use"), "id": words, "name": words, "input": inputs}),
    st.fixed_dictionaries({"type": st.just("web_search_tool_result"), "tool_use_id": words, "content": values}),
    st.fixed_dictionaries({"type": st.just("compaction"), "content": st.none() | words}),
    st.fixed_dictionaries({"type": st.just("not_known_yet"), "field": values}),
)


def opaque(kind: str, data: object) -> ProviderPart:
    return ProviderPart(OWNER, kind, data)


@st.composite
def thoughts(draw: st.DrawFn) -> list[Event]:
    shown: list[Event] = draw(st.lists(st.builds(ReasoningDelta, texts), max_size=3))
    return [*shown, opaque("signature", draw(words))]


@st.composite
def calls(draw: st.DrawFn, index: int) -> list[Event]:
    arguments = draw(st.just({}) | inputs)
    text = msgspec.json.encode(arguments).decode() if arguments else ""
    cut = draw(st.integers(0, len(text)))
    call_id, name = f"toolu_{index}", draw(st.sampled_from(["weather", "f"]))
    return [
        ToolCallStarted(index, call_id, name),
        *draw(st.just([]) | callers.map(lambda fields: [opaque("tool_use", fields)])),
        *(ToolCallDelta(index, piece) for piece in (text[:cut], text[cut:]) if piece),
        ToolCallFinished(index, call_id, name, text, arguments),
    ]


class _ContentWriter:
    """Draws content blocks; counts the characters of text for the ranges of citations."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self._length = 0
        self._is_open = False  # the last block is text without citations, so its end is not marked

    def block(self, kind: str, index: int) -> list[Event]:
        if kind == "text":
            return self.text()
        self._is_open = False
        drawn = {"thought": thoughts(), "call": calls(index), "block": blocks.map(lambda data: [opaque("block", data)])}
        return self._draw(drawn[kind])

    def text(self) -> list[Event]:
        begin = self._length
        events: list[Event] = [opaque("citations", [])] if self._is_open else []
        events += self._draw(st.lists(st.builds(TextDelta, texts), min_size=1, max_size=3))
        self._length += sum(len(event.text) for event in events if isinstance(event, TextDelta))
        sources = self._draw(st.lists(documents | pages, max_size=2))
        for raw in sources:
            title = raw.get("title") or raw.get("document_title")
            events.append(Citation(raw.get("url"), title, begin, self._length, raw))
        if sources:
            events.append(opaque("citations", sources))
        self._is_open = not sources
        return events


@st.composite
def usages(draw: st.DrawFn) -> tuple[Usage, Usage]:
    """Draw the first and the last usage; only the last has reasoning tokens."""
    read, written = draw(st.none() | counts), draw(st.none() | counts)
    total = draw(counts) + (read or 0) + (written or 0)
    head = Usage(input_tokens=total, output_tokens=draw(counts), cache_read_tokens=read, cache_write_tokens=written)
    end = msgspec.structs.replace(head, output_tokens=draw(counts), reasoning_tokens=draw(st.none() | counts))
    return head, end


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    writer = _ContentWriter(draw)
    kinds = draw(st.lists(st.sampled_from(["text", "text", "thought", "call", "block"]), max_size=6))
    content: list[Event] = []
    called = 0
    for kind in kinds:
        content += writer.block(kind, called)
        called += kind == "call"
    head, end = draw(usages())
    raw = draw(st.sampled_from(sorted(REASONS)))
    reason = "tool_calls" if called and REASONS[raw] == "stop" else REASONS[raw]
    return [
        draw(st.builds(ResponseStarted, texts, texts)),
        UsageReported(head),
        *content,
        UsageReported(end),
        *draw(st.just([]) | words.map(lambda name: [opaque("container", {"id": name})])),
        ResponseFinished(reason, raw),
    ]


ANSWERS = answers()
