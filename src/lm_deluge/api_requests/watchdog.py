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

__all__ = ["Patrol", "Watchdog"]

_REST_PER_DOG_S = 1e-5
"""Between two rounds, for each that is looked after: what a round takes ten times over. So late may a bite be."""


class Patrol:
    """Looks after the watchdogs of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._dogs: set[Watchdog] = set()
        self._timer: asyncio.TimerHandle | None = None

    def join(self, dog: Watchdog, limit: float) -> None:
        """Look after one whose wait would be too long at that time."""
        self._dogs.add(dog)
        self._look_at(limit)

    def _look_at(self, when: float) -> None:
        """Look then at the latest."""
        timer = self._timer
        if timer is None or timer.when() > when:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(when, self._look)

    def leave(self, dog: Watchdog) -> None:
        """Look after it no more."""
        self._dogs.discard(dog)
        if self._timer is not None and not self._dogs:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        # Of a copy: one that bites may make others leave.
        nearest = min((dog.look(now) for dog in list(self._dogs)), default=math.inf)
        if nearest < math.inf:
            self._look_at(max(nearest, now + _REST_PER_DOG_S * len(self._dogs)))


class Watchdog:
    """Calls `bite` once if a wait goes beyond what the clocks allow; `expired` then names the clock.

    Attributes:
        patrol: What looks after it.
        bite: What ends the present wait: it is another thing before an answer has come than while it is read.
        since: When the present wait began, in the loop's time; None: nobody waits.
    """

    __slots__ = ("_clocks", "_is_looked_after", "bite", "expired", "patrol", "since")

    def __init__(self, patrol: Patrol, clocks: StreamClocks, bite: Callable[[], None]) -> None:
        self.bite = bite
        self.since: float | None = None
        self.expired: Clock | None = None
        self.patrol = patrol
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
            self.patrol.join(self, limit)

    def stop(self) -> None:
        """Watch no more, for good."""
        self.since = None
        if self._is_looked_after:
            self._leave()

    def look(self, now: float) -> float:
        """Bite if it is time; return when it will be, infinite where nobody waits."""
        if self.since is None:
            self._leave()  # the next wait joins again
            return math.inf
        limit, clock = self._clocks.limit(self.since)
        if now < limit:
            return limit
        self._leave()
        self.expired = clock
        self.bite()
        return math.inf

    def _leave(self) -> None:
        self._is_looked_after = False
        self.patrol.leave(self)
