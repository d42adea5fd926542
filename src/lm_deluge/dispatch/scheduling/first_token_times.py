"""Times to first token per model, and how long to wait before a second attempt starts. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

__all__ = ["FirstTokenTimes"]

_TIMES_KEPT = 200  # a p99 is one of the two slowest then, and a change of the model shows after minutes
_TIMES_NEEDED = 20  # with fewer, a p95 is just the slowest


class _Window:
    """The last times of one model."""

    def __init__(self) -> None:
        self._in_order: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, seconds: float) -> None:
        if len(self._in_order) >= _TIMES_KEPT:
            del self._sorted[bisect_left(self._sorted, self._in_order.popleft())]
        self._in_order.append(seconds)
        insort(self._sorted, seconds)

    def percentile(self, percent: int) -> float:
        """Return the smallest recorded time that at least `percent` percent of all do not exceed."""
        return self._sorted[math.ceil(percent * len(self._sorted) / 100) - 1]


class FirstTokenTimes:
    """The time after which a silent attempt is hedged: a fixed one, or a percentile of each model's recent times.

    Args:
        hedge_after: Seconds, or a percentile as `ClientOptions` takes it: "p95".
    """

    def __init__(self, hedge_after: float | str) -> None:
        self._seconds = None if isinstance(hedge_after, str) else float(hedge_after)
        self._percent = int(hedge_after[1:]) if isinstance(hedge_after, str) else 0
        self._windows: dict[str, _Window] = {}

    def note(self, model: str, seconds: float) -> None:
        """Record a time to first token, or the time that an attempt was silent before it was abandoned.

        Without the abandoned attempts the slow ones would be missing, and each hedge would make the next one earlier.
        """
        if self._seconds is None:
            self._windows.setdefault(model, _Window()).add(seconds)

    def patience_s(self, model: str) -> float | None:
        """Return how long to wait for a model's first token; None while too few times are known."""
        window = self._windows.get(model)
        if self._seconds is not None or window is None or len(window) < _TIMES_NEEDED:
            return self._seconds
        return window.percentile(self._percent)
