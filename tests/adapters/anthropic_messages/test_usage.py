"""The fields of Anthropic's usage that prices depend on."""

from __future__ import annotations

import pytest

from lm_deluge.adapters.anthropic_messages.usage import read_usage
from lm_deluge.events import ResponseFinished, ResponseStarted, TextDelta, UsageReported
from lm_deluge.models.registry import find_model
from lm_deluge.testing import decode_body, encode_events
from lm_deluge.usage import Usage

RAW = {
    "input_tokens": 100,
    "output_tokens": 10,
    "cache_creation_input_tokens": 60,
    "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 40},
    "service_tier": "batch",
}


def test_how_long_the_cache_keeps_and_how_it_was_served() -> None:
    usage = read_usage(RAW)
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens, usage.service_tier) == (60, 40, "batch")
    price = find_model("claude-sonnet-4-5").price
    assert price is not None
    assert price.cost(usage) == pytest.approx((100 * 1.5 + 20 * 1.875 + 40 * 3.0 + 10 * 7.5) / 1e6)


@pytest.mark.parametrize("odd", [{"cache_creation": 5, "service_tier": 5}, {"cache_creation": {}}, {}])
def test_what_is_not_said_or_odd_is_not_known(odd: dict) -> None:
    usage = read_usage({"input_tokens": 1, "output_tokens": 1, **odd})
    assert (usage.cache_write_1h_tokens, usage.service_tier) == (None, None)


def test_it_is_written_and_read_again() -> None:
    usage = Usage(
        input_tokens=160, output_tokens=10, cache_write_tokens=60, cache_write_1h_tokens=40, service_tier="standard"
    )
    events = [ResponseStarted("msg_1", "m"), TextDelta("Hi"), UsageReported(usage), ResponseFinished("stop")]
    read = decode_body("anthropic-messages", b"".join(encode_events("anthropic-messages", events))).usage
    assert read is not None
    assert (read.cache_write_1h_tokens, read.service_tier) == (40, "standard")


def iteration(kind: str, sent: int, output: int, read: int = 0, written: int = 0, hour: int = 0) -> dict:
    return {
        "type": kind,
        "input_tokens": sent,
        "output_tokens": output,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "cache_creation": {"ephemeral_1h_input_tokens": hour},
    }


def test_iterations_that_the_totals_leave_out_are_counted() -> None:
    totals = {"input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 5}
    iterations = [iteration("compaction", 9_000, 300, 40, 30, 20), iteration("message", 100, 10, 5)]
    usage = read_usage({**totals, "iterations": iterations})
    assert (usage.input_tokens, usage.output_tokens) == (9_100 + 45 + 30, 310)
    assert (usage.cache_read_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens) == (45, 30, 20)


@pytest.mark.parametrize("iterations", [[], None, 5, [None, {"type": "message"}], [iteration("message", 60, 4)] * 2])
def test_iterations_that_the_totals_contain_are_not_counted_twice(iterations: object) -> None:
    usage = read_usage({"input_tokens": 120, "output_tokens": 8, "iterations": iterations})
    assert (usage.input_tokens, usage.output_tokens) == (120, 8)
