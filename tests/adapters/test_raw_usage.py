"""The usage objects of one response are merged, each into an object of its own, with a bound."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edited_json import as_json
from lm_deluge.adapters.raw_usage import merge_usage
from lm_deluge.events import UsageReported
from lm_deluge.testing import decode_events
from samples.bedrock_bytes import BEGIN, converse, metadata, stop

MOST = 200
_objects = st.dictionaries(st.sampled_from("abcdef"), st.none() | st.integers(0, 9))


@given(st.lists(_objects, max_size=5))
def test_the_last_value_that_is_not_null_wins(objects: list[dict[str, Any]]) -> None:
    merged: dict[str, Any] | None = None
    expected: dict[str, Any] = {}
    for each in objects:
        before = None if merged is None else dict(merged)
        found = merge_usage(merged, each)
        expected |= {name: value for name, value in each.items() if value is not None}
        assert found == expected
        assert merged is None or merged == before  # earlier events keep their objects
        merged = found


def sse(event: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.encode(), as_json({"type": event, **fields}))


def bodies(count: int) -> dict[str, bytes]:
    """Return a body for each API that merges usage, in which each frame reports another field."""
    fields = [{f"field_{number}": number} for number in range(count)]
    chat = [as_json({"id": "c", "choices": [], "usage": {"prompt_tokens": 3, **each}}) for each in fields]
    return {
        "openai-chat": b"".join(b"data: %b\n\n" % each for each in chat)
        + b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
        "anthropic-messages": sse("message_start", message={"id": "m", "usage": {"input_tokens": 3}})
        + b"".join(sse("message_delta", delta={}, usage=each) for each in fields)
        + sse("message_delta", delta={"stop_reason": "end_turn"})
        + sse("message_stop"),
        "bedrock-converse": converse(
            BEGIN,
            metadata(inputTokens=3),
            *({"metadata": {"usage": each}} for each in fields),
            stop(),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("api", ["openai-chat", "anthropic-messages", "bedrock-converse"])
def test_fields_beyond_the_bound_are_left_out(api: str) -> None:
    """Without the bound each report copies all fields before it: 30,000 frames take half a minute."""
    reported = [event.usage for event in decode_events(api, bodies(MOST * 3)[api]) if isinstance(event, UsageReported)]
    assert max(len(usage.raw or ()) for usage in reported) == MOST
    assert {usage.input_tokens for usage in reported} == {3}
