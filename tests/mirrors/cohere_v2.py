"""Cohere: text and thoughts in any order, with citations; then a tool plan and calls, one after another."""

from __future__ import annotations

from hypothesis import strategies as st

from encoders.answers import counts, reasoning, text_deltas, texts
from lm_deluge.adapters.tool_call_fragments import parse_arguments
from lm_deluge.events import (
    Citation,
    Event,
    ProviderPart,
    ResponseFinished,
    ResponseStarted,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.usage import Usage

API = "cohere-v2"

_sources = st.builds(
    Citation, st.none() | st.just("https://example.org/1"), st.none() | texts, st.none() | counts, st.none() | counts
)
_plans = st.builds(ProviderPart, st.just("recording"), st.just("tool_plan"), texts)
_usages = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    cache_read_tokens=st.none() | counts,
    reasoning_tokens=st.none() | counts,
)
_WORDS = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_TOXIC": "content_filter",
    "ERROR_LIMIT": "length",
}


@st.composite
def _calls(draw: st.DrawFn) -> list[Event]:
    events: list[Event] = []
    for index in range(draw(st.integers(0, 3))):
        call_id, name = f"search_{index}", draw(st.sampled_from(["weather", "search"]))
        fragments = draw(st.lists(texts, max_size=3) | st.just(['{"city": "Pa', 'ris"}']))
        text = "".join(fragments)
        events += [
            ToolCallStarted(index, call_id, name),
            *(ToolCallDelta(index, fragment) for fragment in fragments),
            ToolCallFinished(index, call_id, name, text, *parse_arguments(text)),
        ]
    return events


@st.composite
def _answers(draw: st.DrawFn) -> list[Event]:
    started = draw(st.builds(ResponseStarted, st.none() | texts))
    content = draw(st.lists(st.one_of(text_deltas, reasoning, _sources), max_size=8))
    plan = draw(st.lists(_plans, max_size=1))
    calls = draw(_calls())
    usage = [UsageReported(each) for each in draw(st.lists(_usages, max_size=1))]
    word = draw(st.sampled_from(sorted(_WORDS)))
    reason = "tool_calls" if calls and _WORDS[word] == "stop" else _WORDS[word]
    return [started, *content, *plan, *calls, *usage, ResponseFinished(reason, word)]


ANSWERS = _answers()
