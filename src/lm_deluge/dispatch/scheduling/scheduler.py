"""Decide which waiting call is admitted on which route, and when, from queues, limits and cooldowns. Pure.

A runner calls, all on one thread:

* `admit_at_once(job, now)` for each call, and `submit(job, now)` if that returns None. Both raise BudgetError for a
  call that can never fit its limits.
* `poll(now)` after every submit that returns True, after every settle, release, observe, block or cool_down, and at
  `Plan.wake_at`, with one timer for all calls. The runner sends the requests of `Plan.start`, whose slots have come,
  and raises the errors of `Plan.failed`.
* The limiter's `observe`, and then `settle` or `release` with the ticket, exactly once.
* After a failed attempt what `retry.decide_next` returns: for Wait `submit(job, now, not_before=now + seconds)`, for
  Switch `block` or `cool_down`, then `submit(job, now)`. A job that is submitted again keeps its place in the order of
  arrival until `forget(job.id)`, which the runner calls at the end of the call.

A job goes to the route that can take it first; among routes that are free at the same time, weights decide. Each route
admits its jobs in the order of arrival. A job that must wait for its slot keeps the slot, and smaller jobs that came
later may be admitted before it as long as that does not delay it (backfilling).

Interactive jobs go before those of batches, which keep what is left, and at least one admission in five.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence

import msgspec

from lm_deluge.dispatch.scheduling.circuit_breaker import CircuitBreaker, Cooldown
from lm_deluge.dispatch.scheduling.limiter import Limiter, ReservationRequest, Ticket
from lm_deluge.dispatch.scheduling.queue import AdmissionOrder, Job, JobQueue, QueuedJob, Route
from lm_deluge.errors import BudgetError, ConfigurationError, DelugeError, DispatchError

__all__ = ["Admission", "Failure", "Job", "Plan", "Route", "Scheduler"]

_LOOK_AHEAD = 8  # jobs of a queue tried for backfilling: each costs a reservation attempt in each poll
_MIN_GAP_S = 0.05  # shorter gaps are not backfilled: they hold few requests, and each attempt costs a poll


class Admission(msgspec.Struct, frozen=True, gc=False):
    """A job that is admitted on a route now."""

    job: Job
    route: Route
    ticket: Ticket


class Failure(msgspec.Struct, frozen=True):
    """A job that no route will ever take."""

    job: Job
    error: DelugeError


class Plan(msgspec.Struct, frozen=True):
    """The jobs to start and to fail now, and the moment of the next poll; infinite: not before the next change."""

    start: list[Admission]
    failed: list[Failure]
    wake_at: float


class _RouteState(Cooldown):
    """A route and its state."""

    def __init__(self, route: Route, breaker: CircuitBreaker) -> None:
        super().__init__()
        self.route = route
        self.breaker = breaker  # of the provider
        self.current_weight = 0.0  # smooth weighted round robin
        self.reserved: tuple[QueuedJob, _Group, Ticket] | None = None


class _Group:
    """A queue and the routes that may take its jobs, in tiers: the preferred ones, those without fallbacks, all."""

    def __init__(self, states: list[_RouteState], prefer: str | None, *, is_interactive: bool) -> None:
        self.is_interactive = is_interactive
        self.queue = JobQueue()
        self.states = states
        preferred = [state for state in states if state.route.model == prefer]
        self.tiers = (preferred, [state for state in states if not state.route.is_fallback], states)


_GroupKey = tuple[tuple[int, ...], str | None, bool]


class Scheduler:
    """Decides about admissions; it sends nothing and reads no clock."""

    def __init__(self, limiter: Limiter, routes: Sequence[Route], *, outage_patience_s: float = math.inf) -> None:
        """Schedule over these routes.

        Args:
            limiter: The limits of all calls.
            routes: The models, and how the traffic is split.
            outage_patience_s: As `CircuitBreaker` takes it.

        Raises:
            ConfigurationError: There is no route, or a weight is not above 0.
        """
        if not routes:
            raise ConfigurationError("there is no model to schedule calls for")
        for route in routes:
            if not 0 < route.weight < math.inf:
                raise ConfigurationError(f"the weight {route.weight!r} of {route.model} is not a number above 0")
        self._limiter = limiter
        self.breakers = {route.provider: CircuitBreaker(outage_patience_s) for route in routes}
        self._states = [_RouteState(route, self.breakers[route.provider]) for route in routes]
        self._groups: dict[_GroupKey, _Group] = {}
        self._waiting: list[tuple[float, int, QueuedJob, _Group]] = []
        self._entries: dict[int, tuple[QueuedJob, _Group]] = {}
        self._orders: dict[int, int] = {}
        self._count = itertools.count()
        self._turns = AdmissionOrder()

    def __len__(self) -> int:
        """Return how many jobs wait."""
        return len(self._entries)

    # Jobs in and out

    def admit_at_once(self, job: Job, now: float) -> Admission | None:
        """Admit a job without queueing it: no other job waits, and one route can take it now.

        Raises:
            BudgetError: As `submit` raises it.
            DispatchError: None of the client's models may take the job.
        """
        if self._entries or not self._limiter.has_room:
            return None
        states = self._usable_states(self._group_for(job), now)
        if len(states) != 1:
            return None  # none is usable, or their weights decide
        route = states[0].route
        request = _request_for(job, route)
        if self._limiter.earliest(request, now) > now:
            return None
        ticket = self._limiter.reserve(request, now)
        if ticket is None:
            return None
        if ticket.at > now:  # the limiter has to ask for the slot
            self._limiter.release(ticket, now, was_sent=False)
            return None
        self._orders.setdefault(job.id, next(self._count))
        return Admission(job, route, ticket)

    def submit(self, job: Job, now: float, *, not_before: float = -math.inf) -> bool:
        """Queue a job; a job that was admitted before returns to its place in the order.

        Returns:
            Whether a poll may admit anything. False if jobs ahead of this one wait for the same routes.

        Raises:
            BudgetError: The job can never fit the limits of any model that may take it.
            DispatchError: The job waits already, or none of the client's models may take it.
        """
        if job.id in self._entries:
            raise DispatchError(f"call {job.id} waits already")
        group = self._group_for(job)
        order = self._orders.get(job.id)
        if order is None:
            order = self._orders[job.id] = next(self._count)
        entry = QueuedJob(order, job)
        self._entries[job.id] = (entry, group)
        if not_before > now:
            heapq.heappush(self._waiting, (not_before, order, entry, group))
            return True
        group.queue.add(entry)
        # While a job waits for its slot, this one may be backfilled.
        return group.queue.head() is entry or any(state.reserved is not None for state in self._states)

    def _group_for(self, job: Job) -> _Group:
        models = job.models
        allowed: Sequence[int] = range(len(self._states))
        if models is not None:
            allowed = [index for index in allowed if self._states[index].route.model in models]
        if not allowed:
            raise DispatchError(f"none of the client's models may take call {job.id}")
        indexes: list[int] = []
        refusal: BudgetError | None = None
        for index in allowed:
            route = self._states[index].route
            try:
                self._limiter.check(_request_for(job, route))
            except BudgetError as error:
                refusal = error
            else:
                indexes.append(index)
        if refusal is not None and not indexes:
            raise refusal
        key = (tuple(indexes), job.prefer, job.is_interactive)
        group = self._groups.get(key)
        if group is None:
            states = [self._states[index] for index in indexes]
            group = _Group(states, job.prefer, is_interactive=job.is_interactive)
            self._groups[key] = group
        return group

    def cancel(self, job_id: int, now: float) -> bool:
        """Remove a waiting job; return False if it does not wait."""
        found = self._entries.pop(job_id, None)
        self._orders.pop(job_id, None)
        if found is None:
            return False
        entry, group = found
        for state in self._states:
            if state.reserved is not None and state.reserved[0] is entry:
                self._limiter.release(state.reserved[2], now, was_sent=False)
                state.reserved = None
        group.queue.remove(entry)
        return True

    def forget(self, job_id: int) -> None:
        """Forget a call that is over: a later job with its id is a new one."""
        self._orders.pop(job_id, None)

    # Cooldowns

    def block(
        self,
        error: DelugeError,
        now: float,
        *,
        model: str | None = None,
        key: str | None = None,
        provider: str | None = None,
        until: float = math.inf,
    ) -> None:
        """Do not use a model, a key, a model with a key, a provider with a key. Jobs without another route fail."""
        for state in self._matching(model, key, provider):
            state.block(error, until)
            self._release_reserved(state, now)

    def cool_down(self, until: float, now: float, *, model: str | None = None, key: str | None = None) -> None:
        """Do not use a model, a key, or a model with a key before `until`. Jobs without another route wait."""
        for state in self._matching(model, key):
            state.extend(until)
            self._release_reserved(state, now)

    def cool_down_provider(self, until: float, now: float, provider: str) -> None:
        """Do not use a provider before `until`. Jobs without another route wait."""
        breaker = self.breakers[provider]
        breaker.extend(until)
        for state in self._states:
            if state.breaker is breaker:
                self._release_reserved(state, now)

    def _matching(self, model: str | None, key: str | None, provider: str | None = None) -> list[_RouteState]:
        return [
            state
            for state in self._states
            if model in (None, state.route.model)
            and key in (None, state.route.key)
            and provider in (None, state.route.provider)
        ]

    def _release_reserved(self, state: _RouteState, now: float) -> None:
        if state.reserved is None:
            return
        entry, _, ticket = state.reserved
        state.reserved = None
        self._limiter.release(ticket, now, was_sent=False)
        self._requeue(entry)

    # Deciding

    def poll(self, now: float) -> Plan:
        """Return the jobs to start and to fail now, and the moment of the next poll."""
        if not self._entries:
            return Plan([], [], math.inf)
        start: list[Admission] = []
        failed: list[Failure] = []
        self._update(now, start, failed)
        self._yield_slots(now)
        full: set[int] = set()  # ids of states without room for another request, in this poll
        while len(full) < len(self._states) and self._limiter.has_room:
            choice = self._choose(now, full)
            if choice is None:
                break
            try:
                self._reserve(*choice, now, start, full)
            except BudgetError:
                self._regroup(choice[0], failed)
        for state in self._states:
            self._backfill(state, now, start)
        return Plan(start, failed, self._wake_at(now))

    def _update(self, now: float, start: list[Admission], failed: list[Failure]) -> None:
        """Queue due retries, admit reserved jobs whose slots have come, end blocks that are over."""
        if self._waiting:
            self._queue_due(now)
        is_any_blocked = False
        for state in self._states:
            if state.reserved is not None:
                self._admit_reserved(state, *state.reserved, now, start)
            if state.blocked_by is not None:
                is_any_blocked |= not state.unblock(now)
        if is_any_blocked:
            self._fail_blocked(failed)

    def _yield_slots(self, now: float) -> None:
        """Take slots that the jobs of batches wait for away from them, for interactive jobs that came later."""
        for group in () if self._turns.is_turn_of_batches else self._groups.values():
            if group.is_interactive and group.queue.head() is not None:
                for state in self._usable_states(group, now):
                    if state.reserved is not None and not state.reserved[1].is_interactive:
                        self._release_reserved(state, now)

    def _queue_due(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] <= now:
            _, _, entry, group = heapq.heappop(self._waiting)
            if not entry.is_removed:
                group.queue.add(entry)

    def _admit_reserved(
        self, state: _RouteState, entry: QueuedJob, group: _Group, ticket: Ticket, now: float, start: list[Admission]
    ) -> None:
        """Admit the job that a route has reserved if its slot has come."""
        ticket = self._limiter.advance(ticket, now)
        if ticket.at > now:
            state.reserved = (entry, group, ticket)
            return
        state.reserved = None
        if self._limiter.opens_at(state.route.model, state.route.key, now) > now:
            # A refusal came after the reservation, so the slot is no longer valid.
            self._limiter.release(ticket, now, was_sent=False)
            self._requeue(entry)
        else:
            self._admit(entry, state, ticket, start)

    def _requeue(self, entry: QueuedJob) -> None:
        _, group = self._entries[entry.job.id]
        again = QueuedJob(entry.order, entry.job)
        self._entries[entry.job.id] = (again, group)
        group.queue.add(again)

    def _fail_blocked(self, failed: list[Failure]) -> None:
        for group in self._groups.values():
            if all(state.blocked_by is not None for state in group.states):
                error = group.states[-1].blocked_by
                assert error is not None  # noqa: S101 - checked above
                for entry in group.queue.drain():
                    del self._entries[entry.job.id]
                    self._orders.pop(entry.job.id, None)
                    failed.append(Failure(entry.job, error))

    def _usable_states(self, group: _Group, now: float) -> list[_RouteState]:
        """Return the usable routes of the first tier that has any."""
        for states in group.tiers:
            usable = [state for state in states if self._is_usable(state, now)]
            if usable:
                return usable
        return []

    def usable(self, now: float) -> set[str]:
        """Return the models that are neither blocked nor cooling down nor paused by their provider."""
        return {state.route.model for state in self._states if self._is_usable(state, now)}

    def _is_usable(self, state: _RouteState, now: float) -> bool:
        # A block ends here, too: calls that are admitted at once never poll.
        return (state.blocked_by is None or state.unblock(now)) and self._usable_at(state, now) <= now

    def _usable_at(self, state: _RouteState, now: float) -> float:
        return max(state.until, state.breaker.until, self._limiter.opens_at(state.route.model, state.route.key, now))

    def _choose(self, now: float, full: set[int]) -> tuple[QueuedJob, _Group, _RouteState] | None:
        """Return the first job in order of arrival that has a usable route, and its route with the earliest slot."""
        best: tuple[QueuedJob, _Group, list[_RouteState]] | None = None
        for group in self._groups.values():
            entry = group.queue.head()
            if entry is None or (best is not None and self._turns.rank(best[0]) < self._turns.rank(entry)):
                continue
            states = [
                state for state in self._usable_states(group, now) if state.reserved is None and id(state) not in full
            ]
            if states:
                best = (entry, group, states)
        if best is None:
            return None
        entry, group, states = best
        if len(states) == 1:
            return entry, group, states[0]  # the reservation shows whether it has room
        slots = [(self._limiter.earliest(_request_for(entry.job, state.route), now), state) for state in states]
        soonest = min(slot for slot, _ in slots)
        if soonest == math.inf:
            # None has room, so no route's weight is used up.
            full.update(id(state) for state in states)
            return self._choose(now, full)
        return entry, group, self._next_by_weight([state for slot, state in slots if slot <= soonest])

    def _next_by_weight(self, states: list[_RouteState]) -> _RouteState:
        if len(states) == 1:
            return states[0]
        for state in states:
            state.current_weight += state.route.weight
        chosen = max(states, key=lambda state: state.current_weight)
        chosen.current_weight -= sum(state.route.weight for state in states)
        return chosen

    def _reserve(
        self, entry: QueuedJob, group: _Group, state: _RouteState, now: float, start: list[Admission], full: set[int]
    ) -> None:
        ticket = self._limiter.reserve(_request_for(entry.job, state.route), now)
        if ticket is None:
            full.add(id(state))
            return
        group.queue.remove(entry)
        if entry.job.is_interactive:
            if any(not each.is_interactive and each.queue.head() is not None for each in self._groups.values()):
                self._turns.note_interactive()
        if ticket.at <= now:
            self._admit(entry, state, ticket, start)
        else:
            state.reserved = (entry, group, ticket)

    def _regroup(self, entry: QueuedJob, failed: list[Failure]) -> None:
        """Move a job that no longer fits its route to another queue: a limit was lowered after `submit`."""
        _, group = self._entries[entry.job.id]
        group.queue.remove(entry)
        try:
            group = self._group_for(entry.job)
        except BudgetError as error:
            del self._entries[entry.job.id]
            failed.append(Failure(entry.job, error))
            return
        again = QueuedJob(entry.order, entry.job)
        self._entries[entry.job.id] = (again, group)
        group.queue.add(again)

    def _admit(self, entry: QueuedJob, state: _RouteState, ticket: Ticket, start: list[Admission]) -> None:
        del self._entries[entry.job.id]
        self._turns.note_admission(entry)
        start.append(Admission(entry.job, state.route, ticket))

    def _backfill(self, state: _RouteState, now: float, start: list[Admission]) -> None:
        """Admit smaller jobs before the one that waits for its slot, if that does not delay it."""
        if state.reserved is None or not _MIN_GAP_S <= state.reserved[2].at - now < math.inf:
            return
        ticket = state.reserved[2]
        for other in self._states:
            self._backfill_from(other, ticket, now, start)
        for group in sorted(self._groups.values(), key=lambda group: not group.is_interactive):
            if state not in self._usable_states(group, now):
                continue
            for entry in list(group.queue.peek(_LOOK_AHEAD)):
                filler = self._backfill_ticket(entry, state, ticket, now)
                if filler is not None:
                    group.queue.remove(entry)
                    self._admit(entry, state, filler, start)

    def _backfill_from(self, other: _RouteState, ticket: Ticket, now: float, start: list[Admission]) -> None:
        """Admit jobs of another route that wait only because `ticket` has an earlier slot under a shared limit."""
        while other.reserved is not None and other.reserved[2] is not ticket:
            entry, _, own = other.reserved
            filler = self._backfill_ticket(entry, other, ticket, now)
            if filler is None:
                return
            self._limiter.release(own, now, was_sent=False)
            other.reserved = None
            self._admit(entry, other, filler, start)
            following = self._next_for(other, now)
            if following is not None:
                self._reserve(*following, other, now, start, set())

    def _next_for(self, state: _RouteState, now: float) -> tuple[QueuedJob, _Group] | None:
        """Return the first job in order of arrival that a route may take."""
        heads = [
            (entry, group)
            for group in self._groups.values()
            if state in self._usable_states(group, now) and (entry := group.queue.head()) is not None
        ]
        return min(heads, key=lambda head: self._turns.rank(head[0]), default=None)

    def _backfill_ticket(self, entry: QueuedJob, state: _RouteState, ticket: Ticket, now: float) -> Ticket | None:
        try:
            return self._limiter.reserve(_request_for(entry.job, state.route), now, before=ticket)
        except BudgetError:
            return None  # raised when the job is the next in its queue

    def _wake_at(self, now: float) -> float:
        if not self._entries:
            return math.inf
        moments = [state.reserved[2].at for state in self._states if state.reserved is not None]
        if len(moments) > 1 and max(moments) > now + _MIN_GAP_S:
            # A job may fit the gap before another model's slot later, without any event in between: poll again.
            moments.append(now + _MIN_GAP_S)
        if self._waiting:
            moments.append(self._waiting[0][0])
        moments += [state.blocked_until if state.blocked_by else self._usable_at(state, now) for state in self._states]
        return min((moment for moment in moments if moment > now), default=math.inf)


def _request_for(job: Job, route: Route) -> ReservationRequest:
    """Return the reservation that a job needs on a route."""
    return ReservationRequest(route.model, route.key, job.input_tokens, job.max_output_tokens, job.is_interactive)
