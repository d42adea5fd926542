"""A call that looks into the local cache first, and keeps there what it was answered.

A hit is a stream like any other: the same events, in the same order, and no socket. A miss is an ordinary call; what
it brings is put into the cache once it is through, never before it was handed out.
"""

from __future__ import annotations

import asyncio
import warnings

from lm_deluge.config import LocalCache
from lm_deluge.dispatch.cached_answer import CachedAnswer, build_key, decode_answer, encode_answer
from lm_deluge.dispatch.call_plan import CallPlan
from lm_deluge.dispatch.stream_call import StreamCall
from lm_deluge.events import Event
from lm_deluge.response import APIResponse, ResponseBuilder, StreamStats

__all__ = ["CachedCall", "begin_call"]

_PATIENCE_S = 2.0
"""A cache that takes longer than this is no help."""


def begin_call(plan: CallPlan) -> StreamCall:
    """Return the call of a plan. Nothing is sent until it is asked for events."""
    return StreamCall(plan) if plan.local_cache is None else CachedCall(plan, plan.local_cache)


class CachedCall(StreamCall):
    """One logical stream, from the cache where it is in there."""

    def __init__(self, plan: CallPlan, cache: LocalCache) -> None:
        super().__init__(plan)
        self._cache = cache
        self._key = build_key(plan.adapter.name, plan.call, plan.request, plan.key)
        self._has_asked = False
        self._hit: CachedAnswer | None = None
        self._builder = ResponseBuilder()  # of a hit
        self._events: list[Event] = []  # of a miss, until they are put into the cache

    async def next_batch(self) -> list[Event]:
        """Return the next events, at least one; empty at the end, and after an abort.

        Raises:
            DelugeError: The call failed; `partial` is what was received, once any event was returned.
        """
        if not self._has_asked and not self._is_over:
            self._has_asked = True
            found = await self._find()
            if found is not None and not self._is_over:
                self._hit = found
                self._builder.add_all(found.events)
                return list(found.events)
        if self._hit is not None:
            self._end()
            return []
        events = await super().next_batch()
        if events:
            self._events += events
        else:
            await self._keep()
        return events

    async def _find(self) -> CachedAnswer | None:
        loop = self._loop = asyncio.get_running_loop()
        self._begun = loop.time()
        try:
            value = await self._ask()
            return None if value is None else decode_answer(value)
        except Exception as error:  # noqa: BLE001 - a cache may be anybody's code, and never breaks a call
            if not self._is_aborted:
                _warn("read", error)
            return None
        except BaseException:
            self.abort()
            raise

    async def _ask(self) -> bytes | None:
        async with asyncio.timeout(_PATIENCE_S) as scope:
            self._opening = scope  # which an abort cuts short
            try:
                return await self._cache.get(self._key)
            finally:
                self._opening = None

    async def _keep(self) -> None:
        """Put a whole answer into the cache."""
        events, self._events = self._events, []
        value = encode_answer(events, super().response(), self._plan.call) if events else None
        if value is None:
            return
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._cache.put(self._key, value)
        except Exception as error:  # noqa: BLE001 - as above
            _warn("written", error)

    async def close(self) -> None:
        """End the call: an answer that was read to its end leaves its connection to the next one."""
        await self._keep()
        await super().close()

    def response(self) -> APIResponse:
        """Return the answer so far. That of a hit has the usage that it once took, and cost nothing."""
        if self._hit is None:
            return super().response()
        call = self._plan.call
        answer = self._builder.response(call.model.id)
        answer.usage = self._hit.usage
        answer.cost = 0.0
        answer.stats = self.stats()
        answer.warnings = (*call.warnings, *self._hit.warnings)
        answer.local_cache_hit = True
        return answer

    def stats(self) -> StreamStats:
        """Return how the stream went so far; a hit has no attempts."""
        hit = self._hit
        if hit is None or self._loop is None or self._begun is None:
            return super().stats()
        waited = (self._ended or self._loop.time()) - self._begun
        tokens = hit.usage.output_tokens if hit.usage is not None else 0
        return StreamStats(attempts=0, duration=waited, time_to_first_token=waited, output_tokens=tokens)


def _warn(what: str, error: Exception) -> None:
    # Its words may hold the password of a cache's server.
    warnings.warn(f"the local cache cannot be {what}: {type(error).__name__}", RuntimeWarning, stacklevel=3)
