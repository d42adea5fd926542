"""The run of a batch: open the journal, send requests, show the progress, write the output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import msgspec

from lm_deluge.cli.batch.batch_files import check_target, stdout_bytes
from lm_deluge.cli.batch.batch_report import (
    Outcome,
    outcome_of,
    report_death,
    report_end,
    report_failure,
    report_start,
    report_stop,
    report_unreadable,
    write_report,
)
from lm_deluge.cli.exits import FAILED
from lm_deluge.cli.interrupts import Interrupts
from lm_deluge.cli.render.escape import visible_line
from lm_deluge.cli.render.terminal import report
from lm_deluge.cli.workers.rows import WorkerRows, check_workers
from lm_deluge.client.batch.journaled import is_due
from lm_deluge.client.batch.progress_display import FIRST_AFTER_S, Progress, ProgressKind, make_progress
from lm_deluge.client.batch.provider_prompts import check_provider_batch
from lm_deluge.client.batch.provider_rows import ProviderRows
from lm_deluge.client.batch.row_planner import answer_rows
from lm_deluge.client.call_options import CallOptions
from lm_deluge.client.client import LLMClient
from lm_deluge.dispatch.batch.duplicates import answer_again
from lm_deluge.dispatch.batch.input import BatchRow, RowFormat, read_rows
from lm_deluge.dispatch.batch.input_file import InputFile
from lm_deluge.dispatch.batch.output import Answer, write_answers, write_stream
from lm_deluge.dispatch.batch.progress import BatchProgress, ProgressTracker
from lm_deluge.dispatch.batch.survey import Survey
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.dispatch.journal.options import shown_options
from lm_deluge.errors import ConfigurationError, DelugeError, DispatchError, JournalError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.response import APIResponse

_DRAIN_S = 10.0  # long enough for most answers in flight, short enough for a user waiting after Ctrl-C
_TICK_S = 0.5  # a failing journal is reported within this time, and two checks a second cost little


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """The request of the command line. `OPTIONS` lists the fields that are options of the same name.

    Attributes:
        target: The output; None for stdout.
        keeps_journal: Whether the journal stays after the answers were written to stdout.
    """

    OPTIONS: ClassVar = (
        *("ask_duplicates_once", "overwrite", "progress", "provider_batch", "remove_journal", "report_path"),
        *("retry_failed", "salvage", "schema", "max_output_retries", "workers"),
    )

    source: InputFile
    target: Path | None
    journal_path: Path
    client: LLMClient
    form: RowFormat
    system: str | None = None
    is_simulated: bool = False
    ask_duplicates_once: bool = False
    overwrite: bool = False
    progress: ProgressKind = "rich"
    provider_batch: bool = False
    remove_journal: bool = False
    report_path: Path | None = None
    retry_failed: bool = False
    salvage: bool = False
    schema: dict[str, Any] | None = None
    max_output_retries: int = 0
    workers: int = 1
    keeps_journal: bool = True

    @property
    def target_name(self) -> str:
        """The name of the output, for messages."""
        return "stdout" if self.target is None else self.target.name


class BatchSource(Protocol):
    """Sends rows and yields their answers."""

    failure: JournalError | None
    """The error of the journal that ended `answers`, or None."""

    gave_up: DelugeError | None
    """The error of the provider that ended `answers`, or None."""

    @property
    def in_flight(self) -> int:
        """Number of requests in flight."""
        ...

    @property
    def is_paused(self) -> bool:
        """Whether requests wait because no connection to the provider succeeds."""
        ...

    @property
    def limited_by(self) -> str | None:
        """Description of the limits that requests wait for; None if none waits."""
        ...

    def answers(self, rows: Iterable[BatchRow]) -> AsyncGenerator[tuple[BatchRow, APIResponse], None]:
        """Yield each row that is due with its answer, in order of completion, after the journal has the answer."""
        ...

    def stop(self, within_s: float | None = None) -> None:
        """Send no new request; requests in flight may end within this time."""
        ...

    def abort(self) -> None:
        """Close all connections and end."""
        ...


def check_paths(job: BatchJob) -> None:
    """Check that the input can be read, the output can be written, and no other file would be overwritten.

    Raises:
        ConfigurationError: One of these checks failed, or the provider has no batch API.
    """
    check_workers(job.workers)
    if job.provider_batch:
        check_provider_batch(job.client.models, job.client.options)
    check_target(job.source, job.target, job.journal_path, overwrite=job.overwrite)
    if job.report_path is not None and not job.report_path.parent.is_dir():
        raise ConfigurationError(f"there is no folder {job.report_path.parent} for the report")


def fingerprint_options(
    client: LLMClient,
    *,
    system: str | None = None,
    is_provider_batch: bool = False,
    schema: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the options that are part of the fingerprint: those that shape answers.

    Keys, addresses, limits and timeouts are not part of it, so that they may change between two runs.
    """
    options = client.options
    # Without this entry, a run with --provider-batch could continue a run without it, and send its lines twice.
    source = {"provider_batch": True} if is_provider_batch else {}
    return {
        "models": [model.id for model in client.models],
        "system": system,
        "sampling": msgspec.to_builtins(options.sampling_params),
        **source,
        **({} if schema is None else {"schema": msgspec.json.encode(schema).decode()}),
    }


async def run_job(job: BatchJob, survey: Survey) -> int:
    """Run the lines of a batch that are not done yet; return the exit code.

    Raises:
        DelugeError: The journal cannot be opened, or a file cannot be written.
        KeyboardInterrupt: Ctrl-C stopped the batch.
        TerminatedError: Another signal stopped the batch.
    """
    journal = await _open(job, survey.fingerprint)
    interrupts = Interrupts()
    try:
        await asyncio.to_thread(journal.check, survey.keys.values())
        report_unreadable(journal, survey)
        due = [each for each in survey.keys if _is_due(job, survey, journal, each)]
        report_start(journal, survey, [survey.keys[each] for each in due])
        size = job.journal_path.stat().st_size
        source = _source_of(job, survey, journal)
        async with job.client:
            answered = await _answer_rows(job, survey, source, due, interrupts) if due else 0
        if answered == len(due):
            is_new = job.journal_path.stat().st_size != size
            return await _write_output(job, survey, journal, is_new=is_new)
        await _stop_early(job, survey, journal, source)
        if interrupts.count and source.failure is None and source.gave_up is None:
            raise interrupts.end()
        return FAILED
    finally:
        await journal.close()


def _source_of(job: BatchJob, survey: Survey, journal: Journal) -> BatchSource:
    """Return the source of answers: one request per row, from one process or several, or the provider's batch API."""
    if job.workers > 1:
        return WorkerRows(
            job.client,
            journal,
            workers=job.workers,
            schema=job.schema,
            max_output_retries=job.max_output_retries,
            retry_failed=job.retry_failed,
            on_death=lambda status, calls: report_death(status, survey.named(calls)),
        )
    options = CallOptions(output=job.schema, max_output_retries=job.max_output_retries)
    if job.provider_batch:
        return ProviderRows(job.client.dispatcher, journal, retry_failed=job.retry_failed, options=options)
    return answer_rows(job.client.dispatcher, journal, retry_failed=job.retry_failed, options=options)


def _is_due(job: BatchJob, survey: Survey, journal: Journal, row_id: str) -> bool:
    if row_id in survey.duplicates or row_id in survey.bad:
        return False
    return is_due(journal, survey.keys[row_id], retry_failed=job.retry_failed)


async def _open(job: BatchJob, fingerprint: str) -> Journal:
    options = shown_options(_options_of(job))
    is_replaced = job.overwrite and job.journal_path.exists()
    try:
        journal = await Journal.open(
            job.journal_path, fingerprint=fingerprint, options=options, salvage=job.salvage, replace=job.overwrite
        )
    except JournalError as error:
        if isinstance(error.__cause__, OSError):
            raise
        # The journal is in use, damaged, or of another batch. No request was sent: the exit code has to show that.
        raise ConfigurationError(error.message, hint=_hint_of(error)) from error
    if is_replaced:
        report(f"Starting again: the answers until now are in {visible_line(job.journal_path.name)}.old.")
    return journal


def _options_of(job: BatchJob) -> dict[str, Any]:
    return fingerprint_options(job.client, system=job.system, is_provider_batch=job.provider_batch, schema=job.schema)


def _hint_of(error: JournalError) -> str | None:
    if error.offset is not None:
        return "With --salvage the damaged part is moved to a file beside it."
    if "belongs to another batch" in error.message:
        return "Name another OUT, or start again with --overwrite, which replaces OUT and its journal."
    return error.hint


async def _answer_rows(
    job: BatchJob, survey: Survey, source: BatchSource, due: list[str], interrupts: Interrupts
) -> int:
    """Send the rows that are due; return the number of rows that were answered or failed."""
    display = _Display(job, source, len(due))

    def stop() -> None:
        display.close()
        count = source.in_flight
        source.stop(_DRAIN_S)
        if count and job.provider_batch:
            report(f"Stopping: the provider continues {count:,} requests; the same command fetches their answers.")
        elif count:
            report(
                f"Stopping: {count} requests in flight have {_DRAIN_S:.0f} s to end. Ctrl-C again stops them at once."
            )

    ticking = asyncio.get_running_loop().create_task(display.tick())
    try:
        with interrupts.caught(stop, source.abort):
            async with contextlib.aclosing(source.answers(_rows_of(job, survey))) as answers:
                async for _, response in answers:
                    display.count(response)
    finally:
        ticking.cancel()
        display.close()
    if _has_changed(job, survey):
        raise DispatchError(
            f"{job.source.name} was changed while the batch ran",
            hint=f"The answers until now are in {job.journal_path.name}.",
        )
    return display.ended


def _rows_of(job: BatchJob, survey: Survey) -> Iterator[BatchRow]:
    """Yield the rows of the input except duplicates. Rows without a system message get that of the command line."""
    for row in read_rows(job.source, job.form):
        if _has_changed(job, survey):
            return
        if row.id in survey.duplicates or row.error is not None:
            continue
        conversation = row.conversation
        if job.system is not None and conversation is not None and all(each.role != "system" for each in conversation):
            conversation = Conversation([Message.system(job.system), *conversation])
        yield msgspec.structs.replace(row, conversation=conversation, model=None if job.is_simulated else row.model)


def _has_changed(job: BatchJob, survey: Survey) -> bool:
    try:
        return job.source.stamp() != survey.stamp
    except ConfigurationError:
        return True


class _Display:
    """Shows the progress of a batch, until the end or a failure of the journal."""

    def __init__(self, job: BatchJob, source: BatchSource, total: int) -> None:
        self.ended = 0
        self._source = source
        self._tracker = ProgressTracker(total)
        self._tracker.start(time.monotonic())
        self._progress: Progress | None = make_progress(job.progress)
        self._has_reported = False

    def count(self, response: APIResponse) -> None:
        """Add an answer."""
        self.ended += 1
        self._tracker.finish(response, time.monotonic())

    async def tick(self) -> None:
        """Update the display until cancelled. A failing journal is reported at once, not at the end of the batch."""
        # The first update comes early: a user wants to see that the batch has started.
        shown_at = time.monotonic() - (
            0.0 if self._progress is None else max(self._progress.every_s - FIRST_AFTER_S, 0)
        )
        while self._progress is not None:
            await asyncio.sleep(min(self._progress.every_s, _TICK_S))
            if self._source.failure is not None:
                self.close()
            elif self._progress is not None and time.monotonic() - shown_at >= self._progress.every_s:
                shown_at = time.monotonic()
                self._show(self._progress.show)

    def _show(self, show: Callable[[BatchProgress], None]) -> None:
        source = self._source
        reason = "an outage: no connection to the provider succeeds" if source.is_paused else source.limited_by
        with contextlib.suppress(Exception):  # counts that cannot be added up do not end the batch
            progress = self._tracker.progress(time.monotonic(), limited_by=reason)
            show(msgspec.structs.replace(progress, in_flight=source.in_flight))

    def close(self) -> None:
        """Show the last state and report a failure of the journal, both only once."""
        progress, self._progress = self._progress, None
        if progress is not None:
            self._show(progress.close)
        if self._source.failure is not None and not self._has_reported:
            self._has_reported = True
            report_failure(self._source.failure, self._source.in_flight)


async def _stop_early(job: BatchJob, survey: Survey, journal: Journal, source: BatchSource) -> None:
    """Save the answers that the journal could not take, and report how to continue."""
    lost: list[str] = []
    try:
        await journal.close()
    except JournalError:
        lost = survey.named(journal.unsaved)
    outcome = await _outcome(survey, journal)
    if source.gave_up is not None:
        report(f"deluge: {visible_line(str(source.gave_up))}")
    report_stop(outcome, job.journal_path, source.failure, lost, _save_elsewhere(job, journal) if lost else None)
    if job.report_path is not None:
        write_report(job.report_path, outcome)


def _save_elsewhere(job: BatchJob, journal: Journal) -> str | None:
    """Write the unsaved lines of the journal to the folder for temporary files; return the path, None on failure."""
    path: str | None = None
    try:
        descriptor, path = tempfile.mkstemp(prefix=f"{job.journal_path.name}.", suffix=".rest")
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(journal.unsaved_lines)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        if path is not None:
            Path(path).unlink(missing_ok=True)
        return None
    return path


async def _write_output(job: BatchJob, survey: Survey, journal: Journal, *, is_new: bool) -> int:
    """Write the output unless it is up to date, and report the results; return the exit code.

    Args:
        job: The request of the command line.
        survey: The lines of the input.
        journal: The journal with their answers.
        is_new: Whether this run has added answers.
    """
    outcome = await _outcome(survey, journal)
    is_written = is_new or not _is_up_to_date(job)
    if is_written:
        try:
            await asyncio.to_thread(_write_answers, job, _answers_of(job, survey, journal))
        except JournalError as error:
            if isinstance(error.__cause__, OSError):
                error.hint = f"All answers are safe in {job.journal_path}. Start the same command again."
            raise
    report_end(outcome, job.target_name, survey.bad, is_written=is_written)
    if job.report_path is not None:
        write_report(job.report_path, outcome)
    await journal.close()
    if (job.remove_journal or not job.keeps_journal) and not outcome.failed:
        job.journal_path.unlink()
    return FAILED if outcome.failed else 0


def _write_answers(job: BatchJob, answers: Iterable[Answer]) -> None:
    if job.target is None:
        write_stream(stdout_bytes(), answers)
    else:
        write_answers(job.target, answers)


def _is_up_to_date(job: BatchJob) -> bool:
    """Whether the output was written after the last record of the journal, and after the last change of the input."""
    if job.target is None or job.source.path is None:
        return False
    try:
        written = job.target.stat().st_mtime_ns
        return written >= max(path.stat().st_mtime_ns for path in (job.journal_path, job.source.path))
    except FileNotFoundError:
        return False


async def _outcome(survey: Survey, journal: Journal) -> Outcome:
    return await asyncio.to_thread(outcome_of, survey, journal)


def _answers_of(job: BatchJob, survey: Survey, journal: Journal) -> Iterator[Answer]:
    """Yield the answer of every row, in order. A duplicate that was not sent gets the answer of the first row."""
    for index, (row_id, columns) in enumerate(_columns_of(job, survey)):
        response, first = _recorded(survey, journal, row_id), survey.duplicates.get(row_id)
        if response is None and first is not None:
            response = _recorded(survey, journal, first)
            response = None if response is None else answer_again(response)
        else:
            first = None
        if response is None:
            raise JournalError(f"the journal {journal.path} has no answer for the line {row_id[:80]!r}")
        response.id = index
        yield Answer(row_id, response, first, columns)


def _recorded(survey: Survey, journal: Journal, row_id: str) -> APIResponse | None:
    bad = survey.bad.get(row_id)
    return journal.response(survey.keys[row_id]) if bad is None else APIResponse(error=bad.error)


def _columns_of(job: BatchJob, survey: Survey) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the id of each row and its further columns; the input is read once more only if it has some."""
    if survey.has_columns:
        yield from ((row.id, row.columns) for row in read_rows(job.source, job.form))
    else:
        yield from ((row_id, {}) for row_id in survey.keys)
