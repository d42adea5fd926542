"""Interactions: steps in any order, calls one after the other, usage last."""

import json

from hypothesis import strategies as st

from encoders.answers import counts, images, texts
from lm_deluge.events import (
    Citation,
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

API = "gemini-interactions"

OWNER = "recording"
_values = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts
_arguments = st.dictionaries(texts, _values | st.lists(_values, max_size=2), max_size=3)
_opaque = st.sampled_from(
    [
        ProviderPart(
            OWNER, "google_search_call", {"type": "google_search_call", "id": "s", "arguments": {"queries": []}}
        ),
        ProviderPart(OWNER, "google_search_result", {"type": "google_search_result", "call_id": "s", "signature": "x"}),
        ProviderPart(OWNER, "code_execution_result", {"type": "code_execution_result", "call_id": "c", "result": "1"}),
        ProviderPart(OWNER, "thought_signature", "c2ln"),
    ]
)
_audio = st.just(MediaDelta("audio/l16", "AAEC"))
_usages = st.builds(
    lambda plain, prompt, cached, thought: Usage(
        input_tokens=prompt, output_tokens=plain + (thought or 0), cache_read_tokens=cached, reasoning_tokens=thought
    ),
    counts,
    counts,
    st.none() | counts,
    st.none() | counts,
)
# Google's finish reason, and ours if there are no calls.
_REASONS = [
    ("completed", "stop"),
    ("incomplete", "length"),
    ("requires_action", "tool_calls"),
    ("budget_exceeded", "length"),
    ("failed", "error"),
]


@st.composite
def _call(draw, index):
    arguments = draw(_arguments)
    text = json.dumps(arguments, ensure_ascii=False, separators=(",", ":")) if arguments else ""
    at = draw(st.integers(0, len(text)))
    call_id, name = draw(texts), draw(texts)
    return [
        ToolCallStarted(index, call_id, name),
        *(ToolCallDelta(index, piece) for piece in (text[:at], text[at:]) if piece),
        ToolCallFinished(index, call_id, name, text, arguments),
    ]


@st.composite
def answers(draw):
    calls, length = 0, 0
    middle = []
    emitted = set()
    for kind in draw(st.lists(st.sampled_from("ttrcmos"), max_size=8)):
        if kind == "c":
            middle += draw(_call(calls))
            calls += 1
        elif kind == "s":
            url = draw(st.sampled_from(["https://a.test", "https://b.test"]))
            start, end = sorted(draw(st.tuples(st.integers(0, length), st.integers(0, length))))
            key = (url, *draw(st.sampled_from([(start, end), (None, None)])))
            if key not in emitted:
                middle.append(Citation(url, None, *key[1:]))
            emitted.add(key)
        else:
            kinds = {
                "t": st.builds(TextDelta, texts),
                "r": st.builds(ReasoningDelta, texts),
                "m": images | _audio,
                "o": _opaque,
            }
            middle.append(draw(kinds[kind]))
            length += len(middle[-1].text) if kind == "t" else 0
    middle += [UsageReported(usage) for usage in draw(st.lists(_usages, max_size=1))]
    word, reason = draw(st.sampled_from(_REASONS))
    if calls and reason == "stop":
        reason = "tool_calls"
    return [
        draw(st.builds(ResponseStarted, st.none() | texts, st.none() | texts)),
        *middle,
        ResponseFinished(reason, word),
    ]


ANSWERS = answers()
