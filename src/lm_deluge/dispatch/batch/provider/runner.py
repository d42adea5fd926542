"""Runs calls as batches of the provider's own API: at half the price, answered within a day, and never sent twice.

    async with await Journal.open(path, fingerprint=...) as journal:
        async for call, response in ProviderBatch(journal).run(plans):
            ...

What happens stands in the journal before it happens: the calls of a batch before it is handed over, its handle before
the first poll, each answer before anybody sees it. So a run that died is resumed by running the same calls on the same
journal: batches with a handle are polled on, what was answered is told from the journal, and a batch of which nobody
knows whether the provider has it is looked for in the provider's list before its calls are sent again.
"""

from __future__ import annotations

import asyncio
import copy
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from functools import partial
from typing import Literal, TypeAlias, TypeVar

import msgspec

from lm_deluge.adapters.batch_api import BatchState, ListedBatch, batch_ended, index_in
from lm_deluge.adapters.batch_catalog import find_batch_api
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.dispatch.batch.provider.part import FIRST_WAIT_S, LONGEST_WAIT_S, BatchPart, LiveBatch
from lm_deluge.dispatch.batch.provider.response import BatchedCall, build_batched_answer, build_failure
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.dispatch.journal.records import SubmittedBatch
from lm_deluge.errors import (
    APIError,
    ConfigurationError,
    ConnectError,
    DelugeError,
    NotFoundError,
    QueueClosedError,
    RedirectRefusedError,
    RequestTooLargeError,
)
from lm_deluge.response import APIResponse

__all__ = ["Answered", "ProviderBatch"]

PATIENCE_S = 3_600.0
"""So long the provider may be out of reach, or fail, before a run gives up; the batch itself goes on there."""
SETTLE_S = 60.0
"""After so long a submission whose answer was lost has come into being, or never will."""
MOST_DOWNLOADS = 3
"""So often results are read that some calls are missing from: a proxy may have cut them short without a word."""
_TURN = 256  # calls that are encoded before others in the loop have their turn
_OVER_ALREADY = (400, 409)
_SERVER_ERROR = 500

Answered: TypeAlias = tuple[str, APIResponse]
T = TypeVar("T")


class ProviderBatch:
    """Hands calls over to the providers' batch APIs, and waits for their answers.

    Args:
        journal: Of these calls, open; nobody else writes it meanwhile.
        max_requests: Calls in one batch at most; the provider's own limits hold beside it.
        max_attempts: How often a batch that the provider does not take for now is handed over.
        retry: Which calls that failed in an earlier run are asked again: those whose errors pass (`retryable`), or all.
        on_state: Is told what each poll finds: our name of the batch, and its state.
        sleep: Waits so many seconds.
        now: Seconds since 1970.
        new_name: Makes a name for a batch: up to 40 digits and lower-case letters.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        max_requests: int = 1_000_000,
        max_attempts: int = 5,
        retry: Literal["retryable", "all"] = "retryable",
        on_state: Callable[[str, BatchState], None] | None = None,
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

    async def run(self, plans: Iterable[tuple[str, CallPlan | DelugeError]]) -> AsyncGenerator[Answered, None]:
        """Yield each call's id and answer as it comes: first those of earlier runs, then batch by batch.

        A call that fails is an answer with the error on it; `retry` says which of them the next run asks again.

        Args:
            plans: Id and plan of each call, or what is wrong with it. All of them, in a resumed run too.

        Raises:
            ConfigurationError: A provider has no batch API.
            JournalError: What happens cannot be written down.
            QueueClosedError: It was stopped.
            DelugeError: The provider refuses the key or the model, or is out of reach for an hour. Run again to go on.
        """
        try:
            async with aclosing(self._take(plans)) as answers:
                async for answered in answers:
                    yield answered
            for key in list(self._parts):
                for answered in await self._close_part(key):
                    yield answered
            async with aclosing(self._wait()) as answers:
                async for answered in answers:
                    yield answered
        finally:
            for part in self._parts.values():
                part.items.close()
            self._parts.clear()

    async def cancel(self) -> None:
        """End the batches that are under way at the provider. What is finished by then still comes as answers.

        Raises:
            DelugeError: The provider refuses, or no answer came.
        """
        for live in list(self._live.values()):
            try:
                await live.client.ask(live.api.build_cancel(live.plan.call, live.handle))
            except APIError as error:
                if error.status_code not in _OVER_ALREADY:
                    raise

    def stop(self) -> None:
        """Hand nothing more over, and end `run` where it waits, with a `QueueClosedError`.

        What the provider has goes on there; the next run on the journal fetches it.
        """
        self._is_stopped.set()

    async def _pause(self, seconds: float) -> None:
        """Wait, but not beyond `stop`."""
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

    async def _take(self, plans: Iterable[tuple[str, CallPlan | DelugeError]]) -> AsyncGenerator[Answered, None]:
        """Sort the calls that nobody has answered into batches; hand over each that is full."""
        journal = self._journal
        known = {each: batch for batch in journal.state.open_batches for each in journal.state.waiting_in(batch)}
        for number, (call_id, plan) in enumerate(plans):
            if number % _TURN == 0:
                await asyncio.sleep(0)
            self._check_stop()
            if (told := self._told(call_id)) is not None:
                yield call_id, told
            elif isinstance(plan, DelugeError):
                yield call_id, await self._refuse(call_id, APIResponse(error=plan))
            elif not await self._is_at_provider(call_id, plan, known.get(call_id)):
                for answered in await self._collect(call_id, plan):
                    yield answered

    def _told(self, call_id: str) -> APIResponse | None:
        """Return the answer of an earlier run, None where the call is to be asked."""
        told = self._journal.response(call_id)
        if told is None or told.error is None:
            return told
        # What was never sent costs nothing to be tried again.
        is_due = self._retries_all or told.error.retryable or not self._journal.state.attempts(call_id)
        return None if is_due else told

    async def _refuse(self, call_id: str, answer: APIResponse) -> APIResponse:
        """Return the answer of a call that cannot be sent, in the journal by then: as attempt 0."""
        known = self._journal.response(call_id)
        if known is None or known.error_message != answer.error_message:
            await self._journal.fail(call_id, 0, answer, is_final=True)
        return answer

    async def _is_at_provider(self, call_id: str, plan: CallPlan, batch: SubmittedBatch | None) -> bool:
        """Whether an earlier run handed a call over; its batch is then polled."""
        api = find_batch_api(plan.call.provider)
        self._calls[call_id] = BatchedCall.of(plan.call)
        if batch is None or batch.handle == "":
            return False
        if batch.name not in self._live:
            live = LiveBatch(batch, plan, api)
            if batch.handle is None:
                found = await self._find(live)
                await self._journal.hand_over(batch.name, plan.call.provider.id, found or "")
                if found is None:
                    return False
            self._live[batch.name] = live
        return True

    async def _collect(self, call_id: str, plan: CallPlan) -> list[Answered]:
        """Put a call into a batch that is not handed over so far; return the answers that are due already."""
        api = find_batch_api(plan.call.provider)
        call = msgspec.structs.replace(plan.call, is_streamed=False)
        try:
            request = plan.adapter.build_request(call)
        except ConfigurationError as error:
            return [(call_id, await self._refuse(call_id, build_failure(self._calls.pop(call_id), error)))]
        key = (call.provider.id, call.model.id, call.base_url)
        answers: list[Answered] = []
        part = self._parts.get(key)
        if part is not None:
            if part.maybe_add(call_id, call, request):
                return []
            answers = await self._close_part(key)
        part = self._parts[key] = BatchPart(plan, api, self._new_name(), self._max_requests)
        if not part.maybe_add(call_id, call, request):
            too_large = RequestTooLargeError("the request is larger than a whole batch may be")
            failed = build_failure(self._calls.pop(call_id), too_large)
            answers.append((call_id, await self._refuse(call_id, failed)))
        return answers

    async def _close_part(self, key: tuple[str, ...]) -> list[Answered]:
        """Hand over the calls that were collected. Those that the provider refuses for their own sake are answered."""
        part = self._parts.pop(key)
        journal = self._journal
        try:
            if not part.ids:
                return []
            self._check_stop()
            attempt = 1 + max(journal.state.attempts(each) for each in part.ids)
            await journal.submit(part.name, part.ids, attempt, at=self._now())
            live = LiveBatch(journal.state.batches[part.name], part.plan, part.api, FIRST_WAIT_S)
            taken = await self._submit(part, live)
            provider = part.plan.call.provider.id
            if isinstance(taken, str):
                await journal.hand_over(part.name, provider, taken)
                self._live[part.name] = live
                return []
            await journal.hand_over(part.name, provider, "")
        finally:
            part.items.close()
        if taken.scope != "request":
            raise taken
        return await self._fail(part.ids, attempt, taken)

    async def _submit(self, part: BatchPart, live: LiveBatch) -> str | DelugeError:
        """Return the handle of a batch, or the error for which the provider does not have it.

        Raises:
            DelugeError: Nobody knows whether it has it.
        """
        tries = self._max_attempts
        wait = FIRST_WAIT_S
        while True:
            try:
                return await live.client.run(part.api.submit(part.plan.call, part.items, part.name))
            except DelugeError as error:
                if _may_have_begun(error) and (found := await self._find(live)):
                    return found
                tries -= 1
                if not error.retryable or not tries:
                    return error
                await self._pause(max(wait, _asked_wait(error)))
                wait = min(wait * 2, LONGEST_WAIT_S)

    async def _find(self, live: LiveBatch) -> str | None:
        """Return the handle of a batch whose submission was not seen to its end; None where the provider has none.

        A batch that its provider cannot be asked for by name is known by its results alone: that may take as long as
        other batches of the account that are under way.
        """
        call, batch, api = live.plan.call, live.batch, live.api
        others = {each.handle for each in self._journal.state.batches.values() if each.handle}
        foreign: set[str] = set()
        for is_last in (False, True):

            def look() -> Awaitable[list[ListedBatch]]:
                search = api.search(call, batch.name, count=len(batch.ids), since=batch.at)
                return live.client.run(search)

            for sighting in await self._patiently(look):
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
        """Whether the results of a batch, once it has ended, are those of our calls."""
        wait = FIRST_WAIT_S
        while not (state := await self._patiently(partial(live.state, handle))).is_over:
            await self._pause(wait)
            wait = min(wait * 2, LONGEST_WAIT_S)
        return await self._patiently(partial(_begins_with, live, state))

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer: what passes is waited for."""
        patience = _Patience(self._pause)
        while True:
            try:
                return await ask()
            except DelugeError as error:
                await patience.wait(error)

    async def _wait(self) -> AsyncGenerator[Answered, None]:
        """Poll the batches in turn; yield what those that are over bring."""
        while self._live:
            live = min(self._live.values(), key=lambda each: each.wait_s)
            waited = max(live.wait_s, 0.0)
            if waited:
                await self._pause(waited)
            for each in self._live.values():
                each.wait_s -= waited
            try:
                state = await self._patiently(partial(live.state, live.handle))
            except NotFoundError as error:
                error.hint = (
                    f"The journal says that it has the batch {live.handle}: ask with the key that it was handed over "
                    "with, or move the journal away to begin anew."
                )
                raise
            if self._on_state is not None:
                self._on_state(live.batch.name, state)
            if not state.is_over:
                live.put_off()
                continue
            async with aclosing(self._fetch(live, state)) as answers:
                async for answered in answers:
                    yield answered
            del self._live[live.batch.name]

    async def _fetch(self, live: LiveBatch, state: BatchState) -> AsyncGenerator[Answered, None]:
        """Yield the answers of a batch that is over, then the errors of the calls that it left without one."""
        waiting = {each for each in self._journal.state.waiting_in(live.batch) if each in self._calls}
        for tries in range(MOST_DOWNLOADS):
            if not waiting or (tries and not state.results):
                break
            async with aclosing(self._download(live, state, waiting)) as answers:
                async for answered in answers:
                    yield answered
        left = [each for each in live.batch.ids if each in waiting]
        for answered in await self._fail(left, live.batch.attempt, _why_unanswered(state)):
            yield answered

    async def _download(self, live: LiveBatch, state: BatchState, waiting: set[str]) -> AsyncGenerator[Answered, None]:
        for request in live.api.build_results(live.plan.call, state):
            patience = _Patience(self._pause)
            while True:
                try:
                    async with aclosing(live.client.lines(request)) as reads:
                        async for lines in reads:
                            for answered in await self._record(live, lines, waiting):
                                yield answered
                    break
                except NotFoundError:  # results are kept for weeks, not for ever
                    break
                except DelugeError as error:
                    await patience.wait(error)

    async def _record(self, live: LiveBatch, lines: list[bytes], waiting: set[str]) -> list[Answered]:
        """Read lines of the results; return the answers, which are in the journal by then. Of two the first counts."""
        answers: list[Answered] = []
        for line in lines:
            try:
                result = live.api.read_result(line)
            except DelugeError:
                continue  # what it was about is a call without an answer
            call_id = live.call_of(index_in(live.batch.name, result.custom_id))
            if call_id is not None and call_id in waiting:
                waiting.discard(call_id)
                asked = self._calls.pop(call_id)
                answer = build_batched_answer(live.plan.adapter, asked, result, attempt=live.batch.attempt)
                answers.append((call_id, answer))
        await asyncio.gather(*(self._write(call_id, live.batch.attempt, answer) for call_id, answer in answers))
        return answers

    async def _fail(self, ids: list[str], attempt: int, error: DelugeError) -> list[Answered]:
        """Return the error as the answer of each call, in the journal by then."""
        answers: list[Answered] = []
        for call_id in ids:
            asked = self._calls.pop(call_id)
            answers.append((call_id, build_failure(asked, copy.copy(error), attempt=attempt)))
        await asyncio.gather(*(self._write(call_id, attempt, answer) for call_id, answer in answers))
        return answers

    async def _write(self, call_id: str, attempt: int, answer: APIResponse) -> None:
        if answer.error is None:
            await self._journal.finish(call_id, attempt, answer)
        else:
            await self._journal.fail(call_id, attempt, answer, is_final=True)


class _Patience:
    """How long errors that pass are waited for, with growing waits."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._sleep = sleep
        self._spent_s = 0.0
        self._delay_s = FIRST_WAIT_S

    async def wait(self, error: DelugeError) -> None:
        """Wait until it is worth asking again.

        Raises:
            DelugeError: This one, where it does not pass, or has not for long.
        """
        if not error.retryable or self._spent_s >= PATIENCE_S:
            raise error
        wait = max(self._delay_s, _asked_wait(error))
        await self._sleep(wait)
        self._spent_s += wait
        self._delay_s = min(self._delay_s * 2, LONGEST_WAIT_S)


def _asked_wait(error: DelugeError) -> float:
    """Return the seconds that the provider wants us to wait, within reason."""
    return min(getattr(error, "retry_after_s", None) or 0.0, PATIENCE_S)


def _may_have_begun(error: DelugeError) -> bool:
    """Whether a submission that ended with this error may have begun a batch all the same."""
    if isinstance(error, APIError):
        return error.status_code is None or error.status_code >= _SERVER_ERROR
    return not isinstance(error, ConnectError | ConfigurationError | RedirectRefusedError)


async def _begins_with(live: LiveBatch, state: BatchState) -> bool:
    for request in live.api.build_results(live.plan.call, state):
        async with aclosing(live.client.lines(request)) as reads:
            async for lines in reads:
                return index_in(live.batch.name, live.api.read_result(lines[0]).custom_id) is not None
    return False


def _why_unanswered(state: BatchState) -> APIError:
    if state.error is not None:
        return state.error
    if state.phase in ("expired", "cancelled"):
        return batch_ended(
            f"{'expired' if state.phase == 'expired' else 'was cancelled'} without an answer", state.phase
        )
    return batch_ended("ended without a result for this request", "missing")
