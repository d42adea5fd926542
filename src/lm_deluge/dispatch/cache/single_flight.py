"""Equal calls at the same time: one asks, the others wait for its answer and read it from the cache.

A wait can be given up at any time, which ends the wait alone. It also ends if the call that asks does not move because
its own consumer does not read it: the waiting call then asks for itself, so that two streams in one task cannot wait
for each other.
"""

from __future__ import annotations

import asyncio
from typing import Literal, TypeAlias
from weakref import WeakKeyDictionary

__all__ = ["Flight", "FlightName", "Outcome", "flights_here"]

FlightName: TypeAlias = tuple[int, str]

PATIENCE_S = 2.0
"""How long a consumer may leave the asking call unread: far above the time that a program needs for one event."""

Outcome = Literal["kept", "unkept", "failed", "left"]
"""`kept`: the cache has the answer; `unkept`: there is an answer that the cache does not take; `failed`: the call or
its answer failed; `left`: the call was cancelled, or left before its end."""


class Flight:
    """A call that asks while others may wait for it.

    Args:
        flights: The flights of the event loop, in which it stands under its name until it has landed.
        name: The id of the cache, and the key of the answer.

    Attributes:
        patience_s: How long its consumer may leave it unread.
        outcome: How it ended; None while it has not.
        left_at: When its consumer got events and has not come back since, in the loop's time; None while it reads.
    """

    patience_s = PATIENCE_S

    def __init__(self, flights: dict[FlightName, Flight], name: FlightName) -> None:
        self.outcome: Outcome | None = None
        self.left_at: float | None = None
        self._flights = flights
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._landed: asyncio.Future[None] = self._loop.create_future()
        flights[name] = self

    @property
    def is_stalled(self) -> bool:
        """Whether its consumer has not read it for some time."""
        return self.left_at is not None and self._loop.time() - self.left_at >= self.patience_s

    def land(self, outcome: Outcome) -> None:
        """End it and wake all that wait; further calls do nothing."""
        if self.outcome is None:
            self.outcome = outcome
            if self._flights.get(self._name) is self:  # a stalled call is replaced
                del self._flights[self._name]
            self._landed.set_result(None)

    async def wait(self) -> None:
        """Return when it has landed. A cancellation ends this wait alone."""
        await asyncio.wait({self._landed})


_flights: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[FlightName, Flight]] = WeakKeyDictionary()


def flights_here() -> dict[FlightName, Flight]:
    """Return the flights of the running event loop."""
    return _flights.setdefault(asyncio.get_running_loop(), {})
