"""One timer per stream that ends a wait which lasts too long.

Arming `asyncio.timeout` for each read would cost more than decoding what was read. Here a read only notes its limit;
the timer looks at the note when it fires, and sets itself again if the limit has moved on.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from lm_deluge.errors import Clock

__all__ = ["Watchdog"]


class Watchdog:
    """Calls `bite` once if a wait goes beyond its limit; `expired` then names the clock.

    Attributes:
        bite: What ends the present wait: it is another thing before an answer has come than while it is read.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, bite: Callable[[], None]) -> None:
        self.bite = bite
        self.expired: Clock | None = None
        self._loop = loop
        self._limit = math.inf
        self._clock: Clock = "idle"
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, limit: float, clock: Clock) -> None:
        """A wait begins that may last until `limit` of the loop's time."""
        self._limit = limit
        self._clock = clock
        timer = self._timer
        if limit < math.inf and (timer is None or timer.when() > limit):
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(limit, self._look)

    def rest(self) -> None:
        """The wait is over."""
        self._limit = math.inf

    def stop(self) -> None:
        """Drop the timer for good."""
        self._limit = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._loop.time() >= self._limit:
            self.expired = self._clock
            self.bite()
        elif self._limit < math.inf:
            self._timer = self._loop.call_at(self._limit, self._look)
