"""A batch from its journal to its output: what is asked, shown, written, and said at the end."""

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

from lm_deluge.cli.batch_report import (
    Outcome,
    outcome_of,
    say_begin,
    say_end,
    say_failure,
    say_stopped,
    write_report,
)
from lm_deluge.cli.exits import FAILED
from lm_deluge.cli.interrupts import Interrupts
from lm_deluge.cli.render.escape import visible_line
from lm_deluge.cli.render.terminal import report
from lm_deluge.client.batch.journaled import is_due
from lm_deluge.client.batch.progress_display import Progress, ProgressKind, make_progress
from lm_deluge.client.batch.provider_prompts import check_provider_batch
from lm_deluge.client.batch.provider_rows import ProviderRows
from lm_deluge.client.batch.row_planner import answer_rows
from lm_deluge.client.client import LLMClient
from lm_deluge.dispatch.batch.duplicates import answer_again
from lm_deluge.dispatch.batch.input import BatchRow, read_rows
from lm_deluge.dispatch.batch.output import Answer, check_output, write_answers
from lm_deluge.dispatch.batch.progress import BatchProgress, ProgressTracker
from lm_deluge.dispatch.batch.survey import Survey, stamp_of
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.errors import ConfigurationError, DelugeError, DispatchError, JournalError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.response import APIResponse

_DRAIN_S = 10.0
_TICK_S = 0.5
_OTHER_FILES = 128


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """What the command line asks for. `OPTIONS` are the fields that are options of the same name."""

    OPTIONS: ClassVar = (
        *("ask_duplicates_once", "overwrite", "progress", "provider_batch", "remove_journal", "report_path"),
        *("retry_failed", "salvage"),
    )

    source: Path
    target: Path
    client: LLMClient
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

    @property
    def journal_path(self) -> Path:
        """Where the journal lies: beside the output."""
        return self.target.with_name(self.target.name + ".journal")


class BatchSource(Protocol):
    """From rows to answers. What it yields is in the journal already."""

    failure: JournalError | None
    """Why the journal takes no more; then `answers` ends."""

    gave_up: DelugeError | None
    """Why the provider is asked no more; then `answers` ends, too."""

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        ...

    @property
    def is_paused(self) -> bool:
        """Whether requests wait because nobody listens at the provider's."""
        ...

    def answers(self, rows: Iterable[BatchRow]) -> AsyncGenerator[tuple[BatchRow, APIResponse], None]:
        """Yield each row that is due with its answer, as they end."""
        ...

    def stop(self, within_s: float | None = None) -> None:
        """Let no new request leave; what is in flight may end."""
        ...

    def abort(self) -> None:
        """End at once."""
        ...


def check_paths(job: BatchJob) -> None:
    """See that the files are ones that can be read and written, and that nothing of the user's is lost.

    Raises:
        ConfigurationError: They are not, or the provider has no batch API.
    """
    if job.provider_batch:
        check_provider_batch(job.client.models, job.client.options)
    stamp_of(job.source)
    check_output(job.target)
    if job.target.exists():
        if job.target.samefile(job.source):
            raise ConfigurationError("IN and OUT are the same file")
        if not job.overwrite and not job.journal_path.exists():
            raise ConfigurationError(
                f"{job.target.name} is there already, and no journal of it",
                hint="Name another file, or say --overwrite.",
            )
    if job.report_path is not None and not job.report_path.parent.is_dir():
        raise ConfigurationError(f"there is no folder {job.report_path.parent} for the report")


def options_that_shape(job: BatchJob) -> dict[str, Any]:
    """Return what belongs into the fingerprint beside the lines: not keys, addresses, limits, nor patience."""
    options = job.client.options
    # What is handed over and what is asked one by one are not to go on with each other's journal.
    way = {"provider_batch": True} if job.provider_batch else {}
    return {
        "models": [model.id for model in job.client.models],
        "system": job.system,
        "sampling": msgspec.to_builtins(options.sampling_params),
        **way,
    }


async def run_job(job: BatchJob, survey: Survey) -> int:
    """Run a batch, or what is left of it; return the exit code.

    Raises:
        DelugeError: The journal cannot be opened, or something cannot be written.
        KeyboardInterrupt: The user stopped it; likewise `TerminatedError`.
    """
    journal = await _open(job, survey.fingerprint)
    _allow_open_files(job.client.options.max_concurrent_requests or 0)
    interrupts = Interrupts()
    try:
        due = [each for each in survey.ids if each not in survey.duplicates and _is_due(job, journal, each)]
        say_begin(journal, survey, due)
        size = job.journal_path.stat().st_size
        way = _way_of(job, journal)
        async with job.client:
            answered = await _ask(job, survey, way, due, interrupts) if due else 0
        if answered == len(due):
            is_new = job.journal_path.stat().st_size != size
            return await _deliver(job, survey, journal, is_new=is_new)
        await _end_early(job, survey, journal, way)
        if interrupts.count and way.failure is None and way.gave_up is None:
            raise interrupts.end()
        return FAILED
    finally:
        await journal.close()


def _way_of(job: BatchJob, journal: Journal) -> BatchSource:
    """Return how the rows are asked: one request each, now; or within a day, by the provider's batch API."""
    if job.provider_batch:
        return ProviderRows(job.client.dispatcher, journal, retry_failed=job.retry_failed)
    return answer_rows(job.client.dispatcher, journal, retry_failed=job.retry_failed)


def _allow_open_files(count: int) -> None:
    """Raise the limit of open files, each connection being one, as far as the system lets us."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES if hard == resource.RLIM_INFINITY else min(count + _OTHER_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _is_due(job: BatchJob, journal: Journal, row_id: str) -> bool:
    return is_due(journal, row_id, retry_failed=job.retry_failed)


async def _open(job: BatchJob, fingerprint: str) -> Journal:
    try:
        return await Journal.open(job.journal_path, fingerprint=fingerprint, salvage=job.salvage)
    except JournalError as error:
        if isinstance(error.__cause__, OSError):
            raise
        # In use, of another batch, damaged: nothing was sent, and that is what the exit code has to say.
        hint = "Say --salvage to move the damage to a file beside it." if error.offset is not None else error.hint
        raise ConfigurationError(error.message, hint=hint) from error


async def _ask(job: BatchJob, survey: Survey, way: BatchSource, due: list[str], interrupts: Interrupts) -> int:
    """Ask what is due; return how many rows have ended, one way or the other."""
    display = _Display(job, way, len(due))

    def stop() -> None:
        display.close()
        count = way.in_flight
        way.stop(_DRAIN_S)
        if count and job.provider_batch:
            report(f"Stopping: the provider goes on with {count:,} requests; the same command fetches their answers.")
        elif count:
            report(f"Stopping: {count} requests in flight have {_DRAIN_S:.0f} s to end. Ctrl-C again stops at once.")

    ticking = asyncio.get_running_loop().create_task(display.tick())
    try:
        with interrupts.caught(stop, way.abort):
            async with contextlib.aclosing(way.answers(_rows_of(job, survey))) as answers:
                async for _, response in answers:
                    display.count(response)
    finally:
        ticking.cancel()
        display.close()
    if _has_changed(job, survey):
        raise DispatchError(
            f"{job.source.name} was changed while the batch ran",
            hint=f"What was answered until now is in {job.journal_path.name}.",
        )
    return display.ended


def _rows_of(job: BatchJob, survey: Survey) -> Iterator[BatchRow]:
    """Yield the rows of the input, twins excepted, with the system message of the command line where they have none."""
    for row in read_rows(job.source):
        if _has_changed(job, survey):
            return
        if row.id in survey.duplicates:
            continue
        conversation = row.conversation
        if job.system is not None and conversation is not None and all(each.role != "system" for each in conversation):
            conversation = Conversation([Message.system(job.system), *conversation])
        yield msgspec.structs.replace(row, conversation=conversation, model=None if job.is_simulated else row.model)


def _has_changed(job: BatchJob, survey: Survey) -> bool:
    try:
        return stamp_of(job.source) != survey.stamp
    except ConfigurationError:
        return True


class _Display:
    """Shows a batch while it runs. A stderr that nobody reads any more ends the showing, not the batch."""

    def __init__(self, job: BatchJob, way: BatchSource, total: int) -> None:
        self.ended = 0
        self._way = way
        self._keeper = ProgressTracker(total)
        self._keeper.start(time.monotonic())
        self._progress: Progress | None = make_progress(job.progress)
        self._has_said = False

    def count(self, response: APIResponse) -> None:
        """Take the next answer."""
        self.ended += 1
        self._keeper.finish(response, time.monotonic())

    async def tick(self) -> None:
        """Show the batch now and then, until cancelled; say it when the disk refuses, for the end may take a while."""
        shown_at = time.monotonic()
        while self._progress is not None:
            await asyncio.sleep(min(self._progress.every_s, _TICK_S))
            if self._way.failure is not None:
                self.close()
            elif self._progress is not None and time.monotonic() - shown_at >= self._progress.every_s:
                shown_at = time.monotonic()
                self._show(self._progress.show)

    def _show(self, show: Callable[[BatchProgress], None]) -> None:
        why = "an outage: nobody listens at the provider's" if self._way.is_paused else None
        tally = self._keeper.progress(time.monotonic(), limited_by=why)
        try:
            show(msgspec.structs.replace(tally, in_flight=self._way.in_flight))
        except (OSError, ValueError):
            self._progress = None

    def close(self) -> None:
        """Show how it ended, once."""
        progress, self._progress = self._progress, None
        if progress is not None:
            self._show(progress.close)
        if self._way.failure is not None and not self._has_said:
            self._has_said = True
            say_failure(self._way.failure, self._way.in_flight)


async def _end_early(job: BatchJob, survey: Survey, journal: Journal, way: BatchSource) -> None:
    """Save what can be saved, and say how to go on."""
    lost: list[str] = []
    try:
        await journal.close()
    except JournalError:
        lost = list(journal.unsaved)
    outcome = await _outcome(survey, journal)
    if way.gave_up is not None:
        report(f"deluge: {visible_line(str(way.gave_up))}")
    say_stopped(outcome, job.journal_path, way.failure, lost, _save_elsewhere(job, journal) if lost else None)
    if job.report_path is not None:
        write_report(job.report_path, outcome)


def _save_elsewhere(job: BatchJob, journal: Journal) -> str | None:
    """Write what the disk did not take to where another one has room; return the path of the file."""
    path: str | None = None
    try:
        descriptor, path = tempfile.mkstemp(prefix=f"{job.journal_path.name}.", suffix=".rest")
        with open(descriptor, "wb") as file:  # noqa: PTH123 - it is open already
            file.write(journal.unsaved_lines)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        if path is not None:
            Path(path).unlink(missing_ok=True)
        return None
    return path


async def _deliver(job: BatchJob, survey: Survey, journal: Journal, *, is_new: bool) -> int:
    """Write the output, where it is not there already, and say what the batch came to.

    Args:
        job: What is asked for.
        survey: Its lines.
        journal: What they came to.
        is_new: This run has found something out.
    """
    outcome = await _outcome(survey, journal)
    is_written = is_new or not _is_up_to_date(job)
    if is_written:
        try:
            await asyncio.to_thread(write_answers, job.target, _answers_of(survey, journal))
        except JournalError as error:
            if isinstance(error.__cause__, OSError):
                error.hint = f"All answers are safe in {job.journal_path}: start the same command again."
            raise
    say_end(outcome, job.target.name, is_written=is_written)
    if job.report_path is not None:
        write_report(job.report_path, outcome)
    await journal.close()
    if job.remove_journal and not outcome.failed:
        job.journal_path.unlink()
    return FAILED if outcome.failed else 0


def _is_up_to_date(job: BatchJob) -> bool:
    """Whether the output was written after the last record of the journal."""
    try:
        return job.target.stat().st_mtime_ns >= job.journal_path.stat().st_mtime_ns
    except FileNotFoundError:
        return False


async def _outcome(survey: Survey, journal: Journal) -> Outcome:
    return await asyncio.to_thread(outcome_of, survey, journal)


def _answers_of(survey: Survey, journal: Journal) -> Iterator[Answer]:
    """Yield the answer of every line, in order. Of twins that were not asked it is that of the first one."""
    for place, row_id in enumerate(survey.ids):
        response, first = journal.response(row_id), survey.duplicates.get(row_id)
        if response is None and first is not None:
            response = journal.response(first)
            response = None if response is None else answer_again(response)
        else:
            first = None
        if response is None:
            raise JournalError(f"the journal {journal.path} has no answer of the line {row_id[:80]!r}")
        response.id = place
        yield Answer(row_id, response, first)
