"""Limits of a provider that its responses show: named in their headers, or guessed from a refusal. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from lm_deluge.dispatch.scheduling.limiter import Limit
from lm_deluge.dispatch.scheduling.rate_limit import RateLimitState
from lm_deluge.wire.rate_limit_headers import MINUTE_S, Dimension

__all__ = ["guess_limit", "learn_limit"]

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
