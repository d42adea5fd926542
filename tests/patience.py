"""A runner that does not wait: its timers fire at once, and its clock jumps to where they were set."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from lm_deluge import LLMClient
from lm_deluge.client.limits import build_limiter, build_routes
from lm_deluge.dispatch.lanes import Job
from lm_deluge.dispatch.runner import LimiterLock, Runner
from lm_deluge.dispatch.scheduler import Start


class Waits(list[float]):
    """The waits before second and later attempts, as they were asked for."""


class JumpingClock:
    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now(self) -> float:
        return time.monotonic() + self.ahead_s

    def later(self, delay_s: float, call: Callable[[], None]) -> asyncio.Handle:
        def jump() -> None:
            self.ahead_s += delay_s
            call()

        return asyncio.get_running_loop().call_soon(jump)


class _Watched(Runner):
    waits: Waits
    seen: set[int]

    async def admit(self, job: Job, wait_s: float = 0.0) -> Start:
        if job.id in self.seen:
            self.waits.append(wait_s)
        self.seen.add(job.id)
        return await super().admit(job, wait_s)


def without_waiting(client: LLMClient, chance: float = 0.0) -> Waits:
    """Give the client a runner that does not wait in this event loop; return where the waits are taken down."""
    options, clock = client.options, JumpingClock()
    runner = _Watched(
        LimiterLock(build_limiter(options)),
        build_routes(client.models, options.model_weights),
        max_attempts=options.max_attempts,
        max_retry_after_s=options.max_retry_after_s,
        total_s=options.timeouts.total,
        hedge_after=options.hedge_after,
        clock=clock.now,
        later=clock.later,
        chance=lambda: chance,
    )
    runner.waits, runner.seen = Waits(), set()
    client._runners[asyncio.get_running_loop()] = runner
    return runner.waits
