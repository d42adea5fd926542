"""How long a model's answers have been lately."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

__all__ = ["RecentLengths"]

_KEPT = 400
_ENOUGH = 20
_SHARE = 0.9
_STEP = 0.2
_UNKNOWN = 4_096  # before anything is known: rather too much, the rest is given back


class RecentLengths:
    """The output tokens of a model's last answers, and what to expect of the next one."""

    def __init__(self) -> None:
        self._in_order: deque[int] = deque()
        self._sorted: list[int] = []
        self._sum = 0.0
        self._squares = 0.0
        self._seen = 0
        self._expected: int | None = None

    def add(self, tokens: int, under_way: int) -> None:
        """Note the length of an answer that came to its own end, while others are still under way."""
        self._seen += 1
        # Short answers end first: what ends first says nothing about all.
        is_known = self._expected is not None or self._seen >= max(_ENOUGH, 2 * under_way)
        if len(self._in_order) >= _KEPT:
            oldest = self._in_order.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
            self._sum -= oldest
            self._squares -= oldest * oldest
        self._in_order.append(tokens)
        insort(self._sorted, tokens)
        self._sum += tokens
        self._squares += tokens * tokens
        if is_known:
            longest = self._sorted[int(_SHARE * (len(self._sorted) - 1))]
            # With a thousand answers under way a small change would be a large sum: it changes in steps.
            if self._expected is None or abs(longest - self._expected) > _STEP * self._expected:
                self._expected = longest

    def estimate(self, max_output_tokens: int | None) -> int:
        """Return what to reserve: nine of ten recent answers were no longer; never more than the request allows."""
        expected = self._expected
        if expected is None:
            return _UNKNOWN if max_output_tokens is None else max_output_tokens
        return expected if max_output_tokens is None else min(expected, max_output_tokens)

    @property
    def deviation(self) -> float:
        """The standard deviation of recent lengths; 0 where too little is known."""
        count = len(self._in_order)
        if self._expected is None:
            return 0.0
        return math.sqrt(max(0.0, self._squares / count - (self._sum / count) ** 2))
