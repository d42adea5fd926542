"""What is known of a call once it was admitted (`AdmittedCall`), and one attempt at it (`CallAttempt`)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec

from lm_deluge.api_requests.answer import build_answer, build_usage
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.api_requests.response_stream import ResponseStream, open_response_stream
from lm_deluge.dispatch.attempts.throughput import ThroughputMonitor
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.call_watch import CallWatch
from lm_deluge.dispatch.scheduling.retry import GiveUp, Wait
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.dispatch.scheduling.scheduler import Admission
from lm_deluge.errors import ConnectError, ContextLengthError, DelugeError
from lm_deluge.events import Attempt as AttemptEvent
from lm_deluge.response import APIResponse, StreamStats
from lm_deluge.telemetry.observer import ObservedAttempt, ObservedCall
from lm_deluge.usage import Usage

__all__ = ["AdmittedCall", "CallAttempt", "PendingRetry"]


class PendingRetry(NamedTuple):
    """A further attempt at a call, which is waited for.

    Attributes:
        error: What ended the attempt before.
        attempt: Number of the attempt that follows, from 2.
        max_attempts: Number of attempts at most.
        due_at: When it may start, in the event loop's time; limits of the client can delay it further.
    """

    error: DelugeError
    attempt: int
    max_attempts: int
    due_at: float


class AdmittedCall:
    """Where a call runs, and what became of its attempts so far.

    Attributes:
        runner: Admits its requests.
        loop: The event loop in which it runs.
        job: The call as the scheduler knows it.
        started_at: When its first request was admitted, in the loop's time.
        attempts: Number of attempts, the present one included.
        unreached: Attempts that failed to connect during an outage; they do not count against `max_attempts`.
        failures: One line for each attempt that failed.
        watch: What its events are reported to; None if nothing observes it.
    """

    __slots__ = ("_retry", "attempts", "failures", "job", "loop", "runner", "started_at", "unreached", "watch")

    def __init__(self, runner: Runner, spec: CallSpec) -> None:
        self.runner = runner
        self.loop = asyncio.get_running_loop()
        self.job = runner.job_of(spec)
        self.started_at: float | None = None
        self.attempts = 0
        self.unreached = 0
        self.failures: tuple[str, ...] = ()
        self._retry: PendingRetry | None = None
        self.watch: CallWatch | None = None
        if not spec.observers.is_idle:
            observed = ObservedCall(spec.conversation, lambda: runner.candidates(spec), spec.plan_for)
            self.watch = spec.observers.watch(observed)

    @property
    def wants_reads(self) -> bool:
        """Whether an observer is interested in single reads."""
        return self.watch is not None and self.watch.wants_reads

    def report_end(
        self, respond: Callable[[], APIResponse], error: DelugeError | None, *, is_later: bool = False
    ) -> None:
        """Report the end of the call to its observers.

        Args:
            respond: Returns the response so far.
            error: What the call ended with, None if it did not fail.
            is_later: Report it when the next call of the client starts: for a finaliser, after the loop was closed.
        """
        if self.watch is not None:
            (self.watch.ended_later if is_later else self.watch.ended)(respond, error)

    def admit(self, wait_s: float) -> Awaitable[Admission]:
        """Wait until a request may be sent, at least `wait_s`; raises as `Runner.admit`."""
        admission = self.runner.admit(self.job, wait_s)
        return admission if self.watch is None else self._admit_watched(admission, self.watch, wait_s)

    async def _admit_watched(self, admission: Awaitable[Admission], watch: CallWatch, wait_s: float) -> Admission:
        asked_at = self.loop.time()
        try:
            return await admission
        finally:
            watch.waited(self.loop.time() - asked_at - wait_s)

    @property
    def pending_retry(self) -> PendingRetry | None:
        """The attempt that is waited for; None while one is made."""
        return self._retry if self._retry is not None and self._retry.attempt > self.attempts else None

    @property
    def time_left_s(self) -> float:
        """Seconds until the call must be over; infinite without `Timeouts(total=...)`."""
        return math.inf if self.started_at is None else self.started_at + self.runner.total_s - self.loop.time()

    @property
    def deadline(self) -> float | None:
        """When the call must be over, in the loop's time; None without such a time."""
        total_s = self.runner.total_s
        return None if self.started_at is None or total_s == math.inf else self.started_at + total_s

    @property
    def is_last(self) -> bool:
        """Whether there were as many attempts as `max_attempts` allows."""
        return self.attempts - self.unreached >= self.runner.max_attempts

    def exclude(self, model: str) -> bool:
        """Let no further attempt use a model; return whether another one is left."""
        known = {route.model for route in self.runner.routes} if self.job.models is None else self.job.models
        others = frozenset(known - {model})
        if others:
            self.job = msgspec.structs.replace(self.job, models=others)
        return bool(others)

    def wait_before_resume(self, error: DelugeError) -> float:
        """Return the seconds before another request for the rest of the same answer; raise `error` if there is none."""
        decision = self.runner.decide_here(error, attempt=self.attempts, time_left_s=self.time_left_s)
        return self._pause(_seconds(decision, error), error)

    def wait_before_next(self, attempt: CallAttempt, error: DelugeError) -> float:
        """Return the seconds before another attempt after this one; raise `error` if there is none."""
        route = attempt.start.route
        larger = self.runner.larger_models(route, self.job.models) if isinstance(error, ContextLengthError) else None
        if larger and not self.is_last and self.time_left_s > 0:
            self.job = msgspec.structs.replace(self.job, models=larger)
            return 0.0
        self.unreached += self.runner.is_outage(error, route)
        decision = self.runner.decide(
            error,
            attempt=self.attempts,
            unreached=self.unreached,
            time_left_s=self.time_left_s,
            route=route,
            models=self.job.models,
        )
        return self._pause(_seconds(decision, error), error)

    def _pause(self, seconds: float, error: DelugeError) -> float:
        due_at = self.loop.time() + seconds
        most = self.runner.max_attempts + self.unreached
        self._retry = PendingRetry(error, self.attempts + 1, most, due_at) if seconds else None
        return seconds

    def note_failed_route(self, attempt: CallAttempt, error: DelugeError) -> None:
        """Have the scheduler avoid the route of a failed attempt where the error asks for it."""
        route = attempt.start.route
        self.unreached += self.runner.is_outage(error, route)
        self.runner.decide(error, attempt=1, unreached=0, time_left_s=math.inf, route=route, models=self.job.models)

    def note_failure(self, attempt: CallAttempt, error: DelugeError) -> None:
        """Note that an attempt failed, for the final error."""
        key = attempt.start.route.key
        with_key = f" with {key}" if key else ""
        self.failures += (
            f"attempt {attempt.last_number}{with_key} ended with {type(error).__name__}: {error.message}",
        )


def _seconds(decision: object, error: DelugeError) -> float:
    if isinstance(decision, GiveUp):
        error.hint = decision.hint or error.hint
        raise error
    return decision.seconds if isinstance(decision, Wait) else 0.0


class CallAttempt:
    """One attempt at a call, with its ticket, which is given back exactly once, however the attempt ends.

    `open` it, read from `reader` until it returns nothing, `close`; or `abort`, or `fail`.

    Attributes:
        call: The call that it is an attempt at.
        plan: The request.
        start: The route and the ticket.
        number: Number of the attempt in its call, from 1.
        last_number: The same; of an answer that was resumed, the number of the last attempt to do so.
        stream: The response, None until its head arrived.
        reader: Where events are read: the stream, or what watches its throughput.
    """

    def __init__(self, call: AdmittedCall, start: Admission, plan: CallPlan) -> None:
        self.call = call
        self.plan = plan.with_key(start.route.key) if start.route.key else plan
        self.start = start
        self.number = self.last_number = call.attempts
        self.stream: ResponseStream | None = None
        self.reader: ResponseStream | ThroughputMonitor
        self._runner = call.runner
        self._sent_at: float | None = None
        self._is_given_back = False
        self._observed: ObservedAttempt | None = None

    def event_after(self, error: DelugeError, wait_s: float, *, is_continued: bool = False) -> AttemptEvent:
        """Return the event: an attempt failed with `error`, and after `wait_s` seconds this one follows."""
        model = self.start.route.model
        return AttemptEvent(self.last_number, type(error).__name__, error.message, wait_s, model, is_continued)

    async def open(self, min_tokens_per_second: float | None = None) -> ResponseStream:
        """Send the request; return once status and headers arrived. Raises as `open_response_stream`.

        Args:
            min_tokens_per_second: A slower attempt fails; None: any throughput will do.
        """
        sent_at = self._sent_at = self._runner.now()
        if (watch := self.call.watch) is not None:
            self._observed = watch.attempt_started(self.number, self.start.route.model, self.start.route.provider)
        stream = self.stream = self.reader = await open_response_stream(
            self.plan, deadline=self.call.deadline, timeout_monitor=self._runner.timeout_monitor
        )
        self._runner.head_came(self.start.ticket, stream.head, sent_at)
        if min_tokens_per_second is not None:
            self.reader = ThroughputMonitor(stream, min_tokens_per_second)
        return stream

    @property
    def has_output(self) -> bool:
        """Whether something of the answer arrived, and fast enough where there is a minimum throughput."""
        if self.stream is None or not self.stream.builder.has_deltas:
            return False
        reader = self.reader
        return reader.is_fast_enough if isinstance(reader, ThroughputMonitor) else True

    def first_token_s(self) -> float:
        """Return how long its first token took, or how long none has arrived; 0 if nothing was sent."""
        if self._sent_at is None:
            return 0.0
        arrived_at = None if self.stream is None else self.stream.timing.first_token_at
        ago_s = 0.0 if arrived_at is None else asyncio.get_running_loop().time() - arrived_at
        return self._runner.now() - self._sent_at - ago_s

    def stop_watching(self) -> None:
        """Stop watching its throughput: its events are delivered from now on."""
        if self.stream is not None:
            self.reader = self.stream

    def usage(self) -> Usage | None:
        """Return its usage so far, None if no response arrived."""
        return None if self.stream is None else build_usage(self.stream)

    def usage_when_abandoned(self) -> Usage | None:
        """Return its usage if it is not read to its end: the input at least, if it was sent."""
        return self.usage() or (None if self._sent_at is None else self.plan.least_usage())

    def cost(self) -> float | None:
        """Return what it has cost the budgets so far, in US dollars; None without a response or a price."""
        usage = self.usage()
        return None if usage is None else self.plan.budget_cost(usage)

    def answer(self, stats: StreamStats) -> APIResponse:
        """Return its response so far."""
        if self.stream is None:
            return APIResponse(model_internal=self.plan.call.model.id, stats=stats)
        return build_answer(self.stream, self.plan.call, stats)

    async def close(self) -> None:
        """End it. An answer that was read to its end leaves its connection to the next request."""
        if self.stream is None:
            self.abort()
            return
        await self.stream.close()
        usage = self.usage() if self.stream.builder.finished is not None else None
        if usage is None or self._is_given_back:
            self.abort()
            return
        self._is_given_back = True
        if self.plan.plain_answers is not None and self._sent_at is not None:
            self.plan.plain_answers.note(self._runner.now() - self._sent_at)
        self._runner.settle(self.start.ticket, usage)

    def abort(self) -> None:
        """End it now: close its connection."""
        if self.stream is not None:
            self.stream.abort()
        self._give_back(None)

    @property
    def is_over(self) -> bool:
        """Whether its ticket was given back."""
        return self._is_given_back

    @property
    def bills_when_abandoned(self) -> bool:
        """Whether it was sent to a provider that bills all of its answer, also if it is aborted."""
        return self._sent_at is not None and not self.is_over and self.plan.call.provider.bills_abandoned

    def give_back_later(self) -> None:
        """Give the ticket back after the event loop was closed, from a finaliser."""
        if not self._is_given_back:
            self._is_given_back = True
            self._runner.give_back_later(self.start.ticket, self.usage())

    def fail(self, error: DelugeError) -> None:
        """End it with an error."""
        if self.stream is not None:
            self.stream.abort()
        if self._sent_at is not None and not self._is_given_back:
            if self.plan.plain_answers is not None:
                self.plan.plain_answers.note_failure(error)
            self._runner.failed(self.start.ticket, error, self._sent_at)
            self._report_failed(error)
        self._give_back(error)

    def report_read(self, events: int) -> None:
        """Report to the observers of the call that a read brought events."""
        if self.call.watch is not None and self.call.started_at is not None and self.stream is not None:
            self.call.watch.read(self.stream.timing, self.call.started_at, events)

    def note_resumed(self, error: DelugeError) -> None:
        """Note that another request asks for the rest of its answer, after `error`."""
        self.last_number = self.call.attempts
        self._report_failed(error)
        if (watch := self.call.watch) is not None:
            self._observed = watch.attempt_started(self.last_number, self.start.route.model, self.start.route.provider)

    def _report_failed(self, error: DelugeError) -> None:
        if (watch := self.call.watch) is not None and self._observed is not None:
            watch.attempt_failed(self._observed, error)

    def _give_back(self, error: DelugeError | None) -> None:
        if self._is_given_back:
            return
        self._is_given_back = True
        was_sent = self._sent_at is not None and not isinstance(error, ConnectError)
        self._runner.give_back(self.start.ticket, was_sent=was_sent, delivered=self.usage(), error=error)
