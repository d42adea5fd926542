"""One rate limit: virtual scheduling by the generic cell rate algorithm (ITU-T I.371), adapted by feedback.

The state is one theoretical arrival time (TAT). A request of cost c leaves at `max(now, tat - burst)` and moves the TAT
by c x spacing. That spreads the load evenly over the period. If all requests cost the same, it also satisfies a server
with a sliding window W: requests that leave within W + J may arrive within W (J: the jitter), so the spacing is longer
by (J + burst) / W.

The tokens of requests differ, and the cost of a response is known at its end only. So the costs of the last W + J are
summed (`sliding_window.py`), each as far as it is known, and a request waits until the sum has room for it and for the
amount by which the requests in flight may exceed their reservations. The spacing is then a little shorter than the
limit allows: the window is the effective limit.
"""

from __future__ import annotations

import math

import msgspec

from lm_deluge.dispatch.scheduling.baseline_refusals import BaselineRefusals
from lm_deluge.dispatch.scheduling.fixed_windows import FixedWindows, WindowLength
from lm_deluge.dispatch.scheduling.limiter import Limit
from lm_deluge.dispatch.scheduling.sliding_window import Window
from lm_deluge.wire.rate_limit_headers import Dimension, RateLimit

__all__ = ["Charge", "RateLimitState"]

_CLOCK_MARGIN = 0.0005  # the provider's clock and ours may differ in speed by some parts in ten thousand
_LONGEST_PACED_S = 600.0  # spreading the amount of a day, say, evenly would delay calls for no reason
_BURST_SHARE = 1 / 600  # of a minute 0.1 s: timers wake late, but a burst costs its length of the limit
_TOKEN_BURST_SHARE = 1 / 120  # larger, because the window limits tokens, and their requests are few
_WINDOW_SPEEDUP = 1.05  # so that the window, not the spacing, is what limits
_RATE_DECREASE, _LEAST_RATE = 0.9, 0.05  # a named limit is nearly right: go a little slower, but never stop
_RATE_RECOVERY = 0.01  # per period without a refusal: ten of them undo one decrease
# Per period without a refusal, and per accepted request: a guess may be far too low.
_GUESS_GROWTH, _GUESS_GROWTH_BY_SUCCESS = 1.5, 1.005
_MOST_GROWTH = 1_000.0  # keeps the share finite; no real limit is so far from the guess
_BURST_DECREASE, _LEAST_BURST = 0.5, 1 / 16  # bursts are the likelier cause of a refusal: shrink them faster
_SHORT_RETRY_S = 5.0  # a provider that asks for a longer pause gets it, whatever the reason
# A host may enforce a limit per minute over such a time without naming it: Azure does, typically over 1 s or 10 s
# (https://learn.microsoft.com/azure/ai-services/openai/how-to/quota, "Understanding rate limits", 2026-11). OpenAI's
# guide gives 1,000 requests a second for 60,000 a minute (https://platform.openai.com/docs/guides/rate-limits).
_SHORT_WINDOWS_S = (1.0, 10.0)
_MORE_THAN_WINDOW = 1.1  # amounts per window are whole numbers, so they are a few percent off
_MOST_PRECAUTION = 0.02  # of the limit, the price of pacing for a shorter window; a refusal costs a tenth for minutes
_RESUMED_PARTS = 240  # of a period whose use is unknown: steps of a quarter of a second for a minute
_BUCKET_FIT = 0.03  # of the period: headers round resets to whole seconds


class Charge(msgspec.Struct):
    """The share of one reservation in one limit, with the values needed to correct it later.

    Attributes:
        limit: The limit.
        at: When the request leaves.
        units: Charged units: an upper bound until the cost is known.
        expected_units: Units by which the TAT was moved: the expected cost.
        spacing_s: Seconds per unit at that time.
        tat_after: The TAT after the reservation.
        moved_s: Sum of the moves of the TAT by headers up to then.
        free_from: When this limit alone would have admitted the request; the time from then to the slot is a gap.
        tat_by_s: How far the reservation moved the TAT.
    """

    limit: RateLimitState
    at: float
    units: float
    expected_units: float
    spacing_s: float
    tat_after: float
    moved_s: float
    free_from: float
    tat_by_s: float = 0.0


class RateLimitState:
    """A limit, its theoretical arrival time, and the feedback of the provider.

    Attributes:
        is_named: The provider named the amount.
        is_void: The amount was withdrawn, and nothing takes its place: the limit delays nothing.
    """

    def __init__(self, limit: Limit, *, is_guess: bool = False, is_firm: bool = False) -> None:
        """Start without any requests.

        Args:
            limit: The amount per period.
            is_guess: The limit was estimated from accepted requests, so the real one may be higher.
            is_firm: The user set the limit; a provider's headers may lower it, but not raise it.
        """
        self.dimension: Dimension = limit.dimension
        self.period_s = limit.period_s
        self.amount = limit.amount
        self.tat = -math.inf
        self.closed_until = -math.inf
        self.is_named = self.is_void = False
        self.overrun, self.overrun_until = 0.0, -math.inf  # a cache of the limiter: excess of the requests in flight
        self._ceiling = limit.amount if is_firm else math.inf
        self._is_guess = is_guess
        is_short = limit.period_s <= _LONGEST_PACED_S
        self._window = None if limit.dimension == "requests" or not is_short else Window()
        self.window_length = WindowLength(limit.period_s)
        self._fixed_windows = FixedWindows(self.window_length) if limit.dimension == "requests" and is_short else None
        share = 1.0 if not is_short else _BURST_SHARE if self._window is None else _TOKEN_BURST_SHARE
        self._burst_s = limit.period_s * share if limit.burst_s is None else limit.burst_s
        self._is_burst_wanted = limit.burst_s is not None
        self._burst_share = 1.0
        self._rate_after_cut = 1.0
        self._cut_at = -math.inf
        self.baseline = BaselineRefusals(limit.period_s)
        self._refusals_in_a_row = 0
        self._last: Charge | None = None
        self._moved_s = 0.0  # sum of the moves of the TAT by headers
        self._forward_s = 0.0  # the part of them that lies in the future, and can be taken back

    # Rate

    def rate_share(self, now: float) -> float:
        """Return the usable share of the limit: less after refusals, a hundredth more per period without one.

        A guessed limit is probed upwards, beyond 1: its refusals may have other reasons than the rate.
        """
        if self._cut_at == -math.inf:
            return 1.0
        periods = (now - self._cut_at) / self.period_s
        if self._is_guess:
            return min(self._rate_after_cut * math.pow(_GUESS_GROWTH, min(periods, 100.0)), _MOST_GROWTH)
        return min(1.0, self._rate_after_cut + _RATE_RECOVERY * math.floor(periods))

    def burst_s(self, now: float, jitter_s: float = math.inf) -> float:
        """Return the seconds whose amount may leave at once; refusals halve it, ten periods without one double it."""
        return self._burst_in(self._paced_window_s(now, jitter_s), now)

    def _burst_in(self, window_s: float, now: float) -> float:
        return self._burst_s * window_s / self.period_s * self._burst_share_at(now)

    def _paced_window_s(self, now: float, jitter_s: float) -> float:
        """Return the window to pace for: the known one, or a shorter one that the host may have, if that costs little.

        Requests paced for a window satisfy all longer ones, too.
        """
        known_s = self.window_length.at(now)
        if self._fixed_windows is None or known_s < self.period_s:
            return known_s
        for window_s in _SHORT_WINDOWS_S:
            price = (jitter_s + self._burst_in(window_s, now)) / window_s
            if window_s < known_s and price <= _MOST_PRECAUTION and not self._is_counted_longer(window_s):
                return window_s
        return known_s

    def _is_counted_longer(self, window_s: float) -> bool:
        """Whether headers have shown more remaining requests than the limit allows in a window of this length."""
        return self.window_length.amount > _MORE_THAN_WINDOW * self.amount * window_s / self.period_s + 1

    def _burst_share_at(self, now: float) -> float:
        if self._cut_at == -math.inf:
            return 1.0
        doublings = math.floor((now - self._cut_at) / (10 * self.period_s))
        return min(1.0, self._burst_share * 2.0 ** min(doublings, 10))

    def spacing_s(self, now: float, jitter_s: float) -> float:
        """Return the present seconds per unit."""
        if self._fixed_windows is not None and self._fixed_windows.schedule is not None:
            return self._fixed_windows.schedule.spacing_s
        spacing_s = self.period_s / (self.amount * self.rate_share(now))
        window_s = self._paced_window_s(now, jitter_s)
        if self._window is not None and window_s == self.period_s:
            return spacing_s / _WINDOW_SPEEDUP
        slack = min(1.0, (jitter_s + self._burst_in(window_s, now)) / window_s) + _CLOCK_MARGIN
        return spacing_s * (1 + slack)

    # Reserving and correcting

    def earliest(self, units: float, now: float, jitter_s: float, overrun: float = 0.0) -> float:
        """Return when a request of this cost may leave, `now` at the earliest.

        `overrun` is the number of units by which the requests in flight may exceed their charges.
        """
        if self.is_void:
            return now
        moment = max(now, self.closed_until, self.tat - self.burst_s(now, jitter_s))
        if self._fixed_windows is not None:
            return self._fixed_windows.earliest(moment, self.rate_share(now), self.amount)
        if self._window is None:
            return moment
        most = self.amount * self.rate_share(now) - units - overrun
        return max(moment, self._window.room_at(most, now, self.reach_s(jitter_s)))

    def reach_s(self, jitter_s: float) -> float:
        """Return how long a request counts in the window: requests that leave within W + J may arrive within W."""
        return self.period_s + jitter_s

    def charge(
        self, units: float, expected_units: float, now: float, slot: float, jitter_s: float, overrun: float
    ) -> Charge:
        """Charge a request that leaves at `slot`: an upper bound of its units, and the expected ones for the pace."""
        before = max(self.tat, now - self.period_s)
        free_from = self.earliest(units, now, jitter_s, overrun)
        spacing_s = self.spacing_s(slot, jitter_s)
        if self.tat < slot:
            self._forward_s = 0.0
        self.tat = max(self.tat, slot + self._unused_burst_s(slot, jitter_s)) + self._worth_s(expected_units, spacing_s)
        self._last = Charge(
            self, slot, units, expected_units, spacing_s, self.tat, self._moved_s, free_from, tat_by_s=self.tat - before
        )
        self._note(self._last)
        return self._last

    def _unused_burst_s(self, slot: float, jitter_s: float) -> float:
        """Return the burst that is taken away after an idle time: it makes up for late timers, and is no credit."""
        burst_s = self.burst_s(slot, jitter_s)
        is_idle = self.tat < slot - burst_s
        return burst_s if is_idle and self._fixed_windows is not None and not self._is_burst_wanted else 0.0

    def _note(self, charge: Charge) -> None:
        if self._is_guess:
            self.baseline.add_request(charge.at)
        if self._window is not None:
            self._window.add(charge)
        if self._fixed_windows is not None:
            self._fixed_windows.add(charge.at)

    def is_last(self, charge: Charge) -> bool:
        """Whether no reservation followed; only then `undo` leaves the slots of other requests valid."""
        return self._last is charge

    def undo(self, charge: Charge) -> None:
        """Restore the state before a reservation whose request has not left."""
        self.tat -= charge.tat_by_s
        if self._window is not None:
            self._window.remove(charge)
        if self._fixed_windows is not None:
            self._fixed_windows.remove(charge.at)

    def _worth_s(self, units: float, spacing_s: float) -> float:
        return min(units * spacing_s, 1.1 * self.period_s)  # after a whole period it no longer counts

    def correct(self, charge: Charge, units: float, expected: float = math.inf) -> None:
        """Charge `units` instead of the reserved ones.

        The TAT moves back by the reservation of a request of `expected` units at most, which is what would be reserved
        by now: refunding an early, much too high reservation at once would be a burst.
        """
        expected = min(charge.expected_units, expected)
        self.tat += self._worth_s(units, charge.spacing_s) - self._worth_s(expected, charge.spacing_s)
        if self._window is not None:
            self._window.change(charge, units)
        if self._fixed_windows is not None and charge.units and not units:
            self._fixed_windows.remove(charge.at)
        charge.units = charge.expected_units = units

    def fits_gap(self, charge: Charge, units: float, now: float, jitter_s: float, overrun: float = 0.0) -> bool:
        """Whether a request may leave now without delaying the waiting request that owns `charge`."""
        if not units:
            return self.closed_until <= now
        if units > charge.units or charge.free_from > now or now + units * charge.spacing_s > charge.at:
            return False
        if self._window is None:
            return True
        most = self.amount * self.rate_share(now) - units - overrun
        reach_s = self.reach_s(jitter_s)
        return self._window.used_at(now, reach_s) - charge.units <= most >= self._window.used_at(charge.at, reach_s)

    def fill_gap(self, charge: Charge, units: float, now: float, jitter_s: float = math.inf) -> Charge:
        """Charge a request to the gap before the waiting request that owns `charge`."""
        spacing_s = charge.spacing_s
        charge.free_from = max(charge.free_from, now - self.burst_s(now, jitter_s)) + units * spacing_s
        filler = Charge(self, now, units, units, spacing_s, self.tat, self._moved_s, now)
        self._note(filler)
        return filler

    def resume(self, tat: float, now: float) -> None:
        """Go on after an unknown use as if the whole limit had been used evenly, so that it comes back without a burst.

        Args:
            tat: When the next request may leave.
            now: The present moment.
        """
        self.tat = tat
        if self._window is not None:
            for place in range(_RESUMED_PARTS):
                at = now - self.period_s * (1 - place / _RESUMED_PARTS)
                units = self.amount / _RESUMED_PARTS
                self._window.add(Charge(self, at, units, units, 0.0, self.tat, 0.0, at))

    # Learning

    def on_refusal(self, sent_at: float, now: float, retry_at: float | None, in_flight: int = 0) -> None:
        """Pause until `retry_at`, then go slower: one step for all requests that were in flight together."""
        if self._is_guess:
            self.baseline.add_response(sent_at, in_flight, is_refused=True)
            if self.baseline.explains_refusals() and (retry_at is None or retry_at - now <= _SHORT_RETRY_S):
                return
        is_explained = self._fixed_windows is not None and sent_at < self._fixed_windows.known_from
        if sent_at >= self._cut_at and not is_explained:
            share = self.rate_share(now)
            self._rate_after_cut = max(_LEAST_RATE, share * _RATE_DECREASE)
            self._burst_share = max(_LEAST_BURST, self._burst_share_at(now) * _BURST_DECREASE)
            self._cut_at = now
            self._refusals_in_a_row += 1
            self.window_length.observe_refusal(now)
        # A hint of 0 s is tried once; if it proves too short, our own pauses apply, which double.
        in_a_row = self._refusals_in_a_row - (retry_at is not None)
        if retry_at is None or in_a_row > 0:
            pause_s = min(self.period_s, self.period_s / 60 * 2 ** min(max(in_a_row - 1, 0), 6))
            retry_at = max(now + pause_s, retry_at or -math.inf)
        self.closed_until = max(self.closed_until, retry_at)
        self.tat = max(self.tat, self.closed_until)

    def on_success(self, sent_at: float, in_flight: int = 0) -> None:
        """Note an accepted request: a next refusal is the first in a row."""
        if self._is_guess:
            self.baseline.add_response(sent_at, in_flight, is_refused=False)
        if sent_at > self._cut_at > -math.inf:
            self._refusals_in_a_row = 0
            if self._is_guess:
                self._rate_after_cut = min(self._rate_after_cut * _GUESS_GROWTH_BY_SUCCESS, _MOST_GROWTH)

    def set_amount(self, amount: float) -> None:
        """Use the amount that the provider names."""
        self.amount = min(amount, self._ceiling)
        self._is_guess = False
        self.is_named = amount < self._ceiling

    def withdraw(self) -> None:
        """Undo what headers named: the user's own limit applies again, or none."""
        self.tat, self.is_named = -math.inf, False
        self.is_void = self._ceiling == math.inf
        if not self.is_void:
            self.amount = self._ceiling

    def observe_headers(self, sent_at: float, bucket: RateLimit, now: float) -> None:
        """Learn from headers whether the provider counts in fixed sub-windows."""
        if self._fixed_windows is not None:
            known_from = self._fixed_windows.known_from
            self._fixed_windows.observe(sent_at, bucket, now)
            if self._fixed_windows.known_from > known_from:
                self._cut_at = -math.inf  # the windows explain the refusals
                self.window_length.forget_refusals()

    def align(self, charge: Charge, sent_at: float, remaining: float, reset_after_s: float) -> None:
        """Move the TAT to the value that the provider's own count implies.

        Both values are of the moment at which the provider counted this request, so later requests are in neither.
        The TAT moves back only as far as headers moved it forward before, so at most by one period.
        """
        if self._fixed_windows is not None and self._fixed_windows.schedule is not None:
            return  # the count is of a sub-window, not of the period
        share_used = 1 - min(1.0, remaining / self.amount)
        spacing_s = charge.spacing_s
        is_bucket = abs(reset_after_s - share_used * self.period_s) <= _BUCKET_FIT * self.period_s
        # A token bucket refills all the time; a window has only the remaining amount until it ends.
        wait_s = (charge.units if is_bucket else reset_after_s / spacing_s) - remaining
        true_tat = sent_at + min(wait_s * spacing_s, self.period_s)
        # Requests charged before the last move imply the same move again.
        moved_s = true_tat - charge.tat_after - (self._moved_s - charge.moved_s)
        moved_s = max(moved_s, -self._forward_s)
        self._forward_s = min(self._forward_s + moved_s, self.period_s)
        self._moved_s += moved_s
        self.tat += moved_s
