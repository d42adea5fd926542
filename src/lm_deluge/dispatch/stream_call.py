"""A call: as many attempts as it takes until the first delta, then that attempt to its end.

Events are held back until an attempt brings its first delta. Up to there a failure is followed by another attempt in
silence; from there it is raised, with what was received. In background mode a stream that broke is taken up again
instead, before and after the first delta.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import math
from collections.abc import AsyncIterator

from lm_deluge.api_requests.answer import build_answer, build_stats
from lm_deluge.api_requests.attempt import Attempt, open_attempt
from lm_deluge.dispatch.background import UpstreamCancel, can_resume, resume
from lm_deluge.dispatch.call_plan import CallPlan
from lm_deluge.dispatch.retry import GiveUp, decide
from lm_deluge.errors import APIError, DelugeError
from lm_deluge.events import Attempt as AttemptEvent
from lm_deluge.events import Event, ResponseStarted
from lm_deluge.response import APIResponse, StreamStats

__all__ = ["StreamCall"]


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
        self._deadline: float | None = None
        self._cancel: UpstreamCancel | None = None
        self._cancelled = ""  # the id of the answer that it ends

    async def next_batch(self) -> list[Event]:
        """Return the next events, at least one; empty at the end, and after an abort.

        Raises:
            DelugeError: The call failed; `partial` is what was received, once any event was returned.
        """
        if self._is_over:
            return []
        try:
            if self._is_committed and self._attempt is not None:
                events = await self._next_of(self._attempt)
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

    @contextlib.asynccontextmanager
    async def _waking(self) -> AsyncIterator[None]:
        """Let `abort` wake whoever waits in the block."""
        async with asyncio.timeout(None) as scope:
            outer, self._opening = self._opening, scope
            try:
                yield
            finally:
                self._opening = outer

    async def _open_until_commit(self) -> list[Event]:
        async with self._waking():
            return await self._try_until_commit()

    async def _next_of(self, attempt: Attempt) -> list[Event]:
        """Return the attempt's next events; one whose stream broke is taken up again where the provider goes on."""
        try:
            return await attempt.next_batch()
        except DelugeError as error:
            if not can_resume(attempt, error):
                raise
            async with self._waking():
                return await self._resume(attempt, error)

    async def _resume(self, attempt: Attempt, broken: DelugeError) -> list[Event]:
        """Take the answer up again; return an `Attempt` for each time that it was tried."""
        error, notes = broken, list[Event]()
        while True:
            wait_s = self._wait_before_retry(error)
            notes.append(self._note(error, wait_s, goes_on=True))
            await self._plan.sleep(wait_s)
            self._attempts += 1
            try:
                await resume(self._plan, attempt)
            except DelugeError as failure:
                if not failure.retryable:
                    # What broke the stream is what happened; that the rest cannot be had is why it is told.
                    broken.hint = f"It could not be taken up again: {failure.message}"
                    raise broken from failure
                error = failure
                continue
            if self._is_aborted:
                attempt.abort()
                return []
            return notes

    def _note(self, error: DelugeError, wait_s: float, *, goes_on: bool = False) -> Event:
        """Note that an attempt failed and another one follows."""
        kind = type(error).__name__
        self._failures.append(f"attempt {self._attempts} ended with {kind}: {error.message}")
        model = self._plan.call.model.id
        return AttemptEvent(self._attempts + 1, kind, error.message, wait_s, model, goes_on)

    async def _try_until_commit(self) -> list[Event]:
        loop = self._loop = asyncio.get_running_loop()
        self._begun = loop.time()
        total = self._plan.timeouts.total
        self._deadline = None if total is None else self._begun + total
        notes: list[Event] = []
        while True:
            self._attempts += 1
            try:
                held = await self._first_batch(self._deadline)
            except DelugeError as error:
                self._drop_attempt()
                wait_s = self._wait_before_retry(error)
                notes.append(self._note(error, wait_s))
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
            batch = await self._next_of(attempt)
            held += batch
            if not batch or attempt.builder.has_deltas or attempt.builder.finished is not None:
                return held

    def _wait_before_retry(self, error: DelugeError) -> float:
        loop, deadline = self._loop, self._deadline
        time_left_s = math.inf if deadline is None or loop is None else deadline - loop.time()
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
            self._cancel_upstream()
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
        self._cancel_upstream()
        if self._attempt is not None:
            await self._attempt.close()
        self._end()
        await self.settle()

    def _cancel_upstream(self) -> None:
        """End an answer that goes on at the provider; one that is over, or was refused, does not."""
        place = None if self._attempt is None else self._attempt.place
        if place is None or place[0] == self._cancelled or self._loop is None or isinstance(self.error, APIError):
            return
        self._cancelled = place[0]
        self._cancel = UpstreamCancel(self._plan, place[0], self._loop)

    async def settle(self) -> None:
        """Wait, for seconds at most, until the provider was told that nobody listens any more."""
        if self._cancel is not None:
            await self._cancel.wait()

    def abort(self) -> None:
        """End the call now: close the connection, let whoever waits for the next batch go empty-handed."""
        self._is_aborted = True
        self._cancel_upstream()
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
            answer = build_answer(self._attempt, self._plan.call, self.stats())
            found = list(answer.warnings)
            if self._cancel is not None and self._cancel.failure is not None:
                found.append("cancel_failed")
            answer.warnings = tuple(found)
            return answer
        status = self.error.status_code if isinstance(self.error, APIError) else None
        request_id = self.error.request_id if self.error is not None else None
        model = self._plan.call.model.id
        return APIResponse(model_internal=model, status_code=status, request_id=request_id, stats=self.stats())

    def stats(self) -> StreamStats:
        """Return how the stream went so far."""
        now = self._ended or (self._loop.time() if self._loop is not None else None)
        return build_stats(self._attempt, attempts=self._attempts, begun=self._begun, now=now)
