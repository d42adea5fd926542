"""The rows of a batch file as batches of the provider's own, in the manner of `JournalledRows`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing

from lm_deluge.adapters.batch_api import BatchState
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.client.batch.journaled import is_due
from lm_deluge.client.batch.row_planner import RowPlanner
from lm_deluge.client.dispatcher import Dispatcher
from lm_deluge.dispatch.batch.input import BatchRow
from lm_deluge.dispatch.batch.provider.runner import Answered, ProviderBatch
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.errors import DelugeError, JournalError, QueueClosedError
from lm_deluge.response import APIResponse

__all__ = ["ProviderRows"]


class ProviderRows:
    """Hands rows over to the provider's batch API. Iterate `answers` once; `stop` and `abort` end it early.

    Attributes:
        failure: Why the journal takes no more, None as long as it does.
        gave_up: Why no more is asked, where that is the provider's: it refuses the key, or is out of reach for long.
    """

    is_held = False

    def __init__(self, dispatcher: Dispatcher, journal: Journal, *, retry_failed: bool = False) -> None:
        self.failure: JournalError | None = None
        self.gave_up: DelugeError | None = None
        self._planner = RowPlanner(dispatcher)
        self._journal = journal
        self._retry_failed = retry_failed
        self._states: dict[str, BatchState] = {}
        self._numbers: dict[str, int] = {}
        self._batch = ProviderBatch(
            journal, max_attempts=dispatcher.options.max_attempts, retry="all", on_state=self._states.__setitem__
        )
        self._step: asyncio.Task[Answered | None] | None = None
        self._is_aborted = False

    @property
    def in_flight(self) -> int:
        """How many rows the provider has and has not answered, as far as it says."""
        state = self._journal.state
        return sum(
            int(min(len(state.waiting_in(batch)), _left_of(self._states.get(batch.name))))
            for batch in state.open_batches
        )

    async def answers(self, rows: Iterable[BatchRow]) -> AsyncGenerator[tuple[BatchRow, APIResponse], None]:
        """Yield each row that is due with its answer, once that is on the disk; of the row its id and number alone."""
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
                row_id, response = answered
                number = self._numbers.pop(row_id)
                response.id = number - 1
                yield BatchRow(id=row_id, number=number), response

    def _was_aborted(self) -> bool:
        return self._is_aborted

    def _plans(self, rows: Iterable[BatchRow]) -> Iterator[tuple[str, CallPlan | DelugeError]]:
        for row in rows:
            if is_due(self._journal, row.id, retry_failed=self._retry_failed):
                self._numbers[row.id] = row.number
                try:
                    yield row.id, self._planner.plan(row)
                except DelugeError as error:
                    yield row.id, error

    def stop(self, within_s: float | None = None) -> None:
        """Hand nothing more over; what the provider has goes on there, and is fetched by the next run."""
        self._batch.stop()
        if within_s is not None:
            asyncio.get_running_loop().call_later(within_s, self.abort)

    def abort(self) -> None:
        """End at once. A batch that is being handed over is looked for by the next run."""
        self._is_aborted = True
        self._batch.stop()
        if self._step is not None:
            self._step.cancel()


def _left_of(state: BatchState | None) -> float:
    """Return how many requests of a batch are not over, as far as its provider says."""
    if state is None or state.is_over or state.total is None or state.finished is None:
        return math.inf
    return state.total - state.finished


async def _next(found: AsyncGenerator[Answered, None]) -> Answered | None:
    return await anext(found, None)
