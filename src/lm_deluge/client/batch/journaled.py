"""The rows of a batch, each written into a journal before it is asked and before its answer is handed on.

What a run that was killed leaves behind goes on here: rows that are done are passed over, those that were in flight are
asked again. Attempts that failed count over all runs; those whose end nobody saw do not, for they are not the row's
fault; each row that is asked has one attempt at least.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

import msgspec

from lm_deluge.client.batch.prompts import run_one, window_of
from lm_deluge.dispatch.batch.input import BatchRow
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.dispatch.scheduling.circuit_breaker import CircuitBreaker
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import ConfigurationError, DelugeError, DispatchError, JournalError
from lm_deluge.models.rows import ModelRow
from lm_deluge.response import APIResponse

__all__ = ["JournalledRows", "is_due", "named_model"]


class _StoppedError(DispatchError):
    """Ends a call whose request may not leave any more; nobody outside sees it."""


MakeRowWork = Callable[[BatchRow], CallSpec]


def is_due(journal: Journal, row_id: str, *, retry_failed: bool = False) -> bool:
    """Whether a row is still to be asked: it is not done, and did not fail for good unless these are wanted again."""
    status = journal.state.status(row_id)
    # What failed without a request, for want of a key say, costs nothing to be tried again.
    return status != "done" and (status != "failed" or retry_failed or journal.state.attempts(row_id) == 0)


def named_model(name: str, models: Sequence[ModelRow]) -> str:
    """Return the id of the model that a row asks for.

    Raises:
        ConfigurationError: It is none of the batch's.
    """
    for model in models:
        if name in (model.id, model.name):
            return model.id
    known = ", ".join(model.id for model in models)
    raise ConfigurationError(
        f"the line asks for the model {str(name)[:80]!r}, and the batch is for {known}",
        hint="Name all models of the lines with --model.",
    )


class JournalledRows:
    """Asks rows, at most a window of them at a time. Iterate `answers` once; `stop` and `abort` end it early.

    Attributes:
        journal: Where it is written down.
        failure: Why the journal takes no more, None as long as it does; then nothing new leaves.
        gave_up: Why no more is asked, where that is the provider's: nobody was ever reached.
    """

    def __init__(
        self,
        start: Callable[[], tuple[Runner, MakeRowWork]],
        journal: Journal,
        *,
        most_at_once: int | None,
        max_attempts: int,
        retry_failed: bool = False,
    ) -> None:
        self.failure: JournalError | None = None
        self.gave_up: DelugeError | None = None
        self._start = start
        self.journal = journal
        self._window = window_of(most_at_once)
        self._max_attempts = max_attempts
        self._retry_failed = retry_failed
        self._runner: Runner | None = None
        self._unseen = Counter(call for call, _ in journal.state.ambiguous)
        self._calls: dict[str, _Call] = {}
        self._ended: asyncio.Queue[str] = asyncio.Queue()
        self._is_stopped = False

    @property
    def in_flight(self) -> int:
        """How many requests have left whose end is not written down yet."""
        return sum(len(call.in_flight) for call in self._calls.values())

    @property
    def is_held(self) -> bool:
        """Whether requests wait because nobody listens at the provider's."""
        breaker = self._breaker
        return breaker is not None and breaker.is_open

    @property
    def _breaker(self) -> CircuitBreaker | None:
        return None if self._runner is None else self._runner.only_breaker

    async def answers(self, rows: Iterable[BatchRow]) -> AsyncGenerator[tuple[BatchRow, APIResponse], None]:
        """Yield each row that is due with its answer, once that is on the disk, as they end.

        Rows are read as they are needed. A row that cannot be asked ends like one that failed.
        """
        runner, make = self._start()
        self._runner = runner
        due = (row for row in rows if is_due(self.journal, row.id, retry_failed=self._retry_failed))
        try:
            while True:
                free = 0 if self._is_stopped else self._window - len(self._calls)
                for row in itertools.islice(due, free):
                    self._begin(row, runner, make)
                if not self._calls:
                    return
                call = self._calls.pop(await self._ended.get())
                response = call.result()
                if response is not None:
                    yield call.row, response
        finally:
            self.abort()
            await asyncio.gather(*(call.task for call in self._calls.values()), return_exceptions=True)

    def _begin(self, row: BatchRow, runner: Runner, make: MakeRowWork) -> None:
        state = self.journal.state
        base = state.attempts(row.id)
        is_again = state.status(row.id) == "failed"
        left = self._max_attempts if is_again else self._max_attempts - (base - self._unseen[row.id])
        call = _Call(self, row, base, max(left, 1))
        self._calls[row.id] = call
        call.task = asyncio.get_running_loop().create_task(call.run(runner, make))
        call.task.add_done_callback(lambda _: self._ended.put_nowait(row.id))

    def stop(self, within_s: float | None = None) -> None:
        """Let no new request leave; what is in flight may end, within so many seconds where that is said."""
        self._is_stopped = True
        for call in self._calls.values():
            if not call.in_flight:
                call.task.cancel()
        if within_s is not None:
            asyncio.get_running_loop().call_later(within_s, self.abort)

    def abort(self) -> None:
        """End at once. What is in flight stays so in the journal, and is asked again by the next run."""
        self._is_stopped = True
        for call in self._calls.values():
            call.task.cancel()

    # What the calls ask and tell

    async def may_leave(self) -> None:
        """Return when a request may leave; raise where none may any more."""
        if self._runner is not None:
            await self._runner.until_reachable()
        if self._is_stopped:
            raise _StoppedError("the batch is being stopped")

    def note_end(self, call: _Call, error: DelugeError | None, *, is_over: bool) -> None:
        """Learn how an attempt ended that was in flight."""
        breaker = self._breaker
        if error is not None and breaker is not None and breaker.is_hopeless and self.gave_up is None:
            self.gave_up = error
            self.stop()
        if self._is_stopped and not is_over and not call.in_flight:
            asyncio.get_running_loop().call_soon(call.task.cancel)  # there will be no other attempt

    def fail(self, error: JournalError) -> None:
        """Stop: the journal takes no more. What is in flight ends; its answers wait in memory."""
        if self.failure is None:
            self.failure = error
            self.stop()


class _Call:
    """A row between its beginning and its end."""

    __slots__ = ("_base", "_budget", "_last", "_number", "_rows", "in_flight", "row", "task")

    task: asyncio.Task[APIResponse | None]

    def __init__(self, rows: JournalledRows, row: BatchRow, base: int, budget: int) -> None:
        self.row = row
        self.in_flight: list[int] = []  # numbers of attempts; two where one was begun beside a silent one
        self._rows = rows
        self._base = base  # attempts of earlier runs
        self._budget = budget
        self._number = 0  # of the last attempt
        self._last: APIResponse | None = None  # how the call failed for good

    def result(self) -> APIResponse | None:
        """Return the answer, None where there is none: the batch ends before."""
        return None if self.task.cancelled() else self.task.result()

    async def run(self, runner: Runner, make: MakeRowWork) -> APIResponse | None:
        """Ask, and write down how it ends; return None where that is for another run."""

        def make_with_hooks(row: BatchRow) -> CallSpec:
            return msgspec.structs.replace(
                make(row), before_attempt=self._intend, on_attempt_failed=self._attempt_failed
            )

        response = await run_one(lambda: runner, make_with_hooks, self.row)
        response.id = self.row.number - 1
        if self._last is not None:
            return self._last
        if response.error is None:
            return await self._keep(response)
        if isinstance(response.error, JournalError):
            self._rows.fail(response.error)
        if self._rows.failure is not None or isinstance(response.error, _StoppedError):
            return None
        if self.in_flight:  # it was answered, and is an error all the same: `postprocess` made it one
            is_kept = await self._write_failure(self.in_flight[-1], response, is_final=True)
            self._end()
            return response if is_kept else None
        return await self._keep_unasked(response)

    async def _intend(self, number: int) -> None:
        if self._last is not None:  # the runs before this one have used up its attempts
            raise self._last.error.again()
        if number > self._budget:  # beside another one, which may be the last
            raise _StoppedError("the runs before this one have used up its attempts")
        await self._rows.may_leave()
        await self._rows.journal.before_attempt(self.row.id, self._base + number)
        self._number = self._base + number
        self.in_flight.append(self._number)

    async def _attempt_failed(self, number: int, response: APIResponse, is_final: bool) -> None:  # noqa: FBT001 - as it is called
        response.id = self.row.number - 1
        if not self.in_flight:  # the call ends for another reason than the attempt, whose end is told already
            if self._last is not None and response.usage is not None:
                self._last = response  # what all attempts took is only known now
                await self._write_failure(self._number, response, is_final=True)
            return
        attempt = self._base + number
        is_over = is_final or (len(self.in_flight) == 1 and self._number - self._base >= self._budget)
        is_kept = await self._write_failure(attempt, response, is_final=is_over)
        self.in_flight.remove(attempt)
        if is_over and is_kept:
            self._last = response
        self._rows.note_end(self, response.error, is_over=is_final)

    async def _write_failure(self, attempt: int, response: APIResponse, *, is_final: bool) -> bool:
        """Return whether it is in the journal; it is kept in memory where the disk refuses."""
        journal = self._rows.journal
        try:
            try:
                await journal.fail(self.row.id, attempt, response, is_final=is_final)
            except JournalError as error:
                if journal.failure is not None:
                    raise
                await journal.fail(self.row.id, attempt, _without_content(response, error), is_final=is_final)
        except JournalError as error:
            self._rows.fail(error)
            return False
        return True

    async def _keep(self, response: APIResponse) -> APIResponse | None:
        journal = self._rows.journal
        try:
            await journal.finish(self.row.id, self.in_flight[-1], response)
        except JournalError as error:
            if journal.failure is None:
                response = _without_content(response, error)
                is_kept = await self._write_failure(self.in_flight[-1], response, is_final=True)
                self._end()
                return response if is_kept else None
            self._end()
            self._rows.fail(error)
            return None
        self._end()
        return response

    def _end(self) -> None:
        """Note that it was answered."""
        self.in_flight.clear()
        self._rows.note_end(self, None, is_over=True)

    async def _keep_unasked(self, response: APIResponse) -> APIResponse | None:
        """Write down why a row was not asked, as attempt 0, unless the journal says so already."""
        journal = self._rows.journal
        known = journal.response(self.row.id)
        if known is not None and known.error_message == response.error_message:
            return response
        return response if await self._write_failure(0, response, is_final=True) else None


def _without_content(response: APIResponse, error: JournalError) -> APIResponse:
    """Return what a journal can hold of an answer that is no JSON, half a character for example: what it took."""
    return APIResponse(id=response.id, error=error, usage=response.usage, cost=response.cost)
