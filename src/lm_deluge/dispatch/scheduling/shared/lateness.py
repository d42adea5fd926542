"""How late this process wakes for its slots, and how late it may use one. Pure."""

from __future__ import annotations

import math

__all__ = ["LEAST_LATENESS_S", "Lateness"]

LEAST_LATENESS_S = 0.02  # event loops are late by milliseconds; below this no slot is given up
_STEPS = 4  # per doubling of the lateness: allowances differ by a fifth
_KEPT_S = 120.0  # of two counts: a process of many has some ten slots in that time


class Lateness:
    """The distribution of the last minutes.

    Two things cost slots: all processes leave a margin for the lateness that is allowed, and a slot that comes later
    than that is given up, because requests that are late together would exceed the limit. The allowance minimises the
    sum. So a process that is often late may be late, and a single stall loses the slots within it.
    """

    def __init__(self) -> None:
        self._counts: list[dict[int, list[float]]] = [{}, {}]  # by step: how many, and the longest; newer ones first
        self._began_at = -math.inf
        self._is_changed = False
        self._allowed = 0.0

    def note(self, late_s: float, now: float) -> None:
        """Note how late a slot found its process."""
        if now >= self._began_at + _KEPT_S:
            self._counts = [{}, self._counts[0] if now < self._began_at + 2 * _KEPT_S else {}]
            self._began_at = now
            self._is_changed = True
        step = 0 if late_s <= LEAST_LATENESS_S else math.ceil(_STEPS * math.log2(late_s / LEAST_LATENESS_S))
        found = self._counts[0].get(step)
        if found is None:
            self._counts[0][step] = [1, late_s]
            self._is_changed = True
            return
        found[0] += 1
        if step or late_s > found[1]:
            found[1] = max(found[1], late_s)
            self._is_changed = True

    def allowed_s(self, period_s: float) -> float:
        """Return how late a slot may be used, if the limits count for so many seconds."""
        if self._is_changed:
            self._is_changed = False
            self._allowed = self._best(period_s)
        return self._allowed

    def _best(self, period_s: float) -> float:
        steps = sorted(self._counts[0].keys() | self._counts[1].keys(), reverse=True)
        entries = [[count[step] for count in self._counts if step in count] for step in steps]
        total = sum(count for found in entries for count, _ in found)
        given_up, best = 0.0, (math.inf, 0.0)
        for found in entries:
            longest = max(late_s for _, late_s in found)
            best = min(best, (longest / period_s + given_up / total, longest))
            given_up += sum(count for count, _ in found)
        return best[1]
