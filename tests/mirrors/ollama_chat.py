"""Ollama: thoughts, then text, then images, then calls whose arguments are an object in a single delta."""

from __future__ import annotations

import base64

import msgspec
from hypothesis import strategies as st

from encoders.answers import counts, reasoning, text_deltas, texts
from lm_deluge.events import (
    Event,
    MediaDelta,
    ResponseFinished,
    ResponseStarted,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.usage import Usage

API = "ollama-chat"

_images = st.binary(max_size=9).map(
    lambda rest: MediaDelta("image/png", base64.b64encode(b"\x89PNG\r\n\x1a\n" + rest).decode())
)
_objects = st.dictionaries(texts, st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts, max_size=3)


@st.composite
def _calls(draw: st.DrawFn) -> list[Event]:
    events: list[Event] = []
    for index in range(draw(st.integers(0, 3))):
        call_id, name, arguments = f"call_{index}x", draw(st.sampled_from(["weather", "search"])), draw(_objects)
        text = msgspec.json.encode(arguments).decode()
        events += [
            ToolCallStarted(index, call_id, name),
            ToolCallDelta(index, text),
            ToolCallFinished(index, call_id, name, text, arguments),
        ]
    return events


@st.composite
def _answers(draw: st.DrawFn) -> list[Event]:
    started = draw(st.builds(ResponseStarted, st.none(), st.none() | texts))
    content = [event for kind in (reasoning, text_deltas, _images) for event in draw(st.lists(kind, max_size=3))]
    calls = draw(_calls())
    usages = st.builds(Usage, input_tokens=counts, output_tokens=counts)
    usage = [UsageReported(each) for each in draw(st.lists(usages, max_size=1))]
    word = draw(st.sampled_from(["stop", "length", "load", "unload"]))
    reason = "length" if word == "length" else "tool_calls" if calls else "stop"
    return [started, *content, *calls, *usage, ResponseFinished(reason, word)]


ANSWERS = _answers()
