"""Exchanges with the server of a shared limiter, in the event loops of the calls.

One exchange is under way at a time, for all loops of the process. It starts in the next iteration of the loop, so that
it carries all reservations of this one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import time
from weakref import WeakKeyDictionary, WeakSet

from lm_deluge.dispatch.scheduling.runner import LimiterLock
from lm_deluge.dispatch.scheduling.shared.connection import Address, ScriptConnection
from lm_deluge.dispatch.scheduling.shared.exchange import LimiterExchange
from lm_deluge.dispatch.scheduling.shared.limiter import SharedLimiter
from lm_deluge.errors import DelugeError

__all__ = ["LimiterLink", "new_process_name"]

_RETRY_S = 0.5  # between two attempts to reach the server: all processes are back within a second of it
_RETRY_SPREAD = 0.4  # of it, so that they do not come at the same moment
_OTHER_LOOP_S = 0.002  # about a round trip: another loop exchanges, and may take this loop's reservations next
_TIMEOUT_S = 3.0  # a server nearby answers in milliseconds, but a busy machine may be late by a second
_FIRST_TIMEOUT_S = 6.0  # until then a process does not know how many others there are, so it had better wait
_STALLED_S = 8.0  # an exchange ends before; after that time its loop has stopped

_NAME_BYTES = 6  # random: no two processes of one limit have the same name

logger = logging.getLogger("lm_deluge.limiter")


def new_process_name() -> str:
    """Return a name of this process that no other one has."""
    return f"{os.getpid()}-{secrets.token_hex(_NAME_BYTES)}"


class _LoopState:
    """The connection and the timer of one event loop."""

    def __init__(self, address: Address) -> None:
        self.connection = ScriptConnection(address)
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.due_at = 0.0  # of the timer

    def stop_timer(self) -> None:
        """Cancel the timer, if there is one."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class LimiterLink:
    """Exchanges with the server when the limiter has something to exchange, and as a heartbeat.

    Args:
        limiter: The shared limiter.
        lock: Its lock.
        address: The server.
    """

    def __init__(self, limiter: SharedLimiter, lock: LimiterLock, address: Address) -> None:
        self._limiter = limiter
        self._lock = lock
        self._address = address
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState] = WeakKeyDictionary()
        self._exchanging: tuple[_LoopState, float] | None = None
        self._retry_at = 0.0
        _links.add(self)
        limiter.waiting = lambda: lock.waiting
        limiter.on_work = self._kick

    def begin_in_child(self) -> None:
        """Start again in the child of a fork, under a name of its own."""
        self._exchanging = None
        self._limiter.begin_in_child(new_process_name())

    @property
    def _timeout_s(self) -> float:
        return _TIMEOUT_S if self._limiter.clock.is_known else _FIRST_TIMEOUT_S

    def _kick(self) -> None:
        """LimiterExchange when that is due. The lock is held."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # a finaliser in a thread without a loop; a heartbeat takes what it reports
        state = self._loops.get(loop)
        if state is None:
            state = self._loops[loop] = _LoopState(self._address)
        if state.task is not None and not state.task.done():
            return
        now = time.monotonic()
        due_at = max(self._retry_at, self._limiter.next_exchange_at(now))
        if self._exchanging is not None and now < self._exchanging[1] + _STALLED_S:
            due_at = max(due_at, now + _OTHER_LOOP_S)
        if state.timer is not None:
            if due_at > now and state.due_at <= due_at:
                return  # the timer looks again
            state.stop_timer()
        if due_at <= now:
            state.task = loop.create_task(self._exchange_all(state))
        else:
            state.due_at = due_at
            state.timer = loop.call_later(due_at - now, self._on_timer, state)

    def _on_timer(self, state: _LoopState) -> None:
        state.timer = None
        with self._lock:
            self._kick()

    async def _exchange_all(self, state: _LoopState) -> None:
        while True:
            with self._lock:
                now = time.monotonic()
                if now < self._limiter.next_exchange_at(now) or now < self._retry_at:
                    break
                if self._exchanging is not None and now < self._exchanging[1] + _STALLED_S:
                    break
                exchange = self._limiter.begin_exchange(now, age_s=self._timeout_s)
                self._exchanging = state, now
            if not await self._exchange(state, exchange):
                break
        state.task = None
        with self._lock:
            self._kick()

    async def _exchange(self, state: _LoopState, exchange: LimiterExchange) -> bool:
        """Send a request and take the reply; return whether it came."""
        was_reachable = self._limiter.is_reachable
        try:
            reply = await state.connection.run(exchange.keys, exchange.arguments, self._timeout_s)
            with self._lock:
                self._limiter.end_exchange(exchange, reply, time.monotonic())
        except DelugeError as error:
            self._lost(exchange, error)
            return False
        except BaseException:  # the loop ends
            with self._lock:
                self._limiter.fail_exchange(exchange)
            raise
        finally:
            self._exchanging = None
        if self._limiter.is_reachable and not was_reachable:
            logger.warning("the server of the limiter at %s is back: limits are shared again", self._address.shown)
        self._lock.wake_all()
        return True

    def _lost(self, exchange: LimiterExchange, error: DelugeError) -> None:
        now = time.monotonic()
        self._retry_at = now + _RETRY_S * random.uniform(1 - _RETRY_SPREAD, 1)  # noqa: S311 - no secret
        with self._lock:
            was_reachable = self._limiter.is_reachable
            self._limiter.fail_exchange(exchange)
            self._limiter.use_share(now)
        if was_reachable:
            share = f"1/{self._limiter.processes} of the limits" if self._limiter.processes > 1 else "the limits alone"
            logger.warning("%s; this process uses %s until it is back", str(error).rstrip("."), share)
        self._lock.wake_all()

    async def close(self) -> None:
        """Give back what this process holds, and close the connection of the running loop.

        Calls under way go on to their end, and the next exchange opens the connection again.
        """
        state = self._loops.get(asyncio.get_running_loop())
        if state is None:
            return
        state.stop_timer()
        if state.task is not None:
            await asyncio.wait([state.task], timeout=self._timeout_s)
        with self._lock:
            now = time.monotonic()
            is_last = not self._limiter.has_open_tickets
            exchange = self._limiter.begin_exchange(now, age_s=_TIMEOUT_S, leaves=is_last)
            self._exchanging = state, now
        await self._exchange(state, exchange)
        state.stop_timer()
        await state.connection.close()


_links: WeakSet[LimiterLink] = WeakSet()


def begin_in_child() -> None:
    """Give the child of a fork limiters of its own: tickets, slots and connections are the parent's."""
    for link in list(_links):
        link.begin_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=begin_in_child)
