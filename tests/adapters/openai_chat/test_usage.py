"""Chat Completions: usage in the fields and conventions of different hosts."""

from __future__ import annotations

from typing import Any

import pytest

from lm_deluge.events import ResponseStarted, TextDelta, UsageReported
from lm_deluge.usage import Usage
from samples.chat_bytes import chunk, events_of, frames, read, text

HELLO = text("Hello")
FINISH = chunk({}, "stop")
DONE = b"data: [DONE]\n\n"


def usage_of(*objects: dict[str, Any]) -> Usage:
    usage = read(HELLO + FINISH + frames(*objects) + DONE).usage
    assert usage is not None
    return usage


USAGE_CASES: dict[str, tuple[dict[str, Any], Usage]] = {
    "OpenAI": (
        {
            "prompt_tokens": 2_006,
            "completion_tokens": 300,
            "total_tokens": 2_306,
            "prompt_tokens_details": {"cached_tokens": 1_920, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 256},
        },
        Usage(input_tokens=2_006, output_tokens=300, cache_read_tokens=1_920, reasoning_tokens=256),
    ),
    "xAI leaves reasoning out of the output": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 2,
            "total_tokens": 352,
            "completion_tokens_details": {"reasoning_tokens": 340},
        },
        Usage(input_tokens=10, output_tokens=342, reasoning_tokens=340),
    ),
    "DeepSeek": (
        {"prompt_tokens": 20, "completion_tokens": 5, "prompt_cache_hit_tokens": 16, "prompt_cache_miss_tokens": 4},
        Usage(input_tokens=20, output_tokens=5, cache_read_tokens=16),
    ),
    "Moonshot": (
        {"prompt_tokens": 20, "completion_tokens": 5, "cached_tokens": 7},
        Usage(input_tokens=20, output_tokens=5, cache_read_tokens=7),
    ),
    "cache write": (
        {"prompt_tokens": 20, "completion_tokens": 5, "prompt_tokens_details": {"cache_write_tokens": 12}},
        Usage(input_tokens=20, output_tokens=5, cache_write_tokens=12),
    ),
    "LiteLLM's proxy": (
        {"prompt_tokens": 9, "completion_tokens": 5, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 4},
        Usage(input_tokens=9, output_tokens=5, cache_read_tokens=3, cache_write_tokens=4),
    ),
    "Perplexity": (
        {"prompt_tokens": 9, "completion_tokens": 5, "reasoning_tokens": 3},
        Usage(input_tokens=9, output_tokens=5, reasoning_tokens=3),
    ),
    "Responses' names": (
        {"input_tokens": 9, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 1}},
        Usage(input_tokens=9, output_tokens=5, cache_read_tokens=1),
    ),
    "whole floats": ({"prompt_tokens": 9.0, "completion_tokens": 5.0}, Usage(input_tokens=9, output_tokens=5)),
    "nonsense is no number": (
        {
            "prompt_tokens": -1,
            "completion_tokens": "5",  # a text with digits is a number
            "prompt_tokens_details": [],
            "cached_tokens": True,
            "reasoning_tokens": 1.5,
        },
        Usage(output_tokens=5),
    ),
    "a huge number": ({"prompt_tokens": 10**30, "completion_tokens": 5}, Usage(output_tokens=5)),
}


@pytest.mark.parametrize("name", USAGE_CASES)
@pytest.mark.parametrize("place", ["chunk", "x_groq", "choice"])
def test_usage_of_hosts_and_where_they_put_it(name: str, place: str) -> None:
    raw, expected = USAGE_CASES[name]
    places = {
        "chunk": {"id": "1", "choices": [], "usage": raw},
        "x_groq": {"id": "1", "choices": [], "x_groq": {"id": "req_1", "usage": raw}},
        "choice": {"id": "1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": raw}]},
    }
    usage = usage_of(places[place])
    assert usage.raw == raw
    for field in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"):
        assert getattr(usage, field) == getattr(expected, field), field


def test_of_each_field_the_last_value_that_is_not_null_wins_and_nothing_is_added() -> None:
    usage = usage_of(
        {"id": "1", "usage": {"prompt_tokens": 9, "completion_tokens": 1, "cached_tokens": 4}},
        {"id": "1", "usage": {"prompt_tokens": None, "completion_tokens": 5}},
        {"id": "1", "usage": {}},
        {"id": "1", "usage": None, "x_groq": {"id": "req_1"}},
    )
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (9, 5, 4)
    assert usage.raw == {"prompt_tokens": 9, "completion_tokens": 5, "cached_tokens": 4}


def test_without_usage_there_is_none() -> None:
    assert read(HELLO + FINISH + DONE).usage is None


def test_usage_in_the_first_chunk_comes_after_the_start() -> None:
    kinds = [type(event) for event in events_of(frames({"usage": {"prompt_tokens": 1}}) + HELLO + FINISH + DONE)]
    assert kinds[:3] == [ResponseStarted, UsageReported, TextDelta]


def test_sound_is_counted_on_both_sides() -> None:
    usage = usage_of(
        {
            "id": "1",
            "usage": {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "prompt_tokens_details": {"audio_tokens": 4},
                "completion_tokens_details": {"audio_tokens": 3},
            },
        }
    )
    assert (usage.input_audio_tokens, usage.output_audio_tokens) == (4, 3)


def test_the_tier_that_served_the_request_is_read_from_any_chunk() -> None:
    assert usage_of({"id": "1", "service_tier": "flex", "usage": {"prompt_tokens": 9}}).service_tier == "flex"
    before = {"id": "1", "service_tier": "priority", "choices": []}
    assert usage_of(before, {"id": "1", "usage": {"prompt_tokens": 9}}).service_tier == "priority"
    assert usage_of({"id": "1", "service_tier": 5, "usage": {"prompt_tokens": 9}}).service_tier is None


def test_each_repeated_usage_is_reported_and_a_change_of_one_field_counts() -> None:
    usages = [{"prompt_tokens": 5, "completion_tokens": n, "total_tokens": 5 + n} for n in (1, 1, 2, 2)]
    choices = [{"index": 0, "delta": {"content": "a"}}]
    chunks = [{"id": "1", "choices": choices, "usage": usage} for usage in usages]
    body = frames(*chunks, {**chunks[-1], "service_tier": "flex"}) + chunk({}, "stop") + b"data: [DONE]\n\n"
    found = [event.usage for event in events_of(body) if isinstance(event, UsageReported)]
    assert [usage.output_tokens for usage in found] == [1, 1, 2, 2, 2]
    assert [usage.service_tier for usage in found] == [None, None, None, None, "flex"]
