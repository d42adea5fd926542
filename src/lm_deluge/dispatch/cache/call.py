"""A call that reads the local cache first, and writes its answer to the cache.

A hit is a stream with the same events in the same order, without a request. A miss is an ordinary call; its answer is
written to the cache after its last event was returned.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable

from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.api_requests.timeouts import Deadline
from lm_deluge.dispatch.attempts.call_stream import StreamCall
from lm_deluge.dispatch.cache.entry import CachedAnswer, build_key, decode_answer, encode_answer
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import ConfigurationError
from lm_deluge.events import Event
from lm_deluge.response import APIResponse, ResponseBuilder, StreamStats

__all__ = ["CachedCall"]

_TIMEOUT_S = 2.0
"""For each read or write. Far above the time of a disk or a near server; a slower cache delays calls too much."""


class CachedCall(StreamCall):
    """One logical stream, read from the cache if possible. A hit does not wait for the limits."""

    def __init__(self, spec: CallSpec, find_runner: Callable[[], Runner]) -> None:
        super().__init__(spec, find_runner)
        self._skips_events = False  # they are written to the cache
        self._was_looked_up = False
        self._hit: CachedAnswer | None = None
        self._hit_plan: CallPlan | None = None
        self._looked_up_at = 0.0  # in the event loop's time
        self._builder = ResponseBuilder()  # of a hit
        self._events: list[Event] = []  # of a miss, until they are written to the cache

    async def next_batch(self) -> list[Event]:
        """Return the next events, at least one; an empty list at the end and after an abort.

        Raises:
            DelugeError: The call failed; `partial` has the answer so far if any event was returned.
        """
        if not self._was_looked_up and not self._is_over:
            self._was_looked_up = True
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
            await self._store()
        return events

    async def _find(self) -> CachedAnswer | None:
        """Return the cached answer of any model that may take the call; None if there is none."""
        call = self._admitted()
        self._looked_up_at = call.loop.time()
        for model in call.runner.candidates(self._spec):
            try:
                plan = self._spec.plan_for(model)
            except ConfigurationError:
                continue  # the model cannot take the call; if it is chosen later, the call raises this error
            found = await self._look_up(plan)
            if found is not None:
                self._hit_plan = plan
                return found
        return None

    async def _look_up(self, plan: CallPlan) -> CachedAnswer | None:
        try:
            value = await self._get_cached(plan)
            return None if value is None else decode_answer(value)
        except Exception as error:  # noqa: BLE001 - an error of a cache, which may be the user's code, never fails a call
            if not self._is_aborted:
                _warn("read", error)
            return None
        except BaseException:
            self.abort()
            raise

    async def _get_cached(self, plan: CallPlan) -> bytes | None:
        if plan.local_cache is None:
            return None
        with Deadline(asyncio.get_running_loop().time() + _TIMEOUT_S) as scope:
            self.scope = scope  # an abort cancels it
            try:
                return await plan.local_cache.get(_key(plan))
            finally:
                self.scope = None

    async def _store(self) -> None:
        """Write a complete answer to the cache."""
        events, self._events = self._events, []
        # A spliced answer is not the answer to a single request, so no request may be answered with it.
        if not events or self._spliced is not None or self._attempt is None or self._attempt.plan.local_cache is None:
            return
        plan, cache = self._attempt.plan, self._attempt.plan.local_cache
        value = encode_answer(events, super().response(), plan.call)
        if value is None:
            return
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await cache.put(_key(plan), value)
        except Exception as error:  # noqa: BLE001 - as above
            _warn("written", error)

    async def close(self) -> None:
        """End the call. After a complete answer the connection can be used for another call."""
        await self._store()
        await super().close()

    def response(self) -> APIResponse:
        """Return the response so far. A hit has the usage of the original call, and the cost 0."""
        if self._hit is None or self._hit_plan is None:
            return super().response()
        call = self._hit_plan.call
        answer = self._builder.response(call.model.id)
        answer.usage = self._hit.usage
        answer.cost = 0.0
        answer.stats = self.stats()
        answer.warnings = (*call.warnings, *self._hit.warnings)
        answer.local_cache_hit = True
        return answer

    def stats(self) -> StreamStats:
        """Return the statistics of the stream so far; a hit has no attempts."""
        hit = self._hit
        if hit is None or self._call is None:
            return super().stats()
        waited = (self._ended_at or self._call.loop.time()) - self._looked_up_at
        tokens = hit.usage.output_tokens if hit.usage is not None else 0
        return StreamStats(attempts=0, duration=waited, time_to_first_token=waited, output_tokens=tokens)


def _key(plan: CallPlan) -> str:
    return build_key(plan.adapter.name, plan.call, plan.request, plan.key)


def _warn(participle: str, error: Exception) -> None:
    # Without the message of the error, which may contain the password of a cache server.
    warnings.warn(f"the local cache cannot be {participle}: {type(error).__name__}", RuntimeWarning, stacklevel=3)
