"""Runners that do not wait: timers fire at once or on demand, and the clock jumps to the time of the timer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from lm_deluge import LLMClient
from lm_deluge.dispatch.scheduling.queue import Job
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.dispatch.scheduling.scheduler import Admission

AnyRunner = TypeVar("AnyRunner", bound=Runner)


class Waits(list[float]):
    """The requested waits before second and later attempts, in seconds."""


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

    async def admit(self, job: Job, wait_s: float = 0.0) -> Admission:
        if job.id in self.seen:
            self.waits.append(wait_s)
        self.seen.add(job.id)
        return await super().admit(job, wait_s)


class Bell:
    """Timers that fire only when the test calls `ring`."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self._set: list[tuple[asyncio.TimerHandle, Callable[[], None]]] = []

    def later(self, delay_s: float, call: Callable[[], None]) -> asyncio.Handle:
        self.delays.append(delay_s)
        handle = asyncio.get_running_loop().call_later(1e6, call)
        self._set.append((handle, call))
        return handle

    def ring(self) -> int:
        """Fire the timers that are set and not cancelled; return their number."""
        due, self._set = [(handle, call) for handle, call in self._set if not handle.cancelled()], []
        for handle, call in due:
            handle.cancel()
            call()
        return len(due)


def with_bell(client: LLMClient, clock: Callable[[], float] = time.monotonic) -> Bell:
    """Give the client a runner in this event loop whose timers fire when the test rings the bell."""
    bell = Bell()
    client.dispatcher.make_runner(partial(Runner, clock=clock, later=bell.later, chance=lambda: 0.0))
    return bell


def without_waiting(client: LLMClient, chance: float = 0.0) -> Waits:
    """Give the client a runner in this event loop that does not wait; return the list of the requested waits."""
    clock = JumpingClock()
    runner = client.dispatcher.make_runner(partial(_Watched, clock=clock.now, later=clock.later, chance=lambda: chance))
    runner.waits, runner.seen = Waits(), set()
    return runner.waits
