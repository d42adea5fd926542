"""Waits between the requests about a provider's batch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from lm_deluge.dispatch.batch.provider.part import FIRST_WAIT_S, LONGEST_WAIT_S
from lm_deluge.errors import APIError, ConfigurationError, ConnectError, DelugeError, RedirectRefusedError

__all__ = ["MAX_OUTAGE_S", "Backoff", "may_have_been_accepted", "requested_wait"]

MAX_OUTAGE_S = 3_600.0
"""How long the provider may be unreachable or fail before a run gives up.

An hour bridges most outages, and the provider goes on with the batch in any case.
"""
_SERVER_ERROR = 500  # the first of the status codes after which the server may have done the work


class Backoff:
    """Growing waits after retryable errors, up to `MAX_OUTAGE_S` in total."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._sleep = sleep
        self._spent_s = 0.0
        self._delay_s = FIRST_WAIT_S

    async def wait(self, error: DelugeError) -> None:
        """Wait before the next try.

        Raises:
            DelugeError: `error` itself, if it is not retryable or the total wait is used up.
        """
        if not error.retryable or self._spent_s >= MAX_OUTAGE_S:
            raise error
        wait = max(self._delay_s, requested_wait(error))
        await self._sleep(wait)
        self._spent_s += wait
        self._delay_s = min(self._delay_s * 2, LONGEST_WAIT_S)


def requested_wait(error: DelugeError) -> float:
    """Return the seconds that the provider asks us to wait, at most `MAX_OUTAGE_S`."""
    return min(getattr(error, "retry_after_s", None) or 0.0, MAX_OUTAGE_S)


def may_have_been_accepted(error: DelugeError) -> bool:
    """Whether the provider may have accepted a batch although its submission ended with this error."""
    if isinstance(error, APIError):
        return error.status_code is None or error.status_code >= _SERVER_ERROR
    return not isinstance(error, ConnectError | ConfigurationError | RedirectRefusedError)
