"""One timer for all streams of a client that ends a wait which lasts too long.

Arming `asyncio.timeout` for each read would cost more than decoding what was read, and a timer for each stream as much
as ten deltas. Here a read only notes when it began to wait; the timer asks the clocks of all when it fires, and is
set again for the first of them that has time left.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from lm_deluge.api_requests.clocks import StreamClocks
from lm_deluge.errors import Clock

__all__ = ["ReadTimeout", "TimeoutMonitor"]

_REST_PER_DOG_S = 1e-5
"""Between two rounds, for each that is looked after: what a round takes ten times over. So late may a bite be."""


class TimeoutMonitor:
    """Looks after the watchdogs of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._read_timeouts: set[ReadTimeout] = set()
        self._timer: asyncio.TimerHandle | None = None

    def join(self, read_timeout: ReadTimeout, limit: float) -> None:
        """Look after one whose wait would be too long at that time."""
        self._read_timeouts.add(read_timeout)
        self._look_at(limit)

    def _look_at(self, when: float) -> None:
        """Look then at the latest."""
        timer = self._timer
        if timer is None or timer.when() > when:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(when, self._look)

    def leave(self, read_timeout: ReadTimeout) -> None:
        """Look after it no more."""
        self._read_timeouts.discard(read_timeout)
        if self._timer is not None and not self._read_timeouts:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        # Of a copy: one that bites may make others leave.
        nearest = min((read_timeout.check(now) for read_timeout in list(self._read_timeouts)), default=math.inf)
        if nearest < math.inf:
            self._look_at(max(nearest, now + _REST_PER_DOG_S * len(self._read_timeouts)))


class ReadTimeout:
    """Calls `on_timeout` once if a wait goes beyond what the clocks allow; `expired` then names the clock.

    Attributes:
        patrol: What looks after it.
        bite: What ends the present wait: it is another thing before an answer has come than while it is read.
        since: When the present wait began, in the loop's time; None: nobody waits.
    """

    __slots__ = ("_clocks", "_is_looked_after", "expired", "on_timeout", "since", "timeout_monitor")

    def __init__(self, timeout_monitor: TimeoutMonitor, clocks: StreamClocks, on_timeout: Callable[[], None]) -> None:
        self.on_timeout = on_timeout
        self.since: float | None = None
        self.expired: Clock | None = None
        self.timeout_monitor = timeout_monitor
        self._clocks = clocks
        self._is_looked_after = False

    def begin(self, now: float) -> None:
        """A wait begins."""
        self.since = now
        if not self._is_looked_after:
            self.watch(now)

    def watch(self, now: float) -> None:
        """Be looked after, by a limit that may have come nearer."""
        limit, _ = self._clocks.limit(now)
        if limit < math.inf:
            self._is_looked_after = True
            self.timeout_monitor.join(self, limit)

    def stop(self) -> None:
        """Watch no more, for good."""
        self.since = None
        if self._is_looked_after:
            self._leave()

    def check(self, now: float) -> float:
        """Bite if it is time; return when it will be, infinite where nobody waits."""
        if self.since is None:
            self._leave()  # the next wait joins again
            return math.inf
        limit, clock = self._clocks.limit(self.since)
        if now < limit:
            return limit
        self._leave()
        self.expired = clock
        self.on_timeout()
        return math.inf

    def _leave(self) -> None:
        self._is_looked_after = False
        self.timeout_monitor.leave(self)
