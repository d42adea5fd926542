"""Calls that wait to be admitted, in order, and the routes that they may take."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterator

import msgspec

__all__ = ["AdmissionOrder", "Job", "JobQueue", "QueuedJob", "Route"]

_MOST_BEFORE_BATCH = 4  # interactive jobs in a row while others wait: these go on, and a user hardly notices one call


class Route(msgspec.Struct, frozen=True):
    """A model with a key, and its weight among routes that are free at the same time.

    A route that `is_fallback` gets calls only while no other route is usable. `context_window` is in tokens; None if
    it is not known, or not to be used.
    """

    model: str
    key: str = ""
    weight: float = 1.0
    provider: str = ""
    is_fallback: bool = False
    context_window: int | None = None


class Job(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A call that waits to be admitted.

    Attributes:
        id: The runner's identifier; unique among the waiting jobs.
        input_tokens: An upper bound.
        max_output_tokens: The limit that the request contains; None without one.
        models: Models that may take the call; None for all models of the client.
        prefer: The model to use while it is usable.
        is_interactive: A user waits for it, so it goes before the calls of batches.
    """

    id: int
    input_tokens: int = 0
    max_output_tokens: int | None = None
    models: frozenset[str] | None = None
    prefer: str | None = None
    is_interactive: bool = False


class QueuedJob(msgspec.Struct, gc=False, eq=False):
    """A job with its number in the order of arrival. `is_removed` marks entries still in storage."""

    order: int
    job: Job
    is_removed: bool = False


class AdmissionOrder:
    """Interactive jobs before those of batches, which get one admission in five at least; else in order of arrival."""

    def __init__(self) -> None:
        self._interactive_in_a_row = 0  # admitted or reserved while jobs of batches waited

    @property
    def is_turn_of_batches(self) -> bool:
        """Whether the next admission is due to a job of a batch, if any waits."""
        return self._interactive_in_a_row >= _MOST_BEFORE_BATCH

    def rank(self, entry: QueuedJob) -> tuple[bool, int]:
        """Return the place of a waiting job: the lowest goes first."""
        return entry.job.is_interactive is self.is_turn_of_batches, entry.order

    def note_interactive(self) -> None:
        """Note that an interactive job goes before a waiting job of a batch."""
        self._interactive_in_a_row += 1

    def note_admission(self, entry: QueuedJob) -> None:
        """Note that a job was admitted. That is the turn of a job of a batch: a slot that it waits for may be lost."""
        if not entry.job.is_interactive:
            self._interactive_in_a_row = 0


class JobQueue(msgspec.Struct, eq=False):
    """Jobs that the same routes may take. New jobs go to the end, returned jobs back to their place in the order."""

    _fresh: deque[QueuedJob] = msgspec.field(default_factory=deque[QueuedJob])
    _returned: list[tuple[int, int, QueuedJob]] = []
    # It breaks ties: an entry that returned twice is in the heap twice.
    _count: itertools.count[int] = msgspec.field(default_factory=itertools.count)

    def add(self, entry: QueuedJob) -> None:
        """Insert a job by its order: O(1) at the end, O(log n) elsewhere."""
        if not self._fresh or entry.order > self._fresh[-1].order:
            self._fresh.append(entry)
        else:
            heapq.heappush(self._returned, (entry.order, next(self._count), entry))

    def head(self) -> QueuedJob | None:
        """Return the first job; None if the queue is empty."""
        self._drop_gone()
        if self._returned and (not self._fresh or self._returned[0][0] < self._fresh[0].order):
            return self._returned[0][2]
        return self._fresh[0] if self._fresh else None

    def remove(self, entry: QueuedJob) -> None:
        """Remove a job from anywhere in the queue."""
        entry.is_removed = True
        self._drop_gone()

    def peek(self, count: int) -> Iterator[QueuedJob]:
        """Yield up to `count` jobs from the front: returned ones first, each kind in order or nearly so."""
        self._drop_gone()
        front = [entry for _, _, entry in self._returned[:count]]
        front += [self._fresh[place] for place in range(min(count, len(self._fresh)))]
        yield from [entry for entry in front if not entry.is_removed][:count]

    def drain(self) -> list[QueuedJob]:
        """Remove and return all jobs, in order."""
        entries = [*(entry for _, _, entry in self._returned), *self._fresh]
        self._returned.clear()
        self._fresh.clear()
        return sorted((entry for entry in entries if not entry.is_removed), key=lambda entry: entry.order)

    def _drop_gone(self) -> None:
        while self._fresh and self._fresh[0].is_removed:
            self._fresh.popleft()
        while self._returned and self._returned[0][2].is_removed:
            heapq.heappop(self._returned)
