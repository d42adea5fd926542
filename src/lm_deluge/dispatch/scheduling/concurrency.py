"""How many requests may be under way at once, and how an overloaded provider lowers that number."""

from __future__ import annotations

import math

__all__ = ["ConcurrencyLimit"]

_CUT = 0.7


class ConcurrencyLimit:
    """A number of places that shrinks by a factor when the provider has no capacity, and grows by one step at a time.

    Growth is by success, not by time: one more place after as many successes as there are places.
    """

    def __init__(self, maximum: int | None = None) -> None:
        self.maximum = maximum
        self.used = 0
        self._allowed = math.inf if maximum is None else float(maximum)
        self._cut_at = -math.inf

    @property
    def allowed(self) -> float:
        """How many there are at present."""
        return self._allowed

    @property
    def has_room(self) -> bool:
        """Whether one more may be taken."""
        return self.used + 1 <= self._allowed

    def acquire(self) -> None:
        """Take a place."""
        self.used += 1

    def release(self) -> None:
        """Give a place back."""
        self.used = max(0, self.used - 1)

    def on_overload(self, sent_at: float, now: float) -> None:
        """Lower the number, once for all requests that were under way together."""
        if sent_at < self._cut_at:
            return
        self._cut_at = now
        self._allowed = max(1.0, _CUT * min(self._allowed, max(1, self.used)))

    def on_success(self) -> None:
        """Raise the number a little, up to where it began."""
        if self._allowed < math.inf:
            maximum = math.inf if self.maximum is None else self.maximum
            self._allowed = min(maximum, self._allowed + 1 / self._allowed)
