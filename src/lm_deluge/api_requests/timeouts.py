"""What interrupts a wait: `Deadline` for one block of code, `ReadTimeout` for the reads of a stream.

`asyncio.timeout` for each read would cost more than decoding what was read, and a timer for each stream as much as ten
deltas. So a read only notes when it started to wait, and one timer for all streams of an event loop (`TimeoutMonitor`)
checks the notes; it is set again for the first stream whose time runs out.
"""

from __future__ import annotations

import asyncio
import builtins
import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from lm_deluge.api_requests.clocks import StreamClocks
from lm_deluge.errors import Clock

__all__ = ["Deadline", "Interruptible", "ReadTimeout", "TimeoutMonitor", "clock_of"]

_REST_PER_STREAM_S = 1e-5
"""Shortest time between two checks, for each stream: ten times what checking it takes (2026-11). A timeout may be as
much late."""


def clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return the clock of an event loop; of asyncio's loops the function that `loop.time` calls, at half the cost."""
    own: Callable[[], float] = loop.time
    return time.monotonic if getattr(own, "__func__", None) is asyncio.BaseEventLoop.time else own


class Deadline:
    """Interrupts the block `with Deadline(when):` at a time, or when `pass_now` is called.

    It does what `asyncio.timeout_at` does, without coroutines to enter and to leave, and without a timer where there is
    no time: a fifth of the cost (Python 3.11, 2026-11), in places that every request passes.

    Args:
        when: In the running loop's time; None: only `pass_now` interrupts the block.

    Raises:
        TimeoutError: Python's own, at the end of the block, which was interrupted.
    """

    __slots__ = ("_cancelling", "_handle", "_task", "_when", "is_past")

    def __init__(self, when: float | None = None) -> None:
        self.is_past = False
        self._when = when
        self._task: asyncio.Task[object] | None = None
        self._handle: asyncio.Handle | None = None
        self._cancelling = 0

    def __enter__(self) -> Deadline:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - only a task can wait
        self._task = task
        self._cancelling = task.cancelling()
        if self._when is not None:
            self._handle = task.get_loop().call_at(self._when, self._pass)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        # If other code has cancelled the task as well, the cancellation stays a cancellation.
        if self.is_past and task is not None and task.uncancel() <= self._cancelling:
            if kind is asyncio.CancelledError:
                raise builtins.TimeoutError from error

    def pass_now(self) -> None:
        """Interrupt the block, from within the loop; no effect once the block is over."""
        if self._task is not None and not self.is_past:
            if self._handle is not None:
                self._handle.cancel()
            self._handle = self._task.get_loop().call_soon(self._pass)

    def _pass(self) -> None:
        if self._task is not None and not self.is_past:
            self.is_past = True
            self._task.cancel()


class HasScope(Protocol):
    """An object whose wait can be interrupted from elsewhere."""

    scope: Deadline | None


class Interruptible(Deadline):
    """A block that others interrupt through `owner.scope`.

    Args:
        owner: Has this block as its `scope` while the block runs, and the block around it afterwards.
    """

    __slots__ = ("_outer", "_owner")

    def __init__(self, owner: HasScope) -> None:
        super().__init__()
        self._owner = owner
        self._outer = owner.scope

    def __enter__(self) -> Interruptible:
        super().__enter__()
        self._owner.scope = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._owner.scope = self._outer
        super().__exit__(kind, error, traceback)


class TimeoutMonitor:
    """Checks the read timeouts of all streams of one event loop, with one timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._read_timeouts: set[ReadTimeout] = set()
        self._timer: asyncio.TimerHandle | None = None

    def join(self, read_timeout: ReadTimeout, limit: float) -> None:
        """Check a read timeout from now on, and at the time `limit` at the latest."""
        self._read_timeouts.add(read_timeout)
        self._check_at(limit)

    def _check_at(self, when: float) -> None:
        timer = self._timer
        if timer is None or timer.when() > when:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(when, self._check)

    def leave(self, read_timeout: ReadTimeout) -> None:
        """Stop checking a read timeout. The timer stays: the next stream would have to set it again."""
        self._read_timeouts.discard(read_timeout)

    def _check(self) -> None:
        self._timer = None
        now = self._loop.time()
        # A copy: a callback may make other streams leave.
        nearest = min((read_timeout.check(now) for read_timeout in list(self._read_timeouts)), default=math.inf)
        if nearest < math.inf:
            self._check_at(max(nearest, now + _REST_PER_STREAM_S * len(self._read_timeouts)))


class ReadTimeout:
    """Calls `on_timeout` once if a wait takes longer than the clocks allow; `expired` then names the clock.

    Attributes:
        monitor: Checks it.
        on_timeout: Ends the present wait. Before the response starts it is another function than while it is read.
        since: When the present wait started, in the loop's time; None while nothing waits.
        expired: The clock that ran out.
        is_watched: Whether the monitor checks it. If not, `watch` must be called when a wait starts.
    """

    __slots__ = ("_clocks", "expired", "is_watched", "monitor", "on_timeout", "since")

    def __init__(self, monitor: TimeoutMonitor, clocks: StreamClocks, on_timeout: Callable[[], None]) -> None:
        self.on_timeout = on_timeout
        self.since: float | None = None
        self.expired: Clock | None = None
        self.monitor = monitor
        self.is_watched = False
        self._clocks = clocks

    def begin(self, now: float) -> None:
        """Note that a wait starts."""
        self.since = now
        if not self.is_watched:
            self.watch(now)

    def watch(self, now: float) -> None:
        """Have the monitor check it: a wait starts, or the limit may have become shorter."""
        limit, _ = self._clocks.limit(now)
        if limit < math.inf:
            self.is_watched = True
            self.monitor.join(self, limit)

    def stop(self) -> None:
        """End it: nothing waits any more."""
        self.since = None
        if self.is_watched:
            self._leave()

    def check(self, now: float) -> float:
        """Call `on_timeout` if the wait is too long; return when it will be, infinite while nothing waits."""
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
        self.is_watched = False
        self.monitor.leave(self)
