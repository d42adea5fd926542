"""Answer the rows of a batch file through the provider's batch API, with the same methods as `JournaledRows`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing

from lm_deluge.adapters.batch_api import BatchState
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.client.batch.journaled import is_due
from lm_deluge.client.batch.row_planner import RowPlanner
from lm_deluge.client.call_options import NO_OPTIONS, CallOptions
from lm_deluge.client.dispatcher import Dispatcher
from lm_deluge.dispatch.batch.input import BatchRow
from lm_deluge.dispatch.batch.provider.runner import Answered, ProviderBatch
from lm_deluge.dispatch.hooks import unexpected_error
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.errors import DelugeError, JournalError, QueueClosedError
from lm_deluge.response import APIResponse

__all__ = ["ProviderRows"]


class ProviderRows:
    """Submits rows to the provider's batch API. Iterate `answers` once; `stop` and `abort` end it early.

    Args:
        dispatcher: The dispatcher of the client.
        journal: The journal of the batch.
        retry_failed: Whether rows that failed for good are submitted again.
        options: The options of all rows: the `output` of those that have none.

    Attributes:
        failure: The error of the journal after which no batch is submitted; None while there is none.
        gave_up: The error of the provider that ended the run, for example a refused key or a long outage; else None.
    """

    is_paused = False
    limited_by: str | None = None

    def __init__(
        self, dispatcher: Dispatcher, journal: Journal, *, retry_failed: bool = False, options: CallOptions = NO_OPTIONS
    ) -> None:
        self.failure: JournalError | None = None
        self.gave_up: DelugeError | None = None
        self._planner = RowPlanner(dispatcher, options)
        self._journal = journal
        self._retry_failed = retry_failed
        self._states: dict[str, BatchState] = {}
        self._rows: dict[str, BatchRow] = {}  # by call: id and number only
        self._batch = ProviderBatch(
            journal, max_attempts=dispatcher.options.max_attempts, retry="all", on_state=self._states.__setitem__
        )
        self._step: asyncio.Task[Answered | None] | None = None
        self._is_aborted = False

    @property
    def in_flight(self) -> int:
        """Number of rows that the provider has and, as far as it reports, has not answered."""
        state = self._journal.state
        return sum(
            int(min(len(state.waiting_in(batch)), _unanswered_in(self._states.get(batch.name))))
            for batch in state.open_batches
        )

    async def answers(self, rows: Iterable[BatchRow]) -> AsyncGenerator[tuple[BatchRow, APIResponse], None]:
        """Yield each due row, with id and number only, and its response, after the response is on the disk."""
        loop = asyncio.get_running_loop()
        async with aclosing(self._batch.run(self._plans(rows))) as found:
            while True:
                if self._was_aborted():
                    return
                self._step = loop.create_task(_next(found))
                try:
                    answered = await self._step
                except JournalError as error:
                    self.failure = error
                    return
                except QueueClosedError:
                    return
                except DelugeError as error:
                    self.gave_up = error
                    return
                except asyncio.CancelledError:
                    if self._was_aborted():
                        return
                    raise
                if answered is None:
                    return
                call, response = answered
                row = self._rows.pop(call)
                response.id = row.number - 1
                yield row, response

    def _was_aborted(self) -> bool:
        return self._is_aborted

    def _plans(self, rows: Iterable[BatchRow]) -> Iterator[tuple[str, CallPlan | DelugeError]]:
        for row in rows:
            if is_due(self._journal, row.call, retry_failed=self._retry_failed):
                self._rows[row.call] = BatchRow(id=row.id, number=row.number, key=row.key)
                plan: CallPlan | DelugeError
                try:
                    plan = self._planner.plan(row)
                except Exception as error:  # noqa: BLE001 - one row must not end the batch
                    plan = unexpected_error(error)
                yield row.call, plan

    def stop(self, within_s: float | None = None) -> None:
        """Submit no more batches. The next run fetches the answers of the submitted batches.

        Args:
            within_s: Seconds after which the run is aborted; None for no limit.
        """
        self._batch.stop()
        if within_s is not None:
            asyncio.get_running_loop().call_later(within_s, self.abort)

    def abort(self) -> None:
        """End at once. The next run looks for a batch whose submission was interrupted."""
        self._is_aborted = True
        self._batch.stop()
        if self._step is not None:
            self._step.cancel()


def _unanswered_in(state: BatchState | None) -> float:
    """Return the number of requests of a batch without an answer; infinity if the provider does not report it."""
    if state is None or state.is_over or state.total is None or state.finished is None:
        return math.inf
    return state.total - state.finished


async def _next(found: AsyncGenerator[Answered, None]) -> Answered | None:
    return await anext(found, None)
