"""Whether a failed attempt is followed by another one, and when. Pure: time and chance are arguments."""

from __future__ import annotations

import msgspec

from lm_deluge.errors import APIError, DelugeError, OverloadedError

__all__ = ["GiveUp", "Wait", "decide"]

_BASE_S = 0.5
_OVERLOADED_BASE_S = 2.0
_LONGEST_S = 30.0


class Wait(msgspec.Struct, frozen=True):
    """Try again after `seconds`."""

    seconds: float


class GiveUp(msgspec.Struct, frozen=True):
    """Raise the error. `hint` says why waiting was no way, where that is not plain."""

    hint: str | None = None


def decide(
    error: DelugeError,
    *,
    attempt: int,
    max_attempts: int,
    max_retry_after_s: float,
    time_left_s: float,
    chance: float,
) -> Wait | GiveUp:
    """Decide about a call of which nothing was delivered yet.

    Once a delta was delivered nobody asks: a restart would show it twice and be billed twice.

    Args:
        error: What ended the attempt.
        attempt: How many attempts there were, this one included.
        max_attempts: How many there may be.
        max_retry_after_s: Longest wait that a provider may ask for.
        time_left_s: Until the whole call must be over; infinite where there is no such limit.
        chance: From 0 to 1, drawn anew each time.
    """
    if not _is_retryable(error) or attempt >= max_attempts:
        return GiveUp()
    if error.max_retries is not None and attempt > error.max_retries:
        return GiveUp()
    asked = error.retry_after_s if isinstance(error, APIError) else None
    if asked is None:
        base = _OVERLOADED_BASE_S if isinstance(error, OverloadedError) else _BASE_S
        # Full jitter: clients that failed together do not come back together.
        wait = chance * min(base * 2 ** (attempt - 1), _LONGEST_S)
    else:
        if asked > max_retry_after_s:
            return GiveUp(f"It wants a wait of {asked:g} s, more than max_retry_after_s={max_retry_after_s:g} allows.")
        wait = asked * (1 + 0.1 * chance)
    if wait >= time_left_s:
        return GiveUp("The wait before another attempt would outlast Timeouts(total=...).")
    return Wait(wait)


def _is_retryable(error: DelugeError) -> bool:
    """Obey the provider's `x-should-retry`; without it the error's class decides, 501 and 505 excepted."""
    if isinstance(error, APIError):
        if error.should_retry is not None:
            return error.should_retry
        if error.status_code in (501, 505):
            return False
    return error.retryable
