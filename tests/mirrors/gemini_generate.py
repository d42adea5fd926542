"""Gemini: parts in any order, complete calls, signatures in calls or on empty parts, usage and suggestions last."""

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

API = "gemini-generate"

OWNER = "recording"
_values = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts
_arguments = st.dictionaries(texts, _values | st.lists(_values, max_size=2), max_size=3)
_opaque = st.sampled_from(
    [
        ProviderPart(OWNER, "executable_code", {"executableCode": {"language": "PYTHON", "code": "1"}}),
        ProviderPart(OWNER, "code_execution_result", {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}),
        ProviderPart(OWNER, "tool_call", {"toolCall": {"id": "t", "toolType": "GOOGLE_SEARCH_WEB"}}),
        ProviderPart(OWNER, "tool_response", {"toolResponse": {"id": "t", "response": {"x": "y"}}}),
        ProviderPart(OWNER, "thought_signature", {"text": "", "thoughtSignature": "c2ln"}),
        ProviderPart(
            OWNER, "thought_media", {"inlineData": {"mimeType": "image/png", "data": "AA=="}, "thought": True}
        ),
    ]
)
_audio = st.just(MediaDelta("audio/L16;rate=24000", "AAEC"))
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
    ("STOP", "stop"),
    ("MAX_TOKENS", "length"),
    ("SAFETY", "content_filter"),
    ("RECITATION", "content_filter"),
    ("MALFORMED_FUNCTION_CALL", "error"),
    ("OTHER", "error"),
]


@st.composite
def _call(draw, index):
    arguments = draw(_arguments)
    text = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    call_id, name = draw(st.sampled_from([f"call_{index}", f"fc{index}"])), draw(texts)
    signature = draw(st.sampled_from([[], [ProviderPart(OWNER, "thought_signature", "c2ln")]]))
    return [
        ToolCallStarted(index, call_id, name),
        *signature,
        ToolCallDelta(index, text),
        ToolCallFinished(index, call_id, name, text, arguments),
    ]


@st.composite
def _citations(draw, length):
    found = []
    for url in draw(st.lists(st.sampled_from(["https://a.test", "https://b.test"]), max_size=2, unique=True)):
        start, end = sorted(draw(st.tuples(st.integers(0, length), st.integers(0, length))))
        has_range = draw(st.booleans())
        found.append(Citation(url, draw(st.none() | texts), *((start, end) if has_range else (None, None))))
    return sorted(found, key=lambda citation: citation.start is not None)  # the order in a complete response


@st.composite
def answers(draw):
    calls = 0
    middle = []
    for kind in draw(st.lists(st.sampled_from("ttrcmo"), max_size=8)):
        if kind == "c":
            middle += draw(_call(calls))
            calls += 1
        else:
            kinds = {
                "t": st.builds(TextDelta, texts),
                "r": st.builds(ReasoningDelta, texts),
                "m": images | _audio,
                "o": _opaque,
            }
            middle.append(draw(kinds[kind]))
    length = sum(len(event.text) for event in middle if isinstance(event, TextDelta))
    middle += draw(_citations(length))
    middle += [UsageReported(usage) for usage in draw(st.lists(_usages, max_size=1))]
    middle += draw(st.sampled_from([[], [ProviderPart(OWNER, "search_suggestions", "<b>more</b>")]]))
    word, reason = draw(st.sampled_from(_REASONS))
    if calls and reason == "stop":
        reason = "tool_calls"
    return [
        draw(st.builds(ResponseStarted, st.none() | texts, st.none() | texts)),
        *middle,
        ResponseFinished(reason, word),
    ]


ANSWERS = answers()
