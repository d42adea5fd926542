"""Limits of a provider that its responses show: named in their headers, or guessed from a refusal. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from lm_deluge.dispatch.scheduling.limiter import Limit
from lm_deluge.dispatch.scheduling.rate_limit import RateLimitState
from lm_deluge.wire.rate_limit_headers import MINUTE_S, Dimension, RateLimit

__all__ = ["BucketPeriods", "ServedAmounts", "guess_limit", "learn_limit"]

# A fixed window lets twice its amount pass around its end. Output is counted as it is generated, but known at the end
# of a response, which may have taken many minutes.
_MOST_OF_LIMIT, _MOST_OF_OUTPUT_LIMIT = 2.0, 20.0

_RESPONSES_AGREEING = 3  # that imply the same period, before a period other than a minute is believed
_GUESS_NEEDS = 5  # accepted requests within a minute; fewer show little about a limit


def learn_limit(limits: list[RateLimitState], dimension: Dimension, amount: float, period_s: float) -> None:
    """Set the amount of the limit with this dimension and period; add the limit if there is none."""
    for limit in limits:
        if limit.dimension == dimension and limit.period_s == period_s:
            limit.set_amount(amount)
            return
    limits.append(RateLimitState(Limit(dimension, amount, period_s)))


def guess_limit(starts: Iterable[float], sent_at: float) -> list[RateLimitState]:
    """Return the requests accepted within the last minute as a limit, because the provider named none.

    Args:
        starts: The moments at which requests were sent, in order.
        sent_at: When the refused request was sent.

    Returns:
        One limit, or none after too few requests.
    """
    recent = [start for start in starts if sent_at - MINUTE_S < start <= sent_at]
    if len(recent) < _GUESS_NEEDS:
        return []
    took_s = max(sent_at - recent[0], 1.0)
    guess = RateLimitState(Limit("requests", len(recent) * MINUTE_S / took_s), is_guess=True)
    for start in recent:
        guess.baseline.add_request(start)
    return [guess]


class ServedAmounts:
    """What a provider has served within the last minute, for comparison with the limits that its headers name."""

    def __init__(self) -> None:
        self._amounts: deque[tuple[float, float, float, float]] = deque()  # moment, requests, input and output tokens
        self._requests = self._input_tokens = self._output_tokens = 0.0  # their sums

    def add(self, now: float, *, requests: float = 0.0, input_tokens: float = 0.0, output_tokens: float = 0.0) -> None:
        """Note what was served."""
        self._forget_before(now - MINUTE_S)  # also where no limit is known, and nothing compared
        self._amounts.append((now, requests, input_tokens, output_tokens))
        self._requests += requests
        self._input_tokens += input_tokens
        self._output_tokens += output_tokens

    def _forget_before(self, moment: float) -> None:
        amounts = self._amounts
        while amounts and amounts[0][0] <= moment:
            _, requests, input_tokens, output_tokens = amounts.popleft()
            self._requests -= requests
            self._input_tokens -= input_tokens
            self._output_tokens -= output_tokens

    def contradicts(self, dimension: Dimension, amount: float, period_s: float, now: float) -> bool:
        """Whether far more was served within the last minute than a limit of this amount allows in its period.

        A period of less than a minute is allowed several times the amount.
        """
        allowed = amount * max(1.0, MINUTE_S / period_s)
        self._forget_before(now - MINUTE_S)
        if dimension == "output_tokens":
            return self._output_tokens > _MOST_OF_OUTPUT_LIMIT * allowed
        return (self._requests if dimension == "requests" else self._input_tokens) > _MOST_OF_LIMIT * allowed


class BucketPeriods:
    """The periods of a provider's limits, inferred from headers that do not name them."""

    def __init__(self) -> None:
        # With the remaining amounts of the responses that agree.
        self._periods: dict[Dimension, tuple[float, frozenset[float]]] = {}

    def find(self, bucket: RateLimit) -> float | None:
        """Return the period of a bucket: a minute unless headers imply another one; None while that is not certain."""
        if bucket.period_s is not None and not bucket.is_inferred:
            return bucket.period_s
        if bucket.remaining == bucket.limit and bucket.dimension not in self._periods:
            return None  # a full bucket does not show how fast it refills
        inferred_s = bucket.period_s or MINUTE_S
        known_s, seen = self._periods.get(bucket.dimension, (inferred_s, frozenset[float]()))
        if known_s != MINUTE_S and len(seen) < _RESPONSES_AGREEING and bucket.reset_after_s:
            # If responses imply different periods, it is a window of a minute that had just started.
            known_s = known_s if known_s == inferred_s else MINUTE_S
            seen |= {bucket.remaining or 0.0}
        if bucket.reset_after_s and bucket.remaining != bucket.limit:
            self._periods[bucket.dimension] = known_s, seen
        return known_s if known_s == MINUTE_S or len(seen) >= _RESPONSES_AGREEING else None
