"""Answers the rows of a batch with several worker processes.

This process has everything that must exist once: the limits, the budget, the journal and the output. The workers have
the work that costs CPU: requests, TLS, decoding and checking. They ask before each request, so the limits hold exactly
over all of them, and each record of the journal is written by the only process that may write it.

A worker that dies, after `kill -9` for example, is replaced. Its rows are given out again, except those whose outcome
the journal has. As after a crash of the whole batch, the requests that were in flight stay ambiguous.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from typing import Any

from lm_deluge.cli.workers.messages import SetUp, StopSending
from lm_deluge.cli.workers.process import WorkerProcess
from lm_deluge.client.batch.client_copy import ClientCopy
from lm_deluge.client.batch.journaled import RowHistory, ambiguous_counts, is_due
from lm_deluge.client.batch.prompts import window_of
from lm_deluge.client.client import LLMClient
from lm_deluge.dispatch.batch.input import BatchRow
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.dispatch.sharing.admissions import Admissions
from lm_deluge.errors import ConfigurationError, DelugeError, DispatchError, JournalError
from lm_deluge.response import APIResponse

__all__ = ["WorkerRows", "check_workers"]

_MOST_DEATHS = 3  # of workers in a row without an answer between them: a fourth one would end in the same way

Answered = tuple[BatchRow, APIResponse]


def check_workers(workers: int) -> None:
    """Check that this system can run worker processes.

    Raises:
        ConfigurationError: It cannot.
    """
    if workers > 1 and sys.platform == "win32":
        raise ConfigurationError(
            "--workers needs a Unix system: the processes share a socket", hint="Leave the option out."
        )


class WorkerRows:
    """Sends rows from several processes. Iterate `answers` once; `stop` and `abort` end it early.

    Args:
        client: The client; each worker has a copy of it.
        journal: The journal of the batch.
        workers: Number of processes.
        schema: The schema that each answer must follow; None without one.
        max_output_retries: How often a row is asked again after an answer that does not follow it.
        retry_failed: Whether rows that failed for good are sent again.
        on_death: Called when a worker has died, with the status of its process and the calls of its requests in flight.

    Attributes:
        failure: The error of the journal after which no request is sent; None while there is none.
        gave_up: The error after which no request is sent: the provider was never reached, or workers end again and
            again. None while there is none.
    """

    def __init__(
        self,
        client: LLMClient,
        journal: Journal,
        *,
        workers: int,
        schema: dict[str, Any] | None = None,
        max_output_retries: int = 0,
        retry_failed: bool = False,
        on_death: Callable[[int, list[str]], None],
    ) -> None:
        self.failure: JournalError | None = None
        self.gave_up: DelugeError | None = None
        self.set_up = SetUp(ClientCopy.of(client), schema, max_output_retries)
        self.journal = journal
        self.is_stopped = False
        self._client = client
        self._count = workers
        self._retry_failed = retry_failed
        self._on_death = on_death
        self._window = -(-window_of(client.options.max_concurrent_requests) // workers)
        self._workers: list[WorkerProcess] = []
        self._again: deque[BatchRow] = deque()  # rows of workers that died
        self._ambiguous = ambiguous_counts(journal.state)
        self._ended: asyncio.Queue[Answered | None] = asyncio.Queue()  # None: something else has changed
        self._deaths = 0

    @property
    def in_flight(self) -> int:
        """Number of requests that were sent and have no outcome in the journal yet."""
        return sum(len(worker.in_flight) for worker in self._workers)

    @property
    def is_paused(self) -> bool:
        """Whether requests wait because no worker can connect to the provider."""
        return bool(self._workers) and all(worker.is_paused for worker in self._workers)

    @property
    def limited_by(self) -> str | None:
        """Description of the limits that requests wait for; None if none waits."""
        return self._client.dispatcher.runner().limited_by if self._workers else None

    async def answers(self, rows: Iterable[BatchRow]) -> AsyncGenerator[Answered, None]:
        """Yield each row that is due with its response, after the response is on the disk.

        Raises:
            OSError: A process cannot be started.
        """
        dispatcher = self._client.dispatcher
        admissions = Admissions(dispatcher.runner(), dispatcher.budget)
        source = iter(rows)
        try:
            while True:
                while not self.is_stopped and len(self._workers) < self._count:
                    self._workers.append(await WorkerProcess.start(self, admissions))
                self._give_out(source)
                is_open = bool(self._again) or any(worker.rows for worker in self._workers)
                if not is_open and self._ended.empty():
                    return
                ended = await self._ended.get()
                self._workers = [worker for worker in self._workers if not worker.is_gone]
                if ended is not None:
                    yield ended
        finally:
            self.abort()
            await asyncio.gather(*(worker.wait() for worker in self._workers))

    def _give_out(self, source: Iterator[BatchRow]) -> None:
        """Give rows to the workers that have fewest, as long as a window has room."""
        while not self.is_stopped:
            free = [worker for worker in self._workers if not worker.is_over and len(worker.rows) < self._window]
            row = self._next_due(source) if free else None
            if row is None:
                return
            worker = min(free, key=lambda each: len(each.rows))
            worker.give(row, RowHistory.of(row.call, self.journal.state, self._ambiguous))

    def _next_due(self, source: Iterator[BatchRow]) -> BatchRow | None:
        """Return the next row to give out; those of workers that died go first."""
        if self._again:
            return self._again.popleft()
        return next((row for row in source if is_due(self.journal, row.call, retry_failed=self._retry_failed)), None)

    def stop(self, within_s: float | None = None) -> None:
        """Send no new request; wait for those in flight.

        Args:
            within_s: Seconds after which requests in flight are aborted; None for no limit.
        """
        self.is_stopped = True
        self._again.clear()
        for worker in self._workers:
            worker.channel.post(StopSending())
        if within_s is not None:
            asyncio.get_running_loop().call_later(within_s, self.abort)

    def abort(self) -> None:
        """End at once. Requests in flight stay ambiguous in the journal, and the next run sends their rows again."""
        self.is_stopped = True
        self._again.clear()
        for worker in self._workers:
            worker.end()
        self._ended.put_nowait(None)

    # For the workers

    def note_end(self, row: BatchRow, response: APIResponse | None) -> None:
        """Note that a row is over, with a response or because the batch is being stopped."""
        self._deaths = 0
        self._ended.put_nowait(None if response is None else (row, response))

    def note_death(self, status: int, rows: Iterable[BatchRow], in_flight: list[str]) -> None:
        """Give the rows of a worker that died to others, unless the batch is being stopped.

        Args:
            status: The exit status of the process; negative: the number of the signal that ended it.
            rows: The rows that it had, and that have no outcome.
            in_flight: The calls of its requests in flight.
        """
        self._ended.put_nowait(None)
        if self.is_stopped:
            return
        self._on_death(status, in_flight)
        self._deaths += 1
        if self._deaths <= _MOST_DEATHS:
            self._again.extend(rows)
            self._ambiguous = ambiguous_counts(self.journal.state)
            return
        self.give_up(
            DispatchError(
                f"{self._deaths} worker processes ended without an answer between them (status {status})",
                hint="Start the same command with fewer --workers: the memory may be too small for so many.",
            )
        )

    def give_up(self, error: DelugeError) -> None:
        """Stop because the provider was never reached, or no worker lives."""
        if self.gave_up is None:
            self.gave_up = error
            self.stop()

    def fail(self, error: JournalError) -> None:
        """Stop after an error of the journal. Requests in flight end; the journal keeps their answers in memory."""
        if self.failure is None:
            self.failure = error
            self.stop()
