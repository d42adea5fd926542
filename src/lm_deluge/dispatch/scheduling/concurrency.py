"""The number of requests in flight at once, which an overloaded provider lowers."""

from __future__ import annotations

import math

__all__ = ["ConcurrencyLimit"]

_DECREASE = 0.7  # gentler than TCP's half: a provider's overload is shared by its other users' requests


class ConcurrencyLimit:
    """A limit on requests in flight: multiplicative decrease on overload, additive increase on success.

    It grows by success, not by time: by one after as many successes as it allows requests.
    """

    def __init__(self, maximum: int | None = None) -> None:
        self.maximum = maximum
        self.used = 0
        self._allowed = math.inf if maximum is None else float(maximum)
        self._decreased_at = -math.inf

    @property
    def allowed(self) -> float:
        """The present limit."""
        return self._allowed

    @property
    def has_room(self) -> bool:
        """Whether another request may start."""
        return self.used + 1 <= self._allowed

    def acquire(self) -> None:
        """Count a request that starts."""
        self.used += 1

    def release(self) -> None:
        """Stop counting a request."""
        self.used = max(0, self.used - 1)

    def on_overload(self, sent_at: float, now: float) -> None:
        """Lower the limit, once for all requests that were in flight together."""
        if sent_at < self._decreased_at:
            return
        self._decreased_at = now
        self._allowed = max(1.0, _DECREASE * min(self._allowed, max(1, self.used)))

    def on_success(self) -> None:
        """Raise the limit a little, up to its initial value."""
        if self._allowed < math.inf:
            maximum = math.inf if self.maximum is None else self.maximum
            self._allowed = min(maximum, self._allowed + 1 / self._allowed)
