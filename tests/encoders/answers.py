"""Hypothesis strategies for the events of responses, and the normal form of `openai-chat`."""

from __future__ import annotations

import base64

from hypothesis import strategies as st

from lm_deluge.adapters.tool_call_fragments import parse_arguments
from lm_deluge.events import (
    Citation,
    Event,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    TopLogprob,
    UsageReported,
)
from lm_deluge.usage import Usage

texts = st.text(min_size=1, max_size=12)
counts = st.integers(0, 10**9)
_bytes = st.none() | st.lists(st.integers(0, 255), max_size=3).map(tuple)
_logprob = st.floats(-50, 0)
_tops = st.lists(st.builds(TopLogprob, texts, _logprob, _bytes), max_size=2).map(tuple)
logprobs = st.lists(st.builds(TokenLogprob, texts, _logprob, _bytes, _tops), min_size=1, max_size=2).map(tuple)

text_deltas = st.builds(TextDelta, texts)
rich_deltas = st.builds(TextDelta, st.text(max_size=5), logprobs)
refusals = st.builds(RefusalDelta, texts)
reasoning = st.builds(ReasoningDelta, texts)
audio = st.builds(
    lambda data, transcript: MediaDelta(
        "audio/pcm", base64.b64encode(data).decode(), id="audio_1", transcript=transcript
    ),
    st.binary(min_size=1, max_size=20),
    st.none() | texts,
)
images = st.builds(
    lambda data: MediaDelta("image/png", base64.b64encode(data).decode()), st.binary(min_size=1, max_size=9)
) | st.just(MediaDelta("image/*", url="https://example.org/image.png"))
# At most one citation per URL and position, because the decoder drops a second one as a repetition.
citations = st.lists(
    st.builds(
        Citation,
        st.sampled_from(["https://example.org/1", "https://example.org/2"]),
        st.none() | texts,
        st.none() | counts,
        st.none() | counts,
    ),
    unique_by=lambda citation: (citation.url, citation.start, citation.end),
    max_size=3,
)
details = st.lists(
    st.fixed_dictionaries({"type": st.just("reasoning.encrypted"), "data": texts, "index": counts}),
    unique_by=lambda detail: detail["index"],
    min_size=1,
    max_size=2,
).map(lambda data: [ProviderPart("recording", "reasoning_details", data)])


@st.composite
def calls(draw: st.DrawFn) -> list[Event]:
    """A few calls whose fragments interleave.

    Calls begin in order: the decoder announces one with its first argument, and so numbers them anew otherwise.
    """
    number = draw(st.integers(0, 3))
    pieces: list[list[Event]] = []
    ends: list[Event] = []
    for index in range(number):
        is_custom = draw(st.booleans())
        fragments = draw(
            st.lists(texts, min_size=index + 1 < number, max_size=3)
            | st.just(['{"city": "Pa', 'ris", "n"', ": 1}"])
            | st.just(["[1", "]"])
        )
        name = draw(st.sampled_from(["weather", "search", "f"]))
        text = "".join(fragments)
        value, error = (None, None) if is_custom else parse_arguments(text)
        start = ToolCallStarted(index, f"call_{index}x", name, is_custom)
        pieces.append([start, *(ToolCallDelta(index, fragment) for fragment in fragments)])
        ends.append(ToolCallFinished(index, f"call_{index}x", name, text, value, error, is_custom))
    begun = [piece.pop(0) for piece in pieces]
    first = [piece.pop(0) for piece in pieces if piece]
    order = draw(st.permutations([index for index, piece in enumerate(pieces) for _ in piece]))
    return [*begun, *first, *(pieces[index].pop(0) for index in order), *ends]


usages = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    cache_read_tokens=st.none() | counts,
    cache_write_tokens=st.none() | counts,
    reasoning_tokens=st.none() | st.just(0),
)


@st.composite
def answers(draw: st.DrawFn, *, in_order: bool = False, with_logprobs: bool = True) -> list[Event]:
    """A complete response. With `in_order`, each kind of part once, in the order of the API's fields."""
    kinds = [reasoning, text_deltas, refusals]
    if with_logprobs:
        kinds.insert(2, rich_deltas)
    if in_order:
        spoken = [event for kind in kinds for event in draw(st.lists(kind, max_size=3))]
    else:
        spoken = draw(st.lists(st.one_of(kinds), max_size=8))
    called = draw(calls())
    sound = draw(st.lists(audio, max_size=3))
    shown = draw(st.lists(images, max_size=2))
    told = [UsageReported(usage) for usage in draw(st.lists(usages, max_size=2))]
    started = draw(st.builds(ResponseStarted, st.none() | texts, st.none() | texts))
    reason = draw(st.sampled_from(["stop", "length", "content_filter", "refusal", "pause", "tool_calls"]))
    middle = [*spoken, *called, *draw(citations), *sound, *shown, *draw(st.just([]) | details)]
    return [started, *middle, *told, ResponseFinished(reason)]


def normal_form(events: list[Event]) -> list[Event]:
    """Return the events that `openai-chat` decodes for these events, by the rules in the encoder's docstring."""
    rest = [event for event in events if not isinstance(event, LATE)]
    begun = [event for event in events if isinstance(event, ToolCallStarted)]
    ends = [event for event in events if isinstance(event, ToolCallFinished)]
    usage = [UsageReported(without_raw(event.usage)) for event in events if isinstance(event, UsageReported)][-1:]
    opaque = [event for event in events if isinstance(event, ProviderPart)]
    normal: list[Event] = []
    for event in rest:
        if isinstance(event, ToolCallDelta):
            normal += [start for start in begun if start.index <= event.index]
            begun = [start for start in begun if start.index > event.index]
        normal.append(event)
    ends.sort(key=lambda end: end.index)
    return [*normal, *usage, *begun, *ends, *opaque, _end(events)]


LATE = (ToolCallStarted, ToolCallFinished, UsageReported, ProviderPart, ResponseFinished)


def _end(events: list[Event]) -> ResponseFinished:
    finished = events[-1]
    assert isinstance(finished, ResponseFinished)
    has_refusal = any(isinstance(event, RefusalDelta) for event in events)
    has_calls = any(isinstance(event, ToolCallStarted) for event in events)
    written = {"pause": "stop", "refusal": "stop" if has_refusal else "content_filter"}
    word = written.get(finished.finish_reason, finished.finish_reason)
    reason = word
    if word == "stop":
        reason = "tool_calls" if has_calls else "refusal" if has_refusal else "stop"
    return ResponseFinished(reason, word)


def without_raw(usage: Usage) -> Usage:
    return Usage(**{name: getattr(usage, name) for name in usage.__struct_fields__ if name not in ("raw", "estimated")})


def comparable(events: list[Event]) -> list[Event]:
    """Return the events without the provider's own objects, which only decoded events have."""
    kept: list[Event] = []
    for event in events:
        if isinstance(event, UsageReported):
            kept.append(UsageReported(without_raw(event.usage)))
        elif isinstance(event, Citation):
            kept.append(Citation(event.url, event.title, event.start, event.end))
        else:
            kept.append(event)
    return kept
