"""The progress of parts, without Ray: what actors report, and the sums that the command shows."""

from typing import Any

import pytest

from lm_deluge.cli.batch import batch_ray
from lm_deluge.cli.batch.batch_ray import _Total
from lm_deluge.errors import APIError
from lm_deluge.ray import progress
from lm_deluge.ray.part_report import PartReport
from lm_deluge.ray.progress import PartProgress, ProgressBoard
from lm_deluge.response import APIResponse
from lm_deluge.usage import Usage


class Handle:
    """In place of the handle of the board: a call is made at once."""

    def __init__(self) -> None:
        self.board = ProgressBoard()
        self.calls = 0

    @property
    def put(self) -> "Handle":
        return self

    def remote(self, reports: list[PartReport]) -> None:
        self.calls += 1
        self.board.put(reports)


def answer(cost: float | None = 0.5) -> APIResponse:
    return APIResponse(usage=Usage(input_tokens=10, output_tokens=2), cost=cost)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    for module in (progress, batch_ray):
        monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_an_actor_reports_its_parts_once_a_second(clock: list[float]) -> None:
    handle = Handle()
    parts = PartProgress(handle)
    for number in (1, 2):
        parts.begin(number, rows=100)
    for at in range(50):
        parts.note(1 + at % 2, answer())
        clock[0] += 0.1
    assert handle.calls == 5
    parts.note(2, APIResponse(error=APIError("no")))
    parts.end(PartReport(part=1, rows=100, answered=100))
    first, second = sorted(handle.board.all(), key=lambda report: report.part)
    assert (first.answered, first.failed) == (100, 0)
    assert (second.answered, second.failed, second.errors) == (25, 1, {"APIError": 1})
    assert (second.input_tokens, second.output_tokens, second.cost) == (250, 50, 12.5)


def test_answers_without_a_price_or_a_usage_are_counted() -> None:
    report = PartReport(part=0, rows=2).with_response(answer(cost=None)).with_response(APIResponse())
    assert (report.answered, report.input_tokens, report.cost) == (2, 10, None)


class Broken:
    @property
    def put(self) -> Any:
        raise RuntimeError("the actor is dead")


def test_a_board_that_is_dead_or_missing_ends_nothing() -> None:
    for board in (None, Broken()):
        parts = PartProgress(board)
        parts.begin(1, rows=1)
        parts.note(1, answer())
        parts.end(PartReport(part=1, rows=1))


def test_the_display_counts_running_parts_and_earlier_ones_do_not_change_its_rates(clock: list[float]) -> None:
    total = _Total(1_000)
    total.add(PartReport(part=0, rows=500, answered=500, input_tokens=5_000, cost=1.0))
    clock[0] += 30.0  # the cluster starts
    running = PartReport(part=1, rows=500, answered=10, input_tokens=100, output_tokens=20, cost=0.2, is_new=True)
    assert total.with_running([running]).progress().done == 510
    clock[0] += 10.0
    running = PartReport(part=1, rows=500, answered=100, input_tokens=1_000, output_tokens=200, cost=0.2, is_new=True)
    shown = total.with_running([running]).progress()
    assert (shown.total, shown.done, shown.input_rate, shown.output_rate) == (1_000, 600, 100.0, 20.0)
    assert shown.remaining_s == 40.0
    total.add(PartReport(part=1, rows=500, answered=500, is_new=True))
    assert total.with_running([running]).progress().done == 1_000
