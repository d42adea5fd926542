"""Runs the scheduler in an event loop: one runner for all calls of a client in a loop.

The runner reads the clock. It has one timer for all waiting calls, and no task: a call waits in the task of its
consumer.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from weakref import WeakSet

from lm_deluge.api_requests.timeouts import TimeoutMonitor
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.scheduling.circuit_breaker import CircuitBreaker
from lm_deluge.dispatch.scheduling.first_token_times import FirstTokenTimes
from lm_deluge.dispatch.scheduling.limiter import Limiter, Observation, Ticket
from lm_deluge.dispatch.scheduling.queue import Job
from lm_deluge.dispatch.scheduling.retry import GiveUp, RetryPolicy, Switch, Wait, decide_next, decide_retry, too_long
from lm_deluge.dispatch.scheduling.scheduler import Admission, Plan, Route, Scheduler
from lm_deluge.errors import APIError, ConnectError, DelugeError, RateLimitError
from lm_deluge.telemetry.logs import logger
from lm_deluge.usage import Usage, estimate_tokens
from lm_deluge.wire.http import HttpHead
from lm_deluge.wire.rate_limit_headers import Dimension, parse_rate_limits

__all__ = ["LimiterLock", "Runner"]

# Low, so that the estimate is an upper bound for most texts and few requests exceed their reservation.
_CHARACTERS_PER_TOKEN_AT_LEAST = 3.5
# The `type` of OpenAI's errors of status 429: https://platform.openai.com/docs/guides/rate-limits (2026-11).
_DIMENSION_OF_TYPE: dict[str, Dimension] = {"requests": "requests", "tokens": "tokens"}
# A key that may be valid again: a request each five minutes costs little, and the other keys take the calls meanwhile.
_SET_ASIDE_S = 300.0
_BLOCK_FACTOR = 1.1  # the limiter adds up to a tenth to the pause that a provider asks for


class LimiterLock:
    """The lock of a limiter, because event loops in several threads may share the limiter.

    A finaliser may run while its own thread holds the lock, so it takes none: the next holder does the release.
    """

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self._lock = threading.Lock()
        self._deferred: deque[tuple[Ticket, Usage | None, float]] = deque()
        self._runners: WeakSet[Runner] = WeakSet()
        self._is_shared = False  # by the runners of several loops

    def join(self, runner: Runner) -> None:
        """Register a loop's runner: a release in another loop may admit its calls."""
        with self:
            self._runners.add(runner)
            self._is_shared = len(self._runners) > 1

    @property
    def waiting(self) -> int:
        """Number of calls that wait to be admitted, in all loops."""
        return sum(runner.waiting for runner in self._runners)

    def wake_all(self) -> None:
        """Poll in all loops that have waiting calls: the limiter knows more slots."""
        for runner in list(self._runners):
            if runner.waiting:
                runner.wake()

    def wake_others(self, runner: Runner) -> None:
        """Poll in the other loops that have waiting calls."""
        if self._is_shared:
            for other in list(self._runners):
                if other is not runner and other.waiting:
                    other.wake()

    def release_later(self, ticket: Ticket, delivered: Usage | None, now: float) -> None:
        """Release a ticket from a finaliser."""
        self._deferred.append((ticket, delivered, now))

    def __enter__(self) -> Limiter:
        self._lock.acquire()
        while self._deferred:
            ticket, delivered, now = self._deferred.popleft()
            self.limiter.release(ticket, now, delivered=delivered)
        return self.limiter

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()


class Runner:
    """Admits the calls of one client in one event loop.

    Args:
        limiter: The limiter, which runners of other loops may share.
        routes: The models, and their weights.
        max_attempts: Requests per call at most.
        max_retry_after_s: Longest wait that a provider may ask for.
        total_s: Seconds from the first request of a call to its end at most; None: no limit.
        hedge_after: Silence after which a second attempt starts, as `FirstTokenTimes` takes it; None: never.
        clock: Returns monotonic seconds.
        later: Calls a function after some seconds of that clock; by default the running loop's `call_later`.
        chance: Returns random numbers from 0 to 1.
    """

    def __init__(  # noqa: PLR0913 - the client's options, and the clock and chance that tests replace
        self,
        limiter: LimiterLock,
        routes: Sequence[Route],
        *,
        max_attempts: int = 5,
        max_retry_after_s: float = 120.0,
        total_s: float | None = None,
        hedge_after: float | str | None = None,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], asyncio.Handle] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.routes = tuple(routes)
        self.total_s = math.inf if total_s is None else total_s
        self.first_tokens = None if hedge_after is None else FirstTokenTimes(hedge_after)
        self.now = clock
        self._limiter = limiter
        self._scheduler = Scheduler(limiter.limiter, routes, outage_patience_s=max_retry_after_s)
        breakers = self._scheduler.breakers
        self._breakers = {route.model: breakers[route.provider] for route in routes}
        self.max_attempts = max_attempts
        self._policy = RetryPolicy(max_attempts, max_retry_after_s)
        self._chance = chance
        self._is_reachable = asyncio.Event()  # set, and replaced, when a breaker closes
        self._admitting: dict[int, asyncio.Future[Admission]] = {}
        self._dead_keys: dict[Route, float] = {}  # until when they are not used
        self._last_id = 0
        self._later = later
        self._timer: asyncio.Handle | None = None
        self._pump_handle: asyncio.Handle | None = None
        self._loop = asyncio.get_running_loop()
        self.timeout_monitor = TimeoutMonitor(self._loop)
        limiter.join(self)

    @property
    def waiting(self) -> int:
        """Number of calls that wait to be admitted."""
        return len(self._admitting)

    @property
    def limited_by(self) -> str | None:
        """Description of the limits that calls wait for; None if no call waits."""
        if not self._admitting:
            return None
        with self._limiter as limiter:
            return limiter.limited_by(self.now())

    def candidates(self, spec: CallSpec) -> list[str]:
        """Return the models that may take a call, the preferred model first."""
        models = [route.model for route in self.routes if spec.models is None or route.model in spec.models]
        return sorted(dict.fromkeys(models), key=lambda model: model != spec.prefer)

    def larger_models(self, route: Route, models: frozenset[str] | None) -> frozenset[str]:
        """Return the models, of those that may take a call, with a larger context window than the one of a route."""
        own = route.context_window or 0
        return frozenset(
            each.model
            for each in self.routes
            if (each.context_window or 0) > own and (models is None or each.model in models)
        )

    def usable(self, spec: CallSpec) -> list[str]:
        """Return the models that may take a call and are not blocked, cooling down or paused at present."""
        with self._limiter:
            found = self._scheduler.usable(self.now())
        return [model for model in self.candidates(spec) if model in found]

    # Admission

    def job_of(self, spec: CallSpec) -> Job:
        """Return the scheduler's job of a call. It keeps its place in the order of arrival until `forget`."""
        self._last_id += 1
        return Job(
            id=self._last_id,
            input_tokens=estimate_tokens(
                spec.conversation.text_length(), characters_per_token=_CHARACTERS_PER_TOKEN_AT_LEAST
            ),
            max_output_tokens=spec.max_output_tokens,
            models=spec.models,
            prefer=spec.prefer,
            is_interactive=spec.priority == "interactive",
        )

    async def admit(self, job: Job, wait_s: float = 0.0) -> Admission:
        """Wait until a request may leave, at least `wait_s`. The caller must `settle` or `give_back` the ticket.

        Raises:
            DispatchError: The request can never fit the limits, or no model may take it.
            DelugeError: All models that may take the request are blocked; this is the error that blocked the last one.
        """
        if not wait_s:
            with self._limiter:
                admission = self._scheduler.admit_at_once(job, self.now())
            if admission is not None:
                return admission
        admitted: asyncio.Future[Admission] = self._loop.create_future()
        self._admitting[job.id] = admitted
        try:
            now = self.now()
            with self._limiter:
                may_go = self._scheduler.submit(job, now, not_before=now + wait_s if wait_s else -math.inf)
                plan = self._scheduler.poll(now) if may_go else None
            if plan is not None:
                self._carry_out(plan, now)
            return await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled() and admitted.exception() is None:
                self.give_back(admitted.result().ticket, was_sent=False)
            raise
        finally:
            del self._admitting[job.id]
            if not admitted.done() or admitted.cancelled():
                with self._limiter:
                    self._scheduler.cancel(job.id, self.now())
                self._pump()

    def forget(self, job: Job) -> None:
        """Forget a call that is over."""
        self._scheduler.forget(job.id)

    def _pump(self) -> None:
        """Poll the scheduler, and carry out its plan."""
        self._pump_handle = None
        now = self.now()
        with self._limiter:
            plan = self._scheduler.poll(now)
        self._carry_out(plan, now)

    def _carry_out(self, plan: Plan, now: float) -> None:
        """Admit and fail jobs as planned, and set the timer for the next poll."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for start in plan.start:
            self._resolve(start)
        for failure in plan.failed:
            admitted = self._admitting[failure.job.id]
            if not admitted.done():
                # A copy for each call, because details are added to the error of a single call.
                admitted.set_exception(failure.error.again())
        if plan.wake_at < math.inf:
            self._timer = self.later(max(plan.wake_at - now, 0.0), self._pump)

    def later(self, delay_s: float, call: Callable[[], None]) -> asyncio.Handle:
        """Call a function after some seconds."""
        return (self._later or asyncio.get_running_loop().call_later)(delay_s, call)

    def _resolve(self, start: Admission) -> None:
        admitted = self._admitting[start.job.id]
        if admitted.done():  # cancelled, and its task has not yet run
            with self._limiter as limiter:
                limiter.release(start.ticket, self.now(), was_sent=False)
        else:
            admitted.set_result(start)

    # Results

    def head_came(self, ticket: Ticket, head: HttpHead, sent_at: float) -> None:
        """Learn from the head of a response."""
        names = " ".join(head.headers)  # most responses have no such header, and need not be parsed
        limits = parse_rate_limits(head.headers) if "limit" in names or "priority" in names else {}
        self.observe(
            Observation(ticket=ticket, status=head.status, sent_at=sent_at, rate_limits=limits, delay_s=head.delay_s)
        )

    def failed(self, ticket: Ticket, error: DelugeError, sent_at: float) -> None:
        """Learn from an error; the ticket still has to be given back."""
        if not isinstance(error, APIError):
            return
        if error.status_code is None:
            self._note_answer(ticket.model)
            return
        self.observe(
            Observation(
                ticket=ticket,
                status=error.status_code,
                sent_at=sent_at,
                rate_limits=error.rate_limits,
                retry_after_s=error.retry_after_s,
                dimension=_DIMENSION_OF_TYPE.get(error.type or ""),
                chance=self._chance(),
            )
        )

    def observe(self, observation: Observation) -> None:
        """Learn from the facts about limits that a response or an error states."""
        self._note_answer(observation.ticket.model)
        with self._limiter as limiter:
            limiter.observe(observation, self.now())

    def settle(self, ticket: Ticket, usage: Usage) -> None:
        """Release the ticket of a complete response."""
        with self._limiter as limiter:
            limiter.settle(ticket, usage, self.now())
        self._schedule_pump()

    def give_back(
        self, ticket: Ticket, *, was_sent: bool, delivered: Usage | None = None, error: DelugeError | None = None
    ) -> None:
        """Release the ticket of a request without a complete response."""
        # A request that was refused for its rate costs nothing.
        self.release(ticket, was_sent=was_sent, delivered=Usage() if isinstance(error, RateLimitError) else delivered)

    def release(self, ticket: Ticket, *, was_sent: bool, delivered: Usage | None) -> None:
        """Release a ticket, with the arguments of `Limiter.release`."""
        with self._limiter as limiter:
            limiter.release(ticket, self.now(), was_sent=was_sent, delivered=delivered)
        self._schedule_pump()

    def _schedule_pump(self) -> None:
        """Poll after a release, once for all releases in this iteration of the loop.

        Calls of other loops may be admitted in its place.
        """
        if self._admitting and self._pump_handle is None:
            self._pump_handle = self._loop.call_soon(self._pump)
        self._limiter.wake_others(self)

    def give_back_later(self, ticket: Ticket, delivered: Usage | None) -> None:
        """Release a ticket from a finaliser, when the loop is closed; callable from any thread at any moment."""
        self._limiter.release_later(ticket, delivered, self.now())
        self._limiter.wake_others(self)

    def wake(self) -> None:
        """Poll the scheduler in the runner's own loop; callable from any thread."""
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 - documented for event loops; no exception as a result
            self._loop.call_soon(self._pump)
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._pump)

    # After a failure

    def is_outage(self, error: DelugeError, route: Route) -> bool:
        """Note why an attempt failed; return whether an outage of its provider explains it: it is not counted then."""
        return self._breakers[route.model].record_failure(error, self.now())

    def _note_answer(self, model: str) -> None:
        breaker = self._breakers[model]
        if breaker.has_answered and breaker.failing_since is None:  # nearly always
            return
        if breaker.record_answer():
            self._is_reachable.set()
            self._is_reachable = asyncio.Event()

    @property
    def only_breaker(self) -> CircuitBreaker | None:
        """The breaker of the provider; None if there are several, because the scheduler switches between them."""
        breakers = self._scheduler.breakers
        return next(iter(breakers.values())) if len(breakers) == 1 else None

    async def until_reachable(self) -> None:
        """Return when a request may leave: at once, unless the only provider cannot be reached and no probe is due."""
        breaker = self.only_breaker
        while breaker is not None and (wait_s := breaker.acquire(self.now())):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._is_reachable.wait()

    def decide(
        self,
        error: DelugeError,
        *,
        attempt: int,
        unreached: int,
        time_left_s: float,
        route: Route,
        models: frozenset[str] | None,
    ) -> Wait | Switch | GiveUp:
        """Decide what follows a failed attempt; start a cooldown of the part that failed.

        Of `attempt` attempts, `unreached` failed to connect during an outage; they do not count against max_attempts.
        """
        others = [each for each in self.routes if each != route and (models is None or each.model in models)]
        decision = (decide_next if others else decide_retry)(
            error,
            self._policy,
            attempt=max(1, attempt - unreached),
            time_left_s=time_left_s,
            chance=self._chance(),
        )
        if isinstance(decision, Wait) and isinstance(error, ConnectError) and unreached:
            wait_s = self._breakers[route.model].retry_wait_s(attempt, self._chance())
            decision = Wait(wait_s) if wait_s < time_left_s else decision
        retry_after_s = error.retry_after_s if isinstance(error, APIError) else None
        if retry_after_s is not None and retry_after_s > self._policy.max_retry_after_s:
            self.block(route, error, retry_after_s)
        elif isinstance(decision, Switch):
            self.cool_down(decision, route, error)
        return decision

    def block(self, route: Route, error: DelugeError, retry_after_s: float) -> None:
        """Do not use a route for the time that it asks for, and fail the calls that would wait for it so long."""
        now = self.now()
        refusal = error.again()
        refusal.hint = too_long(retry_after_s, self._policy.max_retry_after_s)
        with self._limiter:
            self._scheduler.block(
                refusal, now, model=route.model, key=route.key, until=now + _BLOCK_FACTOR * retry_after_s
            )
        self._pump()

    def decide_here(self, error: DelugeError, *, attempt: int, time_left_s: float) -> Wait | GiveUp:
        """Decide whether a failed request is repeated on the same route."""
        return decide_retry(error, self._policy, attempt=attempt, time_left_s=time_left_s, chance=self._chance())

    def _note_dead_key(self, route: Route, error: DelugeError, now: float) -> None:
        """Log that one of several keys is not used for a while: once, not for each request that was under way."""
        if self._dead_keys.get(route, -math.inf) < now:
            what = "%s of %s is not used for %s for %g s, after %s"
            logger.warning(what, route.key, route.provider, route.model, _SET_ASIDE_S, type(error).__name__)
        self._dead_keys[route] = now + _SET_ASIDE_S

    def cool_down(self, decision: Switch, route: Route, error: DelugeError) -> None:
        """Do not use the failed part of a route, its model, key or provider, for the time of the decision."""
        now = self.now()
        is_provider = decision.scope == "provider"
        if route.key and decision.cooldown_s == math.inf:
            self._note_dead_key(route, error, now)
        with self._limiter:
            if decision.cooldown_s == math.inf:
                until = now + _SET_ASIDE_S if route.key else math.inf
                if not is_provider:
                    model = None if decision.scope == "key" else route.model
                    provider = route.provider
                    self._scheduler.block(
                        error.again(), now, model=model, key=route.key, provider=provider, until=until
                    )
            elif is_provider:
                self._scheduler.cool_down_provider(now + decision.cooldown_s, now, route.provider)
            else:
                self._scheduler.cool_down(now + decision.cooldown_s, now, model=route.model, key=route.key)
