"""One limit: how it paces, what refusals and headers change of that."""

from __future__ import annotations

import math

import pytest

from lm_deluge.dispatch.scheduling.limiter import Limit
from lm_deluge.dispatch.scheduling.rate_limit import Charge, RateLimitState
from lm_deluge.errors import ConfigurationError

NOW = 10_000.0


def take(
    state: RateLimitState,
    units: float = 1.0,
    now: float = NOW,
    jitter_s: float = 0.0,
    overrun: float = 0.0,
    expected_units: float = math.inf,
) -> Charge:
    slot = state.earliest(units, now, jitter_s, overrun)
    return state.charge(units, min(units, expected_units), now, slot, jitter_s, overrun)


def slot(
    state: RateLimitState, units: float = 1.0, now: float = NOW, jitter_s: float = 0.0, overrun: float = 0.0
) -> float:
    return state.earliest(units, now, jitter_s, overrun)


def tokens(amount: float) -> RateLimitState:
    return RateLimitState(Limit("tokens", amount, burst_s=0.0))


def exact(amount: float = 60, period_s: float = 60.0, **options: bool) -> RateLimitState:
    return RateLimitState(Limit("requests", amount, period_s, burst_s=0.0), **options)


@pytest.mark.parametrize(
    "wrong",
    [{"amount": 0}, {"amount": -1}, {"amount": math.inf}, {"amount": math.nan}, {"period_s": 0}, {"burst_s": -1}],
    ids=str,
)
def test_a_limit_is_a_number_above_0(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="Limit"):
        Limit(**{"dimension": "requests", "amount": 1, **wrong})


def test_the_spacing_allows_for_jitter_and_burst() -> None:
    assert exact().spacing_s(NOW, 0.0) == pytest.approx(1.0005)
    assert exact().spacing_s(NOW, 1.0) == pytest.approx(1.0005 + 1 / 60)
    assert RateLimitState(Limit("requests", 60)).spacing_s(NOW, 0.0) == pytest.approx(1.0005 + 0.1 / 60)
    assert exact(period_s=1.0).spacing_s(NOW, 5.0) == pytest.approx(2.0005 / 60), "never slower than half"


def test_tokens_are_paced_a_little_faster_than_the_limit_and_the_window_is_what_limits() -> None:
    state = tokens(10_000)
    assert state.spacing_s(NOW, 0.0) == pytest.approx(0.006 / 1.05)
    begun = [take(state, 1_000).at for _ in range(11)]
    assert begun[9] == pytest.approx(NOW + 9 * 6 / 1.05)
    assert begun[10] == NOW + 60, "when the first is over, not before"
    assert slot(state, 1_000, jitter_s=1.0) == pytest.approx(begun[1] + 61), "and it may have come late"


def test_what_is_unsure_is_left_free() -> None:
    state = tokens(10_000)
    first = take(state, 5_000)
    assert slot(state, 5_000, NOW + 40) == NOW + 40
    assert slot(state, 5_000, NOW + 40, overrun=1.0) == first.at + 60
    assert slot(state, 5_000, NOW + 40, overrun=9e9) == first.at + 60, "alone anything may go"


def test_what_it_cost_in_the_end_is_what_counts() -> None:
    state = tokens(10_000)
    first = take(state, 8_000, expected_units=1_000)
    assert slot(state, 8_000, NOW + 20) == NOW + 60
    state.correct(first, 2_000)
    assert slot(state, 8_000, NOW + 20) == NOW + 20
    state.correct(first, 2_001)
    assert slot(state, 8_000, NOW + 20) == NOW + 60


def test_one_as_large_as_the_limit_takes_a_whole_period() -> None:
    state = tokens(10_000)
    take(state, 10_000)
    assert slot(state, 1) == NOW + 60


def test_a_day_is_a_budget_not_a_pace() -> None:
    state = RateLimitState(Limit("requests", 1_000, 86_400.0))
    slots = [take(state).free_from for _ in range(505)]
    assert slots[499] == NOW
    assert slots[-1] > NOW


# Refusals


def test_a_refusal_takes_a_tenth_and_clean_periods_give_it_back() -> None:
    state = exact()
    state.on_refusal(NOW, NOW, NOW + 5)
    assert state.rate_share(NOW) == pytest.approx(0.9)
    assert state.rate_share(NOW + 59) == pytest.approx(0.9)
    assert state.rate_share(NOW + 61) == pytest.approx(0.91)
    assert state.rate_share(NOW + 60 * 9 + 1) == pytest.approx(0.99)
    assert state.rate_share(NOW + 60 * 1_000) == 1.0
    assert slot(state) == NOW + 5


def test_refusals_of_what_was_under_way_together_count_once() -> None:
    state = exact()
    state.on_refusal(NOW, NOW + 1, NOW + 5)
    state.on_refusal(NOW + 0.5, NOW + 2, NOW + 9)
    assert state.rate_share(NOW + 2) == pytest.approx(0.9)
    assert state.closed_until == NOW + 9
    state.on_refusal(NOW + 10, NOW + 11, NOW + 12)
    assert state.rate_share(NOW + 12) == pytest.approx(0.81)


def test_the_rate_never_falls_to_nothing() -> None:
    state = exact()
    for step in range(100):
        state.on_refusal(NOW + step, NOW + step, NOW + step)
    assert state.rate_share(NOW + 100) == pytest.approx(0.05, abs=0.02)


def test_a_refusal_halves_the_burst_for_a_while() -> None:
    state = RateLimitState(Limit("requests", 60, burst_s=8.0))
    assert state.burst_s(NOW) == 8.0
    state.on_refusal(NOW, NOW, NOW)
    assert state.burst_s(NOW) == 4.0
    assert state.burst_s(NOW + 601) == 8.0
    for step in range(10):
        state.on_refusal(NOW + step * 1.37, NOW + step * 1.37, NOW)
    assert state.burst_s(NOW + 14) == 0.5


def test_without_a_word_the_gate_opens_later_each_time() -> None:
    state = exact()
    state.on_refusal(NOW, NOW, None)
    assert state.closed_until == NOW + 1
    state.on_refusal(NOW + 10, NOW + 10, None)
    assert state.closed_until == NOW + 12


@pytest.mark.parametrize("quantum_s", [1.0, 10.0])
def test_slices_show_in_the_spacing_of_refusals(quantum_s: float) -> None:
    state = exact(600)
    for fixed_windows in (0, 1, 3, 4):
        moment = NOW + fixed_windows * quantum_s + 0.05 * quantum_s
        state.on_refusal(moment, moment, moment)
    assert state.window_length.at(NOW + 60) == quantum_s
    assert state.window_length.at(NOW + 60 * 40) == 60.0, "not for ever"
    assert state.spacing_s(NOW, 0.5 * quantum_s) > 1.4 * exact(600).spacing_s(NOW, 0.0)


def test_refusals_at_any_time_show_no_slices() -> None:
    state = exact(600)
    for moment in (0, 3.37, 12.81, 14.22):
        state.on_refusal(NOW + moment, NOW + moment, NOW)
    assert state.window_length.at(NOW + 20) == 60.0


def test_a_guess_may_grow_beyond_itself() -> None:
    state = exact(is_guess=True)
    state.on_refusal(NOW, NOW, NOW)
    assert state.rate_share(NOW + 60) == pytest.approx(1.35)
    for _ in range(200):
        state.on_success(NOW + 1)
    assert state.rate_share(NOW) == pytest.approx(0.9 * 1.005**200)
    assert state.rate_share(NOW + 60 * 30 + 1) == 1_000.0
    state.set_amount(30.0)
    assert state.rate_share(NOW + 60 * 30 + 1) == 1.0


def test_pauses_grow_with_refusals_in_a_row_only() -> None:
    state = exact(is_guess=True)
    pauses = []
    for moment, is_accepted in ((0, False), (10, False), (30, True), (60, True), (90, False)):
        if is_accepted:
            state.on_success(NOW + moment - 1)
        state.on_refusal(NOW + moment, NOW + moment, None)
        pauses.append(state.closed_until - NOW - moment)
    assert pauses == [1.0, 2.0, 1.0, 1.0, 2.0]


# Headers


def test_a_limit_of_the_user_is_only_ever_lowered() -> None:
    firm, loose = exact(is_firm=True), exact()
    for state in (firm, loose):
        state.set_amount(100.0)
    assert (firm.amount, loose.amount) == (60, 100.0)
    firm.set_amount(30.0)
    assert firm.amount == 30.0


def test_a_window_that_is_nearly_used_up_is_waited_for() -> None:
    state = exact()
    state.align(take(state), NOW, remaining=10.0, reset_after_s=40.0)
    assert slot(state) == pytest.approx(NOW + 40 - 10 * 1.0005)


def test_tickets_of_before_do_not_ask_for_the_same_move_again() -> None:
    state = exact()
    charges = [take(state) for _ in range(3)]
    for place, charge in enumerate(charges):
        state.align(charge, NOW + place, remaining=10.0 - place, reset_after_s=40.0 - place)
    assert slot(state) == pytest.approx(NOW + 40 - 10 * 1.0005 + 2 * 1.0005, abs=0.01)


def test_a_bucket_that_fills_steadily_is_not_waited_for() -> None:
    state = exact()
    state.align(take(state), NOW, remaining=6.0, reset_after_s=54.0)
    assert slot(state) == pytest.approx(NOW + 1.0005)
    state.align(take(state, now=NOW + 2), NOW + 2, remaining=0.0, reset_after_s=60.0)
    assert slot(state, now=NOW + 2) == pytest.approx(NOW + 3.0005, abs=0.01)


def test_what_headers_moved_forward_they_move_back_and_no_further() -> None:
    state = exact()
    charge = take(state)
    before = slot(state)
    state.align(charge, NOW, remaining=0.0, reset_after_s=30.0)
    assert slot(state) == pytest.approx(NOW + 30)
    state.align(charge, NOW, remaining=60.0, reset_after_s=0.0)
    assert slot(state) == pytest.approx(before)
    state.align(charge, NOW, remaining=60.0, reset_after_s=0.0)
    assert slot(state) == pytest.approx(before)


# What is given back


def test_too_much_that_was_reserved_makes_no_burst_when_it_is_given_back() -> None:
    state = tokens(60_000)
    charges = [take(state, 4_000) for _ in range(5)]
    before = state.tat
    for charge in charges:
        state.correct(charge, 500, expected=600)
    assert before - state.tat == pytest.approx(5 * 100 * 0.001 / 1.05), "what is expected by now, less what it was"


def test_what_is_given_back_in_idleness_is_lost() -> None:
    state = tokens(60_000)
    charge = take(state, 1_000)
    state.correct(charge, 0.0)
    take(state, 1_000, NOW + 200)
    assert slot(state, 1_000, NOW + 200) > NOW + 200.9


def test_an_undone_reservation_leaves_no_trace() -> None:
    state = tokens(3_000)
    take(state, 1_000)
    before = state.tat
    charge = take(state, 2_000)
    assert slot(state, 1_000) == NOW + 60
    state.undo(charge)
    assert state.tat == pytest.approx(before)
    assert slot(state, 2_000) == charge.at


def test_a_gap_takes_what_fits_and_no_more() -> None:
    state = exact()
    charge = state.charge(1.0, 1.0, NOW, NOW + 10, 0.0, 0.0)
    assert state.fits_gap(charge, 1.0, NOW, 0.0)
    filled = 0
    now = NOW
    while now < NOW + 10 and state.fits_gap(charge, 1.0, max(now, charge.free_from), 0.0):
        now = max(now, charge.free_from)
        state.fill_gap(charge, 1.0, now)
        filled += 1
    assert filled == 9
    assert state.tat == pytest.approx(NOW + 11.0005), "the one that waits was not moved"
    assert not state.fits_gap(charge, 2.0, NOW, 0.0), "bigger than the one that waits"


def test_a_gap_before_one_that_the_window_holds_has_no_room() -> None:
    state = tokens(10_000)
    take(state, 8_000)
    waits_elsewhere = state.charge(1_000, 1_000, NOW + 50, NOW + 58, 0.0, 0.0)
    assert state.fits_gap(waits_elsewhere, 1_000, NOW + 50, 0.0)
    assert not state.fits_gap(waits_elsewhere, 1_000, NOW + 50, 0.0, overrun=1.0)
    filler = state.fill_gap(waits_elsewhere, 900, NOW + 50)
    assert not state.fits_gap(waits_elsewhere, 200, NOW + 56, 0.0)
    state.correct(filler, 0.0)
    assert state.fits_gap(waits_elsewhere, 200, NOW + 56, 0.0)
