"""Mistral: content of several kinds in any order, then calls; usage comes with the end, and calls are closed there."""

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
_said = st.one_of(st.one_of(text_deltas, reasoning, images).map(lambda event: [event]), _thoughts)


@st.composite
def _calls(draw: st.DrawFn) -> tuple[list[Event], list[Event]]:
    """Return calls one behind the other, and their ends."""
    begun: list[Event] = []
    ends: list[Event] = []
    for index in range(draw(st.integers(0, 3))):
        call_id, name = f"call{index}abcd", draw(st.sampled_from(["weather", "search"]))
        fragments = draw(st.lists(texts, min_size=1, max_size=3) | st.just(['{"city": "Pa', 'ris"}']))
        text = "".join(fragments)
        begun += [
            ToolCallStarted(index, call_id, name),
            *(ToolCallDelta(index, fragment) for fragment in fragments),
        ]
        ends.append(ToolCallFinished(index, call_id, name, text, *parse_arguments(text)))
    return begun, ends


@st.composite
def _answers(draw: st.DrawFn) -> list[Event]:
    started = draw(st.builds(ResponseStarted, st.none() | texts, st.none() | texts))
    said = [event for events in draw(st.lists(_said, max_size=6)) for event in events]
    sources = draw(st.lists(_sources, max_size=2))
    begun, ends = draw(_calls())
    usage = [UsageReported(each) for each in draw(st.lists(usages, max_size=1))]
    word = draw(st.sampled_from(["stop", "length", "tool_calls", "model_length"]))
    reason = {"stop": "tool_calls" if ends else "stop", "model_length": "length"}.get(word, word)
    return [started, *said, *sources, *begun, *usage, *ends, ResponseFinished(reason, word)]


ANSWERS = _answers()
