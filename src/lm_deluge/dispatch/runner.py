"""Starts calls when the scheduler says so, and tells it what came of them. It reads the clock; nothing else here does.

One timer for all that wait. A call that fails is tried again, here or at another model, as `retry.decide` says; it ends
exactly once, with an answer or with an error on it. Nothing is raised for a call that failed.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from lm_deluge.dispatch.cached_call import begin_call
from lm_deluge.dispatch.call_plan import CallPlan
from lm_deluge.dispatch.lanes import Job
from lm_deluge.dispatch.limits import Limiter, Observation, Ticket
from lm_deluge.dispatch.retry import GiveUp, Switch, Wait, decide
from lm_deluge.dispatch.scheduler import Route, Scheduler, Start
from lm_deluge.dispatch.stream_call import StreamCall
from lm_deluge.errors import APIError, DelugeError, DispatchError, RateLimitError
from lm_deluge.events import Attempt, Event, ResponseStarted
from lm_deluge.response import APIResponse
from lm_deluge.usage import Usage
from lm_deluge.wire.http import HttpHead
from lm_deluge.wire.rate_limit_headers import parse_rate_limits

__all__ = ["Runner", "Work"]

_CHARACTERS_PER_TOKEN = 3.5  # an upper bound for most texts


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """A call to be run.

    Attributes:
        plan_for: Makes its plan for a model; what that raises ends the call.
        text_length: Characters of the prompt: what its input tokens are estimated from.
        max_output_tokens: Its own limit, if it has one.
        models: Which models may take it; None: all of the client's.
        prefer: The model that should, as long as it can.
        sink: Takes the events as they come; a call whose events were taken is not tried again.
    """

    plan_for: Callable[[str], CallPlan]
    text_length: int = 0
    max_output_tokens: int | None = None
    models: frozenset[str] | None = None
    prefer: str | None = None
    sink: Callable[[list[Event]], Awaitable[None]] | None = None


class _Running:
    """A call between its arrival and its end."""

    __slots__ = ("attempts", "begun", "done", "failures", "is_committed", "job", "notes", "task", "ticket", "work")

    def __init__(self, job: Job, work: Work, done: asyncio.Future[APIResponse]) -> None:
        self.job = job
        self.work = work
        self.done = done
        self.attempts = 0
        self.begun: float | None = None
        self.failures: list[str] = []
        self.notes: list[Event] = []
        self.is_committed = False  # its first events were handed over
        self.task: asyncio.Task[None] | None = None
        self.ticket: Ticket | None = None  # until the task begins, which then sees to it


class Runner:
    """Runs the calls of one client in one event loop.

    Args:
        limiter: Says when a call may go.
        routes: The models, and how the traffic is split.
        max_attempts: Requests per call at most.
        max_retry_after_s: Longest wait that a provider may ask for.
        total_s: Until a call must be over, from its first request on; None: no such limit.
        clock: Monotonic seconds.
        chance: Numbers from 0 to 1.
    """

    def __init__(
        self,
        limiter: Limiter,
        routes: Sequence[Route],
        *,
        max_attempts: int = 5,
        max_retry_after_s: float = 120.0,
        total_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._limiter = limiter
        self._scheduler = Scheduler(limiter, routes)
        self._routes = routes
        self._max_attempts = max_attempts
        self._max_retry_after_s = max_retry_after_s
        self._total_s = total_s
        self._clock = clock
        self._chance = chance
        self._calls: dict[int, _Running] = {}
        self._next_id = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many calls wait for their turn."""
        return len(self._scheduler)

    async def run(self, work: Work) -> APIResponse:
        """Run a call to its end. The answer has an error on it where the call failed; nothing is raised."""
        loop = asyncio.get_running_loop()
        self._next_id += 1
        job = Job(
            id=self._next_id,
            input_tokens=math.ceil(work.text_length / _CHARACTERS_PER_TOKEN),
            max_output_tokens=work.max_output_tokens,
            models=work.models,
            prefer=work.prefer,
        )
        running = self._calls[job.id] = _Running(job, work, loop.create_future())
        try:
            self._scheduler.submit(job, self._clock())
            self._pump()
            return await running.done
        except DispatchError as error:
            return APIResponse(error=error)
        finally:
            self._drop(running)

    def _drop(self, running: _Running) -> None:
        """Forget a call: it is over, or nobody waits for it any more."""
        del self._calls[running.job.id]
        was_waiting = self._scheduler.cancel(running.job.id, self._clock())
        self._scheduler.forget(running.job.id)
        if running.task is not None:
            running.task.cancel()  # it gives its ticket back, and then others may go
            if running.ticket is not None:  # a task that is cancelled before its first step runs no line of its own
                self._limiter.release(running.ticket, self._clock(), was_sent=False)
                self._pump()
        elif was_waiting:
            self._pump()

    def _pump(self) -> None:
        """Do what the scheduler says now, and set the one timer for when it wants to be asked again."""
        now = self._clock()
        plan = self._scheduler.poll(now)
        loop = asyncio.get_running_loop()
        for start in plan.start:
            running = self._calls[start.job.id]
            running.ticket = start.ticket
            running.task = loop.create_task(self._attempt(running, start))
        for failure in plan.failed:
            self._end(self._calls[failure.job.id], APIResponse(error=failure.error))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if plan.wake_at < math.inf:
            self._timer = loop.call_later(max(plan.wake_at - now, 0.0), self._pump)

    async def _attempt(self, running: _Running, start: Start) -> None:
        """Send one request of a call; see to it that its ticket is given back exactly once."""
        now = self._clock()
        running.ticket = None
        running.attempts += 1
        running.begun = now if running.begun is None else running.begun
        model, ticket = start.route.model, start.ticket
        call: StreamCall | None = None
        try:
            plan = running.work.plan_for(model)
            call = begin_call(self._single(plan, running, ticket))
            await self._read(call, running)
        except DelugeError as error:
            self._fail(running, start, call, error, now)
        except BaseException as error:
            self._give_back(ticket, call)
            if not isinstance(error, Exception):
                raise
            # A fault of ours, or of the user's own cache: whoever waits for the call is to see it.
            if not running.done.done():
                running.done.set_exception(error)
        else:
            self._succeed(running, ticket, call)
        finally:
            running.task = None
            self._pump()

    def _single(self, plan: CallPlan, running: _Running, ticket: Ticket) -> CallPlan:
        """Return the plan for one request: how often is for the runner to say."""
        timeouts = plan.timeouts
        left = self._time_left(running)
        if left < math.inf:
            timeouts = msgspec.structs.replace(timeouts, total=max(left, 0.001))
        sent_at = self._clock()

        def on_head(head: HttpHead) -> None:
            limits = parse_rate_limits(head.headers)
            seen = Observation(ticket=ticket, status=head.status, sent_at=sent_at, rate_limits=limits)
            self._limiter.observe(seen, self._clock())

        return msgspec.structs.replace(plan, timeouts=timeouts, max_attempts=1, on_head=on_head)

    async def _read(self, call: StreamCall, running: _Running) -> None:
        sink = running.work.sink
        while events := await call.next_batch():
            if sink is not None:
                if not running.is_committed:
                    running.is_committed = True
                    events = _with_notes(events, running.notes)
                await sink(events)
        await call.close()

    def _succeed(self, running: _Running, ticket: Ticket, call: StreamCall) -> None:
        response = call.response()
        if response.usage is not None:
            self._limiter.settle(ticket, response.usage, self._clock())
        else:
            self._limiter.release(ticket, self._clock())
        if response.stats is not None:
            response.stats = msgspec.structs.replace(response.stats, attempts=running.attempts)
        self._end(running, response)

    def _give_back(self, ticket: Ticket, call: StreamCall | None, error: DelugeError | None = None) -> None:
        # What was refused for its rate costs nothing.
        delivered = Usage() if isinstance(error, RateLimitError) else None if call is None else call.response().usage
        if call is not None:
            call.abort()
        self._limiter.release(ticket, self._clock(), was_sent=call is not None, delivered=delivered)

    def _fail(
        self, running: _Running, start: Start, call: StreamCall | None, error: DelugeError, sent_at: float
    ) -> None:
        now = self._clock()
        if isinstance(error, APIError) and error.status_code is not None:
            seen = Observation(
                ticket=start.ticket,
                status=error.status_code,
                sent_at=sent_at,
                retry_after_s=error.retry_after_s,
                chance=self._chance(),
            )
            self._limiter.observe(seen, now)
        self._give_back(start.ticket, call, error)
        decision = GiveUp() if running.is_committed else self._decide(running, start.route, error)
        if isinstance(decision, GiveUp):
            error.hint = decision.hint or error.hint
            self._end(running, self._failed(running, call, error, start.route.model))
            return
        wait_s = decision.seconds if isinstance(decision, Wait) else 0.0
        running.failures.append(f"attempt {running.attempts} ended with {type(error).__name__}: {error.message}")
        running.notes.append(
            Attempt(running.attempts + 1, type(error).__name__, error.message, wait_s, start.route.model)
        )
        if isinstance(decision, Switch):
            self._rest(decision, start.route, error, now)
        try:
            self._scheduler.submit(running.job, now, not_before=now + wait_s)
        except DispatchError as refusal:
            self._end(running, self._failed(running, call, refusal, start.route.model))

    def _decide(self, running: _Running, route: Route, error: DelugeError) -> Wait | Switch | GiveUp:
        models = running.work.models
        others = [each for each in self._routes if each != route and (models is None or each.model in models)]
        return decide(
            error,
            attempt=running.attempts,
            max_attempts=self._max_attempts,
            max_retry_after_s=self._max_retry_after_s,
            time_left_s=self._time_left(running),
            chance=self._chance(),
            can_switch=bool(others),
        )

    def _rest(self, decision: Switch, route: Route, error: DelugeError, now: float) -> None:
        """Leave what failed alone for a while, or for good."""
        named = {
            "key": {"key": route.key, "model": route.model},
            "model": {"model": route.model, "key": route.key},
            "provider": {"provider": route.provider},
        }[decision.scope]
        if decision.rest_s < math.inf:
            self._scheduler.cool(now + decision.rest_s, now, **named)
        elif decision.scope != "provider":
            self._scheduler.block(error, now, **named)

    def _time_left(self, running: _Running) -> float:
        if self._total_s is None or running.begun is None:
            return math.inf
        return running.begun + self._total_s - self._clock()

    def _failed(self, running: _Running, call: StreamCall | None, error: DelugeError, model: str) -> APIResponse:
        response = APIResponse(model_internal=model) if call is None else call.response()
        error.attempts = running.attempts
        for note in running.failures:
            error.add_note(note)
        response.error = error
        if response.stats is not None:
            response.stats = msgspec.structs.replace(response.stats, attempts=running.attempts)
        return response

    def _end(self, running: _Running, response: APIResponse) -> None:
        if not running.done.done():
            running.done.set_result(response)


def _with_notes(events: list[Event], notes: list[Event]) -> list[Event]:
    """Return the first events of the attempt that is kept, and behind its start those that were not."""
    is_start = bool(events) and type(events[0]) is ResponseStarted
    return [*events[:1], *notes, *events[1:]] if is_start else [*notes, *events]
