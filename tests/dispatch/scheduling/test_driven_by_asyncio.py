"""Scheduler and limiter under an event loop whose clock is ours: no second of it is waited for."""

from __future__ import annotations

import asyncio
import itertools

from dispatch.scheduling.servers import SlidingWindow
from lm_deluge.dispatch.scheduling.limiter import Limit, Observation
from lm_deluge.dispatch.scheduling.local_limiter import LocalLimiter
from lm_deluge.dispatch.scheduling.scheduler import Admission, Job, Route, Scheduler
from lm_deluge.usage import Usage


class FakeClock:
    """Time passes when everybody sleeps."""

    def __init__(self) -> None:
        self.now = 50.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = itertools.count()

    def sleep_until(self, moment: float) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((moment, next(self._count), future))
        return future

    async def run(self, task: asyncio.Task[None]) -> None:
        while not task.done():
            for _ in range(10):
                await asyncio.sleep(0)
            self._sleepers = sorted(entry for entry in self._sleepers if not entry[2].done())
            if self._sleepers and not task.done():
                moment, _, future = self._sleepers.pop(0)
                self.now = max(self.now, moment)
                future.set_result(None)
        await task


class TinyRunner:
    """One timer, one task per call: what the real runner does, in little."""

    def __init__(self, clock: FakeClock, server: SlidingWindow) -> None:
        self.clock, self.server = clock, server
        self.limiter = LocalLimiter(max_concurrent=50)
        self.limiter.set_limits("m", "", [Limit("requests", server.amount)])
        self.scheduler = Scheduler(self.limiter, [Route("m")])
        self.something = asyncio.Event()
        self.done: list[int] = []
        self.refused = 0

    async def run(self, count: int) -> None:
        for number in range(count):
            self.scheduler.submit(Job(id=number), self.clock.now)
        async with asyncio.TaskGroup() as group:
            while len(self.done) < count:
                plan = self.scheduler.poll(self.clock.now)
                for start in plan.start:
                    group.create_task(self.call(start))
                self.something.clear()
                timer = self.clock.sleep_until(plan.wake_at)
                waiter = asyncio.ensure_future(self.something.wait())
                await asyncio.wait([timer, waiter], return_when=asyncio.FIRST_COMPLETED)
                timer.cancel()
                waiter.cancel()

    async def call(self, start: Admission) -> None:
        sent_at = self.clock.now
        assert start.ticket.at <= sent_at
        await self.clock.sleep_until(sent_at + 0.05)
        verdict = self.server.admit(self.clock.now)
        self.refused += not verdict.is_admitted
        observation = Observation(ticket=start.ticket, status=200, sent_at=sent_at)
        self.limiter.observe(observation, self.clock.now)
        await self.clock.sleep_until(self.clock.now + 2.0)
        self.limiter.settle(start.ticket, Usage(output_tokens=10), self.clock.now)
        self.scheduler.forget(start.job.id)
        self.done.append(start.job.id)
        self.something.set()


async def test_calls_go_at_the_full_rate_and_in_order() -> None:
    clock = FakeClock()
    runner = TinyRunner(clock, SlidingWindow(600, 60.0))
    await clock.run(asyncio.ensure_future(runner.run(1_500)))
    assert runner.refused == 0
    assert runner.done == list(range(1_500))
    assert clock.now - 50.0 < 1_500 / 600 * 60 / 0.98 + 3
