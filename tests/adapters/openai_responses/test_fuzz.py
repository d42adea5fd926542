"""Any input to the decoder of the Responses API yields events in order, or a `DelugeError`."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import cuts
import recordings
from grammar import check_grammar
from lm_deluge.adapters.openai_responses.stream import ResponsesPayload
from lm_deluge.errors import DelugeError
from lm_deluge.events import Event
from lm_deluge.testing.decode import decode_events
from samples.responses_bytes import API, completed, created, done, frame, message, piece, text

BODY = (
    created()
    + frame("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="Hm")
    + done({"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "Hm"}]})
    + text("Hé", item=1)
    + text("llo", item=1, logprobs=[{"token": "a", "logprob": -1}])
    + done(message(piece("Héllo", annotations=[{"type": "url_citation", "url": "u"}])), 1)
    + frame("output_item.added", output_index=2, item={"type": "function_call", "call_id": "c", "name": "f"})
    + frame("function_call_arguments.delta", output_index=2, delta='{"x":')
    + frame("function_call_arguments.done", output_index=2, arguments='{"x": 1}')
    + frame("output_item.done", output_index=2, item={"type": "function_call", "call_id": "c", "name": "f"})
    + done({"type": "web_search_call", "id": "ws"}, 3)
    + completed(usage={"input_tokens": 5, "output_tokens": 7})
)
BODIES = [BODY, *(recordings.load(API, name).body for name in recordings.names(API)[::12])]


def outcome(chunks: list[bytes]) -> tuple[list[Event], str | None]:
    """Return the events, and the text of the error or None. Exceptions other than `DelugeError` are not caught."""
    events: list[Event] = []
    try:
        for event in decode_events(API, chunks):
            events.append(event)  # noqa: PERF402 - events before the error are kept
    except DelugeError as error:
        if events:
            check_grammar([event for event in events if type(event).__name__ != "UsageReported"], is_complete=False)
        return events, f"{type(error).__name__}: {error}"
    check_grammar(events)
    return events, None


_NAMES = st.sampled_from(
    [
        "id",
        "model",
        "status",
        "output",
        "usage",
        "error",
        "incomplete_details",
        "reason",
        "type",
        "text",
        "refusal",
        "logprobs",
        "annotations",
        "item",
        "part",
        "delta",
        "output_index",
        "content_index",
        "summary_index",
        "sequence_number",
        "item_id",
        "arguments",
        "input",
        "annotation",
        "response",
        "content",
        "summary",
        "call_id",
        "name",
        "result",
        "output_format",
        "url",
        "title",
        "start_index",
        "end_index",
        "token",
        "logprob",
    ]
)
_WORDS = st.sampled_from(
    [
        "message",
        "reasoning",
        "function_call",
        "custom_tool_call",
        "image_generation_call",
        "web_search_call",
        "output_text",
        "refusal",
        "reasoning_text",
        "summary_text",
        "url_citation",
        "completed",
        "incomplete",
        "failed",
    ]
)
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.floats() | st.text(max_size=5) | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=5),
    max_leaves=14,
)
_FIELDS = st.dictionaries(_NAMES, _ANY, max_size=5)
_TYPES = st.sampled_from([*ResponsesPayload.handlers, "error", "response.brand_new", ""])


def written(kind: str, fields: dict[str, Any], has_head: bool) -> bytes:
    data = json.dumps({**fields, "type": kind}).encode()
    return (f"event: {kind}\n".encode() if has_head else b"") + b"data: " + data + b"\n\n"


@given(
    st.lists(st.builds(written, _TYPES, _FIELDS, st.booleans()) | st.just(completed()), max_size=8),
    st.lists(st.integers(0, 500), max_size=5),
)
@settings(max_examples=300 if not recordings.IS_SOAK else 20_000, deadline=None)
def test_events_of_any_shape_are_read_or_refused_alike_however_they_are_cut(parts: list[bytes], at: list[int]) -> None:
    body = b"".join(parts)
    assert outcome(cuts.at(body, at)) == outcome([body])


@given(_ANY)
@settings(max_examples=200, deadline=None)
def test_documents_of_any_shape_are_read_or_refused(document: Any) -> None:
    outcome([json.dumps(document).encode()])
    if isinstance(document, dict):
        outcome([json.dumps({**document, "status": "completed"}).encode()])


@given(st.sampled_from(BODIES), st.randoms(use_true_random=False))
@settings(max_examples=100 if not recordings.IS_SOAK else 5_000, deadline=None)
def test_damaged_streams_are_read_or_refused_alike_however_they_are_cut(body: bytes, dice: random.Random) -> None:
    damaged = bytearray(body[:8_000])
    for _ in range(dice.randrange(1, 8)):
        place = dice.randrange(len(damaged))
        damage = dice.choice([b"", b"\0", b"\xff", b"\r", b"\n", b'"', b"{", b"}", b"[", b"9", b"null", b"data: "])
        damaged[place : place + dice.randrange(3)] = damage
    assert outcome(cuts.at_random(bytes(damaged), dice.randrange(100), 50)) == outcome([bytes(damaged)])
