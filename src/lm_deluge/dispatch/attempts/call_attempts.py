"""The attempts of a call: leave for each, a second one beside a silent one, what is learned from one that failed.

What is made of their events is for `stream_call.py`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import msgspec

from lm_deluge.api_requests.deadline import Deadline
from lm_deluge.dispatch.attempts.attempt import CallAttempt
from lm_deluge.dispatch.attempts.background import UpstreamCancel, can_resume, resume
from lm_deluge.dispatch.attempts.discarded_cost import DiscardedCost, spent_by
from lm_deluge.dispatch.attempts.hedge import Hedge
from lm_deluge.dispatch.budget import CallBudget
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.scheduling.first_token_times import FirstTokenTimes
from lm_deluge.dispatch.scheduling.queue import Job
from lm_deluge.dispatch.scheduling.retry import GiveUp, Wait
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.dispatch.scheduling.scheduler import Start
from lm_deluge.errors import APIError, ConfigurationError, DelugeError, DispatchError
from lm_deluge.events import Attempt as AttemptEvent
from lm_deluge.events import Event
from lm_deluge.response import APIResponse
from lm_deluge.usage import Usage

__all__ = ["CallAttempts", "note_of"]


class CallAttempts:
    """What the attempts of one call have in common."""

    def __init__(self, spec: CallSpec, find_runner: Callable[[], Runner]) -> None:
        self.error: DelugeError | None = None
        self._spec = spec
        self._find_runner = find_runner
        self._runner: Runner | None = None
        self._job: Job | None = None
        self._attempt: CallAttempt | None = None  # whose events are handed out
        self._opening: CallAttempt | None = None  # nothing of it was handed out
        self._hedge: Hedge | None = None  # beside it
        # Beside the one that goes on, and not yet told of.
        self._lost: tuple[tuple[CallAttempt, DelugeError, Usage | None], ...] = ()
        self._discarded = DiscardedCost()  # of the legs before
        self._budget = CallBudget(spec.budgets) if spec.budgets else None
        self._attempts = 0
        self._unreached = 0  # of them, that met an outage
        self._failures: tuple[str, ...] = ()  # of the attempts before the last one
        self._is_aborted = False
        self._begun: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.scope: Deadline | None = None  # by which whoever waits is woken
        self._cancels: dict[str, UpstreamCancel] = {}  # by the id of the answer that it ends

    async def _admit(self, wait_s: float) -> CallAttempt:
        """Wait for leave to send the next request; return its leg. A model that cannot take the call is passed over."""
        loop = self._loop = asyncio.get_running_loop()
        runner = self._runner = self._runner or self._find_runner()
        job = self._job = self._job or runner.job_of(self._spec)
        while True:
            start = await runner.admit(job, wait_s)
            try:
                attempt = self._opening = await self._begin(start)
            except ConfigurationError:
                known = {route.model for route in runner.routes} if job.models is None else job.models
                others = frozenset(known - {start.route.model})
                if not others:
                    raise
                job = self._job = msgspec.structs.replace(job, models=others)
                continue
            self._begun = loop.time() if self._begun is None else self._begun
            return attempt

    async def _begin(self, start: Start, beside_cost: float = 0.0) -> CallAttempt:
        """Make a leg of leave to send; give the leave back where the request may not be sent."""
        runner = self._runner
        assert runner is not None  # noqa: S101 - it gave leave
        self._attempts += 1
        number = self._attempts
        try:
            plan = self._spec.plan_for(start.route.model)
            if self._budget is not None:
                self._budget.check(self._discarded.cost + beside_cost + plan.least_cost())
            if self._spec.before_attempt is not None:
                await self._spec.before_attempt(number)
        except BaseException:  # a cancellation, too
            self._attempts -= 1
            runner.give_back(start.ticket, was_sent=False)
            raise
        return CallAttempt(runner, start, plan, number)

    async def _begin_beside(self, start: Start) -> CallAttempt:
        """Make a second leg, beside the one that is opening."""
        first, runner = self._opening, self._runner
        assert first is not None and runner is not None  # noqa: S101, PT018 - there is a race
        if self._is_last():  # the first was taken up again in the meantime
            runner.give_back(start.ticket, was_sent=False)
            raise DispatchError("there were as many attempts as there may be")
        return await self._begin(start, first.plan.least_cost())

    async def _held_events(self, attempt: CallAttempt) -> list[Event]:
        """Open a leg and read until it has something to show, or is over."""
        left = self._time_left()
        deadline = None if left == math.inf or self._loop is None else self._loop.time() + left
        stream = await attempt.open(deadline, self._least_speed())
        held: list[Event] = []
        while True:
            try:
                batch = await attempt.next_batch()
            except DelugeError as error:
                if not can_resume(stream, error):
                    raise
                batch = await self._resume(attempt, error)
            held += batch
            if not batch or attempt.is_speaking or stream.builder.finished is not None:
                return held

    def _least_speed(self) -> float | None:
        """Return how fast an attempt must be; the last one may be as slow as it is."""
        return None if self._is_last() else self._spec.min_tokens_per_second

    def _is_last(self) -> bool:
        """Whether there were as many attempts as there may be."""
        return self._runner is not None and self._attempts - self._unreached >= self._runner.max_attempts

    async def _raced(
        self, runner: Runner, times: FirstTokenTimes, attempt: CallAttempt, notes: list[Event]
    ) -> list[Event]:
        """Read a leg until it has something to show, or another one beside it has; `_opening` is the one to keep."""
        is_last = self._is_last()
        hedge = self._hedge = Hedge(
            runner, self._spec, attempt, begin=self._begin_beside, read=self._held_events, lose=self._lose
        )
        try:
            held = await hedge.run(None if is_last else times.patience_s(attempt.start.route.model))
        finally:
            self._opening = kept = hedge.kept
            notes += hedge.notes
        self._hedge = None
        if kept.is_speaking:
            times.note(kept.start.route.model, kept.first_token_s())
        return held

    async def _resume(self, attempt: CallAttempt, broken: DelugeError) -> list[Event]:
        """Take the answer up again; return an `Attempt` for each time that it was tried."""
        stream, runner = attempt.stream, self._runner
        assert stream is not None and runner is not None  # noqa: S101, PT018 - can_resume
        error, notes = broken, list[Event]()
        while True:
            decision = runner.decide_here(error, attempt=self._attempts, time_left_s=self._time_left())
            wait_s = self._seconds(decision, error)
            self._note_failure(attempt, error)
            await asyncio.sleep(wait_s)
            self._attempts += 1
            attempt.last_number = self._attempts
            notes.append(note_of(self._attempts, error, wait_s, attempt, goes_on=True))
            try:
                await resume(attempt.plan, stream)
            except DelugeError as failure:
                if not failure.retryable:
                    # What broke the stream is what happened; that the rest cannot be had is why it is told.
                    broken.hint = f"It could not be taken up again: {failure.message}"
                    raise broken from failure
                error = failure
                continue
            if self._is_aborted:
                stream.abort()
                return []
            return notes

    async def _wait_before_next(self, error: DelugeError) -> float:
        """Return how long to wait before another attempt; raise the error where there is none."""
        runner, job, attempt = self._runner, self._job, self._opening or self._attempt
        assert runner is not None and job is not None and attempt is not None  # noqa: S101, PT018 - an attempt failed
        self._unreached += runner.is_outage(error, attempt.start.route)
        decision = runner.decide(
            error,
            attempt=self._attempts,
            unreached=self._unreached,
            time_left_s=self._time_left(),
            route=attempt.start.route,
            models=job.models,
        )
        seconds = self._seconds(decision, error)
        self._note_failure(attempt, error)
        await self._tell_failed(attempt, error, spent_by(attempt))
        return seconds

    async def _tell_failed(self, attempt: CallAttempt, error: DelugeError, usage: Usage | None) -> None:
        if self._spec.on_attempt_failed is not None:
            cost = None if usage is None else attempt.plan.cost(usage)
            response = APIResponse(error=error, usage=usage, cost=cost, model_internal=attempt.start.route.model)
            await self._spec.on_attempt_failed(attempt.number, response, False)

    def _lose(self, attempt: CallAttempt, error: DelugeError | None) -> None:
        """End a leg at once while another one goes on: it failed, or the other one spoke first."""
        runner, job = self._runner, self._job
        assert runner is not None and job is not None  # noqa: S101, PT018 - there was a race
        if error is None:
            error = DispatchError("another attempt spoke first", billed="maybe")
            self._cancel_upstream(attempt)
            attempt.abort()
            if attempt is self._opening and runner.first_tokens is not None:
                runner.first_tokens.note(attempt.start.route.model, attempt.first_token_s())
            self._discarded.add_left(attempt)
            usage = attempt.usage_when_left()
        else:
            self._end_attempt(attempt, error)
            self._discarded.add(attempt)
            usage = spent_by(attempt)
            self._note_failure(attempt, error)
            # What is to be left alone for a while is; another attempt is under way already.
            route = attempt.start.route
            self._unreached += runner.is_outage(error, route)
            runner.decide(error, attempt=1, unreached=0, time_left_s=math.inf, route=route, models=job.models)
        self._lost += ((attempt, error, usage),)

    def _seconds(self, decision: object, error: DelugeError) -> float:
        if isinstance(decision, GiveUp):
            error.hint = decision.hint or error.hint
            raise error
        return decision.seconds if isinstance(decision, Wait) else 0.0

    def _time_left(self) -> float:
        if self._runner is None or self._begun is None or self._loop is None:
            return math.inf
        return self._begun + self._runner.total_s - self._loop.time()

    def _note_failure(self, attempt: CallAttempt, error: DelugeError) -> None:
        self._failures += (f"attempt {attempt.last_number} ended with {type(error).__name__}: {error.message}",)

    def _end_attempt(self, attempt: CallAttempt, error: DelugeError) -> None:
        self._cancel_upstream(attempt)
        attempt.fail(error)

    def _cancel_upstream(self, attempt: CallAttempt) -> None:
        """End an answer that goes on at the provider; one that is over, or was refused, does not."""
        place = None if attempt.stream is None else attempt.stream.resume_point
        if place is None or place[0] in self._cancels or self._loop is None or isinstance(self.error, APIError):
            return
        self._cancels[place[0]] = UpstreamCancel(attempt.plan, place[0], self._loop)


def note_of(number: int, error: DelugeError, wait_s: float, attempt: CallAttempt, *, goes_on: bool = False) -> Event:
    """Return the event that says: an attempt failed, and this leg follows."""
    return AttemptEvent(number, type(error).__name__, error.message, wait_s, attempt.start.route.model, goes_on)
