"""Limits the connections of a process to its file descriptors; further requests wait in a queue."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import sys
from collections import deque
from collections.abc import Awaitable, Callable

from lm_deluge.errors import ConnectError

__all__ = ["ConnectionSlots", "DescriptorSlot", "are_descriptors_used_up", "most_connections"]

_SPARE = 128  # descriptors for everything else: files, pipes, the event loop, connections to other hosts
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0  # between checks for a free descriptor: short at first, then cheap
_PATIENCE_S = 30.0  # long enough for other code to close files, short enough that the error is seen soon
_USED_UP = (errno.EMFILE, errno.ENFILE)


def most_connections() -> float:
    """Return the number of connections that the limit of open files allows; infinite without a limit."""
    if sys.platform == "win32":
        return math.inf
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else max(soft - _SPARE, soft // 2, 1)


def are_descriptors_used_up(error: OSError | None, *, is_of_resolver: bool) -> bool:
    """Whether a connection failed because the process, or the machine, has too many open files."""
    if not is_of_resolver:
        return error is not None and error.errno in _USED_UP
    # A resolver that cannot open its files or sockets reports only that the name does not resolve.
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as probe:
        return probe.errno in _USED_UP
    return False


class ConnectionSlots:
    """The connections that the calls of one event loop may have open at the same time.

    Attributes:
        on_unused: Called when the last slot is given back, if set.
    """

    def __init__(self, most: float, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self.used = 0
        self.allowed = most
        self.sleep = sleep
        self.on_unused: Callable[[], None] | None = None
        self._most = most
        self._waiting: deque[asyncio.Future[None]] = deque()

    def maybe_take(self) -> DescriptorSlot | None:
        """Return a slot, None where all are taken or other requests wait for one."""
        return DescriptorSlot(self) if self._take_now() else None

    def _take_now(self) -> bool:
        if self.used + 1 > self.allowed or self._waiting:
            return False
        self.used += 1
        return True

    async def take(self) -> DescriptorSlot:
        """Wait for a slot; requests are served in order of arrival."""
        await self._take()
        return DescriptorSlot(self)

    async def _take(self) -> None:
        if self._take_now():
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self._give_back()  # the slot was granted at the same time as the cancellation
            raise

    def _give_back(self) -> None:
        self.used -= 1
        if self.allowed < self._most:  # other code may have closed files in the meantime
            self.allowed = min(self._most, self.allowed + 1 / self.allowed)
        while self._waiting and self.used + 1 <= self.allowed:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self.used += 1
                waiter.set_result(None)
        if not self.used and self.on_unused is not None:
            self.on_unused()

    def _lower_limit(self) -> bool:
        """Lower the limit, as the system had no descriptor for a slot; return whether other slots are in use."""
        self.allowed = max(1.0, min(self.allowed, self.used - 1.0))
        self._give_back()
        return self.used > 0


class DescriptorSlot:
    """Permission for one connection, until it is released."""

    __slots__ = ("_is_taken", "_slots", "_waited")

    def __init__(self, slots: ConnectionSlots) -> None:
        self._slots = slots
        self._is_taken = True
        self._waited = 0.0

    async def wait_again(self) -> None:
        """Release the slot, as the system had no descriptor for it, and wait until it is available again.

        Raises:
            ConnectError: There was no free descriptor for 30 seconds without any connection of this library open.
        """
        self._is_taken = False
        if not self._slots._lower_limit():  # noqa: SLF001 - the two classes share their state
            if self._waited >= _PATIENCE_S:
                raise ConnectError(
                    "no connection: this process has reached its limit of open files",
                    where="connect",
                    hint="Close some files, or raise the limit (ulimit -n).",
                )
            pause = min(max(_FIRST_PAUSE_S, self._waited), _LONGEST_PAUSE_S)
            self._waited += pause
            await self._slots.sleep(pause)
        await self._slots._take()  # noqa: SLF001
        self._is_taken = True

    def give_back(self) -> None:
        """Release the slot. A second call has no effect."""
        if self._is_taken:
            self._is_taken = False
            self._slots._give_back()  # noqa: SLF001
