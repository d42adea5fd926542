"""A call that looks into the local cache first, and keeps there what it was answered.

A hit is a stream like any other: the same events, in the same order, and no socket. A miss is an ordinary call; what
it brings is put into the cache once it is through, never before it was handed out.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable

from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.api_requests.timeouts import Deadline
from lm_deluge.dispatch.attempts.call_stream import StreamCall
from lm_deluge.dispatch.cache.entry import CachedAnswer, build_key, decode_answer, encode_answer
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import ConfigurationError, DelugeError, DispatchError
from lm_deluge.events import Event
from lm_deluge.response import APIResponse, ResponseBuilder, StreamStats

__all__ = ["CachedCall", "run_call"]

_PATIENCE_S = 2.0
"""A cache that takes longer than this is no help."""


async def run_call(
    spec: CallSpec, find_runner: Callable[[], Runner], sink: Callable[[list[Event]], Awaitable[None]] | None = None
) -> APIResponse:
    """Run a call to its end. The answer has an error on it where the call failed; nothing is raised for that.

    Args:
        spec: The call.
        find_runner: Whom to ask for leave.
        sink: Takes the events as they come.
    """
    call = (CachedCall if spec.is_cached else StreamCall)(spec, find_runner)
    try:
        while events := await call.next_batch():
            if sink is not None:
                await sink(events)
        await call.close()
    except DelugeError as error:
        call.abort()
        response = call.response()
        response.error = error
        return response
    except BaseException:
        call.abort()
        raise
    response = call.response()
    return response if spec.postprocess is None else _postprocessed(response, spec.postprocess)


def _postprocessed(response: APIResponse, postprocess: Callable[[APIResponse], APIResponse]) -> APIResponse:
    try:
        return postprocess(response)
    except Exception as error:  # noqa: BLE001 - a fault of the user's function in one row loses no other row
        response.error = DispatchError(f"postprocess raised {type(error).__name__}", hint="The answer is on it, whole.")
        response.error.__cause__ = error
        return response


class CachedCall(StreamCall):
    """One logical stream, from the cache where it is in there. A hit needs no leave of the limits."""

    def __init__(self, spec: CallSpec, find_runner: Callable[[], Runner]) -> None:
        super().__init__(spec, find_runner)
        self._skips_events = False  # they are put into the cache
        self._has_asked = False
        self._hit: CachedAnswer | None = None
        self._hit_plan: CallPlan | None = None
        self._asked_at = 0.0  # when the cache was asked, in the loop's time
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
        """Return what any model that may take the call was answered before."""
        call = self._admitted()
        self._asked_at = call.loop.time()
        for model in call.runner.candidates(self._spec):
            try:
                plan = self._spec.plan_for(model)
            except ConfigurationError:
                continue  # said when it is that model's turn, and it is no other's
            found = await self._look(plan)
            if found is not None:
                self._hit_plan = plan
                return found
        return None

    async def _look(self, plan: CallPlan) -> CachedAnswer | None:
        try:
            value = await self._ask(plan)
            return None if value is None else decode_answer(value)
        except Exception as error:  # noqa: BLE001 - a cache may be anybody's code, and never breaks a call
            if not self._is_aborted:
                _warn("read", error)
            return None
        except BaseException:
            self.abort()
            raise

    async def _ask(self, plan: CallPlan) -> bytes | None:
        if plan.local_cache is None:
            return None
        with Deadline(asyncio.get_running_loop().time() + _PATIENCE_S) as scope:
            self.scope = scope  # which an abort cuts short
            try:
                return await plan.local_cache.get(_key(plan))
            finally:
                self.scope = None

    async def _keep(self) -> None:
        """Put a whole answer into the cache."""
        events, self._events = self._events, []
        # A joined answer is the answer to no one request; what another model would say is not known to be the same.
        if not events or self._spliced is not None or self._attempt is None or self._attempt.plan.local_cache is None:
            return
        plan, cache = self._attempt.plan, self._attempt.plan.local_cache
        value = encode_answer(events, super().response(), plan.call)
        if value is None:
            return
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await cache.put(_key(plan), value)
        except Exception as error:  # noqa: BLE001 - as above
            _warn("written", error)

    async def close(self) -> None:
        """End the call: an answer that was read to its end leaves its connection to the next one."""
        await self._keep()
        await super().close()

    def response(self) -> APIResponse:
        """Return the answer so far. That of a hit has the usage that it once took, and cost nothing."""
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
        """Return how the stream went so far; a hit has no attempts."""
        hit = self._hit
        if hit is None or self._call is None:
            return super().stats()
        waited = (self._ended_at or self._call.loop.time()) - self._asked_at
        tokens = hit.usage.output_tokens if hit.usage is not None else 0
        return StreamStats(attempts=0, duration=waited, time_to_first_token=waited, output_tokens=tokens)


def _key(plan: CallPlan) -> str:
    return build_key(plan.adapter.name, plan.call, plan.request, plan.key)


def _warn(what: str, error: Exception) -> None:
    # Its words may hold the password of a cache's server.
    warnings.warn(f"the local cache cannot be {what}: {type(error).__name__}", RuntimeWarning, stacklevel=3)
