"""A call: as many attempts as it takes until the first delta, then that attempt to its end.

Events are held back until an attempt brings its first delta. Up to there a failure is followed by another attempt in
silence, here or at another model; from there `on_break` says what follows: an error, an answer that begins anew, or one
that goes on. In background mode a stream that broke is taken up again instead, before and after the first delta.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import math
from collections.abc import Callable
from types import TracebackType

import msgspec

from lm_deluge.api_requests.answer import build_stats
from lm_deluge.dispatch.background import UpstreamCancel, can_resume, resume
from lm_deluge.dispatch.joined_answer import JoinedAnswer
from lm_deluge.dispatch.lanes import Job
from lm_deluge.dispatch.leg import Leg
from lm_deluge.dispatch.purse import Account
from lm_deluge.dispatch.retry import GiveUp, Wait
from lm_deluge.dispatch.runner import Runner
from lm_deluge.dispatch.seam import SeamError
from lm_deluge.dispatch.spending import Spending
from lm_deluge.dispatch.work import Work
from lm_deluge.errors import APIError, ConfigurationError, DelugeError
from lm_deluge.events import Attempt as AttemptEvent
from lm_deluge.events import Event, ResponseStarted
from lm_deluge.response import APIResponse, StreamStats

__all__ = ["StreamCall"]


class StreamCall:
    """One logical stream. `next_batch` until it returns nothing, then `close`; or `abort`, from anywhere."""

    def __init__(self, work: Work, find_runner: Callable[[], Runner]) -> None:
        self.error: DelugeError | None = None
        self._work = work
        self._find_runner = find_runner
        self._runner: Runner | None = None
        self._job: Job | None = None
        self._leg: Leg | None = None  # whose events are handed out
        self._opening: Leg | None = None  # nothing of it was handed out
        self._spending = Spending()  # of the legs before
        self._account = Account(work.purses) if work.purses else None
        self._overspent: DelugeError | None = None
        self._joint: JoinedAnswer | None = None  # of an answer that goes on behind a break
        self._attempts = 0
        self._unreached = 0  # of them, that met an outage
        self._failures: list[str] = []  # of the attempts before the last one
        self._is_over = False
        self._is_aborted = False
        self._begun: float | None = None
        self._ended: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.scope: asyncio.Timeout | None = None  # by which whoever waits is woken
        self._cancel: UpstreamCancel | None = None
        self._cancelled = ""  # the id of the answer that it ends

    # Reading

    async def next_batch(self) -> list[Event]:
        """Return the next events, at least one; empty at the end, and after an abort.

        Raises:
            DelugeError: The call failed; `partial` is what was received, once any event was returned.
        """
        if self._is_over:
            return []
        overspent = self._overspent
        if overspent is not None:
            await self._fail(overspent)
            raise overspent
        try:
            if self._leg is None:
                async with _Waking(self):
                    events = await self._first_events(None)
            else:
                events = await self._next_of(self._leg)
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
        if not events:
            self._end()
        elif self._account is not None:
            self._charge(self._account)
        return events

    async def _next_of(self, leg: Leg) -> list[Event]:
        """Return the next events to be handed out."""
        events = await self._read(leg)
        return events if self._joint is None else await self._joined(self._joint, events)

    async def _read(self, leg: Leg) -> list[Event]:
        """Return the next events of what is handed out, mended where it broke."""
        try:
            return await leg.next_batch()
        except DelugeError as error:
            if self._is_aborted:
                raise
            on_break = self._work.on_break
            async with _Waking(self):
                if can_resume(leg.attempt, error):
                    try:
                        return await self._resume(leg, error)
                    except DelugeError:
                        if on_break != "continue":
                            raise
                self._end_leg(leg, error)
                if on_break == "raise":
                    raise
                return await (self._first_events(error) if on_break == "restart" else self._continue(leg, error))

    async def _first_events(self, error: DelugeError | None) -> list[Event]:
        """Open attempts until one has something to show; return that, and what there is to say about the others.

        Args:
            error: What ended the attempt before.
        """
        notes: list[Event] = []
        while True:
            wait_s = 0.0 if error is None else await self._wait_before_next(error)
            leg = await self._admit(wait_s)
            if error is not None:
                notes.append(_note(self._attempts, error, wait_s, leg))
            try:
                return self._show(leg, await self._held_events(leg), notes)
            except DelugeError as failure:
                self._end_leg(leg, failure)
                self._spending.add(leg)
                error = failure

    async def _admit(self, wait_s: float) -> Leg:
        """Wait for leave to send the next request; return its leg. A model that cannot take the call is passed over."""
        loop = self._loop = asyncio.get_running_loop()
        runner = self._runner = self._runner or self._find_runner()
        job = self._job = self._job or runner.job_of(self._work)
        while True:
            start = await runner.admit(job, wait_s)
            try:
                plan = self._work.plan_for(start.route.model)
                if self._account is not None:
                    self._account.check(self._spending.cost + plan.least_cost())
                if self._work.intend is not None:
                    await self._work.intend(self._attempts + 1)
            except BaseException as error:
                runner.give_back(start.ticket, was_sent=False)
                if not isinstance(error, ConfigurationError):
                    raise
                known = {route.model for route in runner.routes} if job.models is None else job.models
                others = frozenset(known - {start.route.model})
                if not others:
                    raise
                job = self._job = msgspec.structs.replace(job, models=others)
                continue
            self._begun = loop.time() if self._begun is None else self._begun
            self._attempts += 1
            leg = self._opening = Leg(runner, start, plan)
            return leg

    async def _held_events(self, leg: Leg) -> list[Event]:
        """Open a leg and read until it has something to show, or is over."""
        left = self._time_left()
        deadline = None if left == math.inf or self._loop is None else self._loop.time() + left
        attempt = await leg.open(deadline, self._least_speed())
        held: list[Event] = []
        while True:
            try:
                batch = await leg.next_batch()
            except DelugeError as error:
                if not can_resume(attempt, error):
                    raise
                batch = await self._resume(leg, error)
            held += batch
            if not batch or leg.is_speaking or attempt.builder.finished is not None:
                return held

    def _least_speed(self) -> float | None:
        """Return how fast an attempt must be; the last one may be as slow as it is."""
        is_last = self._runner is not None and self._attempts - self._unreached >= self._runner.max_attempts
        return None if is_last else self._work.min_tokens_per_second

    def _show(self, leg: Leg, held: list[Event], notes: list[Event]) -> list[Event]:
        """Hand out what a leg begins with; what was shown before is void."""
        before, self._leg, self._opening = self._leg, leg, None
        is_start = bool(held) and type(held[0]) is ResponseStarted
        if not self._work.is_collected:
            leg.trust()
        if before is not None:
            self._spending.add(before)
            return [*notes, *held[is_start:]]
        return [*held[:is_start], *notes, *held[is_start:]]

    async def _resume(self, leg: Leg, broken: DelugeError) -> list[Event]:
        """Take the answer up again; return an `Attempt` for each time that it was tried."""
        attempt, runner = leg.attempt, self._runner
        assert attempt is not None and runner is not None  # noqa: S101, PT018 - can_resume
        error, notes = broken, list[Event]()
        while True:
            decision = runner.decide_here(error, attempt=self._attempts, time_left_s=self._time_left())
            wait_s = self._seconds(decision, error)
            self._note_failure(error)
            await asyncio.sleep(wait_s)
            self._attempts += 1
            notes.append(_note(self._attempts, error, wait_s, leg, goes_on=True))
            try:
                await resume(leg.plan, attempt)
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

    # Going on behind a break

    async def _continue(self, leg: Leg, broken: DelugeError) -> list[Event]:
        """Ask for the rest; return an `Attempt` for each time that it was tried, and what came first."""
        joint = self._joint = self._joint or JoinedAnswer(self._work, leg, self._spending)
        joint.broken = error = broken
        if joint.is_blank:
            return await self._begin_anew(joint)
        if joint.obstacle is not None:
            return await self._leave(joint, joint.obstacle)
        job = self._turn_to(joint.work_for_rest())
        self._job = msgspec.structs.replace(job, models=frozenset({leg.start.route.model}))
        notes: list[Event] = []
        while True:
            try:
                wait_s = await self._wait_before_next(error)
                following = await self._admit(wait_s)
            except DelugeError as failure:
                if failure is broken:
                    raise
                return await self._leave(joint, failure.message, failure)
            self._job = job  # a model that cannot be reached is not insisted on
            notes.append(_note(self._attempts, error, wait_s, following, goes_on=True))
            try:
                events = self._show(following, await self._held_events(following), notes)
            except DelugeError as failure:
                self._end_leg(following, failure)
                self._spending.add(following)
                error = broken if joint.has_other_way(failure) else failure
                continue
            joint.begin(following)
            return events

    async def _joined(self, joint: JoinedAnswer, events: list[Event]) -> list[Event]:
        """Return of a continuation's events what is new; read on until there is any, or the end."""
        ready: list[Event] = []
        while events and not ready and self._joint is not None and self._leg is not None:
            try:
                ready = joint.take(events)
            except SeamError as failure:
                self._cancel_upstream(self._leg)
                self._leg.abort()
                async with _Waking(self):
                    return await self._leave(joint, str(failure))
            events = ready or await self._read(self._leg)
        return events

    async def _leave(self, joint: JoinedAnswer, why: str, cause: DelugeError | None = None) -> list[Event]:
        """Raise what broke the stream, as its rest cannot be had; or begin anew, where nobody has seen anything."""
        joint.broken.hint = " ".join(
            filter(None, (joint.broken.hint, f"It could not be continued: {why.rstrip('.')}."))
        )
        if not joint.work.is_collected:
            raise joint.broken from cause
        return await self._begin_anew(joint)

    async def _begin_anew(self, joint: JoinedAnswer) -> list[Event]:
        self._job = self._turn_to(joint.work)
        events = await self._first_events(joint.broken)
        self._joint = None
        return events

    def _turn_to(self, work: Work) -> Job:
        """Make this the call that is asked from now on; return what it is to the scheduler, in the same place."""
        assert self._runner is not None and self._job is not None  # noqa: S101, PT018 - a leg broke
        self._work = work
        return msgspec.structs.replace(self._runner.job_of(work), id=self._job.id)

    # Failing

    async def _wait_before_next(self, error: DelugeError) -> float:
        """Return how long to wait before another attempt; raise the error where there is none."""
        runner, job, leg = self._runner, self._job, self._opening or self._leg
        assert runner is not None and job is not None and leg is not None  # noqa: S101, PT018 - an attempt failed
        self._unreached += runner.is_outage(error, leg.start.route)
        decision = runner.decide(
            error,
            attempt=self._attempts,
            unreached=self._unreached,
            time_left_s=self._time_left(),
            route=leg.start.route,
            models=job.models,
        )
        seconds = self._seconds(decision, error)
        self._note_failure(error)
        if self._work.attempt_failed is not None:
            await self._work.attempt_failed(self._attempts, APIResponse(error=error), False)
        return seconds

    def _seconds(self, decision: object, error: DelugeError) -> float:
        if isinstance(decision, GiveUp):
            error.hint = decision.hint or error.hint
            raise error
        return decision.seconds if isinstance(decision, Wait) else 0.0

    def _time_left(self) -> float:
        if self._runner is None or self._begun is None or self._loop is None:
            return math.inf
        return self._begun + self._runner.total_s - self._loop.time()

    def _note_failure(self, error: DelugeError) -> None:
        self._failures.append(f"attempt {self._attempts} ended with {type(error).__name__}: {error.message}")

    def _end_leg(self, leg: Leg, error: DelugeError) -> None:
        self._cancel_upstream(leg)
        leg.fail(error)

    async def _fail(self, error: DelugeError) -> None:
        self._end()
        self.error = error
        for leg in (self._leg, self._opening):
            if leg is not None:
                leg.abort()
        error.attempts = self._attempts
        for note in self._failures:
            error.add_note(note)
        if self._leg is not None:
            error.partial = self.response()
        if self._work.attempt_failed is not None and self._attempts:
            response = self.response()
            response.error = error
            await self._work.attempt_failed(self._attempts, response, True)

    def _charge(self, account: Account) -> None:
        """Take what the call has cost so far out of the purses; see whether it may go on."""
        leg = self._leg
        own = 0.0 if leg is None else leg.cost() or 0.0
        overspent = account.charge(self._spending.cost + own)
        if leg is not None and leg.attempt is not None and leg.attempt.builder.finished is None:
            self._overspent = overspent

    # Ending

    def _end(self) -> None:
        self._is_over = True
        if self._account is not None:
            self._charge(self._account)
        if self._loop is not None and self._ended is None:
            self._ended = self._loop.time()
        if self._runner is not None and self._job is not None:
            self._runner.forget(self._job)

    async def close(self) -> None:
        """End the call: an answer that was read to its end leaves its connection to the next one."""
        if self._leg is not None:
            self._cancel_upstream(self._leg)
            await self._leg.close()
        self._end()
        await self.settle()

    def _cancel_upstream(self, leg: Leg) -> None:
        """End an answer that goes on at the provider; one that is over, or was refused, does not."""
        place = None if leg.attempt is None else leg.attempt.place
        if place is None or place[0] == self._cancelled or self._loop is None or isinstance(self.error, APIError):
            return
        self._cancelled = place[0]
        self._cancel = UpstreamCancel(leg.plan, place[0], self._loop)

    async def settle(self) -> None:
        """Wait, for seconds at most, until the provider was told that nobody listens any more."""
        if self._cancel is not None:
            await self._cancel.wait()

    def abort(self) -> None:
        """End the call now: close the connection, let whoever waits for the next batch go empty-handed."""
        self._is_aborted = True
        self._end()
        for leg in (self._leg, self._opening):
            if leg is not None:
                self._cancel_upstream(leg)
                leg.abort()
        scope, self.scope = self.scope, None
        if scope is not None and self._loop is not None:
            # Wakes the one who opens the attempt; his task is not cancelled.
            scope.reschedule(self._loop.time())

    def abort_from_anywhere(self) -> None:
        """Abort from a finaliser, which may run in another thread or after the loop was closed."""
        loop, leg = self._loop, self._leg
        if loop is None or (self._is_over and (leg is None or leg.is_over)):
            return
        if loop.is_closed():
            if leg is not None:
                leg.give_back_later()
            return
        try:
            is_own = asyncio.get_running_loop() is loop
        except RuntimeError:
            is_own = False
        if is_own and leg is not None and leg.attempt is not None:
            leg.attempt.abort()
        with contextlib.suppress(RuntimeError):  # closed between the question and the call
            loop.call_soon_threadsafe(self.abort)

    # Telling

    def response(self) -> APIResponse:
        """Return the answer so far, with usage (the provider's, or an estimate), cost and stats."""
        if self._leg is not None:
            answer = self._leg.answer(self.stats())
            if self._joint is not None:
                self._joint.mend(answer)
            found = list(answer.warnings)
            if self._cancel is not None and self._cancel.failure is not None:
                found.append("cancel_failed")
            answer.warnings = tuple(found)
        else:
            model = self._work.prefer or ""
            answer = APIResponse(model_internal=model, stats=self.stats())
            if self._opening is not None:
                answer.model_internal = self._opening.start.route.model
            if isinstance(self.error, APIError):
                answer.status_code = self.error.status_code
            if self.error is not None:
                answer.request_id = self.error.request_id
        self._spending.add_to(answer)
        return answer

    def stats(self) -> StreamStats:
        """Return how the stream went so far."""
        now = self._ended or (self._loop.time() if self._loop is not None else None)
        attempt = None if self._leg is None else self._leg.attempt
        stats = build_stats(attempt, attempts=self._attempts, begun=self._begun, now=now)
        return stats if self._joint is None else self._joint.mend_stats(stats)


class _Waking:
    """Lets `abort` wake whoever waits in the block."""

    __slots__ = ("_call", "_outer", "_scope")

    def __init__(self, call: StreamCall) -> None:
        self._call = call
        self._outer = call.scope
        self._scope = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        self._call.scope = await self._scope.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._call.scope = self._outer
        await self._scope.__aexit__(kind, error, traceback)


def _note(number: int, error: DelugeError, wait_s: float, leg: Leg, *, goes_on: bool = False) -> Event:
    """Return the event that says: an attempt failed, and this leg follows."""
    return AttemptEvent(number, type(error).__name__, error.message, wait_s, leg.start.route.model, goes_on)
