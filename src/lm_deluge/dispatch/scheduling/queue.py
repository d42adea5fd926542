"""Calls that wait, in order of arrival."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterator

import msgspec

from lm_deluge.dispatch.scheduling.limiter import ReservationRequest

__all__ = ["Job", "JobQueue", "QueuedJob"]


class Job(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A call that wants to be started.

    Attributes:
        id: Whatever the runner knows it by; unique among those that wait.
        input_tokens: An upper bound.
        max_output_tokens: The request's own limit.
        models: Which models may take it; None for all of the client's.
        prefer: The one that should, as long as it can.
    """

    id: int
    input_tokens: int = 0
    max_output_tokens: int | None = None
    models: frozenset[str] | None = None
    prefer: str | None = None

    def request_for(self, model: str, key: str) -> ReservationRequest:
        """Return what it costs at a model."""
        return ReservationRequest(model, key, self.input_tokens, self.max_output_tokens)


class QueuedJob(msgspec.Struct, gc=False, eq=False):
    """A job with its place in the order of arrival; `is_removed` once it left the lane from elsewhere than the head."""

    order: int
    job: Job
    is_removed: bool = False


class JobQueue:
    """Jobs that the same routes may take. New ones go to the end, returned ones to where they came from."""

    def __init__(self) -> None:
        self._fresh: deque[QueuedJob] = deque()
        self._returned: list[tuple[int, int, QueuedJob]] = []
        self._count = itertools.count()  # one that left and came back may be in the heap twice

    def add(self, entry: QueuedJob) -> None:
        """Put a job in its place: O(1) at the end, O(log n) elsewhere."""
        if not self._fresh or entry.order > self._fresh[-1].order:
            self._fresh.append(entry)
        else:
            heapq.heappush(self._returned, (entry.order, next(self._count), entry))

    def head(self) -> QueuedJob | None:
        """Return the one that came first."""
        self._drop_gone()
        if self._returned and (not self._fresh or self._returned[0][0] < self._fresh[0].order):
            return self._returned[0][2]
        return self._fresh[0] if self._fresh else None

    def remove(self, entry: QueuedJob) -> None:
        """Take a job out, wherever it stands."""
        entry.is_removed = True
        self._drop_gone()

    def peek(self, count: int) -> Iterator[QueuedJob]:
        """Yield up to `count` of the jobs at the front, nearly in order."""
        self._drop_gone()
        front = [entry for _, _, entry in self._returned[:count]]
        front += [self._fresh[place] for place in range(min(count, len(self._fresh)))]
        yield from [entry for entry in front if not entry.is_removed][:count]

    def drain(self) -> list[QueuedJob]:
        """Take all jobs out."""
        entries = [*(entry for _, _, entry in self._returned), *self._fresh]
        self._returned.clear()
        self._fresh.clear()
        return sorted((entry for entry in entries if not entry.is_removed), key=lambda entry: entry.order)

    def _drop_gone(self) -> None:
        while self._fresh and self._fresh[0].is_removed:
            self._fresh.popleft()
        while self._returned and self._returned[0][2].is_removed:
            heapq.heappop(self._returned)
