"""A call that reads the local cache first, and writes its answer to the cache.

A hit is a stream with the same events in the same order, without a request. A miss is an ordinary call; its answer is
written to the cache after its last event was returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Callable

import msgspec

from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.api_requests.timeouts import Deadline
from lm_deluge.dispatch.attempts.call_stream import StreamCall
from lm_deluge.dispatch.cache.acceptance import is_accepted
from lm_deluge.dispatch.cache.entry import CachedAnswer, build_key, decode_answer, encode_answer
from lm_deluge.dispatch.cache.single_flight import Outcome, SharedCall, shared_calls_here
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.hooks import is_interruption
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import ConfigurationError
from lm_deluge.events import Event, ResponseFinished
from lm_deluge.response import APIResponse, ResponseBuilder, StreamStats

__all__ = ["CachedCall"]

_TIMEOUT_S = 2.0
"""For each read or write. Far above the time of a disk or a near server; a slower cache delays calls too much."""
_MOST_FAILURES = 2  # of equal calls in turn, before those that wait ask all at once


class CachedCall(StreamCall):
    """One logical stream, read from the cache if possible. A hit does not wait for the limits.

    Args:
        spec: The call.
        find_runner: Returns the runner that decides when each attempt is sent.
        has_judge: Whether the answer is stored only after `judge` was called.
        reads: Whether the cache is asked first.
    """

    def __init__(
        self, spec: CallSpec, find_runner: Callable[[], Runner], *, has_judge: bool = False, reads: bool = True
    ) -> None:
        super().__init__(spec, find_runner)
        self._skips_events = False  # they are written to the cache
        self._has_judge = has_judge
        self._was_looked_up = not reads
        self._is_reading = False
        self._hit: CachedAnswer | None = None
        self._hit_plan: CallPlan | None = None
        self._shared: SharedCall | None = None  # equal calls that wait for this one
        self._looked_up_at = 0.0  # in the event loop's time
        self._builder = ResponseBuilder()  # of a hit
        self._events: list[Event] = []  # of a miss, until they are written to the cache

    @property
    def is_hit(self) -> bool:
        """Whether the answer is from the cache."""
        return self._hit is not None

    async def next_batch(self) -> list[Event]:
        """Return the next events, at least one; an empty list at the end and after an abort.

        Raises:
            DelugeError: The call failed; `partial` has the answer so far if any event was returned.
        """
        self._is_reading = True
        shared = self._shared
        if shared is not None:
            shared.left_at = None
        try:
            events = await self._next()
        except BaseException as error:
            self._land("left" if is_interruption(error) else "failed")
            raise
        finally:
            self._is_reading = False
        if self._is_aborted:
            self._land("left")
        shared = self._shared
        if shared is not None:
            shared.left_at = asyncio.get_running_loop().time()
        return events

    async def _next(self) -> list[Event]:
        if not self._was_looked_up and not self._is_over:
            self._was_looked_up = True
            found = await self._find()
            if found is not None and not self._is_over:
                self._hit = found
                self._builder.add_all(found.events)
                self._land("kept")
                return list(found.events)
        if self._hit is not None:
            self._end()
            return []
        events = await super().next_batch()
        if events:
            self._events += events
        elif not self._has_judge:
            await self._store()
        return events

    async def _find(self) -> CachedAnswer | None:
        """Return the cached answer of any model that may take the call; None if there is none.

        If an equal call asks at present, wait for its answer. After two such calls failed, all that wait ask at once:
        one by one they would take as long as all of them together.
        """
        call = self._admitted()
        self._looked_up_at = call.loop.time()
        plans = self._plans_of(call.runner.candidates(self._spec))
        if not plans:
            return None
        shared_calls, name = shared_calls_here(), (id(plans[0][0].local_cache), min(key for _, key in plans))
        failures = 0
        while failures < _MOST_FAILURES and not self._is_over:
            other = shared_calls.get(name)
            if other is None or other.is_stalled:
                self._shared = SharedCall(shared_calls, name)
                break
            await self._wait_for(other)
            failures += other.outcome == "failed"
            if other.outcome in ("kept", "unkept"):
                break
        return await self._look_up_all(plans)

    def _plans_of(self, models: list[str]) -> list[tuple[CallPlan, str]]:
        """Return the plans of the models with a cache, and the keys of their answers."""
        found = []
        for model in models:
            try:
                plan = self._spec.plan_for(model)
            except ConfigurationError:
                continue  # the model cannot take the call; if it is chosen later, the call raises this error
            if plan.local_cache is not None:
                found.append((plan, _key(plan)))
        return found

    async def _wait_for(self, other: SharedCall) -> None:
        """Wait until an equal call has its answer; return early if that call is stalled, or this one is aborted."""
        while other.outcome is None and not other.is_stalled and not self._is_over:
            with (
                contextlib.suppress(TimeoutError),
                Deadline(asyncio.get_running_loop().time() + other.patience_s) as scope,
            ):
                self.scope = scope  # an abort cancels it
                try:
                    await other.wait()
                finally:
                    self.scope = None

    async def _look_up_all(self, plans: list[tuple[CallPlan, str]]) -> CachedAnswer | None:
        for plan, key in plans:
            found = await self._look_up(plan, key)
            if found is not None:
                self._hit_plan = plan
                return found
        return None

    async def _look_up(self, plan: CallPlan, key: str) -> CachedAnswer | None:
        try:
            value = await self._get_cached(plan, key)
            answer = None if value is None else decode_answer(value)
            return None if answer is None or not _is_accepted(answer, plan) else answer
        except BaseException as error:  # a cache may be the user's code; its errors never fail a call
            if is_interruption(error, of_hook=True):
                self.abort()
                raise
            if not self._is_aborted:
                _warn("read", error)
            return None

    async def _get_cached(self, plan: CallPlan, key: str) -> bytes | None:
        if plan.local_cache is None:
            return None
        with Deadline(asyncio.get_running_loop().time() + _TIMEOUT_S) as scope:
            self.scope = scope  # an abort cancels it
            try:
                return await plan.local_cache.get(key)
            finally:
                self.scope = None

    async def judge(self, *, is_accepted: bool) -> None:
        """Store the answer if it is accepted."""
        if is_accepted:
            await self._store()
        self._land("failed")

    async def _store(self) -> None:
        """Write a complete answer to the cache."""
        events, self._events = self._events, []
        if not events:
            return
        if not isinstance(events[-1], ResponseFinished):
            self._land("left")
            return
        is_kept = await self._put(events)
        self._land("kept" if is_kept else "unkept")

    async def _put(self, events: list[Event]) -> bool:
        # A spliced answer is not the answer to a single request, so no request may be answered with it.
        if self._spliced is not None or self._attempt is None or self._attempt.plan.local_cache is None:
            return False
        plan, cache = self._attempt.plan, self._attempt.plan.local_cache
        value = encode_answer(events, super().response(), plan.call)
        if value is None:
            return False
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await cache.put(_key(plan), value)
        except BaseException as error:
            if is_interruption(error, of_hook=True):
                raise
            _warn("written", error)
            return False
        return True

    def _land(self, outcome: Outcome) -> None:
        """Wake the equal calls that wait for this one."""
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.end(outcome)

    def abort(self) -> None:
        """End the call now: close the connection; a pending `next_batch` returns []."""
        super().abort()
        if not self._is_reading:  # otherwise the read ends it
            self._land("left")

    async def close(self) -> None:
        """End the call. After a complete answer the connection can be used for another call."""
        if not self._has_judge:
            await self._store()
            self._land("left")
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
    filters = "" if plan.filters is None else plan.filters.digest
    call, request = plan.call, plan.request
    if not call.is_streamed:  # an answer is the same, however it is transferred
        call = msgspec.structs.replace(call, is_streamed=True)
        request = plan.adapter.build_request(call)
    return build_key(plan.adapter.name, call, request, plan.key, filters)


def _is_accepted(answer: CachedAnswer, plan: CallPlan) -> bool:
    """Whether a stored answer has the form that the call asks for; an older version stored any answer."""
    builder = ResponseBuilder()
    builder.add_all(answer.events)
    return is_accepted(builder.response(plan.call.model.id), plan.call)


def _warn(participle: str, error: BaseException) -> None:
    # Without the message of the error, which may contain the password of a cache server.
    with contextlib.suppress(Exception):  # where warnings are errors
        warnings.warn(f"the local cache cannot be {participle}: {type(error).__name__}", RuntimeWarning, stacklevel=3)
