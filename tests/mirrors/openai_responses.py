"""The Responses API: everything in order, reasoning and images each followed by their item."""

import base64
from collections import Counter

import msgspec
from hypothesis import strategies as st

from encoders.answers import counts, logprobs, texts
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
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.usage import Usage

API = "openai-responses"
OWNER = "recording"

usages = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    # Required fields of this API: an unknown count is written as 0.
    cache_read_tokens=counts,
    cache_write_tokens=counts,
    reasoning_tokens=st.just(0),
)


@st.composite
def thoughts(draw: st.DrawFn) -> list[Event]:
    pieces = draw(st.lists(texts, max_size=3))
    summary = [{"type": "summary_text", "text": "".join(pieces)}] if pieces else []
    item = {"id": "rs_x", "type": "reasoning", "encrypted_content": draw(texts), "summary": summary}
    return [*(ReasoningDelta(piece) for piece in pieces), ProviderPart(OWNER, "reasoning", item)]


@st.composite
def messages(draw: st.DrawFn) -> list[Event]:
    """Draw a message: text deltas, refusals, and the message's phase."""
    written = draw(st.lists(st.builds(TextDelta, texts) | st.builds(TextDelta, texts, logprobs), max_size=3))
    refused = draw(st.lists(st.builds(RefusalDelta, texts), max_size=2))
    events: list[Event] = [*written, *refused]
    if not events:
        return []
    phase = draw(st.sampled_from(["commentary", "final_answer"]))
    return [*events, ProviderPart(OWNER, "message", {"phase": phase})]


@st.composite
def calls(draw: st.DrawFn, index: int) -> list[Event]:
    is_custom = draw(st.booleans())
    fragments = draw(st.lists(texts, max_size=3) | st.just(['{"city": "Pa', 'ris", "n"', ": 1}"]))
    name, text = draw(st.sampled_from(["weather", "search", "f"])), "".join(fragments)
    value, error = (None, None) if is_custom else parse_arguments(text)
    events: list[Event] = [
        ToolCallStarted(index, f"call_{index}", name, is_custom),
        *(ToolCallDelta(index, fragment) for fragment in fragments),
        ToolCallFinished(index, f"call_{index}", name, text, value, error, is_custom),
    ]
    if draw(st.booleans()):
        kind = "custom_tool_call" if is_custom else "function_call"
        events.append(ProviderPart(OWNER, kind, {"namespace": "crm"}))
    return events


@st.composite
def pictures(draw: st.DrawFn) -> list[Event]:
    data = base64.b64encode(draw(st.binary(min_size=1, max_size=9))).decode()
    item = {
        "id": "ig_1",
        "type": "image_generation_call",
        "status": "completed",
        "output_format": "webp",
        "result": data,
    }
    return [MediaDelta("image/webp", data, id="ig_1"), ProviderPart(OWNER, "image_generation_call", item)]


WITH_A_FEE = ("web_search_call", "image_generation_call")
hosted = st.sampled_from(
    [
        ("web_search_call", {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "q"}}),
        ("mcp_list_tools", {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": []}),
        ("output_item", {"type": "brand_new_call", "id": "bn_1", "data": [1, None, {"a": "b"}]}),
    ]
).map(lambda pair: [ProviderPart(OWNER, *pair)])


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    middle: list[Event] = []
    number, length, has_refusal = 0, 0, False
    for kind in draw(st.lists(st.sampled_from("tscph"), max_size=5)):
        if kind == "c":
            middle += draw(calls(number))
            number += 1
            continue
        drawn = draw({"t": thoughts(), "s": messages(), "p": pictures(), "h": hosted}[kind])
        text_events = [event for event in drawn if isinstance(event, TextDelta)]
        if text_events:
            start, length = length, length + sum(len(event.text) for event in text_events)
            end = draw(st.none() | st.integers(start, length))
            at = drawn.index(text_events[-1]) + 1
            drawn[at:at] = draw(st.just([]) | st.just([Citation("https://example.org", "T", start, end)]))
        has_refusal = has_refusal or any(isinstance(event, RefusalDelta) for event in drawn)
        middle += drawn
    reason = draw(st.sampled_from(["stop", "length", "content_filter"]))
    if reason == "stop":
        finished = ResponseFinished("tool_calls" if number else "refusal" if has_refusal else "stop", "completed")
    else:
        finished = ResponseFinished(reason, "incomplete")
    uses = Counter(each.kind.removesuffix("_call") for each in middle if getattr(each, "kind", "") in WITH_A_FEE)
    usage_events = [
        UsageReported(msgspec.structs.replace(usage, tool_uses=dict(uses)))
        for usage in draw(st.lists(usages, max_size=1))
    ]
    started = draw(st.builds(ResponseStarted, st.none() | texts, st.none() | texts))
    return [started, *middle, *usage_events, finished]


ANSWERS = answers()
