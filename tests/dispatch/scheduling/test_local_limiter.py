"""The local limiter's learning, beyond the contract."""

from __future__ import annotations

import random
import tracemalloc
from typing import Any

import pytest

from lm_deluge.dispatch.scheduling.learned_limits import ServedAmounts
from lm_deluge.dispatch.scheduling.limiter import Limit, Observation, ReservationRequest, Ticket
from lm_deluge.dispatch.scheduling.local_limiter import LocalLimiter
from lm_deluge.usage import Usage
from lm_deluge.wire.rate_limit_headers import RateLimit, parse_rate_limits

NOW = 1_000.0
REQUEST = ReservationRequest("m", input_tokens=100, max_output_tokens=400)


def take(limiter: LocalLimiter, now: float = NOW, request: ReservationRequest = REQUEST) -> Ticket:
    ticket = limiter.reserve(request, now)
    assert ticket is not None
    return ticket


def see(limiter: LocalLimiter, ticket: Ticket, status: int = 200, now: float = NOW, **changes: Any) -> None:
    limiter.observe(Observation(ticket=ticket, status=status, sent_at=now, **{"chance": 0.0, **changes}), now)


def gap(limiter: LocalLimiter, now: float = NOW) -> float:
    one, two = take(limiter, now), take(limiter, now)
    return two.at - one.at


def test_limits_that_nobody_set_are_learned_from_headers() -> None:
    limiter = LocalLimiter()
    see(limiter, take(limiter), rate_limits={"requests": RateLimit("requests", None, 30, 29, 2.0)})
    take(limiter)
    assert gap(limiter) == pytest.approx(2.0, rel=0.05)


def test_a_limit_that_the_provider_names_takes_the_place_of_ours() -> None:
    limiter = LocalLimiter([Limit("requests", 600, burst_s=0.0)])
    limiter.set_limits("m", "", [Limit("requests", 30, burst_s=0.0)])
    assert gap(limiter) > 1.9
    see(limiter, take(limiter), rate_limits={"requests": RateLimit("requests", 60.0, 6_000)})
    later = NOW + 600
    assert gap(limiter, later) == pytest.approx(0.1, rel=0.05), "the user's own stays"


def test_limits_of_another_tier_and_empty_ones_are_left_alone() -> None:
    limiter = LocalLimiter()
    limits = {
        "requests (priority)": RateLimit("requests", None, 1, 0, 60.0, qualifier="priority"),
        "tokens": RateLimit("tokens", None, None, 0, 60.0),
    }
    see(limiter, take(limiter), rate_limits=limits)
    assert gap(limiter) == 0


def test_headers_that_say_half_are_half_believed() -> None:
    limiter = LocalLimiter()
    limiter.set_limits("m", "", [Limit("requests", 60)])
    see(limiter, take(limiter), rate_limits={"requests": RateLimit("requests", 60.0, 60, 0)})
    assert take(limiter).at < NOW + 2


def test_headers_of_a_ticket_that_is_closed_still_name_the_limit() -> None:
    limiter = LocalLimiter()
    ticket = take(limiter)
    limiter.settle(ticket, Usage(), NOW)
    see(limiter, ticket, rate_limits={"requests": RateLimit("requests", 60.0, 30, 0, 50.0)})
    take(limiter)
    assert gap(limiter) > 1.9


def test_a_refusal_that_names_its_limit_slows_only_that_one() -> None:
    limiter = LocalLimiter()
    limiter.set_limits("m", "", [Limit("requests", 600, burst_s=0.0), Limit("tokens", 10_000_000)])
    see(limiter, take(limiter), 429, retry_after_s=1.0, dimension="tokens")
    later = NOW + 10
    assert gap(limiter, later) == pytest.approx(0.1, rel=0.03)
    see(limiter, take(limiter, later), 429, now=later, retry_after_s=1.0, dimension="input_tokens")
    assert gap(limiter, later + 10) > 0.108, "a limit that we do not keep: all of them"


def test_where_nobody_names_a_limit_what_went_through_is_taken_for_it() -> None:
    limiter = LocalLimiter()
    for step in range(100):
        ticket = take(limiter, NOW + step * 0.1)
        see(limiter, ticket, now=NOW + step * 0.1)
    see(limiter, take(limiter, NOW + 10), 429, now=NOW + 10)
    take(limiter, NOW + 12)
    assert gap(limiter, NOW + 12) == pytest.approx(0.1 / 0.9, rel=0.1)


def test_refusals_that_have_nothing_to_do_with_the_rate_do_not_bring_it_to_a_halt() -> None:
    """A provider that refuses one request in fifty at any rate, and names no limit."""
    limiter, chance, now = LocalLimiter(), random.Random(4), NOW
    for _ in range(3_000):
        ticket = take(limiter, now)
        now = max(now + 0.01, ticket.at)
        see(limiter, ticket, 429 if chance.random() < 0.02 else 200, now=now)
    assert now - NOW < 300, "ten a second"


@pytest.mark.parametrize(("retry_after_s", "until"), [(20.0, NOW + 20), (None, NOW + 1)])
def test_with_nothing_to_go_by_the_gate_closes_all_the_same(retry_after_s: float | None, until: float) -> None:
    limiter = LocalLimiter()
    see(limiter, take(limiter), 429, retry_after_s=retry_after_s)
    assert limiter.opens_at("m", "", NOW) == until
    assert take(limiter).at == until
    assert limiter.opens_at("m", "", NOW + 60) == NOW + 60


def test_other_errors_change_nothing() -> None:
    limiter = LocalLimiter()
    see(limiter, take(limiter), 500)
    assert gap(limiter) == 0


def test_measured_jitter_takes_the_place_of_the_assumed() -> None:
    limiter = LocalLimiter()
    limiter.set_limits("m", "", [Limit("requests", 60, burst_s=0.0)])
    assumed = gap(limiter)
    for step in range(60):
        ticket = take(limiter)
        see(limiter, ticket, delay_s=0.05 + 0.001 * (step % 2))
        limiter.settle(ticket, Usage(), NOW)
    assert gap(limiter) < assumed - 0.01
    for step in range(60):
        see(limiter, take(limiter), delay_s=0.05 + 3.0 * (step % 2))
    assert gap(limiter, NOW + 1_000) > 1.04


def test_a_slot_comes_no_sooner_without_reason() -> None:
    limiter = LocalLimiter()
    limiter.set_limits("m", "", [Limit("requests", 60, burst_s=0.0)])
    first, second = take(limiter), take(limiter)
    assert limiter.advance(first, NOW) is first, "it may go already"
    assert limiter.advance(second, NOW).at == pytest.approx(second.at)
    limiter.release(second, NOW, was_sent=False)
    assert limiter.advance(second, NOW) is second, "closed"


def test_a_slot_that_others_fill_the_gap_before_stays() -> None:
    limiter = LocalLimiter([Limit("requests", 60, burst_s=0.0)])
    limiter.set_limits("m", "", [Limit("output_tokens", 60_000)])
    limiter.set_limits("n", "", [])
    first = take(limiter, request=ReservationRequest("m", max_output_tokens=20_000))
    held = take(limiter, request=ReservationRequest("m", max_output_tokens=20_000))
    assert limiter.reserve(ReservationRequest("m"), NOW + 5, before=held) is None, "the estimate is not small"
    filler = limiter.reserve(ReservationRequest("m", max_output_tokens=0), NOW + 5, before=held)
    assert filler is None or filler.at == NOW + 5
    limiter.settle(first, Usage(output_tokens=10), NOW + 6)
    assert limiter.advance(held, NOW + 6).at <= held.at


def test_a_closed_gate_has_no_gaps_and_no_room_no_fillers() -> None:
    limiter = LocalLimiter([Limit("requests", 60, burst_s=0.0)])
    limiter.set_limits("n", "", [Limit("requests", 60, burst_s=0.0)])
    one, held = take(limiter), take(limiter, request=ReservationRequest("m"))
    assert one.at < held.at
    busy = take(limiter, request=ReservationRequest("n"))
    assert limiter.reserve(ReservationRequest("n"), NOW + 0.5, before=held) is None, "its own limit is in the way"
    assert limiter.reserve(ReservationRequest("m"), held.at, before=held) is None, "that one may go already"
    limiter.release(busy, NOW, was_sent=False)
    assert limiter.advance(held, NOW + 0.1) is held, "somebody reserved after it"


def look(limiter: LocalLimiter, remaining: float, reset_s: float, limit: int = 600) -> None:
    headers = {
        "x-ratelimit-limit-requests": str(limit),
        "x-ratelimit-remaining-requests": str(remaining),
        "x-ratelimit-reset-requests": f"{reset_s:.3f}s",
    }
    see(limiter, take(limiter), rate_limits=parse_rate_limits(headers))


def periods(limiter: LocalLimiter) -> set[float]:
    return {limit.period_s for limit in limiter._route("m", "").limits}


def test_a_window_of_a_minute_that_has_just_begun_is_not_taken_for_an_hour() -> None:
    limiter = LocalLimiter()
    for used in range(1, 30):
        look(limiter, 600 - used, 60.0 - used / 10)
    assert periods(limiter) == {60.0}
    limiter = LocalLimiter()
    look(limiter, 59, 59.9, 60)  # as a bucket per hour would have it
    assert periods(limiter) == set(), "not yet sure"
    look(limiter, 58, 58.9, 60)
    assert periods(limiter) == {60.0}
    for used in range(3, 20):
        look(limiter, 60 - used, 59.9 * used, 60)
    assert periods(limiter) == {60.0}, "it stays what it is"


def test_a_day_is_believed_when_three_answers_agree() -> None:
    limiter = LocalLimiter()
    look(limiter, 200, 0.0, 200)
    for used in (1, 2):
        look(limiter, 200 - used, 432.0 * used, 200)
        look(limiter, 200 - used, 432.0 * used, 200)
        assert periods(limiter) == set()
    look(limiter, 197, 1_296.0, 200)
    assert periods(limiter) == {86_400.0}
    look(limiter, 200, 0.0, 200)
    assert periods(limiter) == {86_400.0}


def test_what_is_charged_for_the_longest_answer_stays_charged_where_the_provider_says_so() -> None:
    waits = {}
    for counts in ("never", "until_end", "always"):
        limiter = LocalLimiter()
        limiter.set_limits("m", "", [Limit("tokens", 1_000)], counts_max_tokens=counts)
        request = ReservationRequest("m", max_output_tokens=600)
        ticket = take(limiter, request=request)
        while_it_runs = limiter.earliest(request, NOW + 50) - NOW
        limiter.settle(ticket, Usage(output_tokens=10), NOW + 5)
        waits[counts] = while_it_runs, limiter.earliest(request, NOW + 50) - NOW
    assert waits == {"never": (61.0, 50.0), "until_end": (61.0, 50.0), "always": (61.0, 61.0)}


def test_a_request_that_left_late_makes_the_ways_differ_more() -> None:
    limiter = LocalLimiter()
    for _ in range(60):
        ticket = take(limiter)
        limiter.observe(Observation(ticket=ticket, status=200, sent_at=ticket.at + 0.3, delay_s=0.05), NOW + 1)
    assert limiter._jitter_s == pytest.approx(0.35)


def test_what_the_client_s_own_limit_leaves_is_reckoned_over_all_models() -> None:
    limiter = LocalLimiter([Limit("tokens", 100_000)])
    for model in ("m", "n"):
        limiter.set_limits(model, "", [])
        for step in range(40):
            ticket = take(limiter, NOW + step, ReservationRequest(model, input_tokens=10))
            limiter.settle(ticket, Usage(input_tokens=8, output_tokens=100 + 800 * (step % 2)), NOW + step + 5)
    later = NOW + 200
    for model in ("m", "n"):
        take(limiter, later, ReservationRequest(model, input_tokens=10))
    (limit,) = limiter._limits_of_client
    assert limiter._overrun_of(limit, limiter._routes.values(), later + 1) > 2_000


def test_words_for_what_holds_calls_back() -> None:
    limiter = LocalLimiter([Limit("requests", 60, burst_s=0.0)], max_concurrent=3)
    limiter.set_limits("m", "", [Limit("output_tokens", 500, 3_600.0)])
    assert limiter.limited_by(NOW) is None
    take(limiter, request=ReservationRequest("m"))
    assert limiter.limited_by(NOW) is None, "it went at once"
    take(limiter, request=ReservationRequest("n"))
    assert limiter.limited_by(NOW) == "requests per minute"
    take(limiter, request=ReservationRequest("n"))
    assert limiter.limited_by(NOW) == "max_concurrent_requests, 3 at once"
    assert not limiter.has_room
    other = LocalLimiter()
    other.set_limits("m", "", [Limit("input_tokens", 500, 90.0)])
    for _ in range(6):
        take(other)
    assert other.limited_by(NOW) == "input tokens in 90 s of m"


TINY = {"requests": RateLimit("requests", 60.0, 1, 0, 60.0), "tokens": RateLimit("tokens", 60.0, 1, 0, 60.0)}


def serve(limiter: LocalLimiter, count: int, now: float, **changes: Any) -> float:
    """Have requests answered, each at its slot; return the time of the last one."""
    for _ in range(count):
        ticket = take(limiter, now)
        now = max(now, ticket.at)
        see(limiter, ticket, now=now, **changes)
        limiter.settle(ticket, Usage(input_tokens=100, output_tokens=10), now)
    return now


@pytest.mark.parametrize("count", [1, 50])
def test_a_limit_far_below_what_was_just_served_is_not_believed(count: int) -> None:
    limiter = LocalLimiter()
    now = serve(limiter, 3, NOW)
    now = serve(limiter, count, now, rate_limits=TINY)
    assert serve(limiter, 20, now) - NOW < 1


def test_a_limit_that_later_answers_contradict_is_withdrawn() -> None:
    limiter = LocalLimiter()
    tickets = [take(limiter) for _ in range(20)]
    held = None
    for ticket in tickets:
        see(limiter, ticket, rate_limits={"requests": TINY["requests"]})
        held = held or take(limiter)
    assert limiter.advance(held, NOW + 0.01).at <= NOW + 0.01, "what waits for it goes, too"
    assert take(limiter, NOW + 0.01).at <= NOW + 0.01


def test_the_limit_of_the_user_takes_the_place_of_one_that_is_withdrawn() -> None:
    limiter = LocalLimiter()
    limiter.set_limits("m", "", [Limit("requests", 600, burst_s=0.0)], is_firm=True)
    see(limiter, take(limiter), rate_limits={"requests": TINY["requests"]})
    for ticket in [limiter.reserve(REQUEST, NOW) for _ in range(3)]:
        see(limiter, ticket, rate_limits={"requests": TINY["requests"]})
    assert gap(limiter, NOW + 300) == pytest.approx(0.1, rel=0.05)


def test_a_refusal_makes_a_low_limit_credible() -> None:
    limiter = LocalLimiter()
    now = serve(limiter, 50, NOW)
    see(limiter, take(limiter, now), 429, now=now, rate_limits={"requests": RateLimit("requests", 60.0, 6, 0, 1.0)})
    assert gap(limiter, now + 300) > 9


def test_a_limit_that_fits_what_was_served_is_believed() -> None:
    limiter = LocalLimiter()
    now = serve(limiter, 10, NOW)
    serve(limiter, 1, now, rate_limits={"requests": RateLimit("requests", 60.0, 6, 0, 1.0)})
    assert gap(limiter, now + 300) > 9


def test_tokens_read_from_a_cache_contradict_no_limit() -> None:
    limiter = LocalLimiter()
    ticket = take(limiter)
    see(limiter, ticket, rate_limits={"input_tokens": RateLimit("input_tokens", 60.0, 1_000, 900, 1.0)})
    limiter.settle(ticket, Usage(input_tokens=50_000, cache_read_tokens=49_900), NOW)
    assert gap(limiter, NOW + 300) > 0


@pytest.mark.parametrize("asked_s", [0.0, 0.001])
def test_a_wait_of_nothing_that_proves_too_short_is_not_trusted_again(asked_s: float) -> None:
    limiter = LocalLimiter()
    limiter.set_limits("m", "", [Limit("requests", 6_000)])
    now, waits = NOW, []
    for _ in range(5):
        see(limiter, take(limiter, now), 429, now=now, retry_after_s=asked_s)
        waits.append(limiter.opens_at("m", "", now) - now)
        now += 10
    assert waits == [pytest.approx(asked_s), 1.0, 2.0, 4.0, 8.0]


def test_without_a_limit_a_wait_of_nothing_is_a_pause_all_the_same() -> None:
    limiter = LocalLimiter()
    see(limiter, take(limiter), 429, retry_after_s=0.0)
    assert limiter.opens_at("m", "", NOW) == NOW + 1


def test_what_was_served_counts_for_a_minute() -> None:
    served = ServedAmounts()
    for second in range(100):
        served.add(float(second), requests=1, input_tokens=10, output_tokens=5)
    # Those after second 39: 60 requests, 600 input tokens, 300 output tokens.
    assert served.contradicts("requests", 29.9, 60.0, 99.0)
    assert not served.contradicts("requests", 30.0, 60.0, 99.0)
    assert served.contradicts("input_tokens", 299.9, 60.0, 99.0)
    assert not served.contradicts("input_tokens", 300.0, 60.0, 99.0)
    assert served.contradicts("tokens", 299.9, 60.0, 99.0)
    assert not served.contradicts("tokens", 300.0, 60.0, 99.0)
    assert served.contradicts("output_tokens", 14.9, 60.0, 99.0)
    assert not served.contradicts("output_tokens", 15.0, 60.0, 99.0)


def test_what_is_older_than_a_minute_takes_no_memory_where_no_limit_is_known() -> None:
    """A server of one's own names no limits, so nothing is ever compared."""
    served = ServedAmounts()
    tracemalloc.start()
    try:
        for second in range(100_000):
            served.add(float(second), requests=1, input_tokens=10.5)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 100_000  # bytes: a minute of them, not all
