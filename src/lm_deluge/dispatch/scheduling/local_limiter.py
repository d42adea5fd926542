"""The limiter of one process: every limit of a call reserved at once, as a slot in time.

Limits of the client hold over all models; those of a (key, model) are the provider's, and learn from its answers.
`limits.py` says how it is used.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable

import msgspec

from lm_deluge.dispatch.scheduling.concurrency import ConcurrencyLimit
from lm_deluge.dispatch.scheduling.limiter import Limit, Observation, ReservationRequest, Ticket
from lm_deluge.dispatch.scheduling.output_lengths import AnswerLength, Expected, RecentLengths
from lm_deluge.dispatch.scheduling.rate_limit import Charge, RateLimitState
from lm_deluge.errors import BudgetError
from lm_deluge.models.rows import CountsMaxTokens
from lm_deluge.usage import Usage
from lm_deluge.wire.rate_limit_headers import DAY_S, HOUR_S, MINUTE_S, Dimension, RateLimit

__all__ = ["LocalLimiter"]

_JITTER_S = 1.0  # until measured; of a minute, less of shorter periods
_LEAST_JITTER_S = 0.01  # of this process's own timers
_DELAYS_KEPT = 200
_DELAYS_ENOUGH = 50
_SURE = 3.5  # standard deviations of what is under way
_GUESS = 1_000  # tokens of an answer, for the limit, before anything is known
_OVERRUN_KEPT_S = 0.2  # a new sum of what is under way, so often at most
_OVERLOADED = frozenset({503, 529})
_TOO_MANY = 429
_FIRST_ERROR = 400
_GUESS_FROM = 5
_AGREED = 3  # answers


class _Cost(msgspec.Struct, frozen=True):
    """What a request is reckoned at beforehand: the output to be safe, and the one to be expected."""

    input_tokens: float
    output_tokens: int
    expected: int

    def units(self, limit: RateLimitState) -> float:
        """Return what a limit is charged."""
        # An estimate that fits no window is no reason to refuse: only the input is certain.
        return min(_units(limit.dimension, self.input_tokens, self.output_tokens), limit.amount)

    def expected_units(self, limit: RateLimitState) -> float:
        """Return what the limit of a limit counts."""
        return min(_units(limit.dimension, self.input_tokens, self.expected), self.units(limit))


class _RouteLimits:
    """What is known about one (key, model)."""

    def __init__(
        self, limits: Iterable[RateLimitState], most: int | None, *, counts_max_tokens: CountsMaxTokens = "never"
    ) -> None:
        self.counts_max_tokens = counts_max_tokens
        self.limits = list(limits)
        self.concurrency = ConcurrencyLimit(most)
        self.closed_until = -math.inf
        self.starts: deque[float] = deque(maxlen=1_000)
        self.lengths = RecentLengths()
        self.tightest: RateLimitState | None = None  # the limit that says when the next one goes
        self.next_at = -math.inf
        self.periods: dict[Dimension, tuple[float, frozenset[float]]] = {}  # as figures tell, and how many of them

    def estimate_cost(self, request: ReservationRequest) -> _Cost:
        """Return what a request will cost, as far as can be told."""
        most, lengths = request.max_output_tokens, self.lengths
        usual = lengths.estimate(most)
        expected = usual if lengths.is_known else min(usual, _GUESS)
        if self.counts_max_tokens == "never" or most is None:
            return _Cost(request.input_tokens * lengths.input_share, usual, expected)
        return _Cost(request.input_tokens, most, most if self.counts_max_tokens == "always" else expected)

    def overrun(self, dimension: Dimension, now: float, since: float) -> Expected:
        """Return by how much what left since then and is under way will exceed what is charged for it."""
        output, inputs = self.lengths.under_way(now, since)
        if dimension == "input_tokens" or self.counts_max_tokens != "never":
            output = Expected(0.0, 0.0)
        return output if dimension == "output_tokens" else output.plus(Expected(0.0, inputs))

    def period_of(self, bucket: RateLimit) -> float | None:
        """Return over how long a bucket counts, None as long as that is not sure: a minute, where nothing is said."""
        if bucket.period_s is not None and not bucket.is_inferred:
            return bucket.period_s
        if bucket.remaining == bucket.limit and bucket.dimension not in self.periods:
            return None  # a full bucket tells nothing of how fast it fills
        inferred_s = bucket.period_s or MINUTE_S
        known_s, seen = self.periods.get(bucket.dimension, (inferred_s, frozenset[float]()))
        if known_s != MINUTE_S and len(seen) < _AGREED and bucket.reset_after_s:
            # Once another period shows, it was a window of a minute that had just begun.
            known_s = known_s if known_s == inferred_s else MINUTE_S
            seen |= {bucket.remaining or 0.0}
        if bucket.reset_after_s and bucket.remaining != bucket.limit:
            self.periods[bucket.dimension] = known_s, seen
        return known_s if known_s == MINUTE_S or len(seen) >= _AGREED else None

    @property
    def opens_at(self) -> float:
        """Until when the provider wants it left alone; in the past where it does not."""
        until = self.closed_until
        for limit in self.limits:
            until = max(until, limit.closed_until)
        return until

    def limited_by(self, model: str, now: float) -> str | None:
        """Return what holds calls of this model back."""
        if not self.concurrency.has_room:
            return f"calls at once at {model}, {self.concurrency.used} now"
        if self.opens_at > now:
            return f"a refusal of {model}, for {math.ceil(self.opens_at - now)} s more"
        if self.next_at <= now or self.tightest is None:
            return None
        name = f"{self.tightest.dimension.replace('_', ' ')} {_per(self.tightest.period_s)}"
        return f"{name} of {model}" if self.tightest in self.limits else name


class _Reservation(msgspec.Struct):
    """An open ticket."""

    request: ReservationRequest
    route: _RouteLimits
    at: float
    charges: list[Charge]
    answer: AnswerLength
    has_backfill: bool = False


class LocalLimiter:
    """Limits within one process. See `limits.Limiter` for the contract."""

    def __init__(self, limits: Iterable[Limit] = (), *, max_concurrent: int | None = None) -> None:
        """Set the limits of the client, over all models and keys."""
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
        """Set what is known beforehand about a (key, model). A limit that the provider names later takes its place.

        `counts_max_tokens` is for providers that charge the request's own limit of output tokens: until the answer
        ends, or always, whatever it then comes to. `is_firm`: the user's limits; headers may lower, not raise them.
        """
        states = [RateLimitState(limit, is_firm=is_firm) for limit in limits]
        self._routes[model, key] = _RouteLimits(states, max_concurrent, counts_max_tokens=counts_max_tokens)

    def _route(self, model: str, key: str) -> _RouteLimits:
        route = self._routes.get((model, key))
        if route is None:
            route = self._routes[model, key] = _RouteLimits((), None)
        return route

    # Reserving

    @property
    def has_room(self) -> bool:
        """Whether one more call may be under way, whatever its model."""
        return self._concurrency.has_room

    def check(self, request: ReservationRequest) -> None:
        """Raise the BudgetError that `reserve` would raise; reserve nothing."""
        limits = self._route(request.model, request.key).limits
        for limit in [*self._limits_of_client, *limits] if self._limits_of_client else limits:
            units = _units(limit.dimension, request.input_tokens, 0)
            if units > limit.amount:
                raise BudgetError(
                    f"the request needs {units:,.0f} {limit.dimension.replace('_', ' ')}, and the limit is "
                    f"{limit.amount:,.0f} in {limit.period_s:g} s: it can never be sent",
                    model=request.model,
                )

    def earliest(self, request: ReservationRequest, now: float) -> float:
        """Return when a reservation made now would let the request go; infinite where every place is taken."""
        route = self._route(request.model, request.key)
        if not (self._concurrency.has_room and route.concurrency.has_room):
            return math.inf
        return self._slot(route.estimate_cost(request), route, now, self._limits_of(route, now))

    def reserve(self, request: ReservationRequest, now: float, *, before: Ticket | None = None) -> Ticket | None:
        """Reserve a slot under all limits at once; None where every place is taken, or no gap before `before` fits.

        Raises:
            BudgetError: The request can never fit. The message has the numbers.
        """
        self.check(request)
        route = self._route(request.model, request.key)
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
        """Return the limits that a call of this route is under, and how much of each what is under way may yet take."""
        of_client = [(limit, self._overrun_of(limit, self._routes.values(), now)) for limit in self._limits_of_client]
        return of_client + [(limit, self._overrun_of(limit, (route,), now)) for limit in route.limits]

    def _overrun_of(self, limit: RateLimitState, routes: Iterable[_RouteLimits], now: float) -> float:
        """Return by how much what is under way may exceed what is charged for it."""
        if limit.dimension == "requests":
            return 0.0
        if now >= limit.overrun_until:
            sums = Expected(0.0, 0.0)
            for route in routes:
                sums = sums.plus(route.overrun(limit.dimension, now, now - limit.period_s - self._jitter(limit)))
            limit.overrun, limit.overrun_until = sums.at_most(_SURE), now + _OVERRUN_KEPT_S
        return limit.overrun

    def _slot(self, cost: _Cost, route: _RouteLimits, now: float, limits: list[tuple[RateLimitState, float]]) -> float:
        slot = max(now, route.closed_until)
        for limit, overrun in limits:
            moment = limit.earliest(cost.units(limit), now, self._jitter(limit), overrun)
            if moment > slot:
                slot, route.tightest = moment, limit
        route.next_at = slot
        return slot

    def _charge(self, limit: RateLimitState, cost: _Cost, now: float, slot: float, overrun: float) -> Charge:
        return limit.charge(cost.units(limit), cost.expected_units(limit), now, slot, self._jitter(limit), overrun)

    def _backfill(self, cost: _Cost, route: _RouteLimits, now: float, before: Ticket) -> list[Charge] | None:
        reserved = self._open.get(before.id)
        if reserved is None or now < route.closed_until or reserved.at <= now:
            return None
        shared = reserved.charges if reserved.route is route else reserved.charges[: len(self._limits_of_client)]
        charged = {id(charge.limit): charge for charge in shared}
        limits = [(limit, charged.get(id(limit)), overrun) for limit, overrun in self._limits_of(route, now)]
        for limit, charge, overrun in limits:
            units, jitter_s = cost.units(limit), self._jitter(limit)
            if charge is None and limit.earliest(units, now, jitter_s, overrun) > now:
                return None
            if charge is not None and not limit.fits_gap(charge, units, now, jitter_s, overrun):
                return None
        reserved.has_backfill = True
        return [
            self._charge(limit, cost, now, now, overrun)
            if charge is None
            else limit.fill_gap(charge, cost.units(limit), now)
            for limit, charge, overrun in limits
        ]

    def advance(self, ticket: Ticket, now: float) -> Ticket:
        """Return the ticket with an earlier slot, where what was given back since allows one; else as it is."""
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
        """Return until when the provider wants this (key, model) left alone; `now` where it does not."""
        route = self._routes.get((model, key))
        if route is None:
            return now
        return max(now, route.opens_at)

    def limited_by(self, now: float) -> str | None:
        """Return what holds calls back at the moment, in words; None where nothing does."""
        if not self._concurrency.has_room:
            return f"max_concurrent_requests, {self._concurrency.used} at once"
        reasons = [reason for (model, _), route in self._routes.items() if (reason := route.limited_by(model, now))]
        return ", ".join(reasons) or None

    # Correcting

    def settle(self, ticket: Ticket, usage: Usage, now: float) -> None:
        """Give the place back and correct the reservation to what the answer cost."""
        reservation = self._close(ticket, now, usage.output_tokens)
        if reservation is not None:
            reservation.route.lengths.note_input(ticket.input_tokens, usage.input_tokens)
            self._correct(reservation, usage.input_tokens, usage.output_tokens)

    def release(self, ticket: Ticket, now: float, *, was_sent: bool = True, delivered: Usage | None = None) -> None:
        """Give the place back without a bill: see `limits.Limiter`."""
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
                units = _units(charge.limit.dimension, input_tokens, output_tokens)
                charge.limit.correct(charge, units, cost.expected_units(charge.limit))

    # Learning

    def observe(self, observation: Observation, now: float) -> None:
        """Learn from an answer's status and headers. Before `settle` or `release` of the same ticket."""
        ticket = observation.ticket
        route = self._route(ticket.model, ticket.key)
        if observation.delay_s is not None:
            self._note_delay(observation.delay_s + max(0.0, observation.sent_at - ticket.at))
        self._read_headers(observation, route, now)
        if observation.status == _TOO_MANY:
            self._refuse(observation, route, now)
        elif observation.status in _OVERLOADED:
            route.concurrency.on_overload(observation.sent_at, now)
        elif observation.status < _FIRST_ERROR:
            route.concurrency.on_success()
            for limit in route.limits:
                limit.on_success(observation.sent_at, route.concurrency.used)

    def _note_delay(self, delay_s: float) -> None:
        forgotten = self._delays[0] if len(self._delays) == _DELAYS_KEPT else 0.0
        self._delays.append(delay_s)
        if len(self._delays) < _DELAYS_ENOUGH:
            return
        # Nobody knows how much of it is the way there: all of it may be, or nothing.
        if self._jitter_s is None or forgotten >= self._jitter_s:
            self._jitter_s = max(_LEAST_JITTER_S, *self._delays)
        else:
            self._jitter_s = max(self._jitter_s, delay_s)

    def _read_headers(self, observation: Observation, route: _RouteLimits, now: float) -> None:
        reservation = self._open.get(observation.ticket.id)
        charges = (
            {(charge.limit.dimension, charge.limit.period_s): charge for charge in reservation.charges}
            if reservation
            else {}
        )
        for bucket in observation.rate_limits.values():
            if bucket.qualifier:
                continue  # of a plan or tier that this request may not belong to
            period_s = route.period_of(bucket)
            if period_s is None:
                continue
            charge = charges.get((bucket.dimension, period_s))
            if bucket.limit:
                _learn_limit(route, bucket, period_s)
            if charge is not None and charge.limit in route.limits:
                charge.limit.observe_headers(observation.sent_at, bucket, now)
                if bucket.remaining is not None and bucket.reset_after_s is not None:
                    charge.limit.align(charge, observation.sent_at, bucket.remaining, bucket.reset_after_s)

    def _refuse(self, observation: Observation, route: _RouteLimits, now: float) -> None:
        retry_at = None
        if observation.retry_after_s is not None:
            retry_at = now + observation.retry_after_s * (1 + 0.1 * observation.chance)
        if not route.limits:
            _guess_limit(route, observation.sent_at)
        named = [limit for limit in route.limits if limit.dimension == observation.dimension]
        for limit in named or route.limits:
            limit.on_refusal(observation.sent_at, now, retry_at, route.concurrency.used)
        if not route.limits:
            route.closed_until = max(route.closed_until, now + 1.0 if retry_at is None else retry_at)


def _units(dimension: Dimension, input_tokens: float, output_tokens: float) -> float:
    return {
        "requests": 1,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "tokens": input_tokens + output_tokens,
    }[dimension]


def _per(period_s: float) -> str:
    usual = {1.0: "per second", MINUTE_S: "per minute", HOUR_S: "per hour", DAY_S: "per day"}
    return usual.get(period_s, f"in {period_s:g} s")


def _learn_limit(route: _RouteLimits, bucket: RateLimit, period_s: float) -> None:
    assert bucket.limit  # noqa: S101 - the caller looked
    for limit in route.limits:
        if limit.dimension == bucket.dimension and limit.period_s == period_s:
            limit.set_amount(bucket.limit)
            return
    route.limits.append(RateLimitState(Limit(bucket.dimension, bucket.limit, period_s)))


def _guess_limit(route: _RouteLimits, sent_at: float) -> None:
    """Take what went through within the last minute for the limit, where nobody named one."""
    recent = [start for start in route.starts if sent_at - MINUTE_S < start <= sent_at]
    if len(recent) >= _GUESS_FROM:
        took_s = max(sent_at - recent[0], 1.0)
        guess = RateLimitState(Limit("requests", len(recent) * MINUTE_S / took_s), is_guess=True)
        for start in recent:
            guess.baseline.add_request(start)
        route.limits.append(guess)
