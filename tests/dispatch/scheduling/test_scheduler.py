"""Admission of calls to routes. Time is a number."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable

import pytest

from lm_deluge.dispatch.scheduling.limiter import Limit, Observation, ReservationRequest
from lm_deluge.dispatch.scheduling.local_limiter import LocalLimiter
from lm_deluge.dispatch.scheduling.queue import JobQueue, QueuedJob
from lm_deluge.dispatch.scheduling.scheduler import Admission, Job, Plan, Route, Scheduler
from lm_deluge.errors import (
    AuthenticationError,
    BudgetError,
    ConfigurationError,
    DispatchError,
    NotFoundError,
    RateLimitError,
)
from lm_deluge.usage import Usage
from lm_deluge.wire.rate_limit_headers import RateLimit

NOW = 100.0


def jobs(count: int, **options: object) -> list[Job]:
    return [Job(id=number, **options) for number in range(count)]


def scheduler(
    *routes: Route, limits: Iterable[Limit] = (), places: int | None = None, client: Iterable[Limit] = ()
) -> tuple[Scheduler, LocalLimiter]:
    limiter = LocalLimiter(client, max_concurrent=places)
    for route in routes or (Route("m"),):
        limiter.set_limits(route.model, route.key, limits)
    return Scheduler(limiter, routes or (Route("m"),)), limiter


def submit(queue: Scheduler, several: Iterable[Job], now: float = NOW) -> None:
    for job in several:
        queue.submit(job, now)


def ids(plan: Plan) -> list[int]:
    return [start.job.id for start in plan.start]


def run_all(queue: Scheduler, limiter: LocalLimiter, until: float = math.inf, now: float = NOW) -> list[Admission]:
    """Poll at every wake-up; each response ends at once."""
    started = []
    while now < until:
        plan = queue.poll(now)
        assert plan.wake_at > now
        for start in plan.start:
            assert start.ticket.at <= now
            limiter.settle(start.ticket, Usage(input_tokens=start.job.input_tokens), now)
            started.append(start)
        if not plan.start:
            now = plan.wake_at
    return started


def test_without_limits_all_start_at_once_in_order() -> None:
    queue, _ = scheduler()
    submit(queue, jobs(100))
    plan = queue.poll(NOW)
    assert ids(plan) == list(range(100))
    assert plan.wake_at == math.inf
    assert len(queue) == 0


def test_first_come_first_served_under_a_limit() -> None:
    queue, limiter = scheduler(limits=[Limit("requests", 600)])
    submit(queue, jobs(50))
    assert [start.job.id for start in run_all(queue, limiter)] == list(range(50))


def test_one_wake_up_per_slot_and_none_between() -> None:
    queue, _ = scheduler(limits=[Limit("requests", 60, burst_s=0.0)])
    submit(queue, jobs(3))
    plan = queue.poll(NOW)
    assert ids(plan) == [0]
    between = queue.poll(NOW + 0.5)
    assert ids(between) == []
    assert between.wake_at == pytest.approx(plan.wake_at)
    assert ids(queue.poll(plan.wake_at)) == [1]


def test_places_that_come_back_are_used() -> None:
    queue, limiter = scheduler(places=2)
    submit(queue, jobs(5))
    plan = queue.poll(NOW)
    assert ids(plan) == [0, 1]
    assert plan.wake_at == math.inf, "nothing to wait for but an answer's end"
    limiter.settle(plan.start[0].ticket, Usage(), NOW)
    assert ids(queue.poll(NOW)) == [2]


def test_what_can_never_fit_fails_at_once() -> None:
    queue, _ = scheduler(limits=[Limit("input_tokens", 1_000)])
    with pytest.raises(BudgetError, match="1,001"):
        queue.submit(Job(id=1, input_tokens=1_001), NOW)
    assert len(queue) == 0


def test_what_fits_one_model_only_goes_there() -> None:
    queue, limiter = scheduler(Route("small"), Route("large"))
    limiter.set_limits("small", "", [Limit("input_tokens", 100)])
    queue.submit(Job(id=1, input_tokens=1_000), NOW)
    assert [start.route.model for start in queue.poll(NOW).start] == ["large"]


def test_a_limit_that_turns_out_lower_fails_what_no_longer_fits() -> None:
    queue, limiter = scheduler(limits=[Limit("input_tokens", 10_000)], places=1)
    submit(queue, [Job(id=1, input_tokens=10), Job(id=2, input_tokens=5_000), Job(id=3, input_tokens=10)])
    first = queue.poll(NOW).start[0]
    limits = {"input_tokens": RateLimit("input_tokens", 60.0, 1_000)}
    limiter.observe(Observation(ticket=first.ticket, status=200, sent_at=NOW, rate_limits=limits), NOW)
    limiter.settle(first.ticket, Usage(input_tokens=10), NOW)
    plan = queue.poll(NOW + 60)
    assert [(failure.job.id, type(failure.error)) for failure in plan.failed] == [(2, BudgetError)]
    assert ids(plan) == [3]


def test_a_limit_that_turns_out_lower_leaves_the_other_model() -> None:
    queue, limiter = scheduler(Route("a"), Route("b"), limits=[Limit("input_tokens", 10_000)])
    submit(queue, [Job(id=1, input_tokens=10, models=frozenset("a")), Job(id=2, input_tokens=5_000)])
    first = queue.poll(NOW - 1).start[0]
    limits = {"input_tokens": RateLimit("input_tokens", 60.0, 1_000)}
    queue.submit(Job(id=3, input_tokens=5_000), NOW)
    limiter.observe(Observation(ticket=first.ticket, status=200, sent_at=NOW, rate_limits=limits), NOW)
    starts = queue.poll(NOW + 120).start
    assert [(start.job.id, start.route.model) for start in starts] == [(3, "b")]


def test_the_same_call_does_not_wait_twice() -> None:
    queue, _ = scheduler(places=0)
    queue.submit(Job(id=1), NOW)
    with pytest.raises(DispatchError, match="waits already"):
        queue.submit(Job(id=1), NOW)
    with pytest.raises(DispatchError, match="none of the client's models"):
        queue.submit(Job(id=2, models=frozenset({"x"})), NOW)


@pytest.mark.parametrize("routes", [[], [Route("m", weight=0)], [Route("m", weight=math.inf)]], ids=str)
def test_routes_are_checked(routes: list[Route]) -> None:
    with pytest.raises(ConfigurationError):
        Scheduler(LocalLimiter(), routes)


# Coming back, going away


def test_a_retry_waits_and_then_goes_before_those_that_came_later() -> None:
    queue, limiter = scheduler(places=1)
    submit(queue, jobs(4))
    first = queue.poll(NOW).start[0]
    limiter.release(first.ticket, NOW)
    queue.submit(first.job, NOW, not_before=NOW + 5)
    second = queue.poll(NOW)
    assert ids(second) == [1]
    assert second.wake_at == NOW + 5
    limiter.settle(second.start[0].ticket, Usage(), NOW + 6)
    assert ids(queue.poll(NOW + 6)) == [0]


def test_a_call_that_is_over_has_no_place_any_more() -> None:
    queue, limiter = scheduler(places=1)
    submit(queue, jobs(2))
    first = queue.poll(NOW).start[0]
    limiter.settle(first.ticket, Usage(), NOW)
    queue.forget(0)
    queue.submit(Job(id=0), NOW)
    assert ids(queue.poll(NOW)) == [1]


def test_a_cancelled_call_leaves_from_anywhere() -> None:
    queue, limiter = scheduler(limits=[Limit("requests", 60, burst_s=0.0)])
    submit(queue, jobs(5))
    queue.submit(Job(id=9), NOW, not_before=NOW + 2)
    plan = queue.poll(NOW)  # 0 started, 1 holds the next slot
    assert all(queue.cancel(number, NOW) for number in (1, 3, 9))
    assert not queue.cancel(0, NOW)
    assert not queue.cancel(77, NOW)
    assert len(queue) == 2
    assert ids(queue.poll(plan.wake_at)) == [2], "in the slot of the one that left"
    assert [start.job.id for start in run_all(queue, limiter, now=NOW + 10)] == [4]


# Several models


def test_weights_share_what_is_free() -> None:
    queue, _ = scheduler(Route("a", weight=3), Route("b", weight=1))
    submit(queue, jobs(400))
    starts = queue.poll(NOW).start
    assert [start.route.model for start in starts].count("a") == 300
    assert [start.route.model for start in starts[:4]].count("a") == 3, "evenly, not in blocks"


def test_two_limits_are_used_in_full() -> None:
    queue, limiter = scheduler(Route("a", weight=5), Route("b"), limits=[Limit("requests", 600)])
    submit(queue, jobs(3_000))
    started = run_all(queue, limiter, until=NOW + 60)
    assert len(started) >= 2 * 0.98 * 600


def test_keys_of_one_model_add_up() -> None:
    queue, limiter = scheduler(Route("m", "one"), Route("m", "two"), limits=[Limit("requests", 600)])
    submit(queue, jobs(3_000))
    assert len(run_all(queue, limiter, until=NOW + 60)) >= 2 * 0.98 * 600


def test_calls_for_one_model_do_not_hold_up_those_for_another() -> None:
    queue, _ = scheduler(Route("a"), Route("b"), limits=[Limit("requests", 60, burst_s=0.0)])
    submit(queue, [*jobs(3, models=frozenset("a")), Job(id=7, models=frozenset("b"))])
    assert ids(queue.poll(NOW)) == [0, 7]


def test_a_cooling_model_is_passed_over() -> None:
    queue, _ = scheduler(Route("a", provider="x"), Route("b", provider="y"))
    queue.cool_down_provider(NOW + 10, NOW, "x")
    submit(queue, jobs(2))
    assert {start.route.model for start in queue.poll(NOW).start} == {"b"}
    queue.submit(Job(id=9, models=frozenset("a")), NOW)
    plan = queue.poll(NOW)
    assert (ids(plan), plan.wake_at) == ([], NOW + 10)
    assert ids(queue.poll(NOW + 10)) == [9]


def test_a_refused_model_is_passed_over_and_gives_back_who_waits_for_it() -> None:
    queue, limiter = scheduler(Route("a"), Route("b"), limits=[Limit("requests", 60, burst_s=0.0)])
    submit(queue, jobs(4))
    plan = queue.poll(NOW)
    first = next(start for start in plan.start if start.route.model == "a")
    observation = Observation(ticket=first.ticket, status=429, sent_at=NOW, retry_after_s=30.0, chance=0.0)
    limiter.observe(observation, NOW + 0.1)
    later = queue.poll(NOW + 2)
    assert {start.route.model for start in later.start} == {"b"}
    plan = queue.poll(NOW + 4)
    assert {start.route.model for start in plan.start} == {"b"}
    assert len(queue) == 0


def test_cooling_gives_back_who_waits_for_it() -> None:
    queue, _ = scheduler(Route("a"), limits=[Limit("requests", 60, burst_s=0.0)])
    submit(queue, jobs(2))
    slot = queue.poll(NOW).wake_at
    queue.cool_down(NOW + 50, NOW, model="a", key="")
    assert queue.poll(slot).wake_at == NOW + 50
    assert ids(queue.poll(NOW + 50)) == [1]


def test_a_dead_model_is_never_used_again() -> None:
    queue, limiter = scheduler(Route("a"), Route("b"), limits=[Limit("requests", 600)])
    submit(queue, jobs(30))
    queue.poll(NOW)
    error = NotFoundError("no such model")
    queue.block(error, NOW, model="a")
    assert {start.route.model for start in run_all(queue, limiter, now=NOW + 1)} == {"b"}


def test_when_all_are_dead_calls_fail_with_what_killed_them() -> None:
    queue, _ = scheduler(Route("a", "k"), Route("b", "k"), places=1)
    submit(queue, jobs(3))
    queue.submit(Job(id=8), NOW, not_before=NOW + 1)
    started = queue.poll(NOW)
    assert ids(started) == [0]
    error = AuthenticationError("wrong key")
    queue.block(error, NOW, key="k")
    plan = queue.poll(NOW)
    assert [(failure.job.id, failure.error) for failure in plan.failed] == [(1, error), (2, error)]
    assert [failure.job.id for failure in queue.poll(NOW + 1).failed] == [8]
    assert queue.poll(NOW + 2) == Plan([], [], math.inf)


def test_the_preferred_model_takes_it_unless_it_cannot() -> None:
    queue, _ = scheduler(Route("a", weight=100), Route("b"))
    submit(queue, jobs(5, prefer="b"))
    assert {start.route.model for start in queue.poll(NOW).start} == {"b"}
    queue.block(RateLimitError("x"), NOW, model="b")
    submit(queue, jobs(5, prefer="b"))
    assert {start.route.model for start in queue.poll(NOW).start} == {"a"}


def test_a_preferred_model_is_waited_for() -> None:
    queue, _ = scheduler(Route("a"), Route("b"), limits=[Limit("requests", 60, burst_s=0.0)])
    submit(queue, jobs(2, prefer="b"))
    assert ids(queue.poll(NOW)) == [0]
    assert [start.route.model for start in queue.poll(NOW + 1.1).start] == ["b"]


# Big ones and small ones


def test_a_big_one_keeps_its_slot_while_another_model_uses_the_gap() -> None:
    queue, limiter = scheduler(Route("a"), Route("b"), client=[Limit("requests", 6_000)])
    limiter.set_limits("a", "", [Limit("input_tokens", 60_000)])
    big = {"input_tokens": 20_000, "models": frozenset("a")}
    submit(queue, [Job(id=0, **big), Job(id=1, **big)])
    submit(queue, [Job(id=number, input_tokens=10, models=frozenset("b")) for number in range(2, 102)])
    plan = queue.poll(NOW)
    filled = ids(plan)
    polls = 0
    while len(queue) > 1:
        polls += 1
        assert plan.wake_at <= NOW + 1.5, "not one of them waits for the big one's slot"
        plan = queue.poll(plan.wake_at)
        filled += ids(plan)
    assert filled == [0, *range(2, 102)]
    assert polls <= 40
    assert plan.wake_at > NOW + 18
    assert ids(queue.poll(plan.wake_at)) == [1], "which has not moved"


def test_what_does_not_touch_the_limit_goes_before_the_one_that_waits_for_it() -> None:
    queue, _ = scheduler(limits=[Limit("input_tokens", 60_000), Limit("requests", 6_000, burst_s=0.1)])
    submit(queue, [*jobs(2, input_tokens=20_000), Job(id=7, input_tokens=0)])
    assert ids(queue.poll(NOW)) == [0, 7]
    assert ids(queue.poll(NOW + 1)) == []


def test_small_ones_cannot_starve_a_big_one() -> None:
    queue, limiter = scheduler(limits=[Limit("input_tokens", 100_000)])
    submit(queue, [Job(id=number, input_tokens=500) for number in range(200)])
    queue.submit(Job(id=1_000, input_tokens=60_000), NOW)
    submit(queue, [Job(id=number, input_tokens=500) for number in range(200, 600)])
    order = [start.job.id for start in run_all(queue, limiter)]
    assert order.index(1_000) == 200


def test_what_others_gave_back_brings_the_slot_forward() -> None:
    queue, limiter = scheduler(limits=[Limit("output_tokens", 61_000)])
    submit(queue, jobs(4, max_output_tokens=20_000))
    plan = queue.poll(NOW)
    first = plan.start[0].ticket
    for _ in range(2):
        plan = queue.poll(plan.wake_at)
    assert plan.wake_at > NOW + 60, "three fill the window"
    limiter.settle(first, Usage(output_tokens=100), NOW + 3)
    assert ids(queue.poll(NOW + 3)) == [3]


# Many


def count_calls(count: int) -> int:
    """Count the calls of functions, C functions included, from the first submit to the last start."""
    queue, limiter = scheduler(Route("a"), Route("b"), limits=[Limit("requests", 6_000)], places=100)
    calls = 0

    def note(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(note)
    try:
        submit(queue, jobs(count))
        for number in range(0, count, 7):
            queue.cancel(number, NOW)
        started = run_all(queue, limiter)
    finally:
        sys.setprofile(None)
    assert len(started) == count - len(range(0, count, 7))
    return calls


@pytest.mark.timeout(300)
def test_a_hundred_thousand_calls_cost_ten_times_ten_thousand() -> None:
    few, many = count_calls(1_000), count_calls(10_000)
    assert many <= 11 * few
    queue, _ = scheduler(places=1)
    submit(queue, jobs(100_000))
    calls = 0

    def note(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(note)
    try:
        queue.poll(NOW)
    finally:
        sys.setprofile(None)
    assert calls < 500, "a decision does not look at all that waits"


class Counted(int):
    """An order number that counts its comparisons."""

    compared = 0

    def __lt__(self, other: int) -> bool:
        Counted.compared += 1
        return int(self) < int(other)

    def __gt__(self, other: int) -> bool:
        Counted.compared += 1
        return int(self) > int(other)


def test_returned_jobs_are_found_by_halving() -> None:
    queue = JobQueue()
    count = 20_000
    queue.add(QueuedJob(Counted(count + 1), Job(id=count + 1)))
    Counted.compared = 0
    for number in range(count):
        queue.add(QueuedJob(Counted((number * 7_919) % count), Job(id=number)))
    order = []
    while (entry := queue.head()) is not None:
        order.append(int(entry.order))
        queue.remove(entry)
    assert order == sorted(order)
    assert Counted.compared < 4 * count * math.log2(count)


def test_what_no_longer_fits_fills_no_gap_and_is_told_in_its_turn() -> None:
    queue, limiter = scheduler(limits=[Limit("input_tokens", 60_000), Limit("requests", 6_000)])
    submit(queue, [*jobs(2, input_tokens=20_000), Job(id=7, input_tokens=30_000)])
    first = queue.poll(NOW).start[0]
    limits = {"input_tokens": RateLimit("input_tokens", 60.0, 25_000)}
    limiter.observe(Observation(ticket=first.ticket, status=200, sent_at=NOW, rate_limits=limits), NOW)
    plan = queue.poll(NOW + 1)
    assert (ids(plan), plan.failed) == ([], [])
    plan = queue.poll(plan.wake_at)
    assert [failure.job.id for failure in plan.failed] == [7]


def test_a_model_that_is_closed_for_a_while_fails_who_could_only_go_there_and_then_opens_again() -> None:
    queue, _ = scheduler(Route("m"), Route("other"))
    refusal = RateLimitError("come back tomorrow", status_code=429, retry_after_s=86_400)
    queue.block(refusal, NOW, model="m", until=NOW + 86_400)
    submit(queue, [Job(id=0, models=frozenset({"m"})), Job(id=1)])
    plan = queue.poll(NOW)
    assert [(failure.job.id, failure.error) for failure in plan.failed] == [(0, refusal)]
    assert [(start.job.id, start.route.model) for start in plan.start] == [(1, "other")]
    queue.submit(Job(id=2, models=frozenset({"m"})), NOW + 86_400)
    assert ids(queue.poll(NOW + 86_400)) == [2]


def test_a_job_is_admitted_at_once_while_none_waits_and_a_slot_is_free() -> None:
    queue, limiter = scheduler(limits=[Limit("requests", 1)])
    first, second, third = jobs(3)
    admission = queue.admit_at_once(first, NOW)
    assert admission is not None
    assert (admission.job, admission.route.model, admission.ticket.at) == (first, "m", NOW)
    assert queue.admit_at_once(second, NOW) is None, "the limit gives no slot now"
    assert limiter.earliest(ReservationRequest("m", "", 0, None), NOW) > NOW, "nothing is reserved by the refusal"
    queue.submit(second, NOW)
    later = NOW + 1_000
    assert queue.admit_at_once(third, later) is None, "another job waits"
    assert ids(queue.poll(later)) == [1]


def test_a_job_admitted_at_once_returns_to_its_place() -> None:
    queue, limiter = scheduler(places=1)
    first, *others = jobs(4)
    admission = queue.admit_at_once(first, NOW)
    assert admission is not None
    submit(queue, others)
    queue.submit(first, NOW)
    limiter.release(admission.ticket, NOW, was_sent=True)
    assert [start.job.id for start in run_all(queue, limiter)] == [0, 1, 2, 3]


def test_nothing_is_admitted_at_once_where_weights_a_cooldown_or_a_block_decide() -> None:
    (job,) = jobs(1)
    assert scheduler(Route("a"), Route("b"))[0].admit_at_once(job, NOW) is None
    queue, _ = scheduler()
    queue.cool_down(NOW + 5, NOW)
    assert queue.admit_at_once(job, NOW) is None
    assert queue.admit_at_once(job, NOW + 5) is not None
    queue, _ = scheduler()
    queue.block(AuthenticationError("no"), NOW, until=math.inf)
    assert queue.admit_at_once(job, NOW) is None


def test_a_job_that_never_fits_is_refused_at_once() -> None:
    queue, _ = scheduler(limits=[Limit("tokens", 100)])
    with pytest.raises(BudgetError, match="can never be sent"):
        queue.admit_at_once(Job(id=1, input_tokens=101), NOW)
