"""Whether a failed attempt is followed by another one, and when. Pure: time and chance are arguments."""

from __future__ import annotations

import math
from typing import overload

import msgspec

from lm_deluge.errors import APIError, DelugeError, OverloadedError, ProtocolError, Scope

__all__ = ["GiveUp", "Switch", "Wait", "decide", "too_long"]

_BASE_S = 0.5
_OVERLOADED_BASE_S = 2.0
_LONGEST_S = 30.0


class Wait(msgspec.Struct, frozen=True):
    """Try again after `seconds`."""

    seconds: float


class GiveUp(msgspec.Struct, frozen=True):
    """Raise the error. `hint` says why waiting was no way, where that is not plain."""

    hint: str | None = None


class Switch(msgspec.Struct, frozen=True):
    """Try again at once somewhere else, and leave what failed alone for `rest_s` seconds; infinite: for good.

    `scope` is what failed: the key, the model (with that key), or all of the provider.
    """

    scope: Scope
    rest_s: float


@overload
def decide(
    error: DelugeError,
    *,
    attempt: int,
    max_attempts: int,
    max_retry_after_s: float,
    time_left_s: float,
    chance: float,
) -> Wait | GiveUp: ...


@overload
def decide(
    error: DelugeError,
    *,
    attempt: int,
    max_attempts: int,
    max_retry_after_s: float,
    time_left_s: float,
    chance: float,
    can_switch: bool,
) -> Wait | Switch | GiveUp: ...


def decide(
    error: DelugeError,
    *,
    attempt: int,
    max_attempts: int,
    max_retry_after_s: float,
    time_left_s: float,
    chance: float,
    can_switch: bool = False,
) -> Wait | Switch | GiveUp:
    """Decide about a call of which nothing was delivered yet.

    Once a delta was delivered nobody asks: a restart would show it twice and be billed twice.

    Args:
        error: What ended the attempt.
        attempt: How many attempts there were, this one included.
        max_attempts: How many there may be.
        max_retry_after_s: Longest wait that a provider may ask for.
        time_left_s: Until the whole call must be over; infinite where there is no such limit.
        chance: From 0 to 1, drawn anew each time.
        can_switch: Whether there is another model or key that could take the call.
    """
    if can_switch and attempt < max_attempts and time_left_s > 0 and error.scope != "request":
        return Switch(error.scope, _rest_s(error, attempt, chance))
    if not _is_retryable(error) or attempt >= max_attempts:
        return GiveUp()
    if error.max_retries is not None and attempt > error.max_retries:
        return GiveUp()
    asked = error.retry_after_s if isinstance(error, APIError) else None
    if asked is not None and asked > max_retry_after_s:
        return GiveUp(too_long(asked, max_retry_after_s))
    wait = _wait_s(error, attempt, chance)
    if wait >= time_left_s:
        return GiveUp("The wait before another attempt would outlast Timeouts(total=...).")
    return Wait(wait)


def too_long(asked_s: float, max_retry_after_s: float) -> str:
    """Say that a provider wants a longer wait than anybody allowed."""
    return f"It wants a wait of {asked_s:g} s, more than max_retry_after_s={max_retry_after_s:g} allows."


def _wait_s(error: DelugeError, attempt: int, chance: float) -> float:
    if isinstance(error, APIError) and error.retry_after_s is not None:
        return error.retry_after_s * (1 + 0.1 * chance)
    base = _OVERLOADED_BASE_S if isinstance(error, OverloadedError) else _BASE_S
    # Full jitter: clients that failed together do not come back together.
    return chance * min(base * 2.0 ** (attempt - 1), _LONGEST_S)


def _rest_s(error: DelugeError, attempt: int, chance: float) -> float:
    """Return how long to pass over what failed: a bad moment for a while, a wrong key or name for good."""
    if isinstance(error, APIError) and error.retry_after_s is not None:
        return _wait_s(error, attempt, chance)
    return _wait_s(error, attempt, chance) if _may_heal(error) else math.inf


def _may_heal(error: DelugeError) -> bool:
    """Tell a bad moment from a lasting state. `x-should-retry` is about this request, not about the host."""
    return error.retryable or isinstance(error, ProtocolError)


def _is_retryable(error: DelugeError) -> bool:
    """Obey the provider's `x-should-retry`; without it the error's class decides, 501 and 505 excepted."""
    if isinstance(error, APIError):
        if error.should_retry is not None:
            return error.should_retry
        if error.status_code in (501, 505):
            return False
    return error.retryable
