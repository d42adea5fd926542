"""The progress of parts that are being asked: actors report it to an actor of the job, which the driver asks."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from lm_deluge.ray.packages import import_ray
from lm_deluge.ray.part_report import PartReport
from lm_deluge.response import APIResponse

__all__ = ["PartProgress", "ProgressBoard", "ProgressReader"]

_EVERY_S = 1.0  # between two reports of an actor: a display changes about once a second
_WAIT_S = 2.0  # for an answer of the board; a display that waits longer looks dead


class ProgressBoard:
    """An actor with the last report of each part. If it dies only the display suffers."""

    def __init__(self) -> None:
        self._reports: dict[int, PartReport] = {}

    def put(self, reports: list[PartReport]) -> None:
        """Replace the reports of some parts."""
        self._reports.update({report.part: report for report in reports})

    def all(self) -> list[PartReport]:
        """Return the reports of all parts."""
        return list(self._reports.values())


class PartProgress:
    """Counts the answers to the parts that one actor asks for, and reports the counts about once a second.

    Args:
        board: The handle of a `ProgressBoard`; None to report nothing.
    """

    def __init__(self, board: Any = None) -> None:
        self._board = board
        self._counts: dict[int, PartReport] = {}
        self._sent_at = 0.0

    def begin(self, part: int, rows: int) -> None:
        """Begin a part, from 0 if it is asked for once more."""
        self._counts[part] = PartReport(part=part, rows=rows, is_new=True)

    def note(self, part: int, response: APIResponse) -> None:
        """Count a response to a row of a part."""
        if self._board is None:
            return
        self._counts[part] = self._counts[part].with_response(response)
        if time.monotonic() - self._sent_at >= _EVERY_S:
            self._send(list(self._counts.values()))

    def end(self, report: PartReport) -> None:
        """Report a part that has ended, and the state of the others."""
        self._counts.pop(report.part, None)
        self._send([report, *self._counts.values()])

    def _send(self, reports: list[PartReport]) -> None:
        self._sent_at = time.monotonic()
        if self._board is not None:
            with contextlib.suppress(Exception):  # paid work goes on without a display
                self._board.put.remote(reports)


class ProgressReader:
    """Reads the reports, for the driver. `board` is the handle that actors need."""

    def __init__(self) -> None:
        self._ray = import_ray()
        self.board = self._ray.remote(ProgressBoard).options(num_cpus=0).remote()

    def reports(self) -> list[PartReport]:
        """Return the reports of all parts; none if they cannot be read now."""
        found: list[PartReport] = []
        with contextlib.suppress(Exception):  # Ray may be shutting down, and raises many classes then
            found = self._ray.get(self.board.all.remote(), timeout=_WAIT_S)
        return found
