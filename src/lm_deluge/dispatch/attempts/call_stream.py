"""A call: as many attempts as it takes until the first delta, then that attempt to its end.

Events are held back until an attempt brings its first delta. Up to there a failure is followed by another attempt in
silence, here or at another model, and one that says nothing for long may get a second one beside it. From there
`on_break` says what follows: an error, an answer that begins anew, or one that goes on. In background mode a stream
that broke is taken up again instead, before and after the first delta.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
from collections.abc import Callable
from types import TracebackType

import msgspec

from lm_deluge.api_requests.answer import build_stats
from lm_deluge.api_requests.deadline import Deadline
from lm_deluge.dispatch.attempts.attempt import CallAttempt
from lm_deluge.dispatch.attempts.background import can_resume
from lm_deluge.dispatch.attempts.call_attempts import CallAttempts, note_of
from lm_deluge.dispatch.attempts.splice import SpliceError
from lm_deluge.dispatch.attempts.spliced_response import SplicedResponse
from lm_deluge.dispatch.budget import CallBudget
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.scheduling.queue import Job
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import APIError, DelugeError
from lm_deluge.events import Event, ResponseStarted
from lm_deluge.response import APIResponse, StreamStats

__all__ = ["StreamCall"]


class StreamCall(CallAttempts):
    """One logical stream. `next_batch` until it returns nothing, then `close`; or `abort`, from anywhere."""

    def __init__(self, spec: CallSpec, find_runner: Callable[[], Runner]) -> None:
        super().__init__(spec, find_runner)
        self._overspent: DelugeError | None = None
        self._spliced: SplicedResponse | None = None  # of an answer that goes on behind a break
        self._is_over = False
        self._ended: float | None = None
        # Where nobody wants them, and nothing is reckoned from one read to the next.
        self._skips_events = spec.is_collected and self._budget is None

    # Reading

    async def next_batch(self) -> list[Event]:
        """Return the next events, at least one; empty at the end, and after an abort.

        Raises:
            DelugeError: The call failed; `partial` is what was received, once any event was returned.
        """
        if self._is_over or self._overspent is not None:
            return await self._stop()
        try:
            attempt = self._attempt
            if attempt is None:
                with _Waking(self):
                    events = await self._first_events(None)
            elif self._spliced is not None:
                events = await self._next_joined(attempt)
            else:  # nearly always: no coroutine more than it takes
                try:
                    events = await attempt.next_batch(to_end=self._skips_events)
                except DelugeError as error:
                    events = await self._mended(attempt, error)
        except DelugeError as error:
            if self._is_aborted:
                return []
            await self._fail(error)
            raise
        except BaseException as error:
            if self._is_aborted and isinstance(error, builtins.TimeoutError):
                return []
            self.abort()
            raise
        return self._noted(events)

    def _noted(self, events: list[Event]) -> list[Event]:
        """Note that the call is over where there are none, or what they cost; return them."""
        if not events:
            self._end()
        elif self._budget is not None:
            self._charge(self._budget)
        return events

    async def _stop(self) -> list[Event]:
        """Return nothing: the call is over; or raise why it ends here, where its money is spent."""
        overspent = self._overspent
        if self._is_over or overspent is None:
            return []
        await self._fail(overspent)
        raise overspent

    async def _next_joined(self, attempt: CallAttempt) -> list[Event]:
        """Return the next events to be handed out of an answer that goes on behind a break."""
        events = await self._read(attempt)
        return events if self._spliced is None else await self._joined(self._spliced, events)

    async def _read(self, attempt: CallAttempt) -> list[Event]:
        """Return the next events of a leg, or of what mends it."""
        try:
            return await attempt.next_batch()
        except DelugeError as error:
            return await self._mend(attempt, error)

    async def _mended(self, attempt: CallAttempt, error: DelugeError) -> list[Event]:
        """Return the next events to be handed out behind a break."""
        events = await self._mend(attempt, error)
        return events if self._spliced is None else await self._joined(self._spliced, events)

    async def _mend(self, attempt: CallAttempt, error: DelugeError) -> list[Event]:
        if self._is_aborted:
            raise error
        on_break = self._spec.on_break
        with _Waking(self):
            if can_resume(attempt.stream, error):
                try:
                    return await self._resume(attempt, error)
                except DelugeError:
                    if on_break != "continue":
                        raise
            self._end_attempt(attempt, error)
            if on_break == "raise":
                raise error
            return await (self._first_events(error) if on_break == "restart" else self._continue(attempt, error))

    async def _first_events(self, error: DelugeError | None) -> list[Event]:
        """Open attempts until one has something to show; return that, and what there is to say about the others.

        Args:
            error: What ended the attempt before.
        """
        notes: list[Event] = []
        while True:
            if error is not None and self._is_aborted:
                raise error  # the abort itself: nothing more is sent
            wait_s = 0.0 if error is None else await self._wait_before_next(error)
            attempt = await self._admit(wait_s)
            if error is not None:
                notes.append(note_of(self._attempts, error, wait_s, attempt))
            held: list[Event] | None = None
            try:
                runner = self._runner
                if runner is None or runner.first_tokens is None:
                    held = await self._held_events(attempt)
                else:
                    held = await self._raced(runner, runner.first_tokens, attempt, notes)
            except DelugeError as failure:
                error = failure
                self._end_attempt(self._opening or attempt, failure)
                self._discarded.add(self._opening or attempt)
            while self._lost:
                lost, self._lost = self._lost[0], self._lost[1:]
                await self._tell_failed(*lost)
            if held is not None:
                return self._show(self._opening or attempt, held, notes)

    def _show(self, attempt: CallAttempt, held: list[Event], notes: list[Event]) -> list[Event]:
        """Hand out what a leg begins with; what was shown before is void."""
        before, self._attempt, self._opening = self._attempt, attempt, None
        is_start = bool(held) and type(held[0]) is ResponseStarted
        if not self._spec.is_collected:
            attempt.trust()
        if before is not None:
            self._discarded.add(before)
            return [*notes, *held[is_start:]]
        return [*held[:is_start], *notes, *held[is_start:]]

    # Going on behind a break

    async def _continue(self, attempt: CallAttempt, broken: DelugeError) -> list[Event]:
        """Ask for the rest; return an `Attempt` for each time that it was tried, and what came first."""
        spliced = self._spliced = self._spliced or SplicedResponse(self._spec, attempt, self._discarded)
        spliced.broken = error = broken
        if spliced.is_blank:
            return await self._begin_anew(spliced)
        if spliced.obstacle is not None:
            return await self._leave(spliced, spliced.obstacle)
        job = self._turn_to(spliced.spec_for_rest())
        self._job = msgspec.structs.replace(job, models=frozenset({attempt.start.route.model}))
        notes: list[Event] = []
        while True:
            try:
                wait_s = await self._wait_before_next(error)
                following = await self._admit(wait_s)
            except DelugeError as failure:
                if failure is broken:
                    raise
                return await self._leave(spliced, failure.message, failure)
            self._job = job  # a model that cannot be reached is not insisted on
            notes.append(note_of(self._attempts, error, wait_s, following, goes_on=True))
            try:
                events = self._show(following, await self._held_events(following), notes)
            except DelugeError as failure:
                self._end_attempt(following, failure)
                self._discarded.add(following)
                error = broken if spliced.has_other_way(failure) else failure
                continue
            spliced.begin(following)
            return events

    async def _joined(self, spliced: SplicedResponse, events: list[Event]) -> list[Event]:
        """Return of a continuation's events what is new; read on until there is any, or the end."""
        ready: list[Event] = []
        while events and not ready and self._spliced is not None and self._attempt is not None:
            try:
                ready = spliced.take(events)
            except SpliceError as failure:
                self._cancel_upstream(self._attempt)
                self._attempt.abort()
                with _Waking(self):
                    return await self._leave(spliced, str(failure))
            events = ready or await self._read(self._attempt)
        return events

    async def _leave(self, spliced: SplicedResponse, why: str, cause: DelugeError | None = None) -> list[Event]:
        """Raise what broke the stream, as its rest cannot be had; or begin anew, where nobody has seen anything."""
        spliced.broken.hint = " ".join(
            filter(None, (spliced.broken.hint, f"It could not be continued: {why.rstrip('.')}."))
        )
        if not spliced.spec.is_collected:
            raise spliced.broken from cause
        return await self._begin_anew(spliced)

    async def _begin_anew(self, spliced: SplicedResponse) -> list[Event]:
        self._job = self._turn_to(spliced.spec)
        events = await self._first_events(spliced.broken)
        self._spliced = None
        return events

    def _turn_to(self, spec: CallSpec) -> Job:
        """Make this the call that is asked from now on; return what it is to the scheduler, in the same place."""
        assert self._runner is not None and self._job is not None  # noqa: S101, PT018 - a leg broke
        self._spec = spec
        return msgspec.structs.replace(self._runner.job_of(spec), id=self._job.id)

    # Failing

    async def _fail(self, error: DelugeError) -> None:
        self._end()
        self.error = error
        for attempt in (self._attempt, self._opening):
            if attempt is not None:
                attempt.abort()
        error.attempts = self._attempts
        for note in self._failures:
            error.add_note(note)
        if self._attempt is not None:
            error.partial = self.response()
        if self._spec.on_attempt_failed is not None and self._attempts:
            response = self.response()
            response.error = error
            last = self._opening or self._attempt
            number = self._attempts if last is None else last.number
            await self._spec.on_attempt_failed(number, response, True)

    def _charge(self, budget: CallBudget) -> None:
        """Take what the call has cost so far out of the purses; see whether it may go on."""
        attempt = self._attempt
        own = 0.0 if attempt is None else attempt.cost() or 0.0
        overspent = budget.charge(self._discarded.cost + own)
        if attempt is not None and attempt.stream is not None and attempt.stream.builder.finished is None:
            self._overspent = overspent

    # Ending

    def _end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._budget is not None:
            self._charge(self._budget)
        if self._loop is not None and self._ended is None:
            self._ended = self._loop.time()
        if self._runner is not None and self._job is not None:
            self._runner.forget(self._job)

    async def close(self) -> None:
        """End the call: an answer that was read to its end leaves its connection to the next one."""
        if self._attempt is not None:
            self._cancel_upstream(self._attempt)
            await self._attempt.close()
        self._end()
        await self.settle()

    async def settle(self) -> None:
        """Wait, for seconds at most, until the provider was told that nobody listens any more."""
        for cancel in list(self._cancels.values()):
            await cancel.wait()

    def abort(self) -> None:
        """End the call now: close the connection, let whoever waits for the next batch go empty-handed."""
        self._is_aborted = True
        self._end()
        hedge = self._hedge
        if hedge is not None:
            hedge.stop()
        for attempt in (self._attempt, self._opening, None if hedge is None else hedge.second):
            if attempt is not None:
                self._cancel_upstream(attempt)
                attempt.abort()
        scope, self.scope = self.scope, None
        if scope is not None:
            scope.pass_now()  # wakes the one who opens the attempt; his task is not cancelled

    def abort_from_anywhere(self) -> None:
        """Abort from a finaliser, which may run in another thread or after the loop was closed."""
        loop, attempt = self._loop, self._attempt
        if loop is None or (self._is_over and (attempt is None or attempt.is_over)):
            return
        if loop.is_closed():
            if attempt is not None:
                attempt.give_back_later()
            return
        try:
            is_own = asyncio.get_running_loop() is loop
        except RuntimeError:
            is_own = False
        if is_own and attempt is not None and attempt.stream is not None:
            attempt.stream.abort()
        with contextlib.suppress(RuntimeError):  # closed between the question and the call
            loop.call_soon_threadsafe(self.abort)

    # Telling

    def response(self) -> APIResponse:
        """Return the answer so far, with usage (the provider's, or an estimate), cost and stats."""
        if self._attempt is not None:
            answer = self._attempt.answer(self.stats())
            if self._spliced is not None:
                self._spliced.mend(answer)
            if self._cancels and any(cancel.failure is not None for cancel in self._cancels.values()):
                answer.warnings += ("cancel_failed",)
        else:
            model = self._spec.prefer or ""
            answer = APIResponse(model_internal=model, stats=self.stats())
            if self._opening is not None:
                answer.model_internal = self._opening.start.route.model
            if isinstance(self.error, APIError):
                answer.status_code = self.error.status_code
            if self.error is not None:
                answer.request_id = self.error.request_id
        self._discarded.add_to(answer)
        return answer

    def stats(self) -> StreamStats:
        """Return how the stream went so far."""
        now = self._ended or (self._loop.time() if self._loop is not None else None)
        attempt = None if self._attempt is None else self._attempt.stream
        stats = build_stats(attempt, attempts=self._attempts, begun=self._begun, now=now)
        return stats if self._spliced is None else self._spliced.mend_stats(stats)


class _Waking(Deadline):
    """Lets `abort` wake whoever waits in the block."""

    __slots__ = ("_call", "_outer")

    def __init__(self, call: StreamCall) -> None:
        super().__init__()
        self._call = call
        self._outer = call.scope

    def __enter__(self) -> _Waking:
        super().__enter__()
        self._call.scope = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._call.scope = self._outer
        super().__exit__(kind, error, traceback)
