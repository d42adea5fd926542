"""Pure models of servers with a rate limit, by four algorithms, independent of our limiter."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple, Protocol, runtime_checkable


class Verdict(NamedTuple):
    is_admitted: bool
    remaining: float
    reset_after_s: float


class Server(Protocol):
    amount: float
    period_s: float

    def admit(self, now: float, cost: float = 1.0) -> Verdict: ...


@runtime_checkable
class MakesHeaders(Protocol):
    def headers(self, verdict: Verdict) -> dict[str, str]: ...


class SlidingWindow:
    """Never more than `amount` in any `period_s`; refused requests count, too."""

    def __init__(self, amount: float, period_s: float) -> None:
        self.amount, self.period_s = amount, period_s
        self.entries: deque[tuple[float, float]] = deque()
        self.used = 0.0

    def admit(self, now: float, cost: float = 1.0) -> Verdict:
        while self.entries and self.entries[0][0] <= now - self.period_s:
            self.used -= self.entries.popleft()[1]
        is_admitted = self.used + cost <= self.amount + 1e-6
        self.entries.append((now, cost))
        self.used += cost
        return Verdict(is_admitted, max(0.0, self.amount - self.used), self.entries[0][0] + self.period_s - now)


class TokenBucket:
    """Token bucket: starts full, refills at a constant rate."""

    def __init__(self, amount: float, period_s: float, capacity: float | None = None) -> None:
        self.amount, self.period_s = amount, period_s
        self.capacity = amount if capacity is None else capacity
        self.level, self.seen_at = self.capacity, -math.inf

    def admit(self, now: float, cost: float = 1.0) -> Verdict:
        if self.seen_at > -math.inf:
            gained = (now - self.seen_at) * self.amount / self.period_s
            self.level = min(self.capacity, self.level + gained)
        self.seen_at = now
        is_admitted = self.level + 1e-6 >= cost
        if is_admitted:
            self.level -= cost
        return Verdict(is_admitted, self.level, (self.capacity - self.level) * self.period_s / self.amount)


class FixedWindow:
    """Fixed window: counts from one full period to the next."""

    def __init__(self, amount: float, period_s: float, phase_s: float = 0.0) -> None:
        self.amount, self.period_s, self.phase_s = amount, period_s, phase_s
        self.window, self.used = -1, 0.0

    def admit(self, now: float, cost: float = 1.0) -> Verdict:
        window = math.floor((now + self.phase_s) / self.period_s)
        if window != self.window:
            self.window, self.used = window, 0.0
        is_admitted = self.used + cost <= self.amount + 1e-6
        if is_admitted:
            self.used += cost
        return Verdict(is_admitted, self.amount - self.used, (window + 1) * self.period_s - self.phase_s - now)


class Quantised:
    """A limit per minute that is enforced in fixed sub-windows."""

    def __init__(self, amount: float, period_s: float, quantum_s: float, phase_s: float = 0.0) -> None:
        self.amount, self.period_s = amount, period_s
        self.outer = FixedWindow(amount, period_s, phase_s)
        self.inner = FixedWindow(amount * quantum_s / period_s, quantum_s, phase_s)

    def admit(self, now: float, cost: float = 1.0) -> Verdict:
        inner = self.inner.admit(now, cost)
        if not inner.is_admitted:
            return Verdict(False, 0.0, inner.reset_after_s)
        return self.outer.admit(now, cost)
