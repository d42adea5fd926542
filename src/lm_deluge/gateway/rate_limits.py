"""The rate limits of keys: the port between the grants of calls and where the limits are counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from lm_deluge.gateway.dialects import KeyLimit
from lm_deluge.gateway.ledger.keys import GatewayKey
from lm_deluge.gateway.ledger.rates import KeyRates

__all__ = ["KeyPermit", "LocalRates", "RateLimits"]


class KeyPermit(Protocol):
    """The place of one call in the limits of its key."""

    @property
    def limits(self) -> list[KeyLimit]:
        """The limits, for the headers of a response."""
        ...

    def end(self, tokens: int) -> None:
        """Note the end of the call, and how many tokens it used. A second time has no effect."""
        ...


class RateLimits(Protocol):
    """Counts the calls of keys."""

    async def begin(self, key: GatewayKey, call_id: str, tokens: int) -> KeyPermit:
        """Return the place of a call that is estimated to use so many tokens.

        Raises:
            RateLimitError: A limit of the key is reached.
        """
        ...

    async def close(self) -> None:
        """Report what is not reported yet, and disconnect."""
        ...


class LocalRates:
    """RateLimits of one process.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rates: dict[str, KeyRates] = {}

    async def begin(self, key: GatewayKey, call_id: str, tokens: int) -> KeyPermit:
        """Return the place of a call.

        Raises:
            RateLimitError: A limit of the key is reached.
        """
        rates = self._rates.setdefault(key.id, KeyRates(key.rules))
        now = self._clock()
        rates.check(tokens, now)
        return _LocalPermit(rates, rates.add(tokens, now), self._clock)

    async def close(self) -> None:
        """Do nothing."""


class _LocalPermit:
    def __init__(self, rates: KeyRates, entry: list[float] | None, clock: Callable[[], float]) -> None:
        self._rates = rates
        self._entry = entry
        self._clock = clock
        self._is_over = False

    @property
    def limits(self) -> list[KeyLimit]:
        return self._rates.shown(self._clock())

    def end(self, tokens: int) -> None:
        if not self._is_over:
            self._is_over = True
            self._rates.end(self._entry, tokens)
