"""Refusals of hosts that name no limit: those that come at any rate slow nothing down, those of a limit do."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from dispatch.scheduling.servers import Server, SlidingWindow, TokenBucket, Verdict
from dispatch.scheduling.virtual import Load, Outcome, VirtualRunner
from lm_deluge.dispatch.scheduling.baseline_refusals import BaselineRefusals
from lm_deluge.dispatch.scheduling.local_limiter import LocalLimiter

PLACES, LATENCY_S = 100, 1.0
MINUTES = 4
MOST = 60.0 * PLACES / LATENCY_S  # a minute


class Moody:
    """Refuses a share of the requests, however many there are."""

    amount, period_s = MOST, 60.0

    def __init__(self, share: float) -> None:
        self.share, self.chance = share, random.Random(3)

    def admit(self, now: float, cost: float = 1.0) -> Verdict:
        return Verdict(self.chance.random() >= self.share, 1e9, 0.0)


class Crowded:
    """Answers so many at the same time, and refuses the others."""

    amount, period_s = MOST, 60.0

    def __init__(self, places: int) -> None:
        self.concurrency, self.busy = places, list[float]()

    def admit(self, now: float, cost: float = 1.0) -> Verdict:
        self.busy = [until for until in self.busy if until > now]
        has_room = len(self.busy) < self.concurrency
        if has_room:
            self.busy.append(now + LATENCY_S)
        return Verdict(has_room, 1e9, 0.0)


def run(server: Server, *, says_when: bool) -> Outcome:
    load = Load(jitter_s=0.05, latency_s=lambda *_: LATENCY_S, says_when=says_when)
    limiter = LocalLimiter(max_concurrent=PLACES)
    return VirtualRunner(limiter, {"requests": server}, load, waiting=2 * PLACES).run(60.0 * MINUTES)


@pytest.mark.parametrize("says_when", [False, True])
@pytest.mark.parametrize(("share", "used"), [(0.02, 0.7), (0.1, 0.6)])
def test_a_host_that_refuses_some_whatever_the_rate_is_asked_at_nearly_the_full_one(
    share: float, used: float, says_when: bool
) -> None:
    outcome = run(Moody(share), says_when=says_when)
    assert outcome.share >= used, outcome


@pytest.mark.parametrize("says_when", [False, True])
@pytest.mark.parametrize(
    ("make", "refused"),
    [
        (lambda: SlidingWindow(600, 60.0), 0.2),
        (lambda: TokenBucket(60, 60.0), 0.5),
        (lambda: Crowded(50), 0.15),
    ],
)
def test_one_that_keeps_a_limit_without_a_word_is_not_pushed(
    make: Callable[[], Server], refused: float, says_when: bool
) -> None:
    outcome = run(make(), says_when=says_when)
    assert outcome.refused <= refused * outcome.sent, outcome


def answers(
    baseline: BaselineRefusals, count: int, share: float, *, started_at: float, every_s: float, under_way: int
) -> None:
    for number in range(count):
        at = started_at + number * every_s
        baseline.add_request(at)
        baseline.add_response(at, under_way, is_refused=number % round(1 / share) == 0 if share else False)


def noise_of(slow: float, fast: float, *, under_way: tuple[int, int] = (2, 40)) -> BaselineRefusals:
    """A host that refuses these shares of few and of many requests."""
    baseline = BaselineRefusals(60.0)
    answers(baseline, 200, slow, started_at=0.0, every_s=1.0, under_way=under_way[0])
    answers(baseline, 400, fast, started_at=200.0, every_s=0.05, under_way=under_way[1])
    return baseline


def test_as_many_of_few_as_of_many_are_noise() -> None:
    assert noise_of(0.05, 0.05).explains_refusals()


@pytest.mark.parametrize(
    "kwargs",
    [
        {"slow": 0.0, "fast": 0.05},
        {"slow": 0.02, "fast": 0.1},
        {"slow": 0.5, "fast": 0.5},  # so many that something else is wrong
        {"slow": 0.05, "fast": 0.05, "under_way": (20, 20)},  # never fewer at the same time: who knows
    ],
)
def test_what_may_be_the_rate_is_none(kwargs: dict[str, Any]) -> None:
    assert not noise_of(**kwargs).explains_refusals()


def test_more_than_usual_is_no_noise_any_more() -> None:
    baseline = noise_of(0.05, 0.05)
    assert baseline.explains_refusals()
    answers(baseline, 100, 0.25, started_at=300.0, every_s=0.05, under_way=40)
    assert not baseline.explains_refusals()


def test_a_few_answers_say_nothing() -> None:
    baseline = BaselineRefusals(60.0)
    answers(baseline, 30, 0.1, started_at=0.0, every_s=1.0, under_way=1)
    assert not baseline.explains_refusals()


def test_what_left_long_ago_is_forgotten() -> None:
    baseline = BaselineRefusals(60.0)
    for number in range(10_000):
        baseline.add_request(float(number))
    assert len(baseline._left) <= 200
