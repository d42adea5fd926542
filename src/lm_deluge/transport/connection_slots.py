"""How many connections a process can hold, and who waits for the next one."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import sys
from collections import deque
from collections.abc import Awaitable, Callable

from lm_deluge.errors import ConnectError

__all__ = ["ConnectionSlot", "ConnectionSlots", "are_descriptors_used_up", "most_connections"]

_SPARE = 128  # for what else the process has open
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_PATIENCE_S = 30.0
_USED_UP = (errno.EMFILE, errno.ENFILE)


def most_connections() -> float:
    """Return how many connections the limit of open files leaves room for; infinite where there is none."""
    if sys.platform == "win32":
        return math.inf
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else max(soft - _SPARE, soft // 2, 1)


def are_descriptors_used_up(error: OSError | None, *, is_of_resolver: bool) -> bool:
    """Whether no connection could be made because the process, or the machine, has too many files open."""
    if not is_of_resolver:
        return error is not None and error.errno in _USED_UP
    # A resolver that cannot open its files or sockets only says that the name does not resolve.
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as probe:
        return probe.errno in _USED_UP
    return False


class ConnectionSlots:
    """The connections that the calls of one event loop may hold at the same time."""

    def __init__(self, most: float, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self.used = 0
        self.allowed = most
        self.sleep = sleep
        self._most = most
        self._waiting: deque[asyncio.Future[None]] = deque()

    def maybe_take(self) -> ConnectionSlot | None:
        """Return room for one more connection, None where there is none or others wait for it."""
        return ConnectionSlot(self) if self._take_now() else None

    def _take_now(self) -> bool:
        if self.used + 1 > self.allowed or self._waiting:
            return False
        self.used += 1
        return True

    async def take(self) -> ConnectionSlot:
        """Wait until there is room for one more connection; first come, first served."""
        await self._take()
        return ConnectionSlot(self)

    async def _take(self) -> None:
        if self._take_now():
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self._give_back()  # it came together with the cancellation
            raise

    def _give_back(self) -> None:
        self.used -= 1
        if self.allowed < self._most:  # others may have closed their files since
            self.allowed = min(self._most, self.allowed + 1 / self.allowed)
        while self._waiting and self.used + 1 <= self.allowed:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self.used += 1
                waiter.set_result(None)

    def _refuse(self) -> bool:
        """Take note that the system gave no descriptor to the last place; return whether one of ours will come free."""
        self.allowed = max(1.0, min(self.allowed, self.used - 1.0))
        self._give_back()
        return self.used > 0


class ConnectionSlot:
    """Room for one connection, until it is given back."""

    __slots__ = ("_is_held", "_slots", "_waited")

    def __init__(self, places: ConnectionSlots) -> None:
        self._slots = places
        self._is_held = True
        self._waited = 0.0

    async def again(self) -> None:
        """Wait for another place: the system gave no descriptor to this one.

        Raises:
            ConnectError: Half a minute went by in which none of the library's own connections was in the way.
        """
        self._is_held = False
        if not self._slots._refuse():  # noqa: SLF001 - the two are one
            if self._waited >= _PATIENCE_S:
                raise ConnectError(
                    "no connection: this process has as many files open as it may",
                    where="connect",
                    hint="Close some, or raise the limit (ulimit -n).",
                )
            pause = min(max(_FIRST_PAUSE_S, self._waited), _LONGEST_PAUSE_S)
            self._waited += pause
            await self._slots.sleep(pause)
        await self._slots._take()  # noqa: SLF001
        self._is_held = True

    def give_back(self) -> None:
        """Let another connection have it. A second time changes nothing."""
        if self._is_held:
            self._is_held = False
            self._slots._give_back()  # noqa: SLF001
