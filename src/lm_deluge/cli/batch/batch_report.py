"""The messages of a batch on stderr at its start, on a stop and at its end, and its report as JSON."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from lm_deluge.cli.batch.batch_files import listed_rows
from lm_deluge.cli.render.escape import visible_line
from lm_deluge.cli.render.status_line import totals
from lm_deluge.cli.render.terminal import report
from lm_deluge.dispatch.batch.output import write_whole
from lm_deluge.dispatch.batch.survey import BadRow, Survey
from lm_deluge.dispatch.journal.cost import BatchCost, Sum, batch_cost
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.errors import JournalError

__all__ = [
    "Outcome",
    "outcome_of",
    "report_death",
    "report_end",
    "report_failure",
    "report_start",
    "report_stop",
    "report_unreadable",
    "write_report",
]

_MOST_IDS = 20  # about two lines of short ids; --report has all of them


class Outcome(msgspec.Struct, frozen=True):
    """The results of a batch over all its runs.

    Attributes:
        lines: Number of lines of the input.
        answered: Number of answered lines.
        failed: Number of failed lines.
        skipped: Number of lines that could not be read, and were left out.
        duplicates: Number of lines that got the answer of an earlier line.
        cost: Usage and cost of the requests.
    """

    lines: int
    answered: int
    failed: int
    skipped: int
    duplicates: int
    cost: BatchCost

    @property
    def open(self) -> int:
        """Number of lines that are neither answered nor failed."""
        return self.lines - self.answered - self.failed - self.skipped


def outcome_of(survey: Survey, journal: Journal) -> Outcome:
    """Count the lines by their state in the journal."""
    state = journal.state
    answered = failed = duplicates = 0
    for row_id, key in survey.keys.items():
        if row_id in survey.bad:
            continue
        own = key
        if key not in state.done and key not in state.failed:
            own = survey.keys[survey.duplicates.get(row_id, row_id)]
            duplicates += own != key
        answered += own in state.done
        failed += own in state.failed
    with journal.path.open("rb") as file:
        cost = batch_cost(file, state, frozenset(survey.keys.values()))
    cost.ambiguous_ids = survey.named(cost.ambiguous_ids)
    return Outcome(len(survey.keys), answered, failed, len(survey.bad), duplicates, cost)


def report_unreadable(journal: Journal, survey: Survey) -> None:
    """Report the recorded answers that cannot be read, if there are any."""
    calls = journal.unreadable
    if calls:
        count = _counted(len(calls), "recorded answer", "recorded answers")
        report(
            f"{count} of {visible_line(str(journal.path))} cannot be read. Sent again, the lines are billed again: "
            f"{_listed(survey.named(calls))}"
        )


def report_start(journal: Journal, survey: Survey, due: Sequence[str]) -> None:
    """Report the state in which an earlier run has left the batch, if there was an earlier run.

    Args:
        journal: The journal.
        survey: The lines of the input.
        due: The calls that are to be sent, by their names in the journal.
    """
    if journal.salvaged:
        report(f"Salvaged: {journal.salvaged} damaged bytes were moved to {journal.path.name}.damaged.")
    state = journal.state
    submitted = {each for batch in state.open_batches if batch.handle for each in state.waiting_in(batch)}
    unconfirmed = {each for batch in state.open_batches for each in state.waiting_in(batch)} - submitted
    is_new = not any(state.status(key) for key in survey.keys.values()) and not submitted
    if is_new or all(state.status(each) == "failed" for each in due):
        return
    count = len(survey.keys)
    done = sum(key in state.done for key in survey.keys.values())
    report(f"Continuing: {done:,} of {count:,} lines are done.")
    if submitted:
        report(
            f"{_counted(len(submitted), 'line is', 'lines are')} in a batch of the provider and will not be sent again."
        )
    if unconfirmed:
        report(
            f"{_counted(len(unconfirmed), 'line', 'lines')} may be in a batch of the provider, and are sent again only "
            f"if the provider does not have that batch: {_listed(survey.named(sorted(unconfirmed)))}"
        )
    in_batches = submitted | unconfirmed
    again = [each for each in due if state.status(each) == "in_flight" and each not in in_batches]
    if again:
        report(
            f"{_counted(len(again), 'request was', 'requests were')} in flight when an earlier run ended. Sent again, "
            f"they may be billed twice: {_listed(survey.named(again))}"
        )


def report_failure(error: JournalError, in_flight: int) -> None:
    """Report that the journal cannot be written."""
    report(f"deluge: {visible_line(str(error))}")
    if in_flight:
        report(f"No new requests are sent; {in_flight} requests in flight may end.")


def report_death(status: int, in_flight: Sequence[str]) -> None:
    """Report that a worker process died.

    Args:
        status: Its exit status; negative: the number of the signal that ended it.
        in_flight: The ids of the lines whose requests were in flight.
    """
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    report(f"A worker process was ended {how}, and another one takes its lines.")
    if in_flight:
        report(
            f"{_counted(len(in_flight), 'request was', 'requests were')} in flight. Sent again, they may be billed "
            f"twice: {_listed(in_flight)}"
        )


def report_stop(
    outcome: Outcome, journal: Path, failure: JournalError | None, lost: Sequence[str], rest: str | None
) -> None:
    """Report which answers of a stopped batch are safe, and how to continue.

    Args:
        outcome: The results until now.
        journal: The path of the journal.
        failure: The error of the journal, or None.
        lost: The ids of lines whose answers are not in the journal.
        rest: The path of the file that has these answers, or None.
    """
    safe = outcome.answered + outcome.failed
    first = "make room and " if failure is not None else ""
    report(
        f"Stopped: {safe:,} of {outcome.lines:,} lines are done and safe in "
        f"{visible_line(str(journal))}. To continue, {first}start the same command again."
    )
    if rest is not None:
        report(
            f"{_counted(len(lost), 'answer', 'answers')} did not fit and are in another file. To continue, first run:"
        )
        click.echo(f"  {_append_command(rest, str(journal))}", err=True)  # without wrapping, so that it can be copied
    elif lost:
        report(
            f"{_counted(len(lost), 'answer', 'answers')} could not be saved. "
            f"Sent again, the lines may be billed twice: {_listed(lost)}"
        )
    left = [each for each in outcome.cost.ambiguous_ids if each not in lost]
    if left:
        report(f"{_counted(len(left), 'request', 'requests')} without an answer may have been billed: {_listed(left)}")


def report_end(outcome: Outcome, output: str, bad: Mapping[str, BadRow], *, is_written: bool) -> None:
    """Report the results of a batch in which every line has ended.

    Args:
        outcome: The results.
        output: The name of the output.
        bad: The lines that were left out.
        is_written: Whether this run has written the output.
    """
    cost = outcome.cost
    name = visible_line(output)
    if is_written:
        report(f"{name}: {_counted(outcome.lines, 'line', 'lines')}, {_results(outcome)}")
    else:
        report(f"Nothing to do: {name} has {_counted(outcome.lines, 'line', 'lines')}, {_results(outcome)}")
    total = cost.answers + cost.failed_attempts
    report(totals(total.input_tokens, total.output_tokens, total.cost, is_estimated=total.is_estimated))
    if cost.ambiguous_ids:
        count = len(cost.ambiguous_ids)
        ambiguous = cost.ambiguous
        more = totals(ambiguous.input_tokens, ambiguous.output_tokens, ambiguous.cost, is_estimated=True)
        report(
            f"{_counted(count, 'more request', 'more requests')} may have been billed ({more}): "
            f"{_listed(cost.ambiguous_ids)}"
        )
    if bad:
        report(f"{_counted(len(bad), 'line was', 'lines were')} skipped; no request was sent:")
        report(listed_rows(bad))
    if outcome.failed:
        report("To send the failed lines again, start the same command with --retry-failed.")


def _results(outcome: Outcome) -> str:
    words = [f"{outcome.answered:,} answered"]
    if outcome.failed:
        kinds = sorted(outcome.cost.failures.items(), key=lambda item: -item[1])
        words.append(f"{outcome.failed:,} failed ({', '.join(f'{kind} {count:,}' for kind, count in kinds)})")
    if outcome.skipped:
        words.append(f"{outcome.skipped:,} skipped")
    if outcome.duplicates:
        words.append(f"{outcome.duplicates:,} of them duplicates")
    return ", ".join(words)


def write_report(path: Path, outcome: Outcome) -> None:
    """Write the report as JSON.

    Raises:
        JournalError: The file cannot be written.
    """
    cost = outcome.cost
    data: dict[str, Any] = {
        "lines": outcome.lines,
        "answered": outcome.answered,
        "failed": outcome.failed,
        "open": outcome.open,
        "skipped": outcome.skipped,
        "duplicates": outcome.duplicates,
        "failed_by_error": cost.failures,
        **_sum_fields(cost.answers + cost.failed_attempts),
        "answers": _sum_fields(cost.answers),
        "failed_attempts": _sum_fields(cost.failed_attempts),
        "ambiguous": {**_sum_fields(cost.ambiguous), "ids": cost.ambiguous_ids},
    }
    write_whole(path, [json.dumps(data, indent=2, ensure_ascii=False).encode() + b"\n"])


def _sum_fields(total: Sum) -> dict[str, Any]:
    usage = {
        "input_tokens": total.input_tokens,
        "output_tokens": total.output_tokens,
        "estimated": total.is_estimated,
    }
    return {"requests": total.requests, "usage": usage, "cost": total.cost}


def _append_command(source: str, target: str) -> str:
    """Return the shell command that appends a file to another file."""
    if sys.platform == "win32":
        return f'cmd /c copy /b "{target}"+"{source}" "{target}"'
    return f"cat {shlex.quote(source)} >> {shlex.quote(target)}"


def _counted(count: int, singular: str, plural: str) -> str:
    return f"{count:,} {singular if count == 1 else plural}"


def _listed(ids: Iterable[str]) -> str:
    """Return the ids for a line of text, and only the number of the ids beyond the first `_MOST_IDS`."""
    distinct = list(dict.fromkeys(ids))
    more = f" and {len(distinct) - _MOST_IDS:,} more (--report has all)" if len(distinct) > _MOST_IDS else ""
    return ", ".join(visible_line(each[:80]) for each in distinct[:_MOST_IDS]) + more
