"""The limiter of one process: it reserves all limits of a request at once, as a slot in time.

The client's limits apply to all models together. The limits of a (key, model) are the provider's, and are learned from
its responses. `limiter.py` describes the usage.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from lm_deluge.dispatch.scheduling.costs import Cost, CostEstimates, check_fits, units_of
from lm_deluge.dispatch.scheduling.learned_limits import BucketPeriods, ServedAmounts, guess_limit, learn_limit
from lm_deluge.dispatch.scheduling.limiter import Limit, Observation, ReservationRequest, Ticket
from lm_deluge.dispatch.scheduling.output_lengths import AnswerLength, Expected
from lm_deluge.dispatch.scheduling.rate_limit import Charge, RateLimitState
from lm_deluge.models.rows import CountsMaxTokens
from lm_deluge.usage import Usage
from lm_deluge.wire.rate_limit_headers import DAY_S, HOUR_S, MINUTE_S

__all__ = ["ConcurrencyLimit", "LocalLimiter"]

_JITTER_S = 1.0  # assumed until it is measured, for a period of a minute; proportionally less for shorter periods
_LEAST_JITTER_S = 0.003  # timers wake one or two milliseconds late, which the first delays may not have shown yet
_DELAYS_KEPT = 200  # the jitter is the maximum of so many delays: a spike is forgotten after so many requests
_DELAYS_NEEDED = 50  # the maximum of fewer is likely to be exceeded soon
_SURE_DEVIATIONS = 3.5  # standard deviations of the usage in flight: if it were normal, exceeded once in 4,000 times
_OVERRUN_KEPT_S = 0.2  # summing over all requests in flight for each reservation would be quadratic
_DECREASE = 0.7  # gentler than TCP's half: a provider's overload is shared by its other users' requests
_OVERLOADED = frozenset({503, 529})  # 529 is Anthropic's overloaded_error
_TOO_MANY = 429  # RFC 6585
_FIRST_ERROR = 400  # statuses from here on are errors
_PAUSE_S = 1.0  # after a refusal without any known limit, unless the provider asks for more
_ANY_COST = Cost(0.0, 0, 0)  # where there is no limit to charge
_CERTAIN_INPUT = 0.5  # of the upper bound in a ticket: texts with seven characters a token are rare


class ConcurrencyLimit:
    """A limit on requests in flight: multiplicative decrease on overload, additive increase on success.

    It grows by success, not by time: by one after as many successes as it allows requests.
    """

    def __init__(self, maximum: int | None = None) -> None:
        self.maximum = maximum
        self.used = 0
        self._allowed = math.inf if maximum is None else float(maximum)
        self._decreased_at = -math.inf

    @property
    def allowed(self) -> float:
        """The present limit."""
        return self._allowed

    @property
    def has_room(self) -> bool:
        """Whether another request may start."""
        return self.used + 1 <= self._allowed

    def acquire(self) -> None:
        """Count a request that starts."""
        self.used += 1

    def release(self) -> None:
        """Stop counting a request."""
        self.used = max(0, self.used - 1)

    def on_overload(self, sent_at: float, now: float) -> None:
        """Lower the limit, once for all requests that were in flight together."""
        if sent_at < self._decreased_at:
            return
        self._decreased_at = now
        self._allowed = max(1.0, _DECREASE * min(self._allowed, max(1, self.used)))

    def on_success(self) -> None:
        """Raise the limit a little, up to its initial value."""
        if self._allowed < math.inf:
            maximum = math.inf if self.maximum is None else self.maximum
            self._allowed = min(maximum, self._allowed + 1 / self._allowed)


class _RouteLimits(CostEstimates):
    """The limits and statistics of one (key, model)."""

    def __init__(
        self, limits: Iterable[RateLimitState], most: int | None, *, counts_max_tokens: CountsMaxTokens = "never"
    ) -> None:
        super().__init__(counts_max_tokens)
        self.limits = list(limits)
        self.concurrency = ConcurrencyLimit(most)
        self.closed_until = -math.inf
        self.starts: deque[float] = deque(maxlen=1_000)
        self.served = ServedAmounts()
        self.tightest: RateLimitState | None = None  # the limit that determines the next slot
        self.next_at = -math.inf
        self.periods = BucketPeriods()

    def note_accepted(self, input_tokens: int, now: float) -> None:
        """Note that the provider accepted a request."""
        self.served.add(now, requests=1, input_tokens=_CERTAIN_INPUT * input_tokens)
        self.withdraw_contradicted(now)

    def withdraw_contradicted(self, now: float) -> None:
        """Withdraw the limits that headers named although the provider serves far more."""
        for limit in self.limits:
            if limit.is_named and self.served.contradicts(limit.dimension, limit.amount, limit.period_s, now):
                limit.withdraw()
                self.limits = [each for each in self.limits if not each.is_void]

    @property
    def opens_at(self) -> float:
        """End of the pause that the provider asked for; a past moment without a pause."""
        until = self.closed_until
        for limit in self.limits:
            until = max(until, limit.closed_until)
        return until

    def limited_by(self, model: str, now: float) -> str | None:
        """Return a description of the limit that delays calls of this model."""
        if not self.concurrency.has_room:
            return f"calls at once at {model}, {self.concurrency.used} now"
        if self.opens_at > now:
            return f"a refusal of {model}, for {math.ceil(self.opens_at - now)} s more"
        if self.next_at <= now or self.tightest is None:
            return None
        name = f"{self.tightest.dimension.replace('_', ' ')} {_per(self.tightest.period_s)}"
        return f"{name} of {model}" if self.tightest in self.limits else name


class _Reservation(msgspec.Struct):
    """A ticket that is not yet released."""

    request: ReservationRequest
    route: _RouteLimits
    at: float
    charges: list[Charge]
    answer: AnswerLength
    has_backfill: bool = False


class LocalLimiter:
    """Limits within one process; implements `limiter.Limiter`."""

    def __init__(self, limits: Iterable[Limit] = (), *, max_concurrent: int | None = None) -> None:
        """Set the client's limits, which apply to all models and keys together."""
        self._limits_of_client = [RateLimitState(limit, is_firm=True) for limit in limits]
        self._concurrency = ConcurrencyLimit(max_concurrent)
        self._routes: dict[tuple[str, str], _RouteLimits] = {}
        self._open: dict[int, _Reservation] = {}
        self._ids = itertools.count(1)
        self._delays: deque[float] = deque(maxlen=_DELAYS_KEPT)
        self._jitter_s: float | None = None

    def set_limits(
        self,
        model: str,
        key: str,
        limits: Iterable[Limit],
        *,
        max_concurrent: int | None = None,
        counts_max_tokens: CountsMaxTokens = "never",
        is_firm: bool = False,
    ) -> None:
        """Set the initial limits of a (key, model). Limits that the provider names later replace them.

        Args:
            model: The model's id.
            key: The name of the key.
            limits: The limits to start with.
            max_concurrent: Requests in flight at most.
            counts_max_tokens: Whether the provider charges the request's limit of output tokens: until the response
                ends, or always, whatever the actual usage is.
            is_firm: The user set the limits: headers may lower, but not raise them.
        """
        states = [RateLimitState(limit, is_firm=is_firm) for limit in limits]
        self._routes[model, key] = _RouteLimits(states, max_concurrent, counts_max_tokens=counts_max_tokens)

    def resume(
        self, model: str, key: str, *, next_at: Callable[[RateLimitState], float], in_flight: int, now: float
    ) -> None:
        """Go on with the calls that another limiter admitted, without a burst.

        Args:
            model: The model's id.
            key: The name of the key.
            next_at: Returns when a limit admits the next request.
            in_flight: Requests in flight, which `resumed_call_ended` ends.
            now: The present moment.
        """
        route = self._route(model, key)
        for limit in (*self._limits_of_client, *route.limits):
            limit.resume(max(now, limit.tat, next_at(limit)), now)
        for _ in range(in_flight):
            route.concurrency.acquire()
            self._concurrency.acquire()

    def resumed_call_ended(self, model: str, key: str) -> None:
        """Note that a request is over that was in flight when this limiter took over."""
        self._route(model, key).concurrency.release()
        self._concurrency.release()

    def _route(self, model: str, key: str) -> _RouteLimits:
        route = self._routes.get((model, key))
        if route is None:
            route = self._routes[model, key] = _RouteLimits((), None)
        return route

    # Reserving

    @property
    def has_room(self) -> bool:
        """Whether one more request of any model may be in flight."""
        return self._concurrency.has_room

    def check(self, request: ReservationRequest) -> None:
        """Raise the BudgetError that `reserve` would raise, without reserving anything."""
        limits = self._route(request.model, request.key).limits
        check_fits(request, [*self._limits_of_client, *limits] if self._limits_of_client else limits)

    def earliest(self, request: ReservationRequest, now: float) -> float:
        """Return the slot that a reservation made now would get; infinite if no more requests may be in flight."""
        route = self._route(request.model, request.key)
        if not (self._concurrency.has_room and route.concurrency.has_room):
            return math.inf
        limits = self._limits_of(route, now)
        return self._slot(route.estimate_cost(request) if limits else _ANY_COST, route, now, limits)

    def reserve(self, request: ReservationRequest, now: float, *, before: Ticket | None = None) -> Ticket | None:
        """Reserve a slot under all limits at once; None if no more may be in flight, or no gap before `before` fits.

        Raises:
            BudgetError: The request can never fit. The message contains the numbers.
        """
        route = self._route(request.model, request.key)
        if route.limits or self._limits_of_client:
            self.check(request)
        if not (self._concurrency.has_room and route.concurrency.has_room):
            return None
        cost = route.estimate_cost(request)
        if before is None:
            limits = self._limits_of(route, now)
            slot = self._slot(cost, route, now, limits)
            charges = [self._charge(limit, cost, now, slot, overrun) for limit, overrun in limits]
        else:
            slot = now
            filled = self._backfill(cost, route, now, before)
            if filled is None:
                return None
            charges = filled
        route.concurrency.acquire()
        self._concurrency.acquire()
        route.starts.append(slot)
        ticket = Ticket(next(self._ids), request.model, request.key, slot, request.input_tokens, cost.output_tokens)
        answer = route.lengths.begin(slot, request.input_tokens, cost.output_tokens, request.max_output_tokens)
        self._open[ticket.id] = _Reservation(request, route, slot, charges, answer)
        return ticket

    def _limits_of(self, route: _RouteLimits, now: float) -> list[tuple[RateLimitState, float]]:
        """Return the limits of a route, each with the units by which requests in flight may exceed their charges."""
        if not (self._limits_of_client or route.limits):
            return []
        of_client = [(limit, self._overrun_of(limit, self._routes.values(), now)) for limit in self._limits_of_client]
        return of_client + [(limit, self._overrun_of(limit, (route,), now)) for limit in route.limits]

    def _overrun_of(self, limit: RateLimitState, routes: Iterable[_RouteLimits], now: float) -> float:
        """Return the units by which the requests in flight may exceed their charges."""
        if limit.dimension == "requests":
            return 0.0
        if now >= limit.overrun_until:
            sums = Expected(0.0, 0.0)
            for route in routes:
                sums = sums.plus(route.overrun(limit.dimension, now, now - limit.period_s - self._jitter(limit)))
            limit.overrun, limit.overrun_until = sums.at_most(_SURE_DEVIATIONS), now + _OVERRUN_KEPT_S
        return limit.overrun

    def _slot(self, cost: Cost, route: _RouteLimits, now: float, limits: list[tuple[RateLimitState, float]]) -> float:
        slot = max(now, route.closed_until)
        for limit, overrun in limits:
            moment = limit.earliest(cost.units(limit.dimension, limit.amount), now, self._jitter(limit), overrun)
            if moment > slot:
                slot, route.tightest = moment, limit
        route.next_at = slot
        return slot

    def _charge(self, limit: RateLimitState, cost: Cost, now: float, slot: float, overrun: float) -> Charge:
        return limit.charge(
            cost.units(limit.dimension, limit.amount),
            cost.expected_units(limit.dimension, limit.amount),
            now,
            slot,
            self._jitter(limit),
            overrun,
        )

    def _backfill(self, cost: Cost, route: _RouteLimits, now: float, before: Ticket) -> list[Charge] | None:
        reserved = self._open.get(before.id)
        if reserved is None or now < route.closed_until or reserved.at <= now:
            return None
        shared = reserved.charges if reserved.route is route else reserved.charges[: len(self._limits_of_client)]
        charged = {id(charge.limit): charge for charge in shared}
        limits = [(limit, charged.get(id(limit)), overrun) for limit, overrun in self._limits_of(route, now)]
        for limit, charge, overrun in limits:
            units, jitter_s = cost.units(limit.dimension, limit.amount), self._jitter(limit)
            if charge is None and limit.earliest(units, now, jitter_s, overrun) > now:
                return None
            if charge is not None and not limit.fits_gap(charge, units, now, jitter_s, overrun):
                return None
        reserved.has_backfill = True
        return [
            self._charge(limit, cost, now, now, overrun)
            if charge is None
            else limit.fill_gap(charge, cost.units(limit.dimension, limit.amount), now, self._jitter(limit))
            for limit, charge, overrun in limits
        ]

    def advance(self, ticket: Ticket, now: float) -> Ticket:
        """Return the ticket with an earlier slot if corrections since its reservation allow one; else unchanged."""
        reservation = self._open.get(ticket.id)
        if reservation is None or reservation.has_backfill or reservation.at <= now:
            return ticket
        if not all(charge.limit.is_last(charge) for charge in reservation.charges):
            return ticket
        for charge in reservation.charges:
            charge.limit.undo(charge)
        overrun = {id(limit): most for limit, most in self._limits_of(reservation.route, now)}
        slot = max(now, reservation.route.closed_until)
        for charge in reservation.charges:
            limit = charge.limit
            slot = max(slot, limit.earliest(charge.units, now, self._jitter(limit), overrun[id(limit)]))
        slot = min(slot, reservation.at)
        reservation.charges = [
            charge.limit.charge(
                charge.units, charge.expected_units, now, slot, self._jitter(charge.limit), overrun[id(charge.limit)]
            )
            for charge in reservation.charges
        ]
        reservation.at = reservation.answer.started_at = slot
        return ticket if slot == ticket.at else msgspec.structs.replace(ticket, at=slot)

    def _jitter(self, limit: RateLimitState) -> float:
        return self._jitter_s if self._jitter_s is not None else _JITTER_S * min(1.0, limit.period_s / MINUTE_S)

    def opens_at(self, model: str, key: str, now: float) -> float:
        """Return the end of the pause that the provider asked for at this (key, model); `now` without a pause."""
        route = self._routes.get((model, key))
        if route is None:
            return now
        return max(now, route.opens_at)

    def limited_by(self, now: float) -> str | None:
        """Return a description of the limits that delay calls at present; None without any."""
        if not self._concurrency.has_room:
            return f"max_concurrent_requests, {self._concurrency.used} at once"
        reasons = [reason for (model, _), route in self._routes.items() if (reason := route.limited_by(model, now))]
        return ", ".join(reasons) or None

    # Correcting

    def settle(self, ticket: Ticket, usage: Usage, now: float) -> None:
        """Release the ticket and correct the reservation to the actual usage."""
        reservation = self._close(ticket, now, usage.output_tokens)
        if reservation is not None:
            route = reservation.route
            route.lengths.note_input(ticket.input_tokens, usage.input_tokens)
            self._correct(reservation, usage.input_tokens, usage.output_tokens)
            # Some providers do not count tokens that they read from their cache.
            counted = usage.input_tokens - (usage.cache_read_tokens or 0)
            more = counted - _CERTAIN_INPUT * ticket.input_tokens
            route.served.add(now, input_tokens=more, output_tokens=usage.output_tokens)
            route.withdraw_contradicted(now)

    def release(self, ticket: Ticket, now: float, *, was_sent: bool = True, delivered: Usage | None = None) -> None:
        """Release the ticket of a request whose usage is not known: see `limiter.Limiter`."""
        reservation = self._close(ticket, now, None)
        if reservation is None:
            return
        if not was_sent:
            for charge in reservation.charges:
                charge.limit.correct(charge, 0.0)
            return
        output = ticket.output_tokens if delivered is None else delivered.output_tokens
        self._correct(reservation, ticket.input_tokens, output)

    def _close(self, ticket: Ticket, now: float, output_tokens: int | None) -> _Reservation | None:
        reservation = self._open.pop(ticket.id, None)
        if reservation is not None:
            reservation.route.concurrency.release()
            self._concurrency.release()
            reservation.route.lengths.end(reservation.answer, now, output_tokens)
        return reservation

    def _correct(self, reservation: _Reservation, input_tokens: int, output_tokens: int) -> None:
        if not reservation.charges:
            return
        route = reservation.route
        if route.counts_max_tokens == "always":
            output_tokens = max(output_tokens, reservation.answer.reserved)
        cost = route.estimate_cost(reservation.request)
        for charge in reservation.charges:
            if charge.limit.dimension != "requests":
                units = units_of(charge.limit.dimension, input_tokens, output_tokens)
                charge.limit.correct(charge, units, cost.expected_units(charge.limit.dimension, charge.limit.amount))

    # Learning

    def observe(self, observation: Observation, now: float) -> None:
        """Learn from a response's status and headers, before `settle` or `release` of the same ticket."""
        ticket = observation.ticket
        route = self._route(ticket.model, ticket.key)
        if observation.delay_s is not None:
            self._note_delay(observation.delay_s + max(0.0, observation.sent_at - ticket.at))
        is_accepted = observation.status < _FIRST_ERROR
        if is_accepted:
            route.note_accepted(ticket.input_tokens, now)
        if observation.rate_limits:
            self._read_headers(observation, route, now, is_accepted=is_accepted)
        if observation.status == _TOO_MANY:
            self._refuse(observation, route, now)
        elif observation.status in _OVERLOADED:
            route.concurrency.on_overload(observation.sent_at, now)
        elif is_accepted:
            route.concurrency.on_success()
            for limit in route.limits:
                limit.on_success(observation.sent_at, route.concurrency.used)

    def _note_delay(self, delay_s: float) -> None:
        forgotten = self._delays[0] if len(self._delays) == _DELAYS_KEPT else 0.0
        self._delays.append(delay_s)
        if len(self._delays) < _DELAYS_NEEDED:
            return
        # The delay is of the round trip. How much of it is the request's way is unknown: perhaps all.
        if self._jitter_s is None or forgotten >= self._jitter_s:
            self._jitter_s = max(_LEAST_JITTER_S, *self._delays)
        else:
            self._jitter_s = max(self._jitter_s, delay_s)

    def _read_headers(self, observation: Observation, route: _RouteLimits, now: float, *, is_accepted: bool) -> None:
        reservation = self._open.get(observation.ticket.id)
        charges = (
            {(charge.limit.dimension, charge.limit.period_s): charge for charge in reservation.charges}
            if reservation
            else {}
        )
        for bucket in observation.rate_limits.values():
            if bucket.qualifier:
                continue  # of a plan or tier that may not apply to this request
            period_s = route.periods.find(bucket)
            if period_s is None:
                continue
            if is_accepted and bucket.limit:
                # A provider that lowers its limit in earnest repeats it with a refusal.
                if route.served.contradicts(bucket.dimension, bucket.limit, period_s, now):
                    continue
            charge = charges.get((bucket.dimension, period_s))
            if bucket.limit:
                learn_limit(route.limits, bucket.dimension, bucket.limit, period_s)
            if charge is not None and charge.limit in route.limits:
                charge.limit.observe_headers(observation.sent_at, bucket, now)
                if bucket.remaining is not None and bucket.reset_after_s is not None:
                    charge.limit.align(charge, observation.sent_at, bucket.remaining, bucket.reset_after_s)

    def _refuse(self, observation: Observation, route: _RouteLimits, now: float) -> None:
        retry_at = None
        if observation.retry_after_s is not None:
            retry_at = now + observation.retry_after_s * (1 + 0.1 * observation.chance)
        if not route.limits:
            route.limits.extend(guess_limit(route.starts, observation.sent_at))
        named = [limit for limit in route.limits if limit.dimension == observation.dimension]
        for limit in named or route.limits:
            limit.on_refusal(observation.sent_at, now, retry_at, route.concurrency.used)
        if not route.limits:
            route.closed_until = max(route.closed_until, now + _PAUSE_S, retry_at or -math.inf)


def _per(period_s: float) -> str:
    usual = {1.0: "per second", MINUTE_S: "per minute", HOUR_S: "per hour", DAY_S: "per day"}
    return usual.get(period_s, f"in {period_s:g} s")
