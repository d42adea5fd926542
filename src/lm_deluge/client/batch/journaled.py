"""Answer the rows of a batch, with a journal record before each request and before each answer is yielded.

After a run was killed, the next run skips the rows that are done, and sends the rows that were in flight again. Failed
attempts count over all runs. Ambiguous attempts do not count, since the row did not cause them. Each row that is sent
has at least one attempt.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from lm_deluge.client.batch.prompts import run_one, window_of
from lm_deluge.dispatch.batch.input import BatchRow
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.hooks import is_interruption, unexpected_error
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.dispatch.journal.records import JournalState, Status
from lm_deluge.dispatch.scheduling.circuit_breaker import CircuitBreaker
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import ConfigurationError, DelugeError, DispatchError, JournalError
from lm_deluge.models.rows import ModelRow
from lm_deluge.response import APIResponse

__all__ = ["JournaledRows", "RowCalls", "RowHistory", "RowJournal", "ambiguous_counts", "is_due", "named_model"]


class _StoppedError(DispatchError):
    """Ends a call of which no more requests may be sent; it never reaches the user."""


MakeRowSpec = Callable[[BatchRow], CallSpec]


def is_due(journal: Journal, call: str, *, retry_failed: bool = False) -> bool:
    """Whether a row is to be sent: it is not done, and did not fail for good.

    Args:
        journal: The journal of the batch.
        call: The name of the row's call in the journal.
        retry_failed: Whether rows that failed for good are sent again.
    """
    status = journal.state.status(call)
    # A row that failed without a request, for example because the API key is missing, is always tried again.
    return status != "done" and (status != "failed" or retry_failed or journal.state.attempts(call) == 0)


def named_model(name: str, models: Sequence[ModelRow]) -> str:
    """Return the id of the model that a row names.

    Raises:
        ConfigurationError: It is not a model of the batch.
    """
    for model in models:
        if name in (model.id, model.name):
            return model.id
    known = ", ".join(model.id for model in models)
    raise ConfigurationError(
        f"the line names the model {str(name)[:80]!r}, and the batch has {known}",
        hint="Name all models of the lines with --model.",
    )


class RowHistory(msgspec.Struct, frozen=True):
    """The record of a row in the journal before a run.

    Attributes:
        status: As `JournalState.status` has it.
        attempts: Number of the last attempt.
        ambiguous: How many attempts have no outcome; they may have been billed, and do not count.
    """

    status: Status | None = None
    attempts: int = 0
    ambiguous: int = 0

    @classmethod
    def of(cls, call: str, state: JournalState, ambiguous: Mapping[str, int]) -> RowHistory:
        """Return the record of a row.

        Args:
            call: The name of its call in the journal.
            state: The state of the journal.
            ambiguous: The numbers of attempts without an outcome, by call.
        """
        return cls(state.status(call), state.attempts(call), ambiguous.get(call, 0))


def ambiguous_counts(state: JournalState) -> Counter[str]:
    """Return how many attempts of each call have no outcome."""
    return Counter(call for call, _ in state.ambiguous)


class RowJournal(Protocol):
    """Records the requests of rows: `Journal`, or a journal that another process keeps."""

    async def before_attempt(self, call: str, attempt: int) -> None:
        """Record that a request is about to be sent."""
        ...

    async def settle(self, call: str, attempt: int, response: APIResponse, *, is_final: bool = True) -> APIResponse:
        """Record an outcome, and return the response that the journal has."""
        ...

    def response(self, call: str) -> APIResponse | None:
        """Return the recorded outcome of a call; None without one."""
        ...


class RowCalls:
    """The calls of rows that are given to it one by one. `stop` and `abort` end them early.

    Args:
        start: Returns the runner, and the function that builds the call of a row.
        journal: Records each request before it is sent, and each answer before it is yielded.
        max_attempts: Most attempts at a row, over all runs.

    Attributes:
        failure: The error of the journal after which no request is sent; None while there is none.
        gave_up: The connection error after which no request is sent, if the provider was never reached; else None.
    """

    def __init__(
        self, start: Callable[[], tuple[Runner, MakeRowSpec]], journal: RowJournal, *, max_attempts: int
    ) -> None:
        self.failure: JournalError | None = None
        self.gave_up: DelugeError | None = None
        self.records = journal
        self._start = start
        self._max_attempts = max_attempts
        self._started: tuple[Runner, MakeRowSpec] | None = None
        self._calls: dict[str, _Call] = {}
        self._ended: asyncio.Queue[str] = asyncio.Queue()
        self._is_stopped = False

    def __len__(self) -> int:
        """Return how many rows have started and not been returned by `next_end`."""
        return len(self._calls)

    @property
    def in_flight(self) -> int:
        """Number of requests that were sent and have no outcome in the journal yet."""
        return sum(len(call.in_flight) for call in self._calls.values())

    @property
    def is_paused(self) -> bool:
        """Whether requests wait because no connection to the provider succeeds."""
        breaker = self._breaker
        return breaker is not None and breaker.is_open

    @property
    def limited_by(self) -> str | None:
        """Description of the limits that requests wait for; None if none waits."""
        return None if self._runner is None else self._runner.limited_by

    @property
    def _runner(self) -> Runner | None:
        return None if self._started is None else self._started[0]

    @property
    def _breaker(self) -> CircuitBreaker | None:
        return None if self._runner is None else self._runner.only_breaker

    def begin(self) -> tuple[Runner, MakeRowSpec]:
        """Return the runner and the function that builds calls; they are made once."""
        if self._started is None:
            self._started = self._start()
        return self._started

    def start_row(self, row: BatchRow, history: RowHistory) -> None:
        """Start the call of a row."""
        started = self.begin()
        base, has_failed = history.attempts, history.status == "failed"
        left = self._max_attempts if has_failed else self._max_attempts - (base - history.ambiguous)
        call = _Call(self, row, base, max(left, 1))
        self._calls[row.call] = call
        call.task = asyncio.get_running_loop().create_task(call.run(*started))
        call.task.add_done_callback(lambda _: self._ended.put_nowait(row.call))

    async def next_end(self) -> tuple[BatchRow, APIResponse | None]:
        """Wait for the end of a call; return its row with the response, or with None if the batch ended before."""
        call = self._calls.pop(await self._ended.get())
        return call.row, call.result()

    def stop(self, within_s: float | None = None) -> None:
        """Send no new request; wait for those in flight.

        Args:
            within_s: Seconds after which requests in flight are aborted; None for no limit.
        """
        self._is_stopped = True
        for call in self._calls.values():
            if not call.in_flight:
                call.task.cancel()
        if within_s is not None:
            asyncio.get_running_loop().call_later(within_s, self.abort)

    def abort(self) -> None:
        """End at once. Requests in flight stay ambiguous in the journal, and the next run sends their rows again."""
        self._is_stopped = True
        for call in self._calls.values():
            call.task.cancel()

    async def close(self) -> None:
        """Abort all calls, and wait until they have ended."""
        self.abort()
        await asyncio.gather(*(call.task for call in self._calls.values()), return_exceptions=True)

    # For the calls

    async def wait_to_send(self) -> None:
        """Return when a request may be sent; raise if no more requests are sent."""
        if self._runner is not None:
            await self._runner.until_reachable()
        if self._is_stopped:
            raise _StoppedError("the batch is being stopped")

    def note_end(self, call: _Call, error: DelugeError | None, *, is_over: bool) -> None:
        """Note the end of an attempt that was in flight."""
        breaker = self._breaker
        if error is not None and breaker is not None and breaker.is_hopeless and self.gave_up is None:
            self.gave_up = error
            self.stop()
        if self._is_stopped and not is_over and not call.in_flight:
            asyncio.get_running_loop().call_soon(call.task.cancel)  # no other attempt may start

    def fail(self, error: JournalError) -> None:
        """Stop after an error of the journal. Requests in flight end; their answers are kept in memory."""
        if self.failure is None:
            self.failure = error
            self.stop()


class JournaledRows(RowCalls):
    """Sends rows, a limited number at a time. Iterate `answers` once; `stop` and `abort` end it early.

    Args:
        start: Returns the runner, and the function that builds the call of a row.
        journal: The journal of the batch.
        most_at_once: Most concurrent requests; None for no limit.
        max_attempts: Most attempts at a row, over all runs.
        retry_failed: Whether rows that failed for good are sent again.
    """

    def __init__(
        self,
        start: Callable[[], tuple[Runner, MakeRowSpec]],
        journal: Journal,
        *,
        most_at_once: int | None,
        max_attempts: int,
        retry_failed: bool = False,
    ) -> None:
        super().__init__(start, journal, max_attempts=max_attempts)
        self.journal = journal
        self._window = window_of(most_at_once)
        self._retry_failed = retry_failed

    async def answers(self, rows: Iterable[BatchRow]) -> AsyncGenerator[tuple[BatchRow, APIResponse], None]:
        """Yield each row that is due with its response, after the response is on the disk.

        Rows are read when they are needed. A row that cannot be sent has a response with `error` set.
        """
        self.begin()
        state = self.journal.state
        ambiguous = ambiguous_counts(state)
        due = (row for row in rows if is_due(self.journal, row.call, retry_failed=self._retry_failed))
        try:
            while True:
                free = 0 if self._is_stopped else self._window - len(self)
                for row in itertools.islice(due, free):
                    self.start_row(row, RowHistory.of(row.call, state, ambiguous))
                if not len(self):
                    return
                row, response = await self.next_end()
                if response is not None:
                    yield row, response
        finally:
            await self.close()


class _Call:
    """The call of one row."""

    __slots__ = ("_base", "_budget", "_last", "_number", "_rows", "in_flight", "row", "task")

    task: asyncio.Task[APIResponse | None]

    def __init__(self, rows: RowCalls, row: BatchRow, base: int, budget: int) -> None:
        self.row = row
        self.in_flight: list[int] = []  # numbers of attempts; two after a hedge
        self._rows = rows
        self._base = base  # attempts of earlier runs
        self._budget = budget
        self._number = 0  # of the last attempt
        self._last: APIResponse | None = None  # how the call failed for good

    def result(self) -> APIResponse | None:
        """Return the response; None if the batch ended before."""
        return None if self.task.cancelled() else self.task.result()

    async def run(self, runner: Runner, make: MakeRowSpec) -> APIResponse | None:
        """Run the call and record its end; return None if the row is left to another run."""
        try:
            return await self._run(runner, make)
        except BaseException as error:
            if is_interruption(error):
                raise
            response = APIResponse(id=self.row.number - 1, error=unexpected_error(error))
            is_kept = await self._write_failure(self._number, response, is_final=True)
            self._end()
            return response if is_kept else None

    async def _run(self, runner: Runner, make: MakeRowSpec) -> APIResponse | None:
        def make_with_hooks(row: BatchRow) -> CallSpec:
            return msgspec.structs.replace(
                make(row), before_attempt=self._before_attempt, on_attempt_failed=self._on_attempt_failed
            )

        response = await run_one(lambda: runner, make_with_hooks, self.row)
        response.id = self.row.number - 1
        if self._last is not None:
            return self._last
        if response.error is None:
            return await self._record_answer(response)
        if isinstance(response.error, JournalError):
            self._rows.fail(response.error)
        if self._rows.failure is not None or isinstance(response.error, _StoppedError):
            return None
        if self.in_flight:  # the request was answered, and `postprocess` made an error of the answer
            is_kept = await self._write_failure(self.in_flight[-1], response, is_final=True)
            self._end()
            return response if is_kept else None
        return await self._record_unsent(response)

    async def _before_attempt(self, number: int) -> None:
        if self._last is not None:  # earlier runs have used up all attempts
            raise self._last.error.again()
        if number > self._budget:  # a hedge beside the last attempt
            raise _StoppedError("earlier runs have used up all attempts of the row")
        await self._rows.wait_to_send()
        self._number = self._base + number
        # In flight from here on: a batch that stops cancels no call while the journal records its request.
        self.in_flight.append(self._number)
        try:
            await self._rows.records.before_attempt(self.row.call, self._number)
        except BaseException:
            self.in_flight.remove(self._number)
            raise

    async def _on_attempt_failed(self, number: int, response: APIResponse, is_final: bool) -> None:  # noqa: FBT001 - the signature of CallSpec.on_attempt_failed
        response.id = self.row.number - 1
        if not self.in_flight:  # the end of the attempt is recorded; the call ends for another reason
            if self._last is not None and response.usage is not None:
                self._last = response  # now with the usage of all attempts
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
        """Record a failed attempt; return whether it is on the disk. If not, the journal keeps it in memory."""
        return await self._settle(attempt, response, is_final=is_final) is not None

    async def _settle(self, attempt: int, response: APIResponse, *, is_final: bool = True) -> APIResponse | None:
        """Record an outcome and return the response that the journal has; None if the disk refused it."""
        try:
            return await self._rows.records.settle(self.row.call, attempt, response, is_final=is_final)
        except JournalError as error:
            self._rows.fail(error)
            return None

    async def _record_answer(self, response: APIResponse) -> APIResponse | None:
        recorded = await self._settle(self.in_flight[-1], response)
        self._end()
        return recorded

    def _end(self) -> None:
        """Note that the request was answered."""
        self.in_flight.clear()
        self._rows.note_end(self, None, is_over=True)

    async def _record_unsent(self, response: APIResponse) -> APIResponse | None:
        """Record why a row was not sent, as attempt 0, unless the journal has the same error already."""
        journal = self._rows.records
        known = journal.response(self.row.call)
        if known is not None and known.error_message == response.error_message:
            return response
        return response if await self._write_failure(0, response, is_final=True) else None
