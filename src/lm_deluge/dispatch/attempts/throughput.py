"""Streams that are too slow: given up for another attempt as long as nothing of them was handed out."""

from __future__ import annotations

import asyncio
import builtins

from lm_deluge.api_requests.response_stream import ResponseStream
from lm_deluge.errors import TimeoutError
from lm_deluge.events import Event
from lm_deluge.usage import estimate_tokens

__all__ = ["ThroughputMonitor"]

_PATIENCE_S = 1.0
_ENOUGH_TOKENS = 16


class ThroughputMonitor:
    """Reads an attempt, and ends it with an error once it is slower than `least` tokens per second.

    Its average counts, from the first delta on and after a second of patience; a slow start is for `Timeouts` to judge.
    """

    def __init__(self, attempt: ResponseStream, least: float) -> None:
        self._attempt = attempt
        self._least = least
        self._loop = asyncio.get_running_loop()
        self._first_at: float | None = None

    async def next_batch(self, *, to_end: bool = False) -> list[Event]:
        """Return the next events; `to_end` has no effect, as the throughput is measured read by read.

        Raises:
            TimeoutError: It is too slow.
            DelugeError: As the attempt does.
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
            if isinstance(error, TimeoutError):  # one of the other clocks
                raise
            raise self._slow() from None

    @property
    def is_fast_enough(self) -> bool:
        """Whether so much came in time that the rest may be trusted."""
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
            f"{self._tokens() / elapsed:.1f} tokens per second came, and min_tokens_per_second is {self._least:g}",
            phase="progress",
            limit_s=elapsed,
            hint="Another attempt, or a lower min_tokens_per_second, may be faster.",
            billed="yes",
            where="mid_stream",
        )
