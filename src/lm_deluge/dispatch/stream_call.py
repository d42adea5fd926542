"""A call: as many attempts as it takes until the first delta, then that attempt to its end.

Events are held back until an attempt brings its first delta. Up to there a failure is followed by another attempt in
silence; from there it is raised, with what was received.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import math
import random
from collections.abc import Awaitable, Callable

import msgspec

from lm_deluge.api_requests.answer import build_answer, build_stats
from lm_deluge.api_requests.attempt import Attempt, open_attempt
from lm_deluge.config import Secret, Timeouts
from lm_deluge.dispatch.retry import GiveUp, decide
from lm_deluge.errors import APIError, DelugeError
from lm_deluge.events import Attempt as AttemptEvent
from lm_deluge.events import Event, ResponseStarted
from lm_deluge.providers.adapter import Adapter, Call
from lm_deluge.response import APIResponse, StreamStats
from lm_deluge.transport.base import Transport
from lm_deluge.wire.http import HttpHead, HttpRequest

__all__ = ["CallPlan", "StreamCall"]


class CallPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a call needs, settled before anything is sent."""

    adapter: Adapter
    call: Call
    request: HttpRequest
    key: Secret | None
    transport: Transport
    timeouts: Timeouts
    max_attempts: int
    max_retry_after_s: float
    proxy: Secret | None = None
    on_head: Callable[[HttpHead], None] | None = None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random

    def __repr__(self) -> str:
        return f"CallPlan({self.call!r})"  # the rest holds the key and the prompt


class StreamCall:
    """One logical stream. `next_batch` until it returns nothing, then `close`; or `abort`, from anywhere."""

    def __init__(self, plan: CallPlan) -> None:
        self.error: DelugeError | None = None
        self._plan = plan
        self._attempt: Attempt | None = None
        self._attempts = 0
        self._failures: list[str] = []  # of the attempts before the last one
        self._is_committed = False
        self._is_over = False
        self._is_aborted = False
        self._begun: float | None = None
        self._ended: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Timeout | None = None

    async def next_batch(self) -> list[Event]:
        """Return the next events, at least one; empty at the end, and after an abort.

        Raises:
            DelugeError: The call failed; `partial` is what was received, once any event was returned.
        """
        if self._is_over:
            return []
        try:
            if self._is_committed and self._attempt is not None:
                events = await self._attempt.next_batch()
            else:
                events = await self._open_until_commit()
        except DelugeError as error:
            if self._is_aborted:
                return []
            self._fail(error)
            raise
        except BaseException as error:
            if self._is_aborted and isinstance(error, builtins.TimeoutError):
                return []
            self.abort()
            raise
        if not events:
            self._end()
        return events

    async def _open_until_commit(self) -> list[Event]:
        async with asyncio.timeout(None) as scope:
            self._opening = scope
            try:
                return await self._try_until_commit()
            finally:
                self._opening = None

    async def _try_until_commit(self) -> list[Event]:
        loop = self._loop = asyncio.get_running_loop()
        self._begun = loop.time()
        total = self._plan.timeouts.total
        deadline = None if total is None else self._begun + total
        notes: list[Event] = []
        while True:
            self._attempts += 1
            try:
                held = await self._first_batch(deadline)
            except DelugeError as error:
                self._drop_attempt()
                wait_s = self._wait_before_retry(error, math.inf if deadline is None else deadline - loop.time())
                model = self._plan.call.model.id
                self._failures.append(f"attempt {self._attempts} ended with {type(error).__name__}: {error.message}")
                notes.append(AttemptEvent(self._attempts + 1, type(error).__name__, error.message, wait_s, model))
                await self._plan.sleep(wait_s)
                continue
            self._is_committed = True
            is_start = bool(held) and type(held[0]) is ResponseStarted
            return [*held[:1], *notes, *held[1:]] if is_start else [*notes, *held]

    async def _first_batch(self, deadline: float | None) -> list[Event]:
        """Open an attempt and read until it has something to show."""
        plan = self._plan
        attempt = await open_attempt(
            adapter=plan.adapter,
            call=plan.call,
            request=plan.request,
            key=plan.key,
            transport=plan.transport,
            timeouts=plan.timeouts,
            deadline=deadline,
            proxy=plan.proxy,
            on_head=plan.on_head,
        )
        self._attempt = attempt
        held: list[Event] = []
        while True:
            batch = await attempt.next_batch()
            held += batch
            if not batch or attempt.builder.has_deltas or attempt.builder.finished is not None:
                return held

    def _wait_before_retry(self, error: DelugeError, time_left_s: float) -> float:
        decision = decide(
            error,
            attempt=self._attempts,
            max_attempts=self._plan.max_attempts,
            max_retry_after_s=self._plan.max_retry_after_s,
            time_left_s=time_left_s,
            chance=self._plan.chance(),
        )
        if isinstance(decision, GiveUp):
            error.hint = decision.hint or error.hint
            raise error
        return decision.seconds

    def _drop_attempt(self) -> None:
        if self._attempt is not None:
            self._attempt.abort()
            self._attempt = None

    def _fail(self, error: DelugeError) -> None:
        self._end()
        self.error = error
        error.attempts = self._attempts
        for note in self._failures:
            error.add_note(note)
        if self._is_committed:
            error.partial = self.response()

    def _end(self) -> None:
        self._is_over = True
        if self._loop is not None and self._ended is None:
            self._ended = self._loop.time()

    async def close(self) -> None:
        """End the call: an answer that was read to its end leaves its connection to the next one."""
        if self._attempt is not None:
            await self._attempt.close()
        self._end()

    def abort(self) -> None:
        """End the call now: close the connection, let whoever waits for the next batch go empty-handed."""
        self._is_aborted = True
        self._end()
        if self._attempt is not None:
            self._attempt.abort()
        opening, self._opening = self._opening, None
        if opening is not None and self._loop is not None:
            # Wakes the one who opens the attempt; his task is not cancelled.
            opening.reschedule(self._loop.time())

    def abort_from_anywhere(self) -> None:
        """Abort from a finaliser, which may run in another thread or after the loop was closed."""
        loop = self._loop
        if self._is_over or loop is None or loop.is_closed():
            return
        try:
            is_own = asyncio.get_running_loop() is loop
        except RuntimeError:
            is_own = False
        if is_own:
            self.abort()
        else:
            with contextlib.suppress(RuntimeError):  # closed between the question and the call
                loop.call_soon_threadsafe(self.abort)

    def response(self) -> APIResponse:
        """Return the answer so far, with usage (the provider's, or an estimate), cost and stats."""
        if self._attempt is not None:
            return build_answer(self._attempt, self._plan.call, self.stats())
        status = self.error.status_code if isinstance(self.error, APIError) else None
        request_id = self.error.request_id if self.error is not None else None
        model = self._plan.call.model.id
        return APIResponse(model_internal=model, status_code=status, request_id=request_id, stats=self.stats())

    def stats(self) -> StreamStats:
        """Return how the stream went so far."""
        now = self._ended or (self._loop.time() if self._loop is not None else None)
        return build_stats(self._attempt, attempts=self._attempts, begun=self._begun, now=now)
