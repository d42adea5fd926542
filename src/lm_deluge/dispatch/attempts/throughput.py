"""`min_tokens_per_second`: a slow attempt is replaced by another one as long as none of its events was delivered."""

from __future__ import annotations

import asyncio
import builtins

from lm_deluge.api_requests.response_stream import ResponseStream
from lm_deluge.errors import TimeoutError
from lm_deluge.events import Event
from lm_deluge.usage import estimate_tokens

__all__ = ["ThroughputMonitor"]

_PATIENCE_S = 1.0  # an average over less time depends on how the network groups the tokens
_ENOUGH_TOKENS = 16  # about four words to a read and four reads: a fast model is trusted before a second is over


class ThroughputMonitor:
    """Reads a response, and raises an error once it is slower than `least` tokens per second.

    The average since the first delta counts, after a second of patience. The time to the first delta is limited by
    `Timeouts`.
    """

    def __init__(self, attempt: ResponseStream, least: float) -> None:
        self._attempt = attempt
        self._least = least
        self._loop = asyncio.get_running_loop()
        self._first_at: float | None = None

    async def next_batch(self, *, to_end: bool = False) -> list[Event]:
        """Return the next events; `to_end` has no effect, as the throughput is measured read by read.

        Raises:
            TimeoutError: The response is too slow.
            DelugeError: As `ResponseStream.next_batch`.
        """
        if self._first_at is None:
            batch = await self._attempt.next_batch()
            if self._tokens() > 0:
                self._first_at = self._loop.time()
            return batch
        deadline = self._first_at + max(_PATIENCE_S, self._tokens() / self._least)
        try:
            async with asyncio.timeout_at(deadline):
                return await self._attempt.next_batch()
        except builtins.TimeoutError as error:
            if isinstance(error, TimeoutError):  # another clock ran out
                raise
            raise self._slow() from None

    @property
    def is_fast_enough(self) -> bool:
        """Whether enough arrived in time to trust the rest."""
        if self._first_at is None:
            return False
        elapsed = self._loop.time() - self._first_at
        tokens = self._tokens()
        return tokens >= self._least * elapsed and (tokens >= _ENOUGH_TOKENS or elapsed >= _PATIENCE_S)

    def _tokens(self) -> int:
        return estimate_tokens(self._attempt.builder.output_characters)

    def _slow(self) -> TimeoutError:
        elapsed = self._loop.time() - (self._first_at or 0.0)
        return TimeoutError(
            f"{self._tokens() / elapsed:.1f} tokens per second arrived, and min_tokens_per_second is {self._least:g}",
            phase="progress",
            limit_s=elapsed,
            hint="Another attempt, or a lower min_tokens_per_second, may be faster.",
            billed="yes",
            where="mid_stream",
        )
