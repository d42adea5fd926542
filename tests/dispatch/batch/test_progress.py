"""Progress of a batch, with the time as an argument."""

from __future__ import annotations

import tracemalloc

import pytest

from lm_deluge.dispatch.batch.progress import BatchProgress, ProgressTracker
from lm_deluge.errors import RateLimitError, ServerError
from lm_deluge.response import APIResponse
from lm_deluge.usage import Usage


def answer(
    *, read: int = 100, written: int = 10, cost: float | None = 0.5, error: Exception | None = None
) -> APIResponse:
    return APIResponse(usage=Usage(input_tokens=read, output_tokens=written), cost=cost, error=error)


def test_nothing_has_begun() -> None:
    assert ProgressTracker(4).progress(10.0) == BatchProgress(total=4)


def test_the_half_of_a_batch() -> None:
    tracker = ProgressTracker(4)
    for _ in range(3):
        tracker.start(100.0)
    tracker.finish(answer(), 105.0)
    tracker.finish(answer(error=RateLimitError("slow down"), cost=None), 110.0)
    found = tracker.progress(110.0, limited_by="requests per minute")
    assert (found.done, found.failed, found.in_flight) == (2, 1, 1)
    assert tracker.progress(110.0, waiting=1).in_flight == 0
    assert (found.input_tokens, found.output_tokens) == (200, 20)
    assert (found.input_rate, found.output_rate) == (20.0, 2.0)
    assert (found.cost, found.projected_cost) == (0.5, 1.0)
    assert (found.remaining_s, found.elapsed_s) == (10.0, 10.0)
    assert (found.limited_by, found.errors) == ("requests per minute", {"RateLimitError": 1})


def test_rates_are_of_the_last_half_minute() -> None:
    tracker = ProgressTracker()
    tracker.start(0.0)
    tracker.start(0.0)
    tracker.finish(answer(read=9_000), 1.0)
    tracker.finish(answer(read=300), 50.0)
    assert tracker.progress(60.0).input_rate == pytest.approx(10.0)
    assert tracker.progress(100.0).input_rate == 0.0
    assert tracker.progress(100.0).input_tokens == 9_300
    assert tracker.progress(100.0).projected_cost is None


def test_a_call_of_which_nothing_is_known() -> None:
    tracker = ProgressTracker(1)
    tracker.start(0.0)
    tracker.finish(APIResponse(error=ServerError("down")), 1.0)
    found = tracker.progress(1.0)
    assert (found.cost, found.projected_cost, found.output_tokens, found.failed) == (None, None, 0, 1)


def test_a_batch_without_a_display_keeps_no_numbers_of_answers_long_past() -> None:
    tracker = ProgressTracker(total=None)
    answer = APIResponse(usage=Usage(input_tokens=1, output_tokens=2))
    tracemalloc.start()
    try:
        for second in range(50_000):
            tracker.finish(answer, float(second))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 50_000  # bytes: those of half a minute
