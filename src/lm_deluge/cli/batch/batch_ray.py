"""`deluge batch --engine ray`: a Parquet table, or a folder of them, is answered by the actors of a Ray cluster."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from lm_deluge.cli.exits import FAILED, TerminatedError
from lm_deluge.cli.render.escape import visible_line
from lm_deluge.cli.render.status_line import totals
from lm_deluge.cli.render.terminal import report
from lm_deluge.client.batch.progress_display import Progress, ProgressKind, make_progress
from lm_deluge.client.client import LLMClient
from lm_deluge.dispatch.batch.output import write_whole
from lm_deluge.dispatch.batch.progress import BatchProgress
from lm_deluge.dispatch.journal.records import fingerprint_of
from lm_deluge.errors import ConfigurationError, DelugeError, DispatchError
from lm_deluge.ray.ask_model import AskModel
from lm_deluge.ray.packages import import_arrow, import_ray
from lm_deluge.ray.part_report import PartReport
from lm_deluge.ray.parts import JOURNALS, InputPart, ask_parts, cut, read_metadata, rows_per_part
from lm_deluge.ray.progress import ProgressReader

__all__ = ["REFUSED", "RayJob", "run_ray"]

REFUSED = {
    "is_text": "--lines",
    "skip_bad": "--skip-bad",
    "ask_duplicates_once": "--ask-duplicates-once",
    "provider_batch": "--provider-batch",
    "salvage": "--salvage",
    "journal_path": "--journal",
    "remove_journal": "--remove-journal",
}
"""Options of `deluge batch`, by field, that do not fit this engine: rows are never left out, and it has journals of its
own, which it removes."""

_MANIFEST = "deluge-batch.json"
_MOST_IDS = 20  # about two lines of short ids; --report has all of them
_STDERR = 2  # its descriptor
_OBJECT_STORE_BYTES = 200 << 20  # of a local cluster: only numbers of parts and reports are in it


@dataclass(frozen=True, kw_only=True)
class RayJob:
    """The request of the command line.

    Attributes:
        source: A Parquet file, or a folder of them.
        target: The folder of the output.
        client: The client, whose options the actors have.
        ask: The arguments of `AskModel` beside the models and options of the client.
        actors: Number of actors.
    """

    source: Path
    target: Path
    client: LLMClient
    ask: Mapping[str, Any]
    actors: int
    overwrite: bool = False
    retry_failed: bool = False
    progress: ProgressKind = "rich"
    report_path: Path | None = None


def run_ray(job: RayJob) -> int:
    """Answer the rows that have no answer yet; return the exit code.

    Raises:
        DelugeError: A file cannot be read or written, the cluster cannot be started, or OUT is of another batch.
    """
    import_ray()
    import_arrow()
    ask = _arguments(job)
    parts = _prepared(job, AskModel(**ask, share_limits=False))  # refuses wrong options before the cluster is started
    progress = make_progress(job.progress)
    total = _Total(sum(part.rows for part in parts))
    try:
        with _cluster(job.actors), _shown(progress, total, is_on=job.progress != "none") as board:
            for each in _reports(job, parts, ask, board):
                total.add(each)
        progress.close(total.progress())
    except (KeyboardInterrupt, TerminatedError):
        progress.close(total.progress())
        report(
            f"Stopped: the parts that are done are in {visible_line(job.target.name)}, the other answers in its "
            "journals. To continue, start the same command again."
        )
        raise
    return _end(job, total)


def _arguments(job: RayJob) -> dict[str, Any]:
    options = job.client.options
    given = {name: getattr(options, name) for name in options.__struct_fields__}
    return {**job.ask, "model": [model.id for model in job.client.models], **given}


def _prepared(job: RayJob, model: AskModel) -> list[InputPart]:
    """Check IN and OUT, and return the parts."""
    files = sorted(job.source.rglob("*.parquet")) if job.source.is_dir() else [job.source]
    if not files or (not job.source.is_dir() and job.source.suffix.lower() != ".parquet"):
        raise ConfigurationError(
            f"{job.source.name} is no Parquet table", hint="--engine ray reads a .parquet file, or a folder of them."
        )
    if job.target.exists() and not job.target.is_dir():
        raise ConfigurationError(f"{job.target.name} is a file", hint="--engine ray writes a folder of Parquet files.")
    if job.report_path is not None and not job.report_path.parent.is_dir():
        raise ConfigurationError(f"there is no folder {job.report_path.parent} for the report")
    model.check(read_metadata(files[0]).schema.to_arrow_schema().names)
    manifest = job.target / _MANIFEST
    fingerprint = fingerprint_of(
        {
            "models": [model.id for model in job.client.models],
            "sampling": msgspec.to_builtins(job.client.options.sampling_params),
            "ask": {name: repr(value) for name, value in job.ask.items()},
        },
        (),
    )
    continues = manifest.exists() and not job.overwrite
    rows = _known_rows(manifest, fingerprint) if continues else None
    rows = rows or rows_per_part(sum(read_metadata(path).num_rows for path in files))
    parts = cut(files, rows)  # checks all files, before anything is removed or written
    if continues:
        return parts
    if job.overwrite:
        _clear(job.target)
    if job.target.exists() and any(job.target.iterdir()):
        raise ConfigurationError(
            f"{job.target.name} exists already, and is not the output of this command",
            hint="Choose another folder.",
        )
    job.target.mkdir(parents=True, exist_ok=True)
    write_whole(manifest, [json.dumps({"rows_per_part": rows, "fingerprint": fingerprint}).encode() + b"\n"])
    return parts


def _known_rows(manifest: Path, fingerprint: str) -> int:
    try:
        known = json.loads(manifest.read_bytes())
        rows, own = int(known["rows_per_part"]), known["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"cannot read {manifest}", hint="Start again with --overwrite.") from error
    if own != fingerprint:
        raise ConfigurationError(
            f"{manifest.parent.name} belongs to another batch: its model or its options differ",
            hint="Name another OUT, or start again with --overwrite, which replaces its files.",
        )
    return rows


def _clear(target: Path) -> None:
    """Remove what an earlier run of the command has written, and nothing else."""
    for path in target.glob("part-*.parquet"):
        path.unlink()
    (target / _MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(target / JOURNALS, ignore_errors=True)


@contextlib.contextmanager
def _cluster(actors: int) -> Iterator[None]:
    """Connect to the cluster at RAY_ADDRESS, or start one on this machine, until the block ends.

    Raises:
        DispatchError: There is no such cluster, or none can be started.
    """
    ray = import_ray()
    address = os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    local = {
        "num_cpus": max(os.cpu_count() or 1, actors // 2),
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
    }
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    # Ray prints warnings for its developers as errors, into the display (https://github.com/ray-project/ray/issues/53727).
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        for is_last in (False, True):  # some starts fail on a busy machine, and a second one works (2.60, 2026-11)
            try:
                with _quiet_stderr():
                    ray.init(**quiet, **({} if address else local))
                break
            except Exception as error:
                with contextlib.suppress(Exception):
                    ray.shutdown()
                if is_last or address:
                    where = "at RAY_ADDRESS cannot be reached" if address else "cannot be started on this machine"
                    raise DispatchError(
                        f"the Ray cluster {where} ({type(error).__name__})",
                        hint="Its log files are in the folder /tmp/ray, or on the machines of the cluster.",
                    ) from error
                report("The Ray cluster did not start. Trying once more.")
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Let nothing be written to the file of stderr: Ray's core announces its log level there, whatever the level is."""
    kept = os.dup(_STDERR)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, _STDERR)
    os.close(nothing)
    try:
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)


@contextlib.contextmanager
def _shown(progress: Progress, total: _Total, *, is_on: bool) -> Iterator[Any]:
    """Show the progress from time to time until the block ends; give it the board for the reports of the actors."""
    if not is_on:
        yield None
        return
    reader = ProgressReader()
    is_over = threading.Event()

    def show() -> None:
        while not is_over.wait(progress.every_s):
            progress.show(total.with_running(reader.reports()).progress())

    thread = threading.Thread(target=show, name="deluge-progress", daemon=True)
    thread.start()
    try:
        yield reader.board
    finally:
        is_over.set()
        thread.join()


def _reports(job: RayJob, parts: list[InputPart], ask: dict[str, Any], board: Any) -> Iterator[PartReport]:
    if not parts:
        return
    try:
        yield from ask_parts(parts, job.target, ask, actors=job.actors, retry_failed=job.retry_failed, board=board)
    except Exception as error:
        if (own := _own_error(error)) is not None:
            raise own from error
        raise DispatchError(
            f"the Ray job failed ({type(error).__name__})",
            hint="The parts that are done are in OUT, and the answers of the others in its journals: start the same "
            "command again.",
        ) from error


def _own_error(error: BaseException | None) -> DelugeError | None:
    """Return the error of this library that a task of Ray raised."""
    while error is not None:
        if isinstance(error, DelugeError):
            kind = next(
                (each for each in type(error).__mro__ if each.__module__ == DelugeError.__module__), DelugeError
            )
            cause = getattr(error, "cause", None)
            return cause if isinstance(cause, DelugeError) else kind(str(error).splitlines()[-1])
        cause = getattr(error, "cause", None)
        error = cause if isinstance(cause, BaseException) else error.__cause__
    return None


class _Total:
    """The sums over parts.

    Args:
        rows: Number of rows of all parts.
        parts: The reports that are known.
    """

    def __init__(self, rows: int, parts: Iterable[PartReport] = ()) -> None:
        self.rows = rows
        self.parts: list[PartReport] = list(parts)
        self._started_at = time.monotonic()
        self._answered_at: float | None = None  # the first answer of this run: a cluster needs a while to start

    def add(self, part: PartReport) -> None:
        """Add a part."""
        self.parts.append(part)

    def sum(self, name: str) -> int:
        """Return the sum of a count over all parts."""
        return sum(getattr(part, name) for part in self.parts)

    @property
    def cost(self) -> float | None:
        """The cost of all answers; None if no answer has a price."""
        costs = [part.cost for part in self.parts if part.cost is not None]
        return sum(costs) if costs else None

    @property
    def again(self) -> list[str]:
        """The ids of rows that were sent again, in the order of the input."""
        return [each for part in sorted(self.parts, key=lambda part: part.part) for each in part.again]

    @property
    def errors(self) -> dict[str, int]:
        """The numbers of failed rows by class of error."""
        found: dict[str, int] = {}
        for part in self.parts:
            for kind, count in part.errors.items():
                found[kind] = found.get(kind, 0) + count
        return found

    @property
    def problems(self) -> list[str]:
        """Why parts were not asked."""
        return [part.problem for part in self.parts if part.problem is not None]

    def with_running(self, running: Iterable[PartReport]) -> _Total:
        """Return the sums with the parts that are not done yet."""
        done = list(self.parts)
        numbers = {part.part for part in done}
        total = _Total(self.rows, [*done, *(part for part in running if part.part not in numbers)])
        if self._answered_at is None and total.new("answered"):
            self._answered_at = time.monotonic()
        total._started_at, total._answered_at = self._started_at, self._answered_at
        return total

    def new(self, name: str) -> int:
        """Return the sum of a count over the parts of this run."""
        return sum(getattr(part, name) for part in self.parts if part.is_new)

    def progress(self) -> BatchProgress:
        """Return the progress for a display."""
        now = time.monotonic()
        done, new = self.sum("answered") + self.sum("failed"), self.new("answered") + self.new("failed")
        since = 0.0 if self._answered_at is None else now - self._answered_at
        return BatchProgress(
            total=self.rows,
            done=done,
            failed=self.sum("failed"),
            input_tokens=self.sum("input_tokens"),
            output_tokens=self.sum("output_tokens"),
            input_rate=self.new("input_tokens") / since if since else 0.0,
            output_rate=self.new("output_tokens") / since if since else 0.0,
            cost=self.cost,
            projected_cost=None if self.cost is None or not done else self.cost * self.rows / done,
            remaining_s=(self.rows - done) * since / new if new and since else None,
            elapsed_s=now - self._started_at,
            errors=self.errors,
        )


def _end(job: RayJob, total: _Total) -> int:
    """Report the results, and return the exit code."""
    answered, failed = total.sum("answered"), total.sum("failed")
    left = total.rows - answered - failed
    name = visible_line(job.target.name)
    is_new = any(part.is_new for part in total.parts) or left
    start = f"{name}: " if is_new else f"Nothing to do: {name} has "
    words = [f"{total.rows:,} rows in {len(total.parts):,} parts", f"{answered:,} answered"]
    if failed:
        words.append(f"{failed:,} failed ({', '.join(f'{kind} {count:,}' for kind, count in total.errors.items())})")
    if left:
        words.append(f"{left:,} left to the next run")
    report(start + ", ".join(words))
    report(totals(total.sum("input_tokens"), total.sum("output_tokens"), total.cost, is_estimated=False))
    again = total.again
    if again:
        more = f" and {len(again) - _MOST_IDS:,} more (--report has all)" if len(again) > _MOST_IDS else ""
        ids = ", ".join(visible_line(each[:80]) for each in again[:_MOST_IDS])
        report(f"{len(again):,} requests were sent again, and may be billed twice: {ids}{more}")
    if job.report_path is not None:
        _write_report(job.report_path, total, left)
    if total.problems:
        raise ConfigurationError(
            f"{len(total.problems):,} parts were not asked: {total.problems[0]}",
            hint="Name another OUT, or start again with --overwrite.",
        )
    if left:
        report("To continue, start the same command again.")
    else:
        shutil.rmtree(job.target / JOURNALS, ignore_errors=True)  # all answers are in the parts
    if failed:
        report("To send the failed rows again, start the same command with --retry-failed.")
    return FAILED if failed or left else 0


def _write_report(path: Path, total: _Total, left: int) -> None:
    data = {
        "rows": total.rows,
        "answered": total.sum("answered"),
        "failed": total.sum("failed"),
        "open": left,
        "failed_by_error": total.errors,
        "usage": {"input_tokens": total.sum("input_tokens"), "output_tokens": total.sum("output_tokens")},
        "cost": total.cost,
        "sent_again": {"requests": len(total.again), "ids": total.again},
    }
    write_whole(path, [json.dumps(data, indent=2, ensure_ascii=False).encode() + b"\n"])
