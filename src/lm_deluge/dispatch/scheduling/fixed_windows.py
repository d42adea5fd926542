"""Slices in which a provider keeps a limit: ten a second where the limit says 600 a minute, say.

Who sends evenly is refused there now and then, because of jitter: what leaves within W + J may arrive within W, and W
is short. Headers tell of the slices: never more is left than a slice has, and the resets come in step. From then on
requests leave only while they arrive in the same slice for sure, whether they are fast or slow, and all that a slice
has fits in there as long as J is shorter than W.

A request that left at t and met a reset after r s tells of a slice's end at t + d + r, where d was its way. So t + r
spreads as much as d does: the latest of them is when the fastest arrive in the next slice, the earliest when the
slowest do. No clock of the provider's is needed.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, insort
from collections import deque
from typing import NamedTuple

from lm_deluge.wire.rate_limit_headers import RateLimit

__all__ = ["FixedWindows", "Grid"]

_KEPT, _ALL_KEPT = 200, 2_000
_ENOUGH = 8
_LOOK_EVERY = 8
_NOTED_PER_SLICE = 40  # so that those kept are of several
_MOST_OF_LIMIT = 0.6  # more left than this: no slices
_WIDTHS_S = (30.0, 20.0, 15.0, 12.0, 10.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0)
_WIDTH_FIT = 0.08
_LEAST_RESET, _MOST_RESET = 0.5, 1.02
_DOUBT = 1e-3  # how likely evidence for slices may be chance
_LATENESS_S = 0.005
_UNSEEN = 3.0
_LEAST_OPEN = 0.1
_CLOSED = 0.9
_SPARE = 0.003  # for the one in thousands that was slower than all before


class Grid(NamedTuple):
    """Slices: one opens to what leaves at `opens_at`, for `open_s`; the next one `width_s` later, and so on."""

    opens_at: float
    width_s: float
    open_s: float
    amount: int

    def slice_of(self, moment: float) -> int:
        """Return in which slice a moment lies."""
        return math.floor((moment - self.opens_at) / self.width_s + 1e-9)

    def opening(self, index: int) -> float:
        """Return when a slice opens."""
        return self.opens_at + index * self.width_s

    def next_open(self, moment: float) -> float:
        """Return the moment, or when the next slice opens if it lies in none."""
        index = self.slice_of(moment)
        return moment if moment <= self.opening(index) + self.open_s else self.opening(index + 1)

    def has_end(self, moment: float) -> bool:
        """Tell whether a moment lies where slices end."""
        offset_s = (moment - self.opens_at) % self.width_s
        return offset_s >= self.open_s or offset_s == 0

    @property
    def spacing_s(self) -> float:
        """Seconds per request, for all of a slice to leave while it is open."""
        return self.open_s / self.amount


class FixedWindows:
    """What headers tell about the slices of one limit of requests."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._most_left = 0.0
        self._longest_reset_s = 0.0
        self._ends: deque[float] = deque(maxlen=_KEPT)
        self._all_ends: deque[float] = deque(maxlen=_ALL_KEPT)
        self._unlooked = 0
        self._starts: list[float] = []
        self._noted_at = -math.inf
        self.suspected_s: float | None = None
        self.known_from = -math.inf  # refusals of what left before are no surprise
        self.grid: Grid | None = None

    def saw(self, sent_at: float, bucket: RateLimit, now: float) -> None:
        """Note what an answer's headers say."""
        limit, remaining, reset_s = bucket.limit, bucket.remaining, bucket.reset_after_s
        if not limit or remaining is None or reset_s is None:
            return
        self._most_left = max(self._most_left, remaining + 1)  # with the request itself
        self._longest_reset_s = max(self._longest_reset_s, reset_s)
        if self._most_left > _MOST_OF_LIMIT * limit:
            self.grid = self.suspected_s = None
            return
        if self.suspected_s is None:
            self.known_from = now
        self.suspected_s = self._width_s(limit)
        end = sent_at + reset_s
        self._all_ends.append(end)
        if self.grid is not None and not self.grid.has_end(end):
            self.grid = self._look(limit)
        if sent_at < self._noted_at + self._longest_reset_s / _NOTED_PER_SLICE:
            return
        self._noted_at = sent_at
        self._ends.append(end)
        self._unlooked += 1
        if self._unlooked >= _LOOK_EVERY and len(self._ends) >= _ENOUGH:
            self._unlooked = 0
            had_one, self.grid = self.grid is not None, self._look(limit)
            if self.grid is not None and not had_one:
                self.known_from = now + self.grid.width_s

    def _look(self, limit: float) -> Grid | None:
        width_s = self._width_s(limit)
        if not _LEAST_RESET * width_s <= self._longest_reset_s <= _MOST_RESET * width_s:
            return None
        ends = sorted(self._ends)
        if ends[-1] - ends[0] < width_s:
            return None  # all of one slice: no step is seen yet
        phases = sorted(end % width_s for end in ends)
        gaps = [(later - earlier, earlier) for earlier, later in itertools.pairwise(phases)]
        gap_s, last = max([*gaps, (phases[0] + width_s - phases[-1], phases[-1])])
        count = len(phases)
        if count * (1 - gap_s / width_s) ** (count - 1) > _DOUBT:
            return None  # the resets come at any time
        # Of few ends the step shows, of many how far they spread.
        middle = last - (width_s - gap_s) / 2
        offsets = [(end - middle + width_s / 2) % width_s - width_s / 2 for end in self._all_ends]
        first_s, last_s = min(offsets), max(offsets)
        unseen_s = _UNSEEN * (last_s - first_s) / len(offsets) + _LATENESS_S
        open_s = width_s - (last_s - first_s) - 2 * unseen_s
        if open_s < _LEAST_OPEN * width_s:
            return None
        return Grid(middle + last_s + unseen_s, width_s, open_s, int(self._most_left))

    def _width_s(self, limit: float) -> float:
        """Return how long a slice is: as long as what it has would take, or nearly so."""
        width_s = self._period_s * self._most_left / limit
        usual = [*_WIDTHS_S, *(self._period_s / parts for parts in range(2, 7))]
        nearest = min(usual, key=lambda each: abs(each - width_s))
        return nearest if abs(nearest - width_s) <= _WIDTH_FIT * width_s else width_s

    # What leaves

    def starts(self, at: float) -> None:
        """Note a request that leaves then."""
        insort(self._starts, at)
        if self._starts[0] < at - 3 * self._period_s:
            del self._starts[: bisect_left(self._starts, at - 2 * self._period_s)]

    def starts_not(self, at: float) -> None:
        """Note that one that was to leave then does not."""
        place = bisect_left(self._starts, at)
        if place < len(self._starts) and self._starts[place] == at:
            del self._starts[place]

    def open_at(self, moment: float, share: float, limit: float = math.inf) -> float:
        """Return the moment, or the next one at which a request arrives in a slice that has room for it.

        Args:
            moment: When it could leave at the earliest.
            share: Of what a slice has, and of the limit, how much may be used.
            limit: Of the whole period.
        """
        grid = self.grid
        if grid is None:
            return moment
        most = max(1, int(grid.amount * share) - int(grid.amount * _SPARE))
        moment = grid.next_open(self._room_in_period_at(moment, grid, limit * share))
        while True:
            index = grid.slice_of(moment)
            # What left while it was closed, before the slices were known, may arrive in this one too. The grid moves
            # a little while more is learned of it.
            closed_s = _CLOSED * (grid.width_s - grid.open_s)
            begin, end = grid.opening(index) - closed_s, grid.opening(index + 1) - closed_s
            if bisect_left(self._starts, end) - bisect_left(self._starts, begin) < most:
                return moment
            moment = grid.opening(index + 1)

    def _room_in_period_at(self, moment: float, grid: Grid, most: float) -> float:
        """Return the moment, or the next one at which the whole period has room.

        Slices are rounded up: 10,000 a minute as 167 a second would be 10,020. And the user's own limit may be lower.
        """
        is_more = grid.amount * self._period_s > most * grid.width_s
        if not is_more or len(self._starts) < most:
            return moment
        # Of what leaves within the period, and as much as the ways differ, all may arrive within the period.
        return max(moment, self._starts[-max(1, int(most))] + self._period_s + grid.width_s - grid.open_s)
