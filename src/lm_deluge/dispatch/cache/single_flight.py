"""Equal calls at the same time: one sends a request, the others wait for its answer and read it from the cache.

A wait can be given up at any time, which ends the wait alone. It also ends if the consumer of the first call does not
read it: the waiting call then sends a request of its own, so that two streams in one task cannot wait for each other.
"""

from __future__ import annotations

import asyncio
from typing import Literal, TypeAlias
from weakref import WeakKeyDictionary

__all__ = ["Outcome", "SharedCall", "SharedCallKey", "shared_calls_here"]

SharedCallKey: TypeAlias = tuple[int, str]

PATIENCE_S = 2.0
"""How long a consumer may leave the first call unread: far above the time that a program needs for one event."""

Outcome = Literal["kept", "unkept", "failed", "left"]
"""`kept`: the cache has the answer; `unkept`: there is an answer that the cache does not take; `failed`: the call or
its answer failed; `left`: the call was cancelled, or left before its end."""


class SharedCall:
    """A call that sends its request while equal calls wait for its answer.

    Args:
        shared_calls: The shared calls of the event loop, which contain this one until it ends.
        name: The id of the cache, and the key of the answer.

    Attributes:
        patience_s: How long its consumer may leave it unread.
        outcome: How it ended; None while it has not.
        left_at: When its consumer last got events without asking for more, in the loop's time; None while it reads.
    """

    patience_s = PATIENCE_S

    def __init__(self, shared_calls: dict[SharedCallKey, SharedCall], name: SharedCallKey) -> None:
        self.outcome: Outcome | None = None
        self.left_at: float | None = None
        self._shared_calls = shared_calls
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        shared_calls[name] = self

    @property
    def is_stalled(self) -> bool:
        """Whether its consumer has not read it for some time."""
        return self.left_at is not None and self._loop.time() - self.left_at >= self.patience_s

    def end(self, outcome: Outcome) -> None:
        """Note how the call ended, and wake the calls that wait; only the first note counts."""
        if self.outcome is None:
            self.outcome = outcome
            if self._shared_calls.get(self._name) is self:  # a stalled call is replaced
                del self._shared_calls[self._name]
            self._ended.set_result(None)

    async def wait(self) -> None:
        """Return when the call has ended. A cancellation ends this wait alone."""
        await asyncio.wait({self._ended})


_shared_calls: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[SharedCallKey, SharedCall]] = WeakKeyDictionary()


def shared_calls_here() -> dict[SharedCallKey, SharedCall]:
    """Return the shared calls of the running event loop."""
    return _shared_calls.setdefault(asyncio.get_running_loop(), {})
