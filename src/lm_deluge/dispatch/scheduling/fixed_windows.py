"""Fixed sub-windows of a limit: 600 requests per minute that the provider enforces as 10 in each second, for example.

Evenly paced requests still get 429s there, because jitter moves some into the same window: requests that leave within
W + J may arrive within W, and W is short. Headers reveal the windows: they never report more remaining requests than
one window allows, and the resets are in step. After that, requests leave only at times at which both a fast and a slow
request arrive in the same window. The whole amount of a window can be sent in that time as long as J is shorter than W.

A request that left at t and got a reset in r seconds reveals the end of a window at t + d + r, where d is the time that
the request took to arrive. So t + r varies as much as d: its maximum is the time at which the fastest requests start to
arrive in the next window, its minimum the time at which the slowest do. The provider's clock is not needed.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, insort
from collections import deque
from typing import NamedTuple

from lm_deluge.wire.rate_limit_headers import RateLimit

__all__ = ["FixedWindows", "SendSchedule", "WindowLength"]

_LENGTHS_S = (60.0, 30.0, 20.0, 15.0, 12.0, 10.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0)
"""Lengths that servers are likely to use; the longest that fits is assumed."""
_HEADERS_FIT = 0.08  # amounts per window are whole numbers, so they are a few percent off
_REFUSALS_FIT = 0.12  # a refusal is delayed by the network, and a wider tolerance would accept any times
_REFUSALS_KEPT = 8  # enough to reject a length, few enough to follow a change
_GAPS_NEEDED = 3  # by chance three gaps fit one given length in one case of 70
_PERIODS_KEPT = 30  # without a refusal for so long, the refusals before may have fitted by chance
_MOST_OF_LIMIT = 0.6  # a sub-window allows at most half of the limit; more remaining means that there are none

_ENDS_KEPT = 200  # sorted at each inference, so few
_ALL_ENDS_KEPT = 2_000  # only for the extremes, which more samples make more certain
_ENDS_NEEDED = 8  # fewer could be in step by chance
_INFER_EVERY = 8  # samples: often enough for the first minute, and sorting is not done for each answer
_ENDS_PER_WINDOW = 40  # at most, so that the samples kept are of several windows
_LEAST_RESET, _MOST_RESET = 0.5, 1.02  # longest reset in window lengths: some are near 1, none is much longer
_CHANCE_ACCEPTED = 1e-3  # probability that resets at random times have so wide a gap
_TIMER_S = 0.005  # event loops wake some milliseconds late
_UNSEEN_SAMPLES = 3.0  # the next extreme lies beyond the seen ones by about the range / samples; three times that
_LEAST_OPEN = 0.1  # of a window: with less time to send, pacing with slack is faster
_CLOSED_COUNTED = 0.9  # of the closed time; the schedule moves a little with each sample, so not all of it
_SPARE = 0.003  # for the one in thousands that is slower than all before


class WindowLength:
    """The length of the windows in which a server counts: the limit's whole period, or a part of it.

    Two kinds of evidence reveal a shorter one. Headers never report more remaining requests than one window allows:
    every answer checks that. Refusals come at multiples of the length: that holds for a while only, because it may be
    chance. Headers take precedence.
    """

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self.by_headers_s: float | None = None
        self._most_remaining = 0.0
        self._by_refusals_s: float | None = None
        self._refused_at: deque[float] = deque(maxlen=_REFUSALS_KEPT)
        self._refusals_count_until = -math.inf

    @property
    def amount(self) -> float:
        """The largest number of requests that headers have shown to fit a window."""
        return self._most_remaining

    def at(self, now: float) -> float:
        """Return the length in seconds to assume at present."""
        if self.by_headers_s is not None:
            return self.by_headers_s
        if self._by_refusals_s is not None and now < self._refusals_count_until:
            return self._by_refusals_s
        return self.period_s

    def observe_remaining(self, remaining: float, limit: float) -> float | None:
        """Learn from the remaining requests of an answer's headers; return the length if it is a part of the period."""
        self._most_remaining = max(self._most_remaining, remaining + 1)  # the request itself is counted already
        if self._most_remaining > _MOST_OF_LIMIT * limit:
            self.by_headers_s = None
            return None
        length_s = self.period_s * self._most_remaining / limit
        usual = [*_LENGTHS_S, *(self.period_s / parts for parts in range(2, 7))]
        nearest = min(usual, key=lambda each: abs(each - length_s))
        self.by_headers_s = nearest if abs(nearest - length_s) <= _HEADERS_FIT * length_s else length_s
        return self.by_headers_s

    def observe_refusal(self, now: float) -> None:
        """Learn from the time of a refusal."""
        kept_s = _PERIODS_KEPT * self.period_s
        self._refused_at.append(now)
        self._refusals_count_until = now + kept_s
        recent = [moment for moment in self._refused_at if now - moment < kept_s]
        gaps = [later - earlier for earlier, later in itertools.pairwise(recent)]
        if len(gaps) < _GAPS_NEEDED:
            return
        for length_s in _LENGTHS_S:
            if length_s < self.period_s and all(_is_multiple(gap, length_s) for gap in gaps):
                self._by_refusals_s = length_s
                return

    def forget_refusals(self) -> None:
        """Ignore the refusals so far, which have another explanation, until the next one."""
        self._refusals_count_until = -math.inf


def _is_multiple(gap_s: float, length_s: float) -> bool:
    times = round(gap_s / length_s)
    return times >= 1 and abs(gap_s - times * length_s) <= _REFUSALS_FIT * length_s


class SendSchedule(NamedTuple):
    """The times at which requests may leave: from `opens_at` for `open_s`, and again every `length_s` seconds.

    At most `amount` requests may leave in one of these intervals.
    """

    opens_at: float
    length_s: float
    open_s: float
    amount: int

    def index_of(self, moment: float) -> int:
        """Return the number of the window that contains a moment."""
        return math.floor((moment - self.opens_at) / self.length_s + 1e-9)

    def opening(self, index: int) -> float:
        """Return the moment at which a window opens."""
        return self.opens_at + index * self.length_s

    def next_open(self, moment: float) -> float:
        """Return the moment, or the next opening if all windows are closed at that moment."""
        index = self.index_of(moment)
        return moment if moment <= self.opening(index) + self.open_s else self.opening(index + 1)

    def is_closed(self, moment: float) -> bool:
        """Whether a moment lies between two windows, where the ends that headers reveal are expected."""
        offset_s = (moment - self.opens_at) % self.length_s
        return offset_s >= self.open_s or offset_s == 0

    @property
    def spacing_s(self) -> float:
        """Seconds per request at which the whole amount leaves while the window is open."""
        return self.open_s / self.amount


class FixedWindows:
    """The send schedule that headers reveal for one limit of requests, and the requests that it counts.

    Attributes:
        schedule: The times at which requests may leave; None while they are not known.
        known_from: Refusals of requests that left before this moment are explained by the windows.
    """

    def __init__(self, length: WindowLength) -> None:
        self._length = length
        self._period_s = length.period_s
        self._longest_reset_s = 0.0
        self._ends: deque[float] = deque(maxlen=_ENDS_KEPT)
        self._all_ends: deque[float] = deque(maxlen=_ALL_ENDS_KEPT)
        self._new_ends = 0
        self._sampled_at = -math.inf
        self._starts: list[float] = []
        self.known_from = -math.inf
        self.schedule: SendSchedule | None = None

    @property
    def length_s(self) -> float:
        """Length of the windows that headers have shown: the whole period without any."""
        return self._length.by_headers_s or self._period_s

    def observe(self, sent_at: float, bucket: RateLimit, now: float) -> None:
        """Learn from the rate-limit headers of an answer."""
        limit, remaining, reset_s = bucket.limit, bucket.remaining, bucket.reset_after_s
        if not limit or remaining is None or reset_s is None:
            return
        self._longest_reset_s = max(self._longest_reset_s, reset_s)
        was_known = self._length.by_headers_s is not None
        if self._length.observe_remaining(remaining, limit) is None:
            self.schedule = None
            return
        if not was_known:
            self.known_from = now
        end = sent_at + reset_s
        self._all_ends.append(end)
        if self.schedule is not None and not self.schedule.is_closed(end):
            self.schedule = self._infer()
        if sent_at < self._sampled_at + self._longest_reset_s / _ENDS_PER_WINDOW:
            return
        self._sampled_at = sent_at
        self._ends.append(end)
        self._new_ends += 1
        if self._new_ends >= _INFER_EVERY and len(self._ends) >= _ENDS_NEEDED:
            self._new_ends = 0
            had_one, self.schedule = self.schedule is not None, self._infer()
            if self.schedule is not None and not had_one:
                self.known_from = now + self.schedule.length_s

    def _infer(self) -> SendSchedule | None:
        length_s = self._length.by_headers_s
        assert length_s is not None  # noqa: S101 - `observe` has just set it
        if not _LEAST_RESET * length_s <= self._longest_reset_s <= _MOST_RESET * length_s:
            return None
        ends = sorted(self._ends)
        if ends[-1] - ends[0] < length_s:
            return None  # all ends are of one window, which shows no period
        phases = sorted(end % length_s for end in ends)
        gaps = [(later - earlier, earlier) for earlier, later in itertools.pairwise(phases)]
        gap_s, last = max([*gaps, (phases[0] + length_s - phases[-1], phases[-1])])
        count = len(phases)
        if count * (1 - gap_s / length_s) ** (count - 1) > _CHANCE_ACCEPTED:
            return None  # the resets are not in step
        # The recent ends give the phase, all ends together how far they spread.
        middle = last - (length_s - gap_s) / 2
        offsets = [(end - middle + length_s / 2) % length_s - length_s / 2 for end in self._all_ends]
        first_s, last_s = min(offsets), max(offsets)
        unseen_s = _UNSEEN_SAMPLES * (last_s - first_s) / len(offsets) + _TIMER_S
        open_s = length_s - (last_s - first_s) - 2 * unseen_s
        if open_s < _LEAST_OPEN * length_s:
            return None
        return SendSchedule(middle + last_s + unseen_s, length_s, open_s, int(self._length.amount))

    # Requests that leave

    def add(self, at: float) -> None:
        """Count a request that leaves at a moment."""
        insort(self._starts, at)
        if self._starts[0] < at - 3 * self._period_s:
            del self._starts[: bisect_left(self._starts, at - 2 * self._period_s)]

    def remove(self, at: float) -> None:
        """Stop counting a request that was to leave at a moment; nothing happens if there is none."""
        place = bisect_left(self._starts, at)
        if place < len(self._starts) and self._starts[place] == at:
            del self._starts[place]

    def earliest(self, moment: float, share: float, limit: float = math.inf) -> float:
        """Return the moment, or the next one at which a request arrives in a window that has room for it.

        Args:
            moment: Earliest time at which the request could leave.
            share: Usable share of a window's amount and of the limit.
            limit: Requests in the whole period.
        """
        schedule = self.schedule
        if schedule is None:
            return moment
        most = max(1, int(schedule.amount * share) - int(schedule.amount * _SPARE))
        moment = schedule.next_open(self._room_in_period_at(moment, schedule, limit * share))
        while True:
            index = schedule.index_of(moment)
            # Requests that left between two windows, before the schedule was known, may arrive in this one, too.
            closed_s = _CLOSED_COUNTED * (schedule.length_s - schedule.open_s)
            begin, end = schedule.opening(index) - closed_s, schedule.opening(index + 1) - closed_s
            if bisect_left(self._starts, end) - bisect_left(self._starts, begin) < most:
                return moment
            moment = schedule.opening(index + 1)

    def _room_in_period_at(self, moment: float, schedule: SendSchedule, most: float) -> float:
        """Return the moment, or the next one at which the whole period has room.

        Amounts per window are rounded up (10,000 a minute as 167 a second is 10,020), and the user's own limit may be
        lower than the provider's.
        """
        is_more = schedule.amount * self._period_s > most * schedule.length_s
        if not is_more or len(self._starts) < most:
            return moment
        # Requests that leave within the period plus the spread of their delays may all arrive within the period.
        return max(moment, self._starts[-max(1, int(most))] + self._period_s + schedule.length_s - schedule.open_s)
