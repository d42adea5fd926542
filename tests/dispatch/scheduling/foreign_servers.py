"""Limiters of other packages as servers in virtual time: only their clocks are replaced."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from dispatch.scheduling.servers import Verdict


class VirtualTime:
    """Replaces `time` in their modules."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now


@contextmanager
def set_clocks() -> Iterator[VirtualTime]:
    from limits.storage import memory
    from loguru import logger
    from mocklimit.ratelimit import fixed_window, sliding_window, token_bucket

    clock = VirtualTime()
    logger.disable("mocklimit")
    with ExitStack() as stack:
        for module in (memory, fixed_window, sliding_window, token_bucket):
            stack.enter_context(patch.object(module, "time", clock))
        yield clock


class MovingWindow:
    """The strict limiter of the package `limits`: never more than `amount` in any minute."""

    def __init__(self, clock: VirtualTime, amount: int) -> None:
        from limits import RateLimitItemPerMinute
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        self.clock, self.amount, self.period_s = clock, amount, 60.0
        self.limiter = MovingWindowRateLimiter(MemoryStorage())
        self.item = RateLimitItemPerMinute(amount)

    def admit(self, now: float, cost: float = 1.0) -> Verdict:
        self.clock.now = now
        is_admitted = self.limiter.hit(self.item, cost=int(cost))
        if is_admitted:
            return Verdict(True, 0.0, 0.0)
        stats = self.limiter.get_window_stats(self.item)
        return Verdict(False, stats.remaining, max(0.0, stats.reset_time - now))


class MockLimit:
    """One of mocklimit's four algorithms, with the headers that its server derives from it."""

    def __init__(self, clock: VirtualTime, kind: str, amount: int, slice_s: float = 10.0) -> None:
        from mocklimit.ratelimit import FixedWindowLimiter, QuantizedLimiter, SlidingWindowLimiter, TokenBucketLimiter

        self.clock, self.amount, self.period_s = clock, amount, 60.0
        made: Mapping[str, Any] = {
            "sliding_window": lambda: SlidingWindowLimiter(amount, 60.0),
            "fixed_window": lambda: FixedWindowLimiter(amount, 60.0),
            "token_bucket": lambda: TokenBucketLimiter(amount, amount / 60),
            "quantized": lambda: QuantizedLimiter(amount, 60.0, math.ceil(amount * slice_s / 60), slice_s),
        }
        self.limiter = made[kind]()

    def admit(self, now: float, cost: float = 1.0) -> Verdict:
        self.clock.now = now
        result = self.limiter.check("a key", int(cost))
        reset_s = result.reset_after_seconds if result.allowed else result.retry_after_seconds
        return Verdict(result.allowed, result.remaining, reset_s)

    def headers(self, verdict: Verdict) -> dict[str, str]:
        from mocklimit.server.config import ResetFormat
        from mocklimit.server.formatters import format_reset

        return {
            "x-ratelimit-limit-requests": str(self.amount),
            "x-ratelimit-remaining-requests": str(verdict.remaining),
            "x-ratelimit-reset-requests": format_reset(verdict.reset_after_s, ResetFormat.go_duration),
        }
