"""One timer per stream that ends a wait which lasts too long.

Arming `asyncio.timeout` for each read would cost more than decoding what was read. Here a read only notes when it began
to wait; the timer asks the clocks when it fires, and sets itself again if they have time left.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from lm_deluge.api_requests.clocks import StreamClocks
from lm_deluge.errors import Clock

__all__ = ["Watchdog"]


class Watchdog:
    """Calls `bite` once if a wait goes beyond what the clocks allow; `expired` then names the clock.

    Attributes:
        bite: What ends the present wait: it is another thing before an answer has come than while it is read.
        since: When the present wait began, in the loop's time; None: nobody waits.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clocks: StreamClocks, bite: Callable[[], None]) -> None:
        self.bite = bite
        self.since: float | None = None
        self.expired: Clock | None = None
        self._loop = loop
        self._clocks = clocks
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, now: float) -> None:
        """A wait begins."""
        self.since = now
        if self._timer is None:
            self.watch(now)

    def watch(self, now: float) -> None:
        """Set the timer for a limit that has come nearer, unless it fires before that."""
        limit, _ = self._clocks.limit(now)
        timer = self._timer
        if limit < math.inf and (timer is None or timer.when() > limit):
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(limit, self._look)

    def stop(self) -> None:
        """Drop the timer for good."""
        self.since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self.since is None:
            return  # the next wait sets it again
        limit, clock = self._clocks.limit(self.since)
        if self._loop.time() >= limit:
            self.expired = clock
            self.bite()
        elif limit < math.inf:
            self._timer = self._loop.call_at(limit, self._look)
