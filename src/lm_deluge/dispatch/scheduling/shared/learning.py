"""What one process learns from the responses of one (key, model), for all that share its limits. Pure."""

from __future__ import annotations

import math

from lm_deluge.dispatch.scheduling.baseline_refusals import BaselineRefusals
from lm_deluge.dispatch.scheduling.fixed_windows import FixedWindows, WindowLength
from lm_deluge.dispatch.scheduling.learned_limits import BucketPeriods, ServedAmounts
from lm_deluge.dispatch.scheduling.limiter import Observation, Ticket
from lm_deluge.dispatch.scheduling.shared.report import Report
from lm_deluge.dispatch.scheduling.shared.route import Reservation, RouteSlots
from lm_deluge.dispatch.scheduling.shared.server_view import LimitView
from lm_deluge.usage import Usage
from lm_deluge.wire.rate_limit_headers import MINUTE_S, Dimension, RateLimit

__all__ = ["RouteLearning"]

_OVERLOADED = frozenset({503, 529})  # 529 is Anthropic's overloaded_error
_TOO_MANY = 429  # RFC 6585
_FIRST_ERROR = 400  # statuses from here on are errors
_CERTAIN_INPUT = 0.5  # of the upper bound in a ticket, as in the local limiter
_LONGEST_PACED_S = 600.0  # limits over a longer time have no windows, as in rate_limit.py
_SHORT_RETRY_S = 5.0  # a longer pause is kept, whatever the reason of the refusal is
_BUCKET_FIT = 0.03  # of the period: headers round resets to whole seconds
_FIRST_PAUSE_S = 0.05  # after a refusal without a time, until the reply has the pause that all processes keep


class RouteLearning:
    """The facts that the responses of one (key, model) have shown to this process.

    Args:
        route: Its slots, and the limits as the server has them.
    """

    def __init__(self, route: RouteSlots) -> None:
        self._views = route.views
        self._part = route.parts[-1]
        self._served = ServedAmounts()
        self._periods = BucketPeriods()
        self._baseline: BaselineRefusals | None = None
        self._windows: dict[float, FixedWindows] = {}
        self._sent_windows: dict[float, float] = {}
        self._successes, self._succeeded_at = 0, -math.inf

    @property
    def _limits(self) -> list[LimitView]:
        return self._views[-1].limits

    @property
    def _guess(self) -> LimitView | None:
        return next((limit for limit in self._limits if limit.is_guess), None)

    def note_start(self, at: float) -> None:
        """Note that a request will leave."""
        if self._guess is None:
            self._baseline = None
            return
        if self._baseline is None:
            self._baseline = BaselineRefusals(MINUTE_S)
        self._baseline.add_request(at)

    def note_usage(self, ticket: Ticket, usage: Usage, now: float) -> list[Report]:
        """Note what the provider served; return the limits that it contradicts."""
        # Some providers do not count tokens that they read from their cache.
        counted = usage.input_tokens - (usage.cache_read_tokens or 0)
        more = counted - _CERTAIN_INPUT * ticket.input_tokens
        self._served.add(now, input_tokens=more, output_tokens=usage.output_tokens)
        return self._contradicted(now)

    def _contradicted(self, now: float) -> list[Report]:
        return [
            Report(self._part, "withdrawn", (limit.dimension, limit.period_s))
            for limit in self._limits
            if limit.is_named and self._served.contradicts(limit.dimension, limit.amount, limit.period_s, now)
        ]

    def take_successes(self) -> list[Report]:
        """Return the accepted requests since the last time, if that changes anything."""
        count, self._successes = self._successes, 0
        view = self._views[-1]
        is_lowered = view.allowed is not None and (view.most is None or view.allowed < view.most)
        if not count or not (is_lowered or any(limit.is_cut for limit in view.limits)):
            return []
        return [Report(self._part, "accepted", sent_at=self._succeeded_at, after=(count,))]

    def observe(
        self, observation: Observation, reservation: Reservation | None, now: float
    ) -> tuple[list[Report], bool]:
        """Return the facts that a response shows, and whether the other processes are to know of them at once."""
        is_accepted = observation.status < _FIRST_ERROR
        reports: list[Report] = []
        if is_accepted:
            served_tokens = _CERTAIN_INPUT * observation.ticket.input_tokens
            self._served.add(now, requests=1, input_tokens=served_tokens)
            reports += self._contradicted(now)
            self._successes += 1
            self._succeeded_at = max(self._succeeded_at, observation.sent_at)
        in_flight = 0 if reservation is None else reservation.route.in_flight
        if self._baseline is not None and (is_accepted or observation.status == _TOO_MANY):
            self._baseline.add_response(observation.sent_at, in_flight, is_refused=not is_accepted)
        if observation.rate_limits:
            reports += self._read_headers(observation, reservation, now, is_accepted=is_accepted)
        if observation.status == _TOO_MANY:
            refused = self._refusal(observation, reservation, now)
            return reports + refused, bool(refused)
        if observation.status in _OVERLOADED:
            reports.append(Report(self._part, "overloaded", sent_at=observation.sent_at, after=(in_flight,)))
            return reports, True
        return reports, any(report.kind == "named" for report in reports)

    def _refusal(self, observation: Observation, reservation: Reservation | None, now: float) -> list[Report]:
        retry_s = observation.retry_after_s
        is_short = retry_s is None or retry_s <= _SHORT_RETRY_S
        if self._baseline is not None and is_short and self._baseline.explains_refusals():
            return []
        until = None if retry_s is None else now + retry_s * (1 + 0.1 * observation.chance)
        if reservation is not None:
            pause = now + _FIRST_PAUSE_S if until is None else until
            reservation.route.closed_until = max(reservation.route.closed_until, pause)
        after = (() if until is not None else (-1,)) + (observation.dimension or "",)
        return [Report(self._part, "refused", sent_at=observation.sent_at, until=until, after=after, is_kept=True)]

    def _read_headers(
        self, observation: Observation, reservation: Reservation | None, now: float, *, is_accepted: bool
    ) -> list[Report]:
        reports: list[Report] = []
        for bucket in observation.rate_limits.values():
            if bucket.qualifier:
                continue  # of a plan or tier that may not apply to this request
            period_s = self._periods.find(bucket)
            if period_s is None:
                continue
            if is_accepted and bucket.limit:
                # A provider that lowers its limit in earnest repeats it with a refusal.
                if self._served.contradicts(bucket.dimension, bucket.limit, period_s, now):
                    continue
            if bucket.limit:
                reports += self._name(bucket.dimension, period_s, bucket.limit)
            reports += self._align(observation, bucket, period_s, reservation)
            if bucket.dimension == "requests" and period_s <= _LONGEST_PACED_S:
                reports += self._find_windows(observation.sent_at, bucket, period_s, now)
        return reports

    def _name(self, dimension: Dimension, period_s: float, amount: float) -> list[Report]:
        """Report an amount that the shared limit does not have yet."""
        for limit in self._limits:
            if limit.dimension == dimension and limit.period_s == period_s:
                is_known = limit.amount == amount or (limit.is_firm and amount >= limit.amount and not limit.is_named)
                if is_known and not limit.is_guess:
                    return []
        return [Report(self._part, "named", (dimension, period_s), (amount,), is_kept=True, is_replaced=True)]

    def _align(
        self, observation: Observation, bucket: RateLimit, period_s: float, reservation: Reservation | None
    ) -> list[Report]:
        """Report by how much the provider's own count moves the theoretical arrival time: see rate_limit.align."""
        slot = None if reservation is None else reservation.slot
        if slot is None or bucket.remaining is None or bucket.reset_after_s is None:
            return []
        for limit, tat_after in zip(slot.limits, slot.tat_after, strict=False):
            if (limit.dimension, limit.period_s) != (bucket.dimension, period_s):
                continue
            share_used = 1 - min(1.0, bucket.remaining / limit.amount)
            is_bucket = abs(bucket.reset_after_s - share_used * period_s) <= _BUCKET_FIT * period_s
            # A token bucket refills all the time; a window has only the remaining amount until it ends.
            units = slot.cost.units(limit.dimension, limit.amount)
            wait_s = (units if is_bucket else bucket.reset_after_s / limit.spacing_s) - bucket.remaining
            by_s = observation.sent_at + min(wait_s * limit.spacing_s, period_s) - tat_after
            after = (by_s, limit.moved_s, bucket.remaining + 1)
            return [Report(self._part, "aligned", (bucket.dimension, period_s), after, is_replaced=True)]
        return []

    def _find_windows(self, sent_at: float, bucket: RateLimit, period_s: float, now: float) -> list[Report]:
        """Report the fixed sub-windows that headers reveal: see fixed_windows.py."""
        windows = self._windows.get(period_s)
        if windows is None:
            windows = self._windows[period_s] = FixedWindows(WindowLength(period_s))
        windows.observe(sent_at, bucket, now)
        schedule, shared = windows.schedule, self._views[-1].fixed
        length_s = windows.length_s
        if schedule is None:
            if length_s == self._sent_windows.get(period_s):
                return []
            self._sent_windows[period_s] = length_s
            return [self._windows_report(period_s, (length_s if length_s < period_s else 0, 0, 0, 0))]
        if shared is not None and shared[2] == schedule.length_s:
            offset_s = (shared[1] - schedule.opens_at) % schedule.length_s
            if offset_s + shared[3] <= schedule.open_s:
                return []  # the shared windows lie within those that this process has found
        opens_at = schedule.next_open(now) if schedule.is_closed(now) else now
        opens_at = schedule.opening(schedule.index_of(opens_at))
        return [
            Report(
                self._part,
                "windows",
                ("requests", period_s, schedule.length_s),
                (schedule.open_s, schedule.amount),
                until=opens_at + schedule.length_s,
                is_replaced=True,
            )
        ]

    def _windows_report(self, period_s: float, values: tuple[float, ...]) -> Report:
        return Report(self._part, "windows", ("requests", period_s, values[0]), values[1:], is_replaced=True)
