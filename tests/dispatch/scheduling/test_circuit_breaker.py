"""Outages of a provider: attempts that do not count, and probes while it cannot be reached."""

import asyncio
import math

import pytest

from lm_deluge.dispatch.scheduling.circuit_breaker import CircuitBreaker
from lm_deluge.dispatch.scheduling.limiter import Ticket
from lm_deluge.dispatch.scheduling.local_limiter import LocalLimiter
from lm_deluge.dispatch.scheduling.runner import LimiterLock, Runner
from lm_deluge.dispatch.scheduling.scheduler import Route
from lm_deluge.errors import (
    AuthenticationError,
    CertificateError,
    ConnectError,
    DelugeError,
    ServerError,
    StreamInterruptedError,
)

NOW = 100.0
REFUSED = ConnectError("no connection")
TICKET = Ticket(1, "m", "", 0.0, 0, 0)


# What counts as an outage, and how long


def test_only_who_answered_before_can_be_away() -> None:
    breaker, other = CircuitBreaker(120), CircuitBreaker(120)
    assert not breaker.record_failure(REFUSED, NOW)
    breaker.record_answer()
    assert breaker.record_failure(REFUSED, NOW)
    assert not other.record_failure(REFUSED, NOW)


def test_only_a_connection_that_was_not_made_is_an_outage() -> None:
    breaker = CircuitBreaker(120)
    breaker.record_answer()
    for error in (CertificateError("not to be trusted"), ServerError("m"), StreamInterruptedError("m")):
        assert not breaker.record_failure(error, NOW)
        assert not breaker.is_open


def test_patience_begins_with_the_first_refusal_and_anew_after_an_answer() -> None:
    breaker = CircuitBreaker(120)
    breaker.record_answer()
    assert breaker.record_failure(REFUSED, NOW)
    assert breaker.record_failure(REFUSED, NOW + 119)
    assert not breaker.record_failure(REFUSED, NOW + 120)
    breaker.record_answer()
    assert breaker.record_failure(REFUSED, NOW + 130)
    assert breaker.record_failure(REFUSED, NOW + 249)


def test_waits_grow_to_a_bound() -> None:
    breaker = CircuitBreaker(120)
    assert [breaker.retry_wait_s(attempt, 1.0) for attempt in (1, 2, 3, 5, 6, 1000)] == [0.5, 1.0, 2.0, 8.0, 10.0, 10.0]
    assert breaker.retry_wait_s(6, 0.5) == 5.0


# Probes


def test_one_probe_leaves_after_each_pause() -> None:
    breaker = CircuitBreaker()
    assert breaker.acquire(NOW) == 0.0
    breaker.record_failure(REFUSED, NOW)
    assert breaker.acquire(NOW) == 2.0
    breaker.record_failure(REFUSED, NOW + 1)  # of a request that left before
    moment = NOW
    for pause_s in (2.0, 8.0, 30.0, 30.0):
        assert breaker.acquire(moment + pause_s - 0.5) == 0.5
        moment += pause_s
        assert breaker.acquire(moment) == 0.0
        assert breaker.acquire(moment) > 0.0, "only one"
        breaker.record_failure(REFUSED, moment)
    assert breaker.record_answer()
    assert not breaker.record_answer()
    assert breaker.acquire(moment) == 0.0
    breaker.record_failure(REFUSED, moment)
    assert breaker.acquire(moment) == 2.0, "the pauses begin again"


def test_where_nobody_ever_was_there_is_no_hope() -> None:
    for has_answered in (False, True):
        breaker = CircuitBreaker()
        if has_answered:
            breaker.record_answer()
        for probe in range(4):
            assert not breaker.is_hopeless
            breaker.record_failure(REFUSED, NOW + 30 * probe)
            assert breaker.acquire(NOW + 30 * probe + 30) == 0.0
        assert breaker.is_hopeless != has_answered


def test_a_stream_that_is_cut_says_nothing_about_who_listens_now() -> None:
    breaker = CircuitBreaker()
    breaker.record_failure(REFUSED, NOW)
    breaker.record_failure(StreamInterruptedError("cut"), NOW)
    assert breaker.is_open


def runner_of(*routes: Route) -> Runner:
    return Runner(LimiterLock(LocalLimiter()), routes)


@pytest.mark.parametrize("error", [ServerError("there, but ill", status_code=500), AuthenticationError("m")], ids=repr)
async def test_one_is_let_through_now_and_then(error: DelugeError) -> None:
    route = Route("m", provider="x")
    runner = runner_of(route)
    breaker = runner.only_breaker
    assert breaker is not None
    breaker.probe_pauses_s = (0.02, 0.03, 0.04)
    left: list[int] = []

    async def call(number: int) -> None:
        await runner.until_reachable()
        left.append(number)

    await call(0)
    for _ in range(2):
        assert not runner.is_outage(REFUSED, route)
    assert breaker.is_open
    tasks = [asyncio.create_task(call(number)) for number in range(1, 6)]
    async with asyncio.timeout(10):
        while len(left) < 3:
            await asyncio.sleep(0.001)
    assert len(left) < 6
    runner.failed(TICKET, error, 0.0)
    assert not breaker.is_open
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks)
    assert sorted(left) == [0, 1, 2, 3, 4, 5]


async def test_models_of_one_provider_share_its_breaker() -> None:
    runner = runner_of(Route("m", provider="x"), Route("n", provider="x"))
    runner.failed(TICKET, ServerError("there, but ill"), 0.0)
    assert runner.is_outage(REFUSED, Route("n", provider="x"))


async def test_calls_are_not_held_back_where_there_is_another_provider() -> None:
    runner = runner_of(Route("m", provider="x"), Route("n", provider="y"))
    runner.is_outage(REFUSED, runner.routes[0])
    assert runner.only_breaker is None
    await runner.until_reachable()


# Cooldowns


def test_a_block_ends_at_its_time() -> None:
    breaker = CircuitBreaker()
    assert breaker.unblock(NOW)
    breaker.block(REFUSED, NOW + 5)
    assert not breaker.unblock(NOW + 4)
    assert breaker.blocked_by is REFUSED
    assert breaker.unblock(NOW + 5)
    assert (breaker.blocked_by, breaker.blocked_until) == (None, math.inf)


def test_a_cooldown_is_only_ever_extended() -> None:
    breaker = CircuitBreaker()
    for until in (NOW + 5, NOW + 3):
        breaker.extend(until)
        assert breaker.until == NOW + 5
