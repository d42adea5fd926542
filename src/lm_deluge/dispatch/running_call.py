"""What a stream needs from a call: `StreamCall` has it, and so have calls that are made of several others."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from lm_deluge.dispatch.attempts.attempt import PendingRetry
from lm_deluge.events import Event
from lm_deluge.response import APIResponse, StreamStats

__all__ = ["JudgedCall", "RunningCall"]


class RunningCall(Protocol):
    """A call as a stream of events: `next_batch` until it returns nothing, then `close`; or `abort`, from anywhere."""

    async def next_batch(self) -> list[Event]:
        """Return the next events, at least one; empty at the end, and after an abort.

        Raises:
            DelugeError: The call failed; `partial` is what was received.
        """
        ...

    async def close(self) -> None:
        """End the call. An answer that was read to its end leaves its connection to the next request."""
        ...

    async def settle(self) -> None:
        """Wait, for seconds at most, until what an abort started has ended."""
        ...

    def abort(self) -> None:
        """End the call now; a pending `next_batch` returns []."""
        ...

    def abort_from_anywhere(self) -> None:
        """Abort from a finaliser, which may run in another thread or after the loop was closed."""
        ...

    def response(self) -> APIResponse:
        """Return the response so far."""
        ...

    def stats(self) -> StreamStats:
        """Return the timing of the stream so far."""
        ...

    @property
    def pending_retry(self) -> PendingRetry | None:
        """The next attempt while the call waits for it; else None."""
        ...


@runtime_checkable
class JudgedCall(RunningCall, Protocol):
    """A call whose answer is stored in the local cache only if it is accepted."""

    async def judge(self, *, is_accepted: bool) -> None:
        """Store the answer if it is accepted."""
        ...
