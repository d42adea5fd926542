"""How long models take to their first token, and how long to wait for it before a second attempt begins. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

__all__ = ["FirstTokenTimes"]

_KEPT = 200
_ENOUGH = 20


class _Window:
    """The last times of one model."""

    def __init__(self) -> None:
        self._in_order: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, seconds: float) -> None:
        if len(self._in_order) >= _KEPT:
            del self._sorted[bisect_left(self._sorted, self._in_order.popleft())]
        self._in_order.append(seconds)
        insort(self._sorted, seconds)

    def percentile(self, percent: int) -> float:
        """Return the least time that so many of a hundred do not exceed."""
        return self._sorted[math.ceil(percent * len(self._sorted) / 100) - 1]


class FirstTokenTimes:
    """The patience with models: the same for all, or a percentile of what each took lately.

    Args:
        hedge_after: Seconds, or a percentile as `ClientOptions` takes it: "p95".
    """

    def __init__(self, hedge_after: float | str) -> None:
        self._seconds = None if isinstance(hedge_after, str) else float(hedge_after)
        self._percent = int(hedge_after[1:]) if isinstance(hedge_after, str) else 0
        self._windows: dict[str, _Window] = {}

    def note(self, model: str, seconds: float) -> None:
        """Note how long a first token took, or at least would have taken where nobody waited any longer.

        Without the latter the slow ones would be missing, and each round of hedging would make the next one earlier.
        """
        if self._seconds is None:
            self._windows.setdefault(model, _Window()).add(seconds)

    def patience_s(self, model: str) -> float | None:
        """Return how long to wait for a model; None as long as too little is known of it."""
        window = self._windows.get(model)
        if self._seconds is not None or window is None or len(window) < _ENOUGH:
            return self._seconds
        return window.percentile(self._percent)
