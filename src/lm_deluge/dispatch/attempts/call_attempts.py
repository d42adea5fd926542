"""The attempts of a call: leave for each, a second one beside a silent one, what is learned from one that failed.

What is made of their events is for `stream_call.py`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import msgspec

from lm_deluge.api_requests.deadline import Deadline
from lm_deluge.dispatch.attempts.attempt import Leg
from lm_deluge.dispatch.attempts.background import UpstreamCancel, can_resume, resume
from lm_deluge.dispatch.attempts.discarded_cost import Spending, spent_by
from lm_deluge.dispatch.attempts.hedge import Hedge
from lm_deluge.dispatch.budget import Account
from lm_deluge.dispatch.call import Work
from lm_deluge.dispatch.scheduling.first_token_times import FirstTokens
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

    def __init__(self, work: Work, find_runner: Callable[[], Runner]) -> None:
        self.error: DelugeError | None = None
        self._work = work
        self._find_runner = find_runner
        self._runner: Runner | None = None
        self._job: Job | None = None
        self._leg: Leg | None = None  # whose events are handed out
        self._opening: Leg | None = None  # nothing of it was handed out
        self._hedge: Hedge | None = None  # beside it
        # Beside the one that goes on, and not yet told of.
        self._lost: tuple[tuple[Leg, DelugeError, Usage | None], ...] = ()
        self._spending = Spending()  # of the legs before
        self._account = Account(work.purses) if work.purses else None
        self._attempts = 0
        self._unreached = 0  # of them, that met an outage
        self._failures: tuple[str, ...] = ()  # of the attempts before the last one
        self._is_aborted = False
        self._begun: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.scope: Deadline | None = None  # by which whoever waits is woken
        self._cancels: dict[str, UpstreamCancel] = {}  # by the id of the answer that it ends

    async def _admit(self, wait_s: float) -> Leg:
        """Wait for leave to send the next request; return its leg. A model that cannot take the call is passed over."""
        loop = self._loop = asyncio.get_running_loop()
        runner = self._runner = self._runner or self._find_runner()
        job = self._job = self._job or runner.job_of(self._work)
        while True:
            start = await runner.admit(job, wait_s)
            try:
                leg = self._opening = await self._begin(start)
            except ConfigurationError:
                known = {route.model for route in runner.routes} if job.models is None else job.models
                others = frozenset(known - {start.route.model})
                if not others:
                    raise
                job = self._job = msgspec.structs.replace(job, models=others)
                continue
            self._begun = loop.time() if self._begun is None else self._begun
            return leg

    async def _begin(self, start: Start, beside_cost: float = 0.0) -> Leg:
        """Make a leg of leave to send; give the leave back where the request may not be sent."""
        runner = self._runner
        assert runner is not None  # noqa: S101 - it gave leave
        self._attempts += 1
        number = self._attempts
        try:
            plan = self._work.plan_for(start.route.model)
            if self._account is not None:
                self._account.check(self._spending.cost + beside_cost + plan.least_cost())
            if self._work.intend is not None:
                await self._work.intend(number)
        except BaseException:  # a cancellation, too
            self._attempts -= 1
            runner.give_back(start.ticket, was_sent=False)
            raise
        return Leg(runner, start, plan, number)

    async def _begin_beside(self, start: Start) -> Leg:
        """Make a second leg, beside the one that is opening."""
        first, runner = self._opening, self._runner
        assert first is not None and runner is not None  # noqa: S101, PT018 - there is a race
        if self._is_last():  # the first was taken up again in the meantime
            runner.give_back(start.ticket, was_sent=False)
            raise DispatchError("there were as many attempts as there may be")
        return await self._begin(start, first.plan.least_cost())

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
        return None if self._is_last() else self._work.min_tokens_per_second

    def _is_last(self) -> bool:
        """Whether there were as many attempts as there may be."""
        return self._runner is not None and self._attempts - self._unreached >= self._runner.max_attempts

    async def _raced(self, runner: Runner, times: FirstTokens, leg: Leg, notes: list[Event]) -> list[Event]:
        """Read a leg until it has something to show, or another one beside it has; `_opening` is the one to keep."""
        is_last = self._is_last()
        hedge = self._hedge = Hedge(
            runner, self._work, leg, begin=self._begin_beside, read=self._held_events, lose=self._lose
        )
        try:
            held = await hedge.run(None if is_last else times.patience_s(leg.start.route.model))
        finally:
            self._opening = kept = hedge.kept
            notes += hedge.notes
        self._hedge = None
        if kept.is_speaking:
            times.note(kept.start.route.model, kept.first_token_s())
        return held

    async def _resume(self, leg: Leg, broken: DelugeError) -> list[Event]:
        """Take the answer up again; return an `Attempt` for each time that it was tried."""
        attempt, runner = leg.attempt, self._runner
        assert attempt is not None and runner is not None  # noqa: S101, PT018 - can_resume
        error, notes = broken, list[Event]()
        while True:
            decision = runner.decide_here(error, attempt=self._attempts, time_left_s=self._time_left())
            wait_s = self._seconds(decision, error)
            self._note_failure(leg, error)
            await asyncio.sleep(wait_s)
            self._attempts += 1
            leg.last_number = self._attempts
            notes.append(note_of(self._attempts, error, wait_s, leg, goes_on=True))
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
        self._note_failure(leg, error)
        await self._tell_failed(leg, error, spent_by(leg))
        return seconds

    async def _tell_failed(self, leg: Leg, error: DelugeError, usage: Usage | None) -> None:
        if self._work.attempt_failed is not None:
            cost = None if usage is None else leg.plan.cost(usage)
            response = APIResponse(error=error, usage=usage, cost=cost, model_internal=leg.start.route.model)
            await self._work.attempt_failed(leg.number, response, False)

    def _lose(self, leg: Leg, error: DelugeError | None) -> None:
        """End a leg at once while another one goes on: it failed, or the other one spoke first."""
        runner, job = self._runner, self._job
        assert runner is not None and job is not None  # noqa: S101, PT018 - there was a race
        if error is None:
            error = DispatchError("another attempt spoke first", billed="maybe")
            self._cancel_upstream(leg)
            leg.abort()
            if leg is self._opening and runner.first_tokens is not None:
                runner.first_tokens.note(leg.start.route.model, leg.first_token_s())
            self._spending.add_left(leg)
            usage = leg.usage_when_left()
        else:
            self._end_leg(leg, error)
            self._spending.add(leg)
            usage = spent_by(leg)
            self._note_failure(leg, error)
            # What is to be left alone for a while is; another attempt is under way already.
            route = leg.start.route
            self._unreached += runner.is_outage(error, route)
            runner.decide(error, attempt=1, unreached=0, time_left_s=math.inf, route=route, models=job.models)
        self._lost += ((leg, error, usage),)

    def _seconds(self, decision: object, error: DelugeError) -> float:
        if isinstance(decision, GiveUp):
            error.hint = decision.hint or error.hint
            raise error
        return decision.seconds if isinstance(decision, Wait) else 0.0

    def _time_left(self) -> float:
        if self._runner is None or self._begun is None or self._loop is None:
            return math.inf
        return self._begun + self._runner.total_s - self._loop.time()

    def _note_failure(self, leg: Leg, error: DelugeError) -> None:
        self._failures += (f"attempt {leg.last_number} ended with {type(error).__name__}: {error.message}",)

    def _end_leg(self, leg: Leg, error: DelugeError) -> None:
        self._cancel_upstream(leg)
        leg.fail(error)

    def _cancel_upstream(self, leg: Leg) -> None:
        """End an answer that goes on at the provider; one that is over, or was refused, does not."""
        place = None if leg.attempt is None else leg.attempt.place
        if place is None or place[0] in self._cancels or self._loop is None or isinstance(self.error, APIError):
            return
        self._cancels[place[0]] = UpstreamCancel(leg.plan, place[0], self._loop)


def note_of(number: int, error: DelugeError, wait_s: float, leg: Leg, *, goes_on: bool = False) -> Event:
    """Return the event that says: an attempt failed, and this leg follows."""
    return AttemptEvent(number, type(error).__name__, error.message, wait_s, leg.start.route.model, goes_on)
