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
from lm_deluge.dispatch.scheduling.limiter import Limit, Need, Observation, Ticket
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
_GUESS = 1_000  # tokens of an answer, for the pace, before anything is known
_UNSURE_FOR_S = 0.2  # a new sum of what is under way, so often at most
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

    def units(self, pace: RateLimitState) -> float:
        """Return what a limit is charged."""
        # An estimate that fits no window is no reason to refuse: only the input is certain.
        return min(_units(pace.dimension, self.input_tokens, self.output_tokens), pace.amount)

    def paced(self, pace: RateLimitState) -> float:
        """Return what the pace of a limit counts."""
        return min(_units(pace.dimension, self.input_tokens, self.expected), self.units(pace))


class _Route:
    """What is known about one (key, model)."""

    def __init__(
        self, paces: Iterable[RateLimitState], most: int | None, *, counts_max_tokens: CountsMaxTokens = "never"
    ) -> None:
        self.counts_max_tokens = counts_max_tokens
        self.paces = list(paces)
        self.places = ConcurrencyLimit(most)
        self.closed_until = -math.inf
        self.starts: deque[float] = deque(maxlen=1_000)
        self.lengths = RecentLengths()
        self.tightest: RateLimitState | None = None  # the limit that says when the next one goes
        self.next_at = -math.inf
        self.periods: dict[Dimension, tuple[float, frozenset[float]]] = {}  # as figures tell, and how many of them

    def reckon(self, need: Need) -> _Cost:
        """Return what a request will cost, as far as can be told."""
        most, lengths = need.max_output_tokens, self.lengths
        usual = lengths.estimate(most)
        expected = usual if lengths.is_known else min(usual, _GUESS)
        if self.counts_max_tokens == "never" or most is None:
            return _Cost(need.input_tokens * lengths.input_share, usual, expected)
        return _Cost(need.input_tokens, most, most if self.counts_max_tokens == "always" else expected)

    def unsure(self, dimension: Dimension, now: float, since: float) -> Expected:
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
        for pace in self.paces:
            until = max(until, pace.closed_until)
        return until

    def limited_by(self, model: str, now: float) -> str | None:
        """Return what holds calls of this model back."""
        if not self.places.has_room:
            return f"calls at once at {model}, {self.places.used} now"
        if self.opens_at > now:
            return f"a refusal of {model}, for {math.ceil(self.opens_at - now)} s more"
        if self.next_at <= now or self.tightest is None:
            return None
        name = f"{self.tightest.dimension.replace('_', ' ')} {_per(self.tightest.period_s)}"
        return f"{name} of {model}" if self.tightest in self.paces else name


class _Holding(msgspec.Struct):
    """An open ticket."""

    need: Need
    route: _Route
    at: float
    charges: list[Charge]
    answer: AnswerLength
    has_fillers: bool = False


class LocalLimiter:
    """Limits within one process. See `limits.Limiter` for the contract."""

    def __init__(self, limits: Iterable[Limit] = (), *, max_concurrent: int | None = None) -> None:
        """Set the limits of the client, over all models and keys."""
        self._paces = [RateLimitState(limit, is_firm=True) for limit in limits]
        self._places = ConcurrencyLimit(max_concurrent)
        self._routes: dict[tuple[str, str], _Route] = {}
        self._open: dict[int, _Holding] = {}
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
        paces = [RateLimitState(limit, is_firm=is_firm) for limit in limits]
        self._routes[model, key] = _Route(paces, max_concurrent, counts_max_tokens=counts_max_tokens)

    def _route(self, model: str, key: str) -> _Route:
        route = self._routes.get((model, key))
        if route is None:
            route = self._routes[model, key] = _Route((), None)
        return route

    # Reserving

    @property
    def has_room(self) -> bool:
        """Whether one more call may be under way, whatever its model."""
        return self._places.has_room

    def check(self, need: Need) -> None:
        """Raise the BudgetError that `reserve` would raise; reserve nothing."""
        paces = self._route(need.model, need.key).paces
        for pace in [*self._paces, *paces] if self._paces else paces:
            units = _units(pace.dimension, need.input_tokens, 0)
            if units > pace.amount:
                raise BudgetError(
                    f"the request needs {units:,.0f} {pace.dimension.replace('_', ' ')}, and the limit is "
                    f"{pace.amount:,.0f} in {pace.period_s:g} s: it can never be sent",
                    model=need.model,
                )

    def earliest(self, need: Need, now: float) -> float:
        """Return when a reservation made now would let the request go; infinite where every place is taken."""
        route = self._route(need.model, need.key)
        if not (self._places.has_room and route.places.has_room):
            return math.inf
        return self._slot(route.reckon(need), route, now, self._limits_of(route, now))

    def reserve(self, need: Need, now: float, *, before: Ticket | None = None) -> Ticket | None:
        """Reserve a slot under all limits at once; None where every place is taken, or no gap before `before` fits.

        Raises:
            BudgetError: The request can never fit. The message has the numbers.
        """
        self.check(need)
        route = self._route(need.model, need.key)
        if not (self._places.has_room and route.places.has_room):
            return None
        cost = route.reckon(need)
        if before is None:
            limits = self._limits_of(route, now)
            slot = self._slot(cost, route, now, limits)
            charges = [self._charge(pace, cost, now, slot, unsure) for pace, unsure in limits]
        else:
            slot = now
            filled = self._fill(cost, route, now, before)
            if filled is None:
                return None
            charges = filled
        route.places.take()
        self._places.take()
        route.starts.append(slot)
        ticket = Ticket(next(self._ids), need.model, need.key, slot, need.input_tokens, cost.output_tokens)
        answer = route.lengths.begin(slot, need.input_tokens, cost.output_tokens, need.max_output_tokens)
        self._open[ticket.id] = _Holding(need, route, slot, charges, answer)
        return ticket

    def _limits_of(self, route: _Route, now: float) -> list[tuple[RateLimitState, float]]:
        """Return the limits that a call of this route is under, and how much of each what is under way may yet take."""
        of_client = [(pace, self._unsure_of(pace, self._routes.values(), now)) for pace in self._paces]
        return of_client + [(pace, self._unsure_of(pace, (route,), now)) for pace in route.paces]

    def _unsure_of(self, pace: RateLimitState, routes: Iterable[_Route], now: float) -> float:
        """Return by how much what is under way may exceed what is charged for it."""
        if pace.dimension == "requests":
            return 0.0
        if now >= pace.unsure_until:
            sums = Expected(0.0, 0.0)
            for route in routes:
                sums = sums.plus(route.unsure(pace.dimension, now, now - pace.period_s - self._jitter(pace)))
            pace.unsure, pace.unsure_until = sums.at_most(_SURE), now + _UNSURE_FOR_S
        return pace.unsure

    def _slot(self, cost: _Cost, route: _Route, now: float, limits: list[tuple[RateLimitState, float]]) -> float:
        slot = max(now, route.closed_until)
        for pace, unsure in limits:
            moment = pace.earliest(cost.units(pace), now, self._jitter(pace), unsure)
            if moment > slot:
                slot, route.tightest = moment, pace
        route.next_at = slot
        return slot

    def _charge(self, pace: RateLimitState, cost: _Cost, now: float, slot: float, unsure: float) -> Charge:
        return pace.take(cost.units(pace), cost.paced(pace), now, slot, self._jitter(pace), unsure)

    def _fill(self, cost: _Cost, route: _Route, now: float, before: Ticket) -> list[Charge] | None:
        held = self._open.get(before.id)
        if held is None or now < route.closed_until or held.at <= now:
            return None
        shared = held.charges if held.route is route else held.charges[: len(self._paces)]
        charged = {id(charge.pace): charge for charge in shared}
        limits = [(pace, charged.get(id(pace)), unsure) for pace, unsure in self._limits_of(route, now)]
        for pace, charge, unsure in limits:
            units, jitter_s = cost.units(pace), self._jitter(pace)
            if charge is None and pace.earliest(units, now, jitter_s, unsure) > now:
                return None
            if charge is not None and not pace.fits_gap(charge, units, now, jitter_s, unsure):
                return None
        held.has_fillers = True
        return [
            self._charge(pace, cost, now, now, unsure)
            if charge is None
            else pace.fill_gap(charge, cost.units(pace), now)
            for pace, charge, unsure in limits
        ]

    def sooner(self, ticket: Ticket, now: float) -> Ticket:
        """Return the ticket with an earlier slot, where what was given back since allows one; else as it is."""
        holding = self._open.get(ticket.id)
        if holding is None or holding.has_fillers or holding.at <= now:
            return ticket
        if not all(charge.pace.is_last(charge) for charge in holding.charges):
            return ticket
        for charge in holding.charges:
            charge.pace.undo(charge)
        unsure = {id(pace): most for pace, most in self._limits_of(holding.route, now)}
        slot = max(now, holding.route.closed_until)
        for charge in holding.charges:
            pace = charge.pace
            slot = max(slot, pace.earliest(charge.units, now, self._jitter(pace), unsure[id(pace)]))
        slot = min(slot, holding.at)
        holding.charges = [
            charge.pace.take(charge.units, charge.paced, now, slot, self._jitter(charge.pace), unsure[id(charge.pace)])
            for charge in holding.charges
        ]
        holding.at = holding.answer.begun = slot
        return ticket if slot == ticket.at else msgspec.structs.replace(ticket, at=slot)

    def _jitter(self, pace: RateLimitState) -> float:
        return self._jitter_s if self._jitter_s is not None else _JITTER_S * min(1.0, pace.period_s / MINUTE_S)

    def opens_at(self, model: str, key: str, now: float) -> float:
        """Return until when the provider wants this (key, model) left alone; `now` where it does not."""
        route = self._routes.get((model, key))
        if route is None:
            return now
        return max(now, route.opens_at)

    def limited_by(self, now: float) -> str | None:
        """Return what holds calls back at the moment, in words; None where nothing does."""
        if not self._places.has_room:
            return f"max_concurrent_requests, {self._places.used} at once"
        reasons = [reason for (model, _), route in self._routes.items() if (reason := route.limited_by(model, now))]
        return ", ".join(reasons) or None

    # Correcting

    def settle(self, ticket: Ticket, usage: Usage, now: float) -> None:
        """Give the place back and correct the reservation to what the answer cost."""
        holding = self._close(ticket, now, usage.output_tokens)
        if holding is not None:
            holding.route.lengths.note_input(ticket.input_tokens, usage.input_tokens)
            self._correct(holding, usage.input_tokens, usage.output_tokens)

    def release(self, ticket: Ticket, now: float, *, was_sent: bool = True, delivered: Usage | None = None) -> None:
        """Give the place back without a bill: see `limits.Limiter`."""
        holding = self._close(ticket, now, None)
        if holding is None:
            return
        if not was_sent:
            for charge in holding.charges:
                charge.pace.correct(charge, 0.0)
            return
        output = ticket.output_tokens if delivered is None else delivered.output_tokens
        self._correct(holding, ticket.input_tokens, output)

    def _close(self, ticket: Ticket, now: float, output_tokens: int | None) -> _Holding | None:
        holding = self._open.pop(ticket.id, None)
        if holding is not None:
            holding.route.places.give_back()
            self._places.give_back()
            holding.route.lengths.end(holding.answer, now, output_tokens)
        return holding

    def _correct(self, holding: _Holding, input_tokens: int, output_tokens: int) -> None:
        if not holding.charges:
            return
        route = holding.route
        if route.counts_max_tokens == "always":
            output_tokens = max(output_tokens, holding.answer.reserved)
        cost = route.reckon(holding.need)
        for charge in holding.charges:
            if charge.pace.dimension != "requests":
                units = _units(charge.pace.dimension, input_tokens, output_tokens)
                charge.pace.correct(charge, units, cost.paced(charge.pace))

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
            route.places.overloaded(observation.sent_at, now)
        elif observation.status < _FIRST_ERROR:
            route.places.succeeded()
            for pace in route.paces:
                pace.accepted(observation.sent_at, route.places.used)

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

    def _read_headers(self, observation: Observation, route: _Route, now: float) -> None:
        holding = self._open.get(observation.ticket.id)
        charges = (
            {(charge.pace.dimension, charge.pace.period_s): charge for charge in holding.charges} if holding else {}
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
            if charge is not None and charge.pace in route.paces:
                charge.pace.saw(observation.sent_at, bucket, now)
                if bucket.remaining is not None and bucket.reset_after_s is not None:
                    charge.pace.believe(charge, observation.sent_at, bucket.remaining, bucket.reset_after_s)

    def _refuse(self, observation: Observation, route: _Route, now: float) -> None:
        retry_at = None
        if observation.retry_after_s is not None:
            retry_at = now + observation.retry_after_s * (1 + 0.1 * observation.chance)
        if not route.paces:
            _guess_limit(route, observation.sent_at)
        named = [pace for pace in route.paces if pace.dimension == observation.dimension]
        for pace in named or route.paces:
            pace.refused(observation.sent_at, now, retry_at, route.places.used)
        if not route.paces:
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


def _learn_limit(route: _Route, bucket: RateLimit, period_s: float) -> None:
    assert bucket.limit  # noqa: S101 - the caller looked
    for pace in route.paces:
        if pace.dimension == bucket.dimension and pace.period_s == period_s:
            pace.adopt(bucket.limit)
            return
    route.paces.append(RateLimitState(Limit(bucket.dimension, bucket.limit, period_s)))


def _guess_limit(route: _Route, sent_at: float) -> None:
    """Take what went through within the last minute for the limit, where nobody named one."""
    recent = [start for start in route.starts if sent_at - MINUTE_S < start <= sent_at]
    if len(recent) >= _GUESS_FROM:
        took_s = max(sent_at - recent[0], 1.0)
        guess = RateLimitState(Limit("requests", len(recent) * MINUTE_S / took_s), is_guess=True)
        for start in recent:
            guess.baseline.left(start)
        route.paces.append(guess)
