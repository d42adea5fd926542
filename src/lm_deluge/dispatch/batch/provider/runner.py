"""Run calls as batches of the provider's own API: at half the price, answered within a day, and never sent twice.

    async with await Journal.open(path, fingerprint=...) as journal:
        async for call, response in ProviderBatch(journal).run(plans):
            ...

The journal records each step before it happens: the calls of a batch before it is submitted, its handle before the
first poll, each answer before the caller sees it. To resume a run that died, run the same calls with the same journal:
batches with a handle are polled, recorded answers are returned from the journal, and a batch without a recorded handle
is looked up in the provider's list of batches before its calls are sent again.
"""

from __future__ import annotations

import asyncio
import copy
import secrets
import time
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from functools import partial
from typing import Literal, TypeAlias, TypeVar

import msgspec

from lm_deluge.adapters.batch_api import BatchState, ListedBatch, index_in
from lm_deluge.adapters.batch_catalog import find_batch_api
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.dispatch.batch.provider.backoff import MAX_OUTAGE_S, Backoff, may_have_been_accepted, requested_wait
from lm_deluge.dispatch.batch.provider.part import FIRST_WAIT_S, LONGEST_WAIT_S, BatchPart, LiveBatch
from lm_deluge.dispatch.batch.provider.response import BatchedCall, build_batched_answer, build_failure, missing_error
from lm_deluge.dispatch.hooks import failure_of, unexpected_error
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.dispatch.journal.records import SubmittedBatch
from lm_deluge.errors import (
    APIError,
    DelugeError,
    NotFoundError,
    QueueClosedError,
    RateLimitError,
    RequestTooLargeError,
)
from lm_deluge.response import APIResponse

__all__ = ["MAX_OUTAGE_S", "Answered", "OnState", "ProviderBatch"]

SETTLE_S = 60.0
"""Seconds after which a batch whose submission had no answer is in the provider's list, or was never created.

Chosen to be well above the time that a provider needs to list a new batch: the calls of a batch that appears later
would be paid twice.
"""
MAX_DOWNLOADS = 3
"""How often results with missing calls are read: a proxy may have cut off a download without an error."""
_CALLS_PER_TURN = 256  # calls that are encoded between two turns of the event loop, which must stay short
_ALREADY_ENDED = (400, 409)  # the status of a request to cancel a batch that has ended

Answered: TypeAlias = tuple[str, APIResponse]
OnState: TypeAlias = Callable[[str, BatchState], Awaitable[None] | None]
T = TypeVar("T")


class ProviderBatch:
    """Submits calls to the providers' batch APIs and waits for their answers.

    Args:
        journal: The open journal of these calls.
        max_requests: Most calls in one batch; the provider's own limits apply as well.
        max_attempts: How often a batch is submitted that the provider refuses with a retryable error.
        retry: Which calls that failed in an earlier run are sent again: those with a retryable error, or all.
        on_state: Called after each poll with our name of the batch and its state; may be async. After an exception it
            is not called again, and the run goes on.
        sleep: Waits for a number of seconds.
        now: Returns the seconds since 1970.
        new_name: Returns a new name for a batch, of at most 40 digits and lower-case letters.

    Example:
        >>> async for call, response in ProviderBatch(journal).run([("a", plan_a), ("b", plan_b)]):
        ...     print(call, response.completion)
    """

    def __init__(
        self,
        journal: Journal,
        *,
        max_requests: int = 1_000_000,
        max_attempts: int = 5,
        retry: Literal["retryable", "all"] = "retryable",
        on_state: OnState | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.time,
        new_name: Callable[[], str] = lambda: secrets.token_hex(10),
    ) -> None:
        self._journal = journal
        self._max_requests = max_requests
        self._max_attempts = max_attempts
        self._retries_all = retry == "all"
        self._on_state = on_state
        self._sleep = sleep
        self._now = now
        self._new_name = new_name
        self._is_stopped = asyncio.Event()
        self._calls: dict[str, BatchedCall] = {}
        self._parts: dict[tuple[str, ...], BatchPart] = {}
        self._live: dict[str, LiveBatch] = {}
        self._deferred: list[BatchPart] = []  # refused while other batches fill the provider's queue

    async def run(self, plans: Iterable[tuple[str, CallPlan | DelugeError]]) -> AsyncGenerator[Answered, None]:
        """Yield the id and response of each call: first those of earlier runs, then batch by batch.

        A call that fails has `error` set on its response; `retry` decides whether the next run sends it again.

        Args:
            plans: Id and plan of each call, or the error for which it has no plan. A resumed run needs all of them too.

        Raises:
            ConfigurationError: A provider has no batch API.
            JournalError: The journal cannot be written.
            QueueClosedError: `stop` was called.
            DelugeError: The provider refused the key or the model, or was unreachable for an hour. Run again to resume.
        """
        try:
            async with aclosing(self._submit_new(plans)) as answers:
                async for answered in answers:
                    yield answered
            for key in list(self._parts):
                for answered in await self._close_part(key):
                    yield answered
            async with aclosing(self._poll_all()) as answers:
                async for answered in answers:
                    yield answered
        finally:
            for part in (*self._parts.values(), *self._deferred):
                part.items.close()
            for live in self._live.values():
                live.release()
            self._parts.clear()
            self._deferred.clear()

    async def cancel(self) -> None:
        """Cancel the submitted batches. `run` still yields the answers that are finished by then.

        Raises:
            DelugeError: The provider refused or did not answer.
        """
        for live in list(self._live.values()):
            try:
                await live.client.ask(live.api.build_cancel(live.plan.call, live.handle))
            except APIError as error:
                if error.status_code not in _ALREADY_ENDED:
                    raise

    def stop(self) -> None:
        """Submit no more batches, and end `run` with a `QueueClosedError`.

        The provider goes on with the submitted batches; the next run with the journal fetches their answers.
        """
        self._is_stopped.set()

    async def _pause(self, seconds: float) -> None:
        """Wait, at most until `stop` is called."""
        sleeping = asyncio.ensure_future(self._sleep(seconds))
        stopping = asyncio.ensure_future(self._is_stopped.wait())
        try:
            await asyncio.wait((sleeping, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            sleeping.cancel()
            await asyncio.gather(sleeping, stopping, return_exceptions=True)
        self._check_stop()
        if not sleeping.cancelled():
            sleeping.result()

    def _check_stop(self) -> None:
        if self._is_stopped.is_set():
            raise QueueClosedError("the batch is being stopped")

    async def _submit_new(self, plans: Iterable[tuple[str, CallPlan | DelugeError]]) -> AsyncGenerator[Answered, None]:
        """Collect the calls without an answer into batches and submit each full batch; yield the other calls."""
        journal = self._journal
        known = {each: batch for batch in journal.state.open_batches for each in journal.state.waiting_in(batch)}
        for number, (call_id, plan) in enumerate(plans):
            if number % _CALLS_PER_TURN == 0:
                await asyncio.sleep(0)
            self._check_stop()
            if (previous := self._previous_answer(call_id)) is not None:
                yield call_id, previous
            elif isinstance(plan, DelugeError):
                yield call_id, await self._refuse(call_id, APIResponse(error=plan))
            elif not await self._is_at_provider(call_id, plan, known.get(call_id)):
                for answered in await self._collect(call_id, plan):
                    yield answered

    def _previous_answer(self, call_id: str) -> APIResponse | None:
        """Return the response from an earlier run; None if the call is to be sent."""
        previous = self._journal.response(call_id)
        if previous is None or previous.error is None:
            return previous
        # A call that was never sent has cost nothing, so it is always tried again.
        is_due = self._retries_all or previous.error.retryable or not self._journal.state.attempts(call_id)
        return None if is_due else previous

    async def _refuse(self, call_id: str, answer: APIResponse) -> APIResponse:
        """Record the response of a call that cannot be sent, as attempt 0, and return it."""
        known = self._journal.response(call_id)
        if known is None or known.error_message != answer.error_message:
            return await self._journal.settle(call_id, 0, answer)
        return answer

    async def _is_at_provider(self, call_id: str, plan: CallPlan, batch: SubmittedBatch | None) -> bool:
        """Whether an earlier run has submitted a call; its batch is then polled."""
        api = find_batch_api(plan.call.provider)
        self._calls[call_id] = BatchedCall.of(plan)
        if batch is None or batch.handle == "":
            return False
        if batch.name not in self._live:
            live = LiveBatch(batch, plan, api)
            if batch.handle is None:
                found = await self._find(live)
                await self._journal.record_handle(batch.name, plan.call.provider.id, found or "")
                if found is None:
                    return False
            live.part = BatchPart(plan, api, self._new_name(), self._max_requests)
            self._live[batch.name] = live
        self._live[batch.name].keep(call_id, plan)
        return True

    async def _collect(self, call_id: str, plan: CallPlan) -> list[Answered]:
        """Add a call to a batch that is not submitted yet; return the responses that are already known."""
        api = find_batch_api(plan.call.provider)
        call = msgspec.structs.replace(plan.call, is_streamed=False)
        try:
            request = plan.adapter.build_request(call)
        except Exception as error:  # noqa: BLE001 - one call must not end the batch
            failed = build_failure(self._calls.pop(call_id), unexpected_error(error))
            return [(call_id, await self._refuse(call_id, failed))]
        key = (call.provider.id, call.provider.adapter, call.model.id, call.base_url)
        answers: list[Answered] = []
        part = self._parts.get(key)
        if part is not None:
            if part.maybe_add(call_id, call, request):
                return []
            answers = await self._close_part(key)
        part = self._parts[key] = BatchPart(plan, api, self._new_name(), self._max_requests)
        if not part.maybe_add(call_id, call, request):
            too_large = RequestTooLargeError("the request is larger than the provider's limit for a whole batch")
            failed = build_failure(self._calls.pop(call_id), too_large)
            answers.append((call_id, await self._refuse(call_id, failed)))
        return answers

    async def _close_part(self, key: tuple[str, ...]) -> list[Answered]:
        """Submit the collected calls. If the provider refuses them as invalid requests, return the error for each."""
        part = self._parts.pop(key)
        if not part.ids:
            part.items.close()
            return []
        try:
            return await self._submit_part(part)
        except BaseException:
            part.items.close()
            raise

    async def _submit_part(self, part: BatchPart) -> list[Answered]:
        journal = self._journal
        self._check_stop()
        attempt = 1 + max(journal.state.attempts(each) for each in part.ids)
        await journal.submit(part.name, part.ids, attempt, at=self._now())
        live = LiveBatch(journal.state.batches[part.name], part.plan, part.api, FIRST_WAIT_S, part)
        submitted = await self._submit(part, live)
        provider = part.plan.call.provider.id
        if isinstance(submitted, str):
            await journal.record_handle(part.name, provider, submitted)
            self._live[part.name] = live
            return []
        await journal.record_handle(part.name, provider, "")
        if isinstance(submitted, RateLimitError) and self._has_others(part):
            self._defer(part, submitted)
            return []
        part.items.close()
        if submitted.scope != "request":
            raise submitted
        return await self._fail(part.ids, attempt, submitted)

    def _has_others(self, part: BatchPart) -> bool:
        """Whether the provider has other batches of this run, whose end makes room in its queue."""
        provider = part.plan.call.provider.id
        return any(live.plan.call.provider.id == provider for live in self._live.values())

    def _defer(self, part: BatchPart, error: DelugeError) -> None:
        part.refusal = error
        self._deferred.append(part)

    async def _submit_deferred(self) -> list[Answered]:
        """Submit each deferred batch again, if another batch has ended, or after a wait if there is no other one."""
        answers: list[Answered] = []
        deferred, self._deferred = self._deferred, []
        while deferred:
            part = deferred.pop(0)
            try:
                if not self._has_others(part):
                    part.tries += 1
                    if part.tries > self._max_attempts:
                        part.items.close()
                        attempt = max(self._journal.state.attempts(each) for each in part.ids)
                        answers += await self._fail(part.ids, attempt, part.refusal)
                        continue
                    await self._pause(LONGEST_WAIT_S)
                answers += await self._submit_part(part)
            except BaseException:
                self._deferred += (part, *deferred)  # closed by `run`
                raise
        return answers

    async def _submit(self, part: BatchPart, live: LiveBatch) -> str | DelugeError:
        """Submit a batch; return its handle, or the error if the provider does not have the batch.

        Raises:
            DelugeError: It is unknown whether the provider has the batch.
        """
        tries = self._max_attempts
        wait = FIRST_WAIT_S
        while True:
            try:
                return await live.client.run(part.api.submit(part.plan.call, part.items, part.name))
            except DelugeError as error:
                if may_have_been_accepted(error) and (found := await self._find(live)):
                    return found
                tries -= 1
                if not error.retryable or not tries:
                    return error
                await self._pause(max(wait, requested_wait(error)))
                wait = min(wait * 2, LONGEST_WAIT_S)

    async def _find(self, live: LiveBatch) -> str | None:
        """Return the handle of a batch whose submission had no answer; None if the provider does not have the batch.

        A provider that stores no name of ours identifies a batch only by its results, so this may take as long as other
        batches of the account are in progress.
        """
        call, batch, api = live.plan.call, live.batch, live.api
        others = {each.handle for each in self._journal.state.batches.values() if each.handle}
        foreign: set[str] = set()
        for is_last in (False, True):

            def search() -> Awaitable[list[ListedBatch]]:
                return live.client.run(api.search(call, batch.name, count=len(batch.ids), since=batch.at))

            for sighting in await self._retrying(search):
                if sighting.handle in others or sighting.handle in foreign:
                    continue
                if sighting.is_ours or (sighting.is_ours is None and await self._has_our_names(live, sighting.handle)):
                    return sighting.handle
                foreign.add(sighting.handle)
            settled_in = batch.at + SETTLE_S - self._now()
            if is_last or settled_in <= 0:
                break
            await self._pause(min(settled_in, SETTLE_S))
        return None

    async def _has_our_names(self, live: LiveBatch, handle: str) -> bool:
        """Whether the results of a batch are those of our calls; waits until the batch has ended."""
        wait = FIRST_WAIT_S
        while not (state := await self._retrying(partial(live.state, handle))).is_over:
            await self._pause(wait)
            wait = min(wait * 2, LONGEST_WAIT_S)
        return await self._retrying(partial(live.has_our_first_result, state))

    async def _retrying(self, send: Callable[[], Awaitable[T]]) -> T:
        """Send a request until it succeeds, or fails with an error that is not retryable."""
        backoff = Backoff(self._pause)
        while True:
            try:
                return await send()
            except DelugeError as error:
                await backoff.wait(error)

    async def _poll_all(self) -> AsyncGenerator[Answered, None]:
        """Poll the batches in turn; yield the answers of each batch that has ended."""
        while self._live or self._deferred:
            if not self._live:
                for answered in await self._submit_deferred():
                    yield answered
                continue
            live = min(self._live.values(), key=lambda each: each.wait_s)
            state = await self._poll(live)
            if state.phase == "in_progress":
                live.release()
            if not state.is_over or live.waits_for_results(state, self._now()):
                live.put_off()
                continue
            part = live.part
            if isinstance(state.error, RateLimitError) and part is not None:
                await self._journal.record_handle(live.batch.name, live.plan.call.provider.id, "")
                del self._live[live.batch.name]
                self._defer(part, state.error)
                continue
            async with aclosing(self._fetch(live, state)) as answers:
                async for answered in answers:
                    yield answered
            live.release()
            del self._live[live.batch.name]
            for answered in await self._submit_deferred():
                yield answered

    async def _poll(self, live: LiveBatch) -> BatchState:
        """Return the state of a batch, after the wait until its next poll."""
        waited = max(live.wait_s, 0.0)
        if waited:
            await self._pause(waited)
        for each in self._live.values():
            each.wait_s -= waited
        try:
            state = await self._retrying(partial(live.state, live.handle))
        except NotFoundError as error:
            error.hint = (
                f"The journal has the batch {live.handle}, and the provider does not know it. Use the API key that "
                "the batch was submitted with, or move the journal away to start again."
            )
            raise
        await self._notify(live.batch.name, state)
        return state

    async def _notify(self, name: str, state: BatchState) -> None:
        """Call `on_state`. An exception of the user's function must not end paid work."""
        if self._on_state is None:
            return
        error = await failure_of(self._on_state, name, state)
        if error is not None:
            self._on_state = None
            with suppress(Exception):  # warnings may be errors
                warnings.warn(f"on_state raised {type(error).__name__}", RuntimeWarning, stacklevel=2)

    async def _fetch(self, live: LiveBatch, state: BatchState) -> AsyncGenerator[Answered, None]:
        """Yield the answers of a batch that has ended, then an error for each call that has no answer."""
        waiting = {each for each in self._journal.state.waiting_in(live.batch) if each in self._calls}
        for tries in range(MAX_DOWNLOADS):
            if not waiting or (tries and not state.results):
                break
            async with aclosing(self._download(live, state, waiting)) as answers:
                async for answered in answers:
                    yield answered
        missing = [each for each in live.batch.ids if each in waiting]
        for answered in await self._fail(missing, live.batch.attempt, missing_error(state)):
            yield answered

    async def _download(self, live: LiveBatch, state: BatchState, waiting: set[str]) -> AsyncGenerator[Answered, None]:
        for request in live.api.build_results(live.plan.call, state):
            backoff = Backoff(self._pause)
            while True:
                try:
                    async with aclosing(live.client.lines(request)) as reads:
                        async for lines in reads:
                            for answered in await self._record(live, lines, waiting):
                                yield answered
                    break
                except NotFoundError:  # the provider deletes results after some weeks
                    break
                except DelugeError as error:
                    await backoff.wait(error)

    async def _record(self, live: LiveBatch, lines: list[bytes], waiting: set[str]) -> list[Answered]:
        """Record the answers in lines of the results, and return them; of two answers to a call the first counts."""
        answers: list[Answered] = []
        for line in lines:
            try:
                result = live.api.read_result(line)
            except Exception:  # noqa: BLE001, S112 - its call has no answer then
                continue
            call_id = live.call_of(index_in(live.batch.name, result.custom_id))
            if call_id is not None and call_id in waiting:
                waiting.discard(call_id)
                call = self._calls.pop(call_id)
                try:
                    answer = build_batched_answer(call, result, attempt=live.batch.attempt)
                except Exception as error:  # noqa: BLE001 - one call must not end the batch
                    answer = build_failure(call, unexpected_error(error), attempt=live.batch.attempt)
                answers.append((call_id, answer))
        return await self._write(live.batch.attempt, answers)

    async def _fail(self, ids: list[str], attempt: int, error: DelugeError) -> list[Answered]:
        """Record an error as the response of each call, and return the responses."""
        answers: list[Answered] = []
        for call_id in ids:
            call = self._calls.pop(call_id)
            answers.append((call_id, build_failure(call, copy.copy(error), attempt=attempt)))
        return await self._write(attempt, answers)

    async def _write(self, attempt: int, answers: list[Answered]) -> list[Answered]:
        """Record answers, and return them as the journal has them."""
        written = await asyncio.gather(*(self._journal.settle(call_id, attempt, each) for call_id, each in answers))
        return [(call_id, each) for (call_id, _), each in zip(answers, written, strict=True)]
