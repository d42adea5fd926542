"""Mistral: content of several kinds in any order, then calls, each in a single delta.

The last chunk has the usage and ends the calls.
"""

from __future__ import annotations

from hypothesis import strategies as st

from encoders.answers import images, reasoning, text_deltas, texts, usages
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

API = "mistral-chat"

_thoughts = st.tuples(reasoning, st.builds(ProviderPart, st.just("recording"), st.just("signature"), texts)).map(list)
_sources = st.builds(Citation, st.just("https://example.org/1"), st.none() | texts)
_content = st.one_of(st.one_of(text_deltas, reasoning, images).map(lambda event: [event]), _thoughts)


@st.composite
def _calls(draw: st.DrawFn) -> tuple[list[Event], list[Event]]:
    """Return the starts and deltas of calls, one after another, and their ends."""
    starts: list[Event] = []
    ends: list[Event] = []
    for index in range(draw(st.integers(0, 3))):
        call_id, name = f"call{index}abcd", draw(st.sampled_from(["weather", "search"]))
        text = draw(texts | st.just('{"city": "Paris"}'))
        starts += [ToolCallStarted(index, call_id, name), ToolCallDelta(index, text)]
        ends.append(ToolCallFinished(index, call_id, name, text, *parse_arguments(text)))
    return starts, ends


@st.composite
def _answers(draw: st.DrawFn) -> list[Event]:
    started = draw(st.builds(ResponseStarted, st.none() | texts, st.none() | texts))
    content = [event for events in draw(st.lists(_content, max_size=6)) for event in events]
    sources = draw(st.lists(_sources, max_size=2))
    starts, ends = draw(_calls())
    usage = [UsageReported(each) for each in draw(st.lists(usages, max_size=1))]
    word = draw(st.sampled_from(["stop", "length", "tool_calls", "model_length"]))
    reason = {"stop": "tool_calls" if ends else "stop", "model_length": "length"}.get(word, word)
    return [started, *content, *sources, *starts, *usage, *ends, ResponseFinished(reason, word)]


ANSWERS = _answers()
