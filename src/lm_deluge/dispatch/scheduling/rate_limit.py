"""One limit as virtual scheduling: the generic cell rate algorithm (ITU-T I.371), and what feedback changes of it.

The state is one theoretical arrival time. A request of cost c goes at `max(now, tat - burst)` and moves the tat by
c x spacing. That spreads the load evenly over the period, and where all requests cost the same it also keeps every
window of a strict server: what leaves spread over W + J may arrive within W (J: the jitter), so the spacing is longer
by (J + burst) / W.

Tokens differ from request to request, and how many an answer cost is known at its end only. So what left within the
last W + J is kept and summed up (`window.py`), each at what it cost as far as that is known, and a request waits until
it fits in there together with what those under way may yet exceed. The pace is a little faster than the limit then:
the window is what limits.
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

_PRECAUTION = 0.0005
_SHORT_S = 600.0  # longer periods are budgets, not a pace
_BURST_SHARE = 1 / 600
_TOKEN_BURST_SHARE = 1 / 120  # the window keeps it
_FASTER = 1.05
_RATE_CUT, _LEAST_RATE = 0.9, 0.05
_RECOVERY = 0.01
_GROWTH_OF_GUESS, _GROWTH_BY_SUCCESS = 1.5, 1.005  # per clean period, and per request that is not refused
_MOST_OF_GUESS = 1_000.0
_BURST_CUT, _LEAST_BURST = 0.5, 1 / 16
_SOON_S = 5.0  # who wants to be left alone for longer is, whatever the reason
_BUCKET_FIT = 0.03


class Charge(msgspec.Struct):
    """What one reservation took from one limit: enough to correct it later.

    Attributes:
        pace: The limit.
        at: When the request leaves.
        units: How many units are charged.
        expected_units: How many the pace counts: what was expected.
        spacing_s: Seconds per unit at that time.
        tat_after: The tat that the reservation left.
        moved_s: How far headers had moved the tat by then, in sum.
        free_from: From when on the limit would have let the request go; up to the ticket's slot is a gap.
        tat_by_s: By how much the reservation moved the tat, for undoing it.
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
    """A limit and its tat."""

    def __init__(self, limit: Limit, *, is_guess: bool = False, is_firm: bool = False) -> None:
        """Admission with an empty history.

        Args:
            limit: How much in which time.
            is_guess: Nobody named the limit; it was taken from what went through, so it may turn out higher.
            is_firm: The user set it; a provider's headers may lower, but not raise it.
        """
        self.dimension: Dimension = limit.dimension
        self.period_s = limit.period_s
        self.amount = limit.amount
        self.tat = -math.inf
        self.closed_until = -math.inf
        self.overrun, self.overrun_until = 0.0, -math.inf  # the limiter's note of what is under way
        self._ceiling = limit.amount if is_firm else math.inf
        self._is_guess = is_guess
        is_short = limit.period_s <= _SHORT_S
        self._window = None if limit.dimension == "requests" or not is_short else Window()
        self.window_length = WindowLength(limit.period_s)
        self._fixed_windows = FixedWindows(self.window_length) if limit.dimension == "requests" and is_short else None
        share = 1.0 if not is_short else _BURST_SHARE if self._window is None else _TOKEN_BURST_SHARE
        self._burst_s = limit.period_s * share if limit.burst_s is None else limit.burst_s
        self._burst_share = 1.0
        self._rate_after_cut = 1.0
        self._cut_at = -math.inf
        self.baseline = BaselineRefusals(limit.period_s)
        self._in_a_row = 0  # refusals, with nothing accepted in between
        self._last: Charge | None = None
        self._moved_s = 0.0  # by headers, in sum
        self._forward_s = 0.0  # by headers, not yet caught up with

    # How fast

    def rate_share(self, now: float) -> float:
        """Return the share of the limit that is used: less after refusals, one hundredth more per clean period.

        A limit that was only guessed is felt out: refusals may have had other reasons than the rate.
        """
        if self._cut_at == -math.inf:
            return 1.0
        periods = (now - self._cut_at) / self.period_s
        if self._is_guess:
            return min(self._rate_after_cut * math.pow(_GROWTH_OF_GUESS, min(periods, 100.0)), _MOST_OF_GUESS)
        return min(1.0, self._rate_after_cut + _RECOVERY * math.floor(periods))

    def burst_s(self, now: float) -> float:
        """Return how many seconds' worth may go at once; halved by refusals, doubled again by ten clean periods."""
        return self._burst_s * self.window_length.at(now) / self.period_s * self._burst_share_at(now)

    def _burst_share_at(self, now: float) -> float:
        if self._cut_at == -math.inf:
            return 1.0
        doublings = math.floor((now - self._cut_at) / (10 * self.period_s))
        return min(1.0, self._burst_share * 2.0 ** min(doublings, 10))

    def spacing_s(self, now: float, jitter_s: float) -> float:
        """Return the seconds per unit at present."""
        if self._fixed_windows is not None and self._fixed_windows.schedule is not None:
            return self._fixed_windows.schedule.spacing_s
        spacing_s = self.period_s / (self.amount * self.rate_share(now))
        window_s = self.window_length.at(now)
        if self._window is not None and window_s == self.period_s:
            return spacing_s / _FASTER
        slack = min(1.0, (jitter_s + self.burst_s(now)) / window_s) + _PRECAUTION
        return spacing_s * (1 + slack)

    # Reserving and correcting

    def earliest(self, units: float, now: float, jitter_s: float, overrun: float = 0.0) -> float:
        """Return when a request of this cost may go: not before `now`.

        `overrun` is by how much what is under way may exceed what is charged for it.
        """
        moment = max(now, self.closed_until, self.tat - self.burst_s(now))
        if self._fixed_windows is not None:
            return self._fixed_windows.earliest(moment, self.rate_share(now), self.amount)
        if self._window is None:
            return moment
        most = self.amount * self.rate_share(now) - units - overrun
        return max(moment, self._window.room_at(most, now, self.reach_s(jitter_s)))

    def reach_s(self, jitter_s: float) -> float:
        """Return how long what left counts in the window: what leaves spread over W + J may arrive within W."""
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
        self.tat = max(self.tat, slot) + self._worth_s(expected_units, spacing_s)
        self._last = Charge(
            self, slot, units, expected_units, spacing_s, self.tat, self._moved_s, free_from, tat_by_s=self.tat - before
        )
        self._note(self._last)
        return self._last

    def _note(self, charge: Charge) -> None:
        if self._is_guess:
            self.baseline.add_request(charge.at)
        if self._window is not None:
            self._window.add(charge)
        if self._fixed_windows is not None:
            self._fixed_windows.add(charge.at)

    def is_last(self, charge: Charge) -> bool:
        """Tell whether nobody reserved after this one; only then it can be undone without anybody else's slot."""
        return self._last is charge

    def undo(self, charge: Charge) -> None:
        """Take a reservation back whose request has not left, as if it had never been made."""
        self.tat -= charge.tat_by_s
        if self._window is not None:
            self._window.remove(charge)
        if self._fixed_windows is not None:
            self._fixed_windows.remove(charge.at)

    def _worth_s(self, units: float, spacing_s: float) -> float:
        return min(units * spacing_s, 1.1 * self.period_s)  # after a whole period nothing of it counts any more

    def correct(self, charge: Charge, units: float, expected: float = math.inf) -> None:
        """Charge `units` in place of what was reserved.

        What was reserved beyond what is `expected` by now is not given back to the pace: all of it at once would be a
        burst.
        """
        expected = min(charge.expected_units, expected)
        self.tat += self._worth_s(units, charge.spacing_s) - self._worth_s(expected, charge.spacing_s)
        if self._window is not None:
            self._window.change(charge, units)
        if self._fixed_windows is not None and charge.units and not units:
            self._fixed_windows.remove(charge.at)
        charge.units = charge.expected_units = units

    def fits_gap(self, charge: Charge, units: float, now: float, jitter_s: float, overrun: float = 0.0) -> bool:
        """Tell whether a request may go now without moving the slot of the one that holds `charge`."""
        if not units:
            return self.closed_until <= now
        if units > charge.units or charge.free_from > now or now + units * charge.spacing_s > charge.at:
            return False
        if self._window is None:
            return True
        most = self.amount * self.rate_share(now) - units - overrun
        reach_s = self.reach_s(jitter_s)
        return self._window.used_at(now, reach_s) - charge.units <= most >= self._window.used_at(charge.at, reach_s)

    def fill_gap(self, charge: Charge, units: float, now: float) -> Charge:
        """Charge a request to the gap before the one that holds `charge`."""
        spacing_s = charge.spacing_s
        charge.free_from = max(charge.free_from, now - self.burst_s(now)) + units * spacing_s
        filler = Charge(self, now, units, units, spacing_s, self.tat, self._moved_s, now)
        self._note(filler)
        return filler

    # Learning

    def on_refusal(self, sent_at: float, now: float, retry_at: float | None, under_way: int = 0) -> None:
        """Close until `retry_at`, and go slower from then on: once for all requests that were under way together."""
        if self._is_guess:
            self.baseline.add_response(sent_at, under_way, is_refused=True)
            if self.baseline.explains_refusals() and (retry_at is None or retry_at - now <= _SOON_S):
                return
        is_explained = self._fixed_windows is not None and sent_at < self._fixed_windows.known_from
        if sent_at >= self._cut_at and not is_explained:
            share = self.rate_share(now)
            self._rate_after_cut = max(_LEAST_RATE, share * _RATE_CUT)
            self._burst_share = max(_LEAST_BURST, self._burst_share_at(now) * _BURST_CUT)
            self._cut_at = now
            self._in_a_row += 1
            self.window_length.observe_refusal(now)
        if retry_at is None:
            retry_at = now + min(self.period_s, self.period_s / 60 * 2 ** min(max(self._in_a_row - 1, 0), 6))
        self.closed_until = max(self.closed_until, retry_at)
        self.tat = max(self.tat, self.closed_until)

    def on_success(self, sent_at: float, under_way: int = 0) -> None:
        """Note that a request was not refused: the next refusal is the first again."""
        if self._is_guess:
            self.baseline.add_response(sent_at, under_way, is_refused=False)
        if sent_at > self._cut_at > -math.inf:
            self._in_a_row = 0
            if self._is_guess:
                self._rate_after_cut = min(self._rate_after_cut * _GROWTH_BY_SUCCESS, _MOST_OF_GUESS)

    def set_amount(self, amount: float) -> None:
        """Take over the limit that a provider names."""
        self.amount = min(amount, self._ceiling)
        self._is_guess = False

    def observe_headers(self, sent_at: float, bucket: RateLimit, now: float) -> None:
        """Learn from headers whether the provider counts in slices."""
        if self._fixed_windows is not None:
            known_from = self._fixed_windows.known_from
            self._fixed_windows.observe(sent_at, bucket, now)
            if self._fixed_windows.known_from > known_from:
                self._cut_at = -math.inf  # the windows explain the refusals
                self.window_length.forget_refusals()

    def align(self, charge: Charge, sent_at: float, remaining: float, reset_after_s: float) -> None:
        """Move the tat to where the provider's own count has it.

        Compared is the moment at which this request was counted, so what left since then is in neither of the two.
        Backward goes only what headers had moved forward before, so at most one period.
        """
        if self._fixed_windows is not None and self._fixed_windows.schedule is not None:
            return  # the count is of a slice, not of the period
        share_used = 1 - min(1.0, remaining / self.amount)
        spacing_s = charge.spacing_s
        is_bucket = abs(reset_after_s - share_used * self.period_s) <= _BUCKET_FIT * self.period_s
        # A bucket that fills steadily gives out what it gets; a window no more than what is left until it ends.
        wait_s = (charge.units if is_bucket else reset_after_s / spacing_s) - remaining
        truth = sent_at + min(wait_s * spacing_s, self.period_s)
        # Tickets from before the last move would ask for the same move once more.
        moved_s = truth - charge.tat_after - (self._moved_s - charge.moved_s)
        moved_s = max(moved_s, -self._forward_s)
        self._forward_s = min(self._forward_s + moved_s, self.period_s)
        self._moved_s += moved_s
        self.tat += moved_s
