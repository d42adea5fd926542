"""One limit as virtual scheduling: the generic cell rate algorithm (ITU-T I.371), and what feedback changes of it.

The state is one theoretical arrival time. A request of cost c goes at `max(now, tat - burst)` and moves the tat by
c x spacing. In any window of a strict server there are then never more than `amount` units, because the spacing
allows for three things:

* **jitter**: what leaves spread over W + J may arrive within W. The spacing is longer by (J + burst) / W.
* **size**: a window may begin with one request and end with another, so with costs that differ the rate is
  (amount - biggest recent cost) / W. One that is bigger than all recent ones first waits for the difference.
* **spread**: what an answer costs is known at its end; the caller says by how much the sum may be off.
"""

from __future__ import annotations

import itertools
import math

import msgspec

from lm_deluge.dispatch.limits import Limit
from lm_deluge.wire.rate_limit_headers import Dimension

__all__ = ["Charge", "Pace"]

_PRECAUTION = 0.0005
_SHORT_S = 600.0  # longer periods are budgets, not a pace
_BURST_SHARE = 1 / 600
_CREDIT_SHARE = 1 / 120
_MOST_SPREAD = 0.1
_RATE_CUT, _LEAST_RATE = 0.9, 0.05
_RECOVERY = 0.01
_BURST_CUT, _LEAST_BURST = 0.5, 1 / 16
_QUANTA_S = (60.0, 30.0, 20.0, 15.0, 10.0, 6.0, 5.0, 2.0, 1.0)
_QUANTUM_FIT = 0.12
_REFUSALS_KEPT = 8
_SLICES_KEPT = 30  # periods without a refusal, after which they were perhaps never there
_BUCKET_FIT = 0.03


class Charge(msgspec.Struct):
    """What one reservation took from one limit: enough to correct it later.

    Attributes:
        pace: The limit.
        units: How many units are charged.
        spacing_s: Seconds per unit at that time.
        tat_after: The tat that the reservation left.
        moved_s: How far headers had moved the tat by then, in sum.
        free_from: From when on the limit would have let the request go; up to the ticket's slot is a gap.
        growth_s: The wait for being bigger than what went before.
        tat_by_s: By how much the reservation moved the tat, for undoing it.
        credit_s: How much it took of what had been given back.
        has_waited: Whether this limit was in the way.
    """

    pace: Pace
    units: float
    spacing_s: float
    tat_after: float
    moved_s: float
    free_from: float
    growth_s: float = 0.0
    tat_by_s: float = 0.0
    credit_s: float = 0.0
    has_waited: bool = False


class Pace:
    """A limit and its tat."""

    def __init__(self, limit: Limit, *, is_guess: bool = False, is_firm: bool = False) -> None:
        """Start with an empty history.

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
        self._quantum_s: float | None = None
        self._ceiling = limit.amount if is_firm else math.inf
        self._is_guess = is_guess
        self._is_counted = limit.dimension == "requests"
        default_s = limit.period_s * (_BURST_SHARE if limit.period_s <= _SHORT_S else 1.0)
        self._burst_s = default_s if limit.burst_s is None else limit.burst_s
        self._burst_share = 1.0
        self._rate_after_cut = 1.0
        self._cut_at = -math.inf
        self._refused_at: list[float] = []
        self._last: Charge | None = None
        self._credit_s = 0.0  # given back while requests waited
        self._moved_s = 0.0  # by headers, in sum
        self._forward_s = 0.0  # by headers, not yet caught up with
        self._sizes: dict[int, tuple[float, float]] = {}  # order of magnitude: (last seen, largest)

    # How fast

    def rate_share(self, now: float) -> float:
        """Return the share of the limit that is used: less after refusals, one hundredth more per clean period."""
        if self._cut_at == -math.inf:
            return 1.0
        share = self._rate_after_cut + _RECOVERY * math.floor((now - self._cut_at) / self.period_s)
        return share if self._is_guess else min(1.0, share)

    def burst_s(self, now: float) -> float:
        """Return how many seconds' worth may go at once; halved by refusals, doubled again by ten clean periods."""
        return self._burst_s * self.window_s(now) / self.period_s * self._burst_share_at(now)

    def window_s(self, now: float) -> float:
        """Return over how long the server counts: the period, or slices of it that refusals showed a while ago."""
        is_recent = now - self._cut_at < _SLICES_KEPT * self.period_s
        return self._quantum_s if self._quantum_s is not None and is_recent else self.period_s

    def _burst_share_at(self, now: float) -> float:
        if self._cut_at == -math.inf:
            return 1.0
        doublings = math.floor((now - self._cut_at) / (10 * self.period_s))
        return min(1.0, self._burst_share * 2.0 ** min(doublings, 10))

    def spacing_s(self, now: float, jitter_s: float, spread: float, biggest: float | None = None) -> float:
        """Return the seconds per unit at present."""
        amount = self.amount * self.rate_share(now)
        if not self._is_counted:
            biggest = self._biggest(now) if biggest is None else biggest
            amount = max(amount - biggest - min(spread, _MOST_SPREAD * amount), 0.001 * amount)
        window_s = self.window_s(now)
        slack = min(1.0, (jitter_s + self.burst_s(now)) / window_s) + _PRECAUTION
        return self.period_s / amount * (1 + slack)

    def _biggest(self, now: float) -> float:
        since = now - 1.05 * self.period_s
        return max((size for seen, size in self._sizes.values() if seen > since), default=0.0)

    def _note_size(self, units: float, at: float) -> None:
        magnitude = int(units).bit_length()
        seen, size = self._sizes.get(magnitude, (-math.inf, 0.0))
        # What is older than a period counts no more.
        self._sizes[magnitude] = (max(seen, at), max(units, size) if seen > at - 1.05 * self.period_s else units)

    # Reserving and correcting

    def earliest(self, units: float, now: float, jitter_s: float, spread: float) -> float:
        """Return when a request of this cost may go: not before `now`."""
        tat = self.tat + self._growth_s(units, now, jitter_s, spread)
        return max(now, self.closed_until, tat - self.burst_s(now))

    def _growth_s(self, units: float, now: float, jitter_s: float, spread: float) -> float:
        if self._is_counted:
            return 0.0
        biggest = self._biggest(now)
        if units <= biggest or not biggest:
            return 0.0
        return min((units - biggest) * self.spacing_s(now, jitter_s, spread, biggest), self.period_s)

    def take(self, units: float, now: float, slot: float, jitter_s: float, spread: float) -> Charge:
        """Charge a request that goes at `slot`."""
        return self._take(units, now, slot, jitter_s, spread, self._growth_s(units, now, jitter_s, spread))

    def _take(self, units: float, now: float, slot: float, jitter_s: float, spread: float, growth_s: float) -> Charge:
        before = max(self.tat, now - self.period_s)
        tat = self.tat + growth_s
        free_from = max(now, self.closed_until, tat - self.burst_s(now))
        if not self._is_counted:
            self._note_size(units, slot)
        spacing_s = self.spacing_s(slot, jitter_s, spread)
        if tat < slot - self._credit_s:
            # Time that passed unused is lost, and with it what was given back: a suspend earns nothing.
            self._credit_s = self._forward_s = 0.0
        self.tat = max(tat, slot) + self._worth_s(units, spacing_s)
        spent_s = min(self._credit_s, self.tat - slot)
        self.tat -= spent_s
        self._credit_s -= spent_s
        self._last = Charge(
            self,
            units=units,
            spacing_s=spacing_s,
            tat_after=self.tat,
            moved_s=self._moved_s,
            free_from=free_from,
            growth_s=growth_s,
            tat_by_s=self.tat - before,
            credit_s=spent_s,
            has_waited=free_from > now,
        )
        return self._last

    def is_last(self, charge: Charge) -> bool:
        """Tell whether nobody reserved after this one; only then it can be undone without anybody else's slot."""
        return self._last is charge

    def undo(self, charge: Charge, now: float) -> None:
        """Take a reservation back whose request has not left, as if it had never been made."""
        self.tat -= charge.tat_by_s
        self._credit_s += charge.credit_s
        if charge.has_waited:
            self._keep_credit(now - self.tat, self._worth_s(charge.units, charge.spacing_s))

    def _keep_credit(self, below_s: float, reserved_s: float) -> None:
        """Keep what brought the tat below now: given back while others waited, not idled away."""
        if below_s > 0:
            most_s = max(reserved_s, _CREDIT_SHARE * self.period_s)  # what is less than that makes no burst
            self._credit_s = min(most_s, self._credit_s + below_s)
            self.tat += below_s

    def earliest_again(self, charge: Charge, now: float) -> float:
        """Return when the request of an undone charge may go."""
        return max(now, self.closed_until, self.tat + charge.growth_s - self.burst_s(now))

    def take_again(self, charge: Charge, now: float, slot: float, jitter_s: float, spread: float) -> Charge:
        """Charge the request of an undone charge anew."""
        return self._take(charge.units, now, slot, jitter_s, spread, charge.growth_s)

    def _worth_s(self, units: float, spacing_s: float) -> float:
        return min(units * spacing_s, 1.1 * self.period_s)  # after a whole period nothing of it counts any more

    def correct(self, charge: Charge, units: float, now: float) -> None:
        """Charge `units` in place of what was reserved."""
        if units > charge.units and not self._is_counted:
            self._note_size(units, now)
        reserved_s = self._worth_s(charge.units, charge.spacing_s)
        moved_s = self._worth_s(units, charge.spacing_s) - reserved_s
        charge.units = units
        self.tat += moved_s
        self._keep_credit(min(-moved_s, now - self.tat), reserved_s)

    def fits_gap(self, charge: Charge, units: float, now: float, slot: float) -> bool:
        """Tell whether a request may go now without moving the slot of the one that holds `charge`."""
        if not units:
            return self.closed_until <= now
        return units <= charge.units and charge.free_from <= now and now + units * charge.spacing_s <= slot

    def fill_gap(self, charge: Charge, units: float, now: float) -> Charge:
        """Charge a request to the gap before the one that holds `charge`."""
        spacing_s = charge.spacing_s
        charge.free_from = max(charge.free_from, now - self.burst_s(now)) + units * spacing_s
        return Charge(self, units, spacing_s, self.tat, self._moved_s, now)

    # Learning

    def refused(self, sent_at: float, now: float, retry_at: float | None) -> None:
        """Close until `retry_at`, and go slower from then on: once for all requests that were under way together."""
        if sent_at >= self._cut_at:
            share = self.rate_share(now)
            self._rate_after_cut = max(_LEAST_RATE, share * _RATE_CUT)
            self._burst_share = max(_LEAST_BURST, self._burst_share_at(now) * _BURST_CUT)
            self._cut_at = now
            self._refused_at = [*self._refused_at[1 - _REFUSALS_KEPT :], now]
            recent = [moment for moment in self._refused_at if now - moment < _SLICES_KEPT * self.period_s]
            self._quantum_s = _quantum(recent, self.period_s) or self._quantum_s
        if retry_at is None:
            retry_at = now + min(self.period_s, self.period_s / 60 * 2 ** (len(self._refused_at) - 1))
        self.closed_until = max(self.closed_until, retry_at)
        self.tat = max(self.tat, self.closed_until)
        self._credit_s = 0.0

    def adopt(self, amount: float) -> None:
        """Take over the limit that a provider names."""
        self.amount = min(amount, self._ceiling)
        self._is_guess = False

    def believe(self, charge: Charge, sent_at: float, remaining: float, reset_after_s: float) -> None:
        """Move the tat to where the provider's own count has it.

        Compared is the moment at which this request was counted, so what left since then is in neither of the two.
        Backward goes only what headers had moved forward before, so at most one period.
        """
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


def _quantum(moments: list[float], period_s: float) -> float | None:
    """Infer the slices in which a server counts: refusals come at multiples of them."""
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    if len(gaps) < 3:  # noqa: PLR2004
        return None
    for quantum_s in _QUANTA_S:
        if quantum_s < period_s and all(_is_multiple(gap, quantum_s) for gap in gaps):
            return quantum_s
    return None


def _is_multiple(gap: float, quantum_s: float) -> bool:
    times = round(gap / quantum_s)
    return times >= 1 and abs(gap - times * quantum_s) <= _QUANTUM_FIT * quantum_s
