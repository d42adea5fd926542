"""Interactive jobs and jobs of batches under the same limits. Time is a number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.dispatch.scheduling.limiter import Limit
from lm_deluge.dispatch.scheduling.local_limiter import LocalLimiter
from lm_deluge.dispatch.scheduling.scheduler import Admission, Job, Route, Scheduler
from lm_deluge.usage import Usage

NOW = 100.0


def batch(count: int, start: int = 0) -> list[Job]:
    return [Job(id=start + number) for number in range(count)]


def interactive(count: int, start: int = 1_000) -> list[Job]:
    return [Job(id=start + number, is_interactive=True) for number in range(count)]


def run(queue: Scheduler, limiter: LocalLimiter, now: float = NOW) -> list[int]:
    """Poll at each wake-up, and end each request as soon as it has started; return the ids in order."""
    order: list[int] = []
    running: list[Admission] = []
    for _ in range(10_000):
        plan = queue.poll(now)
        order += [start.job.id for start in plan.start]
        running += plan.start
        if running:
            limiter.settle(running.pop(0).ticket, Usage(), now)
        elif plan.wake_at < float("inf"):
            now = plan.wake_at
        else:
            return order
    raise AssertionError("the jobs do not end")


def test_a_user_goes_before_a_batch_that_came_first() -> None:
    limiter = LocalLimiter(max_concurrent=5)
    queue = Scheduler(limiter, [Route("m")])
    for job in [*batch(60), *interactive(1)]:
        queue.submit(job, NOW)
    assert run(queue, limiter)[0] == 1_000


def test_a_user_takes_the_slot_that_a_job_of_a_batch_waits_for() -> None:
    limiter = LocalLimiter([Limit("requests", 60, burst_s=0.0)])
    queue = Scheduler(limiter, [Route("m")])
    for job in batch(3):
        queue.submit(job, NOW)
    plan = queue.poll(NOW)
    assert [start.job.id for start in plan.start] == [0]
    assert queue.submit(interactive(1)[0], NOW + 0.2), "a poll may admit it"
    again = queue.poll(NOW + 0.2)
    assert again.wake_at == pytest.approx(plan.wake_at), "the slot is as early as before"
    assert [start.job.id for start in queue.poll(plan.wake_at).start] == [1_000]
    assert run(queue, limiter, plan.wake_at) == [1, 2]


def test_jobs_of_a_batch_are_not_starved_under_a_rate_limit() -> None:
    limiter = LocalLimiter([Limit("requests", 60, burst_s=0.0)])
    queue = Scheduler(limiter, [Route("m")])
    for job in [*batch(2), *interactive(20)]:
        queue.submit(job, NOW)
    order = run(queue, limiter)
    assert order[:4] == [1_000, 1_001, 1_002, 1_003]
    assert (order.index(0), order.index(1)) == (4, 9)


def test_an_interactive_job_that_cannot_use_a_route_leaves_it_to_the_batch() -> None:
    limiter = LocalLimiter()
    limiter.set_limits("a", "", [Limit("requests", 60, burst_s=0.0)])
    limiter.set_limits("b", "", [], max_concurrent=1)
    queue = Scheduler(limiter, [Route("a"), Route("b")])
    only_b = frozenset({"b"})
    queue.submit(Job(id=1, is_interactive=True, models=only_b), NOW)
    assert [start.job.id for start in queue.poll(NOW).start] == [1]
    queue.submit(Job(id=2, is_interactive=True, models=only_b), NOW)
    for job in batch(2, start=10):
        queue.submit(Job(id=job.id, models=frozenset({"a"})), NOW)
    assert [start.job.id for start in queue.poll(NOW).start] == [10]


@given(
    arrivals=st.lists(st.booleans(), min_size=1, max_size=60),
    places=st.integers(1, 5),
    per_minute=st.sampled_from([None, 60, 600]),
    models=st.integers(1, 2),
)
def test_no_job_is_lost_and_each_kind_has_its_share(
    arrivals: list[bool], places: int, per_minute: int | None, models: int
) -> None:
    limiter = LocalLimiter([] if per_minute is None else [Limit("requests", per_minute)], max_concurrent=places)
    queue = Scheduler(limiter, [Route(f"m{number}") for number in range(models)])
    for number, is_interactive in enumerate(arrivals):
        queue.submit(Job(id=number, is_interactive=is_interactive), NOW)
    order = run(queue, limiter)
    assert sorted(order) == list(range(len(arrivals)))
    for kind in (True, False):
        mine = [number for number in order if arrivals[number] is kind]
        assert mine == sorted(mine), "within a kind in the order of arrival"
    rest = {True: arrivals.count(True), False: arrivals.count(False)}
    in_a_row = {True: 0, False: 0}
    for number in order:
        kind = arrivals[number]
        rest[kind] -= 1
        in_a_row = {kind: in_a_row[kind] + 1, not kind: 0}
        spare = models - 1  # each model may have reserved a slot before
        if rest[False]:
            assert in_a_row[True] <= 4 + spare, "batches get at least a fifth"
        if rest[True]:
            assert in_a_row[False] <= 1 + spare, "and no more while users wait"
