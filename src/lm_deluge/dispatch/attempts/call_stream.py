"""A call as a stream of events: attempts until the first delta, then that attempt to its end.

Events are buffered until an attempt brings its first delta. Until then a failure is followed by another attempt, at the
same model or another one, and an attempt that stays silent gets a second one beside it (hedging). From then on
`on_break` decides: an error, an answer that starts again, or an answer that is continued. In background mode a stream
that broke is resumed at the provider instead, before and after the first delta.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
from collections.abc import Callable, Iterable

import msgspec

from lm_deluge.api_requests.answer import build_stats
from lm_deluge.api_requests.timeouts import Deadline, Interruptible
from lm_deluge.dispatch.attempts.attempt import AdmittedCall, CallAttempt, PendingRetry
from lm_deluge.dispatch.attempts.background import UpstreamCancels, can_resume, resume_attempt
from lm_deluge.dispatch.attempts.discarded_cost import DiscardedAttempt, DiscardedCost, usage_of_failed
from lm_deluge.dispatch.attempts.hedge import Hedge
from lm_deluge.dispatch.attempts.splice import SpliceError
from lm_deluge.dispatch.attempts.spliced_response import SplicedResponse
from lm_deluge.dispatch.budget import CallBudget
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.scheduling.first_token_times import FirstTokenTimes
from lm_deluge.dispatch.scheduling.queue import Job
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.dispatch.scheduling.scheduler import Admission
from lm_deluge.errors import APIError, ConfigurationError, DelugeError, DispatchError
from lm_deluge.events import Event, ResponseStarted
from lm_deluge.response import APIResponse, StreamStats

__all__ = ["StreamCall"]


class StreamCall:
    """One logical stream: `next_batch` until it returns nothing, then `close`; or `abort`, from anywhere.

    Attributes:
        error: What the call ended with, None as long as it did not fail.
        scope: Interrupts the wait of the caller's task when the call is aborted.
    """

    def __init__(self, spec: CallSpec, find_runner: Callable[[], Runner]) -> None:
        self.error: DelugeError | None = None
        self.scope: Deadline | None = None
        self._spec = spec
        self._find_runner = find_runner
        self._call: AdmittedCall | None = None  # None until it asks for admission
        self._attempt: CallAttempt | None = None  # the attempt whose events are delivered
        self._opening: CallAttempt | None = None  # an attempt of which nothing was delivered
        self._hedge: Hedge | None = None  # the second attempt beside it
        self._losers: tuple[DiscardedAttempt, ...] = ()  # of a race, not yet reported to `on_attempt_failed`
        self._discarded = DiscardedCost()  # of attempts whose answers are not kept
        self._spliced: SplicedResponse | None = None  # of an answer that is continued after a break
        self._budget = CallBudget(spec.budgets) if spec.budgets else None
        self._overspent: DelugeError | None = None
        self._cancels: UpstreamCancels | None = None  # of answers in background mode
        self._is_aborted = False
        self._is_over = False
        self._ended_at: float | None = None
        # If the caller reads no events and no cost is checked, nothing is done from one read to the next.
        self._skips_events = not (spec.delivers_events or spec.needs_events) and self._budget is None

    async def next_batch(self) -> list[Event]:
        """Return the next events, at least one; empty at the end, and after an abort.

        Raises:
            DelugeError: The call failed; `partial` is what was received, once any event was returned.
        """
        if self._is_over or self._overspent is not None:
            return await self._stop()
        attempt = self._attempt
        try:
            if attempt is None:
                with Interruptible(self):
                    events = await self._first_events(self._admitted(), None)
            elif self._spliced is not None:
                events = await self._splice(await self._read(attempt))
            else:  # nearly always: no further coroutine
                try:
                    events = await attempt.reader.next_batch(to_end=self._skips_events)
                except DelugeError as error:
                    events = await self._splice(await self._after_break(attempt, error))
        except DelugeError as error:
            if self._is_aborted:
                return []
            await self._fail(error)
            raise
        except BaseException as error:
            if self._is_aborted and isinstance(error, builtins.TimeoutError):
                return []
            self.abort()
            raise
        if events and attempt is not None and attempt.call.watch is None and self._budget is None:  # nearly always
            return events
        return self._noted(events)

    def _noted(self, events: list[Event]) -> list[Event]:
        """Return the events, after noting the end of the call if there are none, or what they cost."""
        if not events:
            self._end()
        elif self._budget is not None:
            self._charge(self._budget)
        if events and self._attempt is not None and self._attempt.call.watch is not None:
            self._attempt.report_read(len(events))
        return events

    async def _stop(self) -> list[Event]:
        """Return nothing after the end; raise if the budget is spent."""
        overspent = self._overspent  # the end charges once more, and may set another one
        if self._is_over or overspent is None:
            return []
        await self._fail(overspent)
        raise overspent

    def _admitted(self) -> AdmittedCall:
        if self._call is None:
            self._call = AdmittedCall(self._find_runner(), self._spec)
            self._skips_events = self._skips_events and not self._call.wants_reads
        return self._call

    async def _after_break(self, attempt: CallAttempt, error: DelugeError) -> list[Event]:
        """Return the next events after the stream broke; raise `error` if there are none."""
        if self._is_aborted:
            raise error
        on_break = self._spec.on_break
        with Interruptible(self):
            if can_resume(attempt.stream, error):
                try:
                    return await resume_attempt(attempt, error, lambda: self._is_aborted)
                except DelugeError:
                    if on_break != "continue":
                        raise
            self._end_attempt(attempt, error)
            if on_break == "raise":
                raise error
            if on_break == "restart":
                return await self._first_events(attempt.call, error)
            return await self._continue(attempt, error)

    async def _first_events(self, call: AdmittedCall, error: DelugeError | None) -> list[Event]:
        """Open attempts until one has output; return its events, and an `Attempt` event for each one before.

        Args:
            call: The call.
            error: What ended the attempt before.
        """
        notes: list[Event] = []
        while True:
            if error is not None and self._is_aborted:
                raise error  # nothing more is sent
            wait_s = 0.0 if error is None else await self._wait_before_next(call, error)
            attempt = await self._admit(call, wait_s)
            if error is not None:
                notes.append(attempt.event_after(error, wait_s))
            buffered: list[Event] | None = None
            try:
                times = call.runner.first_tokens
                if times is None:
                    buffered = await self._open(attempt)
                else:
                    buffered = await self._race(times, attempt, notes)
            except DelugeError as failure:
                error = failure
                failed = self._opening or attempt
                self._end_attempt(failed, failure)
                self._discarded.add(failed, usage_of_failed(failed))
            while self._losers:
                loser, self._losers = self._losers[0], self._losers[1:]
                await self._report_failed(loser)
            if buffered is not None:
                return self._deliver(self._opening or attempt, buffered, notes)

    async def _admit(self, call: AdmittedCall, wait_s: float) -> CallAttempt:
        """Wait for admission, `wait_s` at least; return the attempt. A model that cannot take the call is skipped."""
        while True:
            start = await call.admit(wait_s)
            try:
                attempt = self._opening = await self._begin(call, start)
            except ConfigurationError:
                if not call.exclude(start.route.model):
                    raise
                continue
            call.started_at = call.loop.time() if call.started_at is None else call.started_at
            return attempt

    async def _begin(self, call: AdmittedCall, start: Admission, reserved_cost: float = 0.0) -> CallAttempt:
        """Return the attempt of an admission; release the ticket if the request cannot be sent.

        Args:
            call: The call.
            start: The route and the ticket.
            reserved_cost: US dollars that another attempt beside it costs at least.
        """
        call.attempts += 1
        try:
            model = start.route.model
            plan = self._spec.plan_for(model, call.attempts)
            if self._budget is not None:
                self._budget.check((self._discarded.cost or 0.0) + reserved_cost + plan.least_cost())
            if self._spec.before_attempt is not None:
                await self._spec.before_attempt(call.attempts)
        except BaseException:  # a cancellation, too
            call.attempts -= 1
            call.runner.give_back(start.ticket, was_sent=False)
            raise
        return CallAttempt(call, start, plan)

    async def _open(self, attempt: CallAttempt) -> list[Event]:
        """Open an attempt and read until it has output, or is over; return its events."""
        # The last attempt may be as slow as it is.
        least = None if attempt.call.is_last else self._spec.min_tokens_per_second
        stream = await attempt.open(least)
        buffered: list[Event] = []
        while True:
            try:
                batch = await attempt.reader.next_batch()
            except DelugeError as error:
                if not can_resume(stream, error):
                    raise
                batch = await resume_attempt(attempt, error, lambda: self._is_aborted)
            buffered += batch
            if not batch or attempt.has_output or stream.builder.finished is not None:
                return buffered

    async def _race(self, times: FirstTokenTimes, attempt: CallAttempt, notes: list[Event]) -> list[Event]:
        """Read an attempt until it, or a second one beside it, has output; `_opening` is the one to keep."""
        hedge = self._hedge = Hedge(self._spec, attempt, begin=self._begin, read=self._open, lose=self._lose)
        try:
            buffered = await hedge.run(None if attempt.call.is_last else times.patience_s(attempt.start.route.model))
        finally:
            self._opening = kept = hedge.kept
            notes += hedge.notes
        self._hedge = None
        if kept.has_output:
            times.note(kept.start.route.model, kept.first_token_s())
        return buffered

    def _lose(self, attempt: CallAttempt, error: DelugeError | None) -> None:
        """End an attempt at once while another one goes on: it failed, or (None) the other had output first."""
        call = attempt.call
        if error is None:
            error = DispatchError("another attempt had output first", billed="maybe")
            self._cancel_upstream(attempt)
            attempt.abort()
            times = call.runner.first_tokens
            if attempt is self._opening and times is not None:
                times.note(attempt.start.route.model, attempt.first_token_s())
            usage = attempt.usage_when_abandoned()
        else:
            self._end_attempt(attempt, error)
            usage = usage_of_failed(attempt)
            call.note_failure(attempt, error)
            call.note_failed_route(attempt, error)
        self._discarded.add(attempt, usage)
        self._losers += (DiscardedAttempt(attempt, error, usage),)

    async def _wait_before_next(self, call: AdmittedCall, error: DelugeError) -> float:
        """Return how long to wait before another attempt; raise `error` if there is none."""
        if (attempt := self._opening or self._attempt) is None:
            raise error
        seconds = call.wait_before_next(attempt, error)
        call.note_failure(attempt, error)
        await self._report_failed(DiscardedAttempt(attempt, error, usage_of_failed(attempt)))
        return seconds

    async def _report_failed(self, failed: DiscardedAttempt) -> None:
        if self._spec.on_attempt_failed is not None:
            await self._spec.on_attempt_failed(failed.attempt.number, failed.response(), False)

    def _deliver(self, attempt: CallAttempt, buffered: list[Event], notes: list[Event]) -> list[Event]:
        """Return the first events of an attempt for delivery; what an attempt before it delivered is void."""
        before, self._attempt, self._opening = self._attempt, attempt, None
        is_start = bool(buffered) and type(buffered[0]) is ResponseStarted
        if self._spec.delivers_events:
            attempt.stop_watching()
        if before is not None:
            self._discarded.add(before, usage_of_failed(before))
            return [*notes, *buffered[is_start:]]
        return [*buffered[:is_start], *notes, *buffered[is_start:]]

    async def _continue(self, attempt: CallAttempt, broken: DelugeError) -> list[Event]:
        """Ask for the rest of the answer; return its first events, and an `Attempt` event for each request."""
        call = attempt.call
        if self._spliced is None:
            self._spliced = SplicedResponse(self._spec, attempt, self._discarded)
        spliced = self._spliced
        spliced.broken = error = broken
        if spliced.is_blank:
            return await self._start_again(call, spliced)
        if spliced.obstacle is not None:
            return await self._give_up_continuing(call, spliced, spliced.obstacle)
        job = self._switch_to(call, spliced.spec_for_rest())
        call.job = msgspec.structs.replace(job, models=frozenset({attempt.start.route.model}))
        notes: list[Event] = []
        while True:
            try:
                wait_s = await self._wait_before_next(call, error)
                following = await self._admit(call, wait_s)
            except DelugeError as failure:
                if failure is broken:
                    raise
                return await self._give_up_continuing(call, spliced, failure.message, failure)
            call.job = job  # if the model cannot be reached, another one may continue
            notes.append(following.event_after(error, wait_s, is_continued=True))
            try:
                events = self._deliver(following, await self._open(following), notes)
            except DelugeError as failure:
                self._end_attempt(following, failure)
                self._discarded.add(following, usage_of_failed(following))
                error = broken if spliced.has_other_way(failure) else failure
                continue
            spliced.begin(following)
            return events

    async def _read(self, attempt: CallAttempt) -> list[Event]:
        try:
            return await attempt.reader.next_batch()
        except DelugeError as error:
            return await self._after_break(attempt, error)

    async def _splice(self, events: list[Event]) -> list[Event]:
        """Return the events to deliver: of a continuation those that are new, which are read until there are some."""
        spliced = self._spliced
        if spliced is None:
            return events
        ready: list[Event] = []
        while events and not ready and self._spliced is not None and self._attempt is not None:
            attempt = self._attempt
            try:
                ready = spliced.take(events)
            except SpliceError as failure:
                self._cancel_upstream(attempt)
                attempt.abort()
                with Interruptible(self):
                    return await self._give_up_continuing(attempt.call, spliced, str(failure))
            events = ready or await self._read(attempt)
        return events

    async def _give_up_continuing(
        self, call: AdmittedCall, spliced: SplicedResponse, why: str, cause: DelugeError | None = None
    ) -> list[Event]:
        """Raise the break, as the rest cannot be fetched; or start again, if no event was delivered."""
        broken = spliced.broken
        broken.hint = " ".join(filter(None, (broken.hint, f"It could not be continued: {why.rstrip('.')}.")))
        if spliced.spec.delivers_events:
            raise broken from cause
        return await self._start_again(call, spliced)

    async def _start_again(self, call: AdmittedCall, spliced: SplicedResponse) -> list[Event]:
        call.job = self._switch_to(call, spliced.spec)
        events, self._spliced = await self._first_events(call, spliced.broken), None
        return events

    def _switch_to(self, call: AdmittedCall, spec: CallSpec) -> Job:
        """Make `spec` the call that is asked from now on; return its job, in the same place of the queue."""
        self._spec = spec
        return msgspec.structs.replace(call.runner.job_of(spec), id=call.job.id)

    def _charge(self, budget: CallBudget) -> None:
        """Charge the budgets with what the call has cost so far; note if they are spent."""
        attempt = self._attempt
        own = 0.0 if attempt is None else attempt.cost() or 0.0
        overspent = budget.charge((self._discarded.cost or 0.0) + own)
        if attempt is not None and attempt.stream is not None and attempt.stream.builder.finished is None:
            self._overspent = overspent

    async def _fail(self, error: DelugeError) -> None:
        self.error = error
        self._end()
        for attempt in filter(None, (self._attempt, self._opening)):
            attempt.abort()
        call = self._call
        error.attempts = 0 if call is None else call.attempts
        for note in () if call is None else call.failures:
            error.add_note(note)
        if self._attempt is not None:
            error.partial = self.response()
        if self._spec.on_attempt_failed is not None and call is not None and call.attempts:
            response = self.response()
            last = self._opening or self._attempt
            await self._spec.on_attempt_failed(call.attempts if last is None else last.number, response, True)

    def _end_attempt(self, attempt: CallAttempt, error: DelugeError) -> None:
        self._cancel_upstream(attempt)
        attempt.fail(error)

    def _cancel_upstream(self, attempt: CallAttempt) -> None:
        """Cancel an answer of background mode at the provider, unless it is over or was refused."""
        if attempt.plan.call.background and not isinstance(self.error, APIError):
            self._cancels = self._cancels or UpstreamCancels()
            self._cancels.start(attempt)

    def _unread(self) -> list[CallAttempt]:
        """Return the attempts under way of which nothing was delivered."""
        attempts = (self._opening, None if self._hedge is None else self._hedge.second)
        return [attempt for attempt in attempts if attempt is not None and not attempt.is_over]

    def _end(self, unread: Iterable[CallAttempt] = ()) -> None:
        if self._is_over:
            return
        self._is_over = True
        for attempt in unread:  # their prompts are billed
            self._discarded.add(attempt, attempt.usage_when_abandoned())
        if self._budget is not None:
            self._charge(self._budget)
        if (call := self._call) is not None:
            if self._ended_at is None:
                self._ended_at = call.loop.time()
            call.runner.forget(call.job)
            call.report_end(self.response, self.error)

    async def close(self) -> None:
        """End the call. An answer that was read to its end leaves its connection to the next request."""
        if self._attempt is not None:
            self._cancel_upstream(self._attempt)
            await self._attempt.close()
        self._end(self._unread())
        await self.settle()

    async def settle(self) -> None:
        """Wait, for seconds at most, until background answers are cancelled at the provider."""
        if self._cancels is not None:
            await self._cancels.settle()

    def abort(self) -> None:
        """End the call now: close the connection; a pending `next_batch` returns []."""
        self._is_aborted = True
        unread = self._unread()
        self._end(unread)
        if self._hedge is not None:
            self._hedge.stop()
        for attempt in filter(None, (self._attempt, *unread)):
            self._cancel_upstream(attempt)
            attempt.abort()
        scope, self.scope = self.scope, None
        if scope is not None:
            scope.pass_now()  # interrupts the wait for an attempt; the caller's task is not cancelled

    def abort_from_anywhere(self) -> None:
        """Abort from a finaliser, which may run in another thread or after the loop was closed."""
        call, attempt = self._call, self._attempt
        if call is None or (self._is_over and (attempt is None or attempt.is_over)):
            return
        if call.loop.is_closed():
            if attempt is not None:
                attempt.give_back_later()
            call.report_end(self.response, self.error, is_later=True)
            return
        try:
            is_own = asyncio.get_running_loop() is call.loop
        except RuntimeError:
            is_own = False
        if is_own and attempt is not None and attempt.stream is not None:
            attempt.stream.abort()
        with contextlib.suppress(RuntimeError):  # the loop was closed in between
            call.loop.call_soon_threadsafe(self.abort)

    @property
    def pending_retry(self) -> PendingRetry | None:
        """The next attempt while the call waits for it; else None."""
        return None if self._call is None or self._is_over else self._call.pending_retry

    @property
    def bills_when_abandoned(self) -> bool:
        """Whether the provider bills all of the answer under way, also if it is aborted."""
        attempt = self._attempt or self._opening
        return attempt is not None and attempt.bills_when_abandoned

    def response(self) -> APIResponse:
        """Return the response so far, with usage (reported, or estimated), cost and stats."""
        if self._attempt is not None:
            answer = self._attempt.answer(self.stats())
            if self._spliced is not None:
                self._spliced.complete(answer)
            if self._cancels is not None and self._cancels.has_failed:
                answer.warnings += ("cancel_failed",)
        else:
            model = self._spec.prefer or "" if self._opening is None else self._opening.start.route.model
            answer = APIResponse(model_internal=model, stats=self.stats())
            answer.status_code = getattr(self.error, "status_code", None)
            answer.request_id = getattr(self.error, "request_id", None)
        answer.error = self.error or answer.error  # an answer may have ended for a failure
        if self._discarded.usage is not None:
            self._discarded.add_to(answer)
        return answer

    def stats(self) -> StreamStats:
        """Return the timing of the stream so far."""
        call = self._call
        stream = None if self._attempt is None else self._attempt.stream
        if call is None:
            return build_stats(stream, attempts=0, started_at=None, now=self._ended_at)
        now = self._ended_at or call.loop.time()
        stats = build_stats(stream, attempts=call.attempts, started_at=call.started_at, now=now)
        return stats if self._spliced is None else self._spliced.complete_stats(stats)
