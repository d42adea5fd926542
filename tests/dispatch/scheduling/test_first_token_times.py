"""How long to wait for a model's first token."""

import random

import pytest

from lm_deluge.dispatch.scheduling.first_token_times import FirstTokenTimes


def test_seconds_are_seconds_for_every_model() -> None:
    times = FirstTokenTimes(2)
    times.note("a", 100.0)
    assert (times.patience_s("a"), times.patience_s("b")) == (2.0, 2.0)


def test_a_percentile_is_learned_for_each_model() -> None:
    times = FirstTokenTimes("p95")
    for number in range(1, 20):
        times.note("a", float(number))
        assert times.patience_s("a") is None
    times.note("a", 20.0)
    assert times.patience_s("a") == 19.0
    assert times.patience_s("b") is None


@pytest.mark.parametrize("percent", [50, 75, 95, 99])
def test_so_many_of_a_hundred_were_no_longer(percent: int) -> None:
    times, chance = FirstTokenTimes(f"p{percent}"), random.Random(7)
    seen = [chance.random() for _ in range(100)]
    for seconds in seen:
        times.note("a", seconds)
    assert times.patience_s("a") == sorted(seen)[percent - 1]


def test_only_recent_ones_count() -> None:
    times = FirstTokenTimes("p50")
    for seconds in [9.0] * 200 + [1.0] * 100:
        times.note("a", seconds)
    assert times.patience_s("a") == 1.0
    times.note("a", 1.0)
    assert len(times._windows["a"]) == 200
