"""How late a process may use its slots."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.dispatch.scheduling.shared.lateness import LEAST_LATENESS_S, Lateness


def lateness_of(samples: list[float], now: float = 0.0) -> Lateness:
    found = Lateness()
    for late_s in samples:
        found.note(late_s, now)
    return found


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([], 0.0),
        ([0.001, 0.004, 0.002], 0.004),
        ([0.001] * 9 + [1.0], 1.0),  # a tenth of the slots is worth more than a sixtieth
        ([0.001] * 999 + [3.0], 0.001),  # a slot of a thousand is not
        ([2.0] * 50, 2.0),  # a process that is always late loses none
        ([0.001] * 500 + [0.5] * 500 + [30.0], 0.5),
    ],
)
def test_the_allowance_costs_least(samples: list[float], expected: float) -> None:
    assert lateness_of(samples).allowed_s(60.0) == expected


def test_where_the_period_is_short_a_margin_costs_more() -> None:
    samples = [0.001] * 90 + [0.5] * 10
    assert lateness_of(samples).allowed_s(60.0) == 0.5
    assert lateness_of(samples).allowed_s(1.0) == 0.001


def test_what_was_minutes_ago_is_forgotten() -> None:
    found = lateness_of([1.0] * 5)
    found.note(0.01, 130.0)
    assert found.allowed_s(60.0) == 1.0
    found.note(0.01, 260.0)
    assert found.allowed_s(60.0) == 0.01
    later = lateness_of([1.0] * 5)
    later.note(0.01, 1_000.0)
    assert later.allowed_s(60.0) == 0.01


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_it_is_nearly_the_best_of_all_samples(samples: list[float]) -> None:
    def cost(allowed_s: float) -> float:
        return allowed_s / 60 + sum(late_s > allowed_s for late_s in samples) / len(samples)

    allowed_s = lateness_of(samples).allowed_s(60.0)
    assert allowed_s in samples
    best = min(samples, key=cost)
    assert cost(allowed_s) <= cost(max(1.2 * best, LEAST_LATENESS_S)) + 1e-9
