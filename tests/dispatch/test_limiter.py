"""What the limiter of one process learns, beyond the contract."""

from __future__ import annotations

from typing import Any

import pytest

from lm_deluge.dispatch.limiter import LocalLimiter
from lm_deluge.dispatch.limits import Limit, Need, Observation, Ticket
from lm_deluge.usage import Usage
from lm_deluge.wire.rate_limit_headers import RateLimit

NOW = 1_000.0
NEED = Need("m", input_tokens=100, max_output_tokens=400)


def take(limiter: LocalLimiter, now: float = NOW, need: Need = NEED) -> Ticket:
    ticket = limiter.reserve(need, now)
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
    take(limiter, NOW + 60)
    assert gap(limiter, NOW + 60) == pytest.approx(0.1 / 0.9, rel=0.1)


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
    assert limiter.sooner(first, NOW) is first, "it may go already"
    assert limiter.sooner(second, NOW).at == pytest.approx(second.at)
    limiter.release(second, NOW, was_sent=False)
    assert limiter.sooner(second, NOW) is second, "closed"


def test_a_slot_that_others_fill_the_gap_before_stays() -> None:
    limiter = LocalLimiter([Limit("requests", 60, burst_s=0.0)])
    limiter.set_limits("m", "", [Limit("output_tokens", 60_000)])
    limiter.set_limits("n", "", [])
    first = take(limiter, need=Need("m", max_output_tokens=20_000))
    held = take(limiter, need=Need("m", max_output_tokens=20_000))
    assert limiter.reserve(Need("m"), NOW + 5, before=held) is None, "the estimate is not small"
    filler = limiter.reserve(Need("m", max_output_tokens=0), NOW + 5, before=held)
    assert filler is None or filler.at == NOW + 5
    limiter.settle(first, Usage(output_tokens=10), NOW + 6)
    assert limiter.sooner(held, NOW + 6).at <= held.at


def test_a_closed_gate_has_no_gaps_and_no_room_no_fillers() -> None:
    limiter = LocalLimiter([Limit("requests", 60, burst_s=0.0)])
    limiter.set_limits("n", "", [Limit("requests", 60, burst_s=0.0)])
    one, held = take(limiter), take(limiter, need=Need("m"))
    assert one.at < held.at
    busy = take(limiter, need=Need("n"))
    assert limiter.reserve(Need("n"), NOW + 0.5, before=held) is None, "its own limit is in the way"
    assert limiter.reserve(Need("m"), held.at, before=held) is None, "that one may go already"
    limiter.release(busy, NOW, was_sent=False)
    assert limiter.sooner(held, NOW + 0.1) is held, "somebody reserved after it"
