"""Whether a failed attempt is followed by another one, and when. Pure: time and chance are arguments."""

from __future__ import annotations

import math

import msgspec

from lm_deluge.errors import APIError, DelugeError, OverloadedError, ProtocolError, Scope

__all__ = ["GiveUp", "RetryPolicy", "Switch", "Wait", "decide_next", "decide_retry", "too_long"]

# Exponential backoff: half a second outlasts a connection that was reset, and an overloaded provider needs longer to
# recover, so it starts four times as high. The cap keeps a call responsive after a provider's outage ends.
_BASE_S, _OVERLOADED_BASE_S, _LONGEST_S = 0.5, 2.0, 30.0


class RetryPolicy(msgspec.Struct, frozen=True):
    """The client's limits on retries.

    Attributes:
        max_attempts: Requests per call at most.
        max_retry_after_s: Longest wait that a provider may ask for.
    """

    max_attempts: int = 5
    max_retry_after_s: float = 120.0


class Wait(msgspec.Struct, frozen=True):
    """Try again after `seconds`."""

    seconds: float


class GiveUp(msgspec.Struct, frozen=True):
    """Raise the error. `hint` explains why no further attempt is made, where the error itself does not show it."""

    hint: str | None = None


class Switch(msgspec.Struct, frozen=True):
    """Try again at once on another route, and do not use the failed part for `cooldown_s` seconds; infinite: for good.

    `scope` is the part that failed: the key (for all models of the provider), the model (with that key), or the whole
    provider.
    """

    scope: Scope
    cooldown_s: float


def decide_retry(
    error: DelugeError, policy: RetryPolicy, *, attempt: int, time_left_s: float, chance: float
) -> Wait | GiveUp:
    """Decide whether to repeat a failed request on the same route.

    Only for a call of which no event was delivered: a restart after that would show events twice and be billed twice.

    Args:
        error: The error that ended the attempt.
        policy: The client's limits.
        attempt: Number of attempts so far, including the failed one.
        time_left_s: Seconds until the deadline of the whole call; infinite without a deadline.
        chance: Random number from 0 to 1, a new one for each decision.
    """
    if not _is_retryable(error) or attempt >= policy.max_attempts:
        return GiveUp()
    if error.max_retries is not None and attempt > error.max_retries:
        return GiveUp()
    retry_after_s = error.retry_after_s if isinstance(error, APIError) else None
    if retry_after_s is not None and retry_after_s > policy.max_retry_after_s:
        return GiveUp(too_long(retry_after_s, policy.max_retry_after_s))
    wait_s = _wait_s(error, attempt, chance)
    if wait_s >= time_left_s:
        return GiveUp("The wait before another attempt would outlast Timeouts(total=...).")
    return Wait(wait_s)


def decide_next(
    error: DelugeError, policy: RetryPolicy, *, attempt: int, time_left_s: float, chance: float
) -> Wait | Switch | GiveUp:
    """Decide how a call goes on that may use another route: switch if the request is not at fault, else `decide_retry`.

    Arguments as in `decide_retry`.
    """
    if attempt < policy.max_attempts and time_left_s > 0 and error.scope != "request":
        return Switch(error.scope, _cooldown_s(error, attempt, chance))
    return decide_retry(error, policy, attempt=attempt, time_left_s=time_left_s, chance=chance)


def too_long(retry_after_s: float, max_retry_after_s: float) -> str:
    """Return the hint for a provider that asks for a longer wait than the client allows."""
    return f"It wants a wait of {retry_after_s:g} s, more than max_retry_after_s={max_retry_after_s:g} allows."


def _wait_s(error: DelugeError, attempt: int, chance: float) -> float:
    """Return the backoff, or the provider's wait if that is longer: `retry-after: 0` is no reason to hurry."""
    base = _OVERLOADED_BASE_S if isinstance(error, OverloadedError) else _BASE_S
    # Full jitter: clients that failed together do not return together.
    backoff_s = chance * min(base * 2.0 ** (attempt - 1), _LONGEST_S)
    asked_s = error.retry_after_s if isinstance(error, APIError) else None
    return backoff_s if asked_s is None else max(backoff_s, asked_s * (1 + 0.1 * chance))


def _cooldown_s(error: DelugeError, attempt: int, chance: float) -> float:
    """Return how long not to use the failed part: a while after a passing failure, for good after a lasting one."""
    if isinstance(error, APIError) and error.retry_after_s is not None:
        return _wait_s(error, attempt, chance)
    return _wait_s(error, attempt, chance) if _is_temporary(error) else math.inf


def _is_temporary(error: DelugeError) -> bool:
    """Whether the failure may pass, unlike a wrong key. `x-should-retry` is ignored: it is about this request only."""
    return error.retryable or isinstance(error, ProtocolError)


def _is_retryable(error: DelugeError) -> bool:
    """Obey the provider's `x-should-retry`; without it the error's class decides, 501 and 505 excepted."""
    if isinstance(error, APIError):
        if error.should_retry is not None:
            return error.should_retry
        if error.status_code in (501, 505):
            return False
    return error.retryable
