"""What a batch says of itself: when it goes on, when it stops, at the end, and as JSON."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from lm_deluge.cli.render.escape import visible_line
from lm_deluge.cli.render.status_line import totals
from lm_deluge.cli.render.terminal import report
from lm_deluge.dispatch.batch.output import write_whole
from lm_deluge.dispatch.batch.survey import Survey
from lm_deluge.dispatch.journal.cost import BatchCost, Sum, batch_cost
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.errors import JournalError

__all__ = ["Outcome", "outcome_of", "say_begin", "say_end", "say_failure", "say_stopped", "write_report"]

_MOST_IDS = 20


class Outcome(msgspec.Struct, frozen=True):
    """How far a batch has come, over all its runs. `duplicates` are lines that have another one's answer."""

    lines: int
    answered: int
    failed: int
    duplicates: int
    bill: BatchCost

    @property
    def open(self) -> int:
        """How many lines are still to be asked."""
        return self.lines - self.answered - self.failed


def outcome_of(survey: Survey, journal: Journal) -> Outcome:
    """Count what the journal knows of the lines."""
    state = journal.state
    answered = failed = duplicates = 0
    for row_id in survey.ids:
        own = row_id
        if row_id not in state.done and row_id not in state.failed:
            own = survey.duplicates.get(row_id, row_id)
            duplicates += own != row_id
        answered += own in state.done
        failed += own in state.failed
    with journal.path.open("rb") as file:
        return Outcome(len(survey.ids), answered, failed, duplicates, batch_cost(file, state))


def say_begin(journal: Journal, survey: Survey, due: Sequence[str]) -> None:
    """Say what an earlier run has left."""
    if journal.salvaged:
        report(f"Salvaged: {journal.salvaged} bytes of damage are in {journal.path.name}.damaged now.")
    state = journal.state
    handed_over = {each for batch in state.open_batches if batch.handle for each in state.waiting_in(batch)}
    looked_for = {each for batch in state.open_batches for each in state.waiting_in(batch)} - handed_over
    is_new = not state.done and not state.ambiguous and not handed_over
    if is_new or all(state.status(each) == "failed" for each in due):
        return
    count = len(survey.ids)
    report(f"Going on: {len(state.done):,} of {count:,} lines are done.")
    if handed_over:
        report(f"{_counted(len(handed_over), 'line is', 'lines are')} with the provider's batch API: not sent again.")
    if looked_for:
        report(
            f"{_counted(len(looked_for), 'line', 'lines')} may be with the provider's batch API: looked for, and sent "
            f"again only where it has no such batch: {_named(sorted(looked_for))}"
        )
    in_batches = handed_over | looked_for
    again = [each for each in due if state.status(each) == "in_flight" and each not in in_batches]
    if again:
        report(
            f"{_counted(len(again), 'request was', 'requests were')} in flight when an earlier run ended: asked again, "
            f"and maybe billed twice: {_named(again)}"
        )


def say_failure(error: JournalError, in_flight: int) -> None:
    """Say at once that the disk refuses."""
    report(f"deluge: {visible_line(str(error))}")
    if in_flight:
        report(f"No new request leaves; {in_flight} are in flight and may end.")


def say_stopped(
    outcome: Outcome, journal: Path, failure: JournalError | None, lost: Sequence[str], rest: str | None
) -> None:
    """Say what is safe of a batch that ends early, and how to go on.

    Args:
        outcome: Where it stands.
        journal: What it is safe in.
        failure: Why the journal takes no more.
        lost: Calls whose answers are not in it.
        rest: The file that holds these.
    """
    safe = outcome.answered + outcome.failed
    first = "make room and " if failure is not None else ""
    report(
        f"Stopped: {safe:,} of {outcome.lines:,} lines are done and safe in "
        f"{visible_line(str(journal))}. To go on, {first}start the same command again."
    )
    if rest is not None:
        report(
            f"{_counted(len(lost), 'answer', 'answers')} more did not fit. They are safe here; before you go on, run:"
        )
        click.echo(f"  cat {shlex.quote(rest)} >> {shlex.quote(str(journal))}", err=True)  # never wrapped, for copying
    elif lost:
        report(
            f"{_counted(len(lost), 'answer', 'answers')} could not be saved; asked again, they may be billed twice: "
            f"{_named(lost)}"
        )
    left = [each for each in outcome.bill.ambiguous_ids if each not in lost]
    if left:
        report(f"{_counted(len(left), 'request', 'requests')} without an answer may have been billed: {_named(left)}")


def say_end(outcome: Outcome, output: str, *, is_written: bool) -> None:
    """Say what a batch came to."""
    bill = outcome.bill
    name = visible_line(output)
    if is_written:
        report(f"{name}: {_counted(outcome.lines, 'line', 'lines')}, {_results(outcome)}")
    else:
        report(f"Nothing to do: {name} has {_counted(outcome.lines, 'line', 'lines')}, {_results(outcome)}")
    total = bill.answers + bill.failed_attempts
    report(totals(total.input_tokens, total.output_tokens, total.cost, is_estimated=total.is_estimated))
    if bill.ambiguous_ids:
        count = len(bill.ambiguous_ids)
        took = bill.ambiguous
        more = totals(took.input_tokens, took.output_tokens, took.cost, is_estimated=True)
        report(
            f"{_counted(count, 'request', 'requests')} may have been billed beside these ({more}): "
            f"{_named(bill.ambiguous_ids)}"
        )
    if outcome.failed:
        report("To ask the failed lines again, start the same command with --retry-failed.")


def _results(outcome: Outcome) -> str:
    words = [f"{outcome.answered:,} answered"]
    if outcome.failed:
        kinds = sorted(outcome.bill.failures.items(), key=lambda item: -item[1])
        words.append(f"{outcome.failed:,} failed ({', '.join(f'{kind} {count:,}' for kind, count in kinds)})")
    if outcome.duplicates:
        words.append(f"{outcome.duplicates:,} of them duplicates")
    return ", ".join(words)


def write_report(path: Path, outcome: Outcome) -> None:
    """Write the report.

    Raises:
        JournalError: The disk refuses.
    """
    bill = outcome.bill
    data: dict[str, Any] = {
        "lines": outcome.lines,
        "answered": outcome.answered,
        "failed": outcome.failed,
        "open": outcome.open,
        "duplicates": outcome.duplicates,
        "failed_by_error": bill.failures,
        **_took(bill.answers + bill.failed_attempts),
        "answers": _took(bill.answers),
        "failed_attempts": _took(bill.failed_attempts),
        "ambiguous": {**_took(bill.ambiguous), "ids": bill.ambiguous_ids},
    }
    write_whole(path, [json.dumps(data, indent=2, ensure_ascii=False).encode() + b"\n"])


def _took(one: Sum) -> dict[str, Any]:
    usage = {
        "input_tokens": one.input_tokens,
        "output_tokens": one.output_tokens,
        "estimated": one.is_estimated,
    }
    return {"requests": one.requests, "usage": usage, "cost": one.cost}


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _named(ids: Iterable[str]) -> str:
    """Return ids for a line of text: all where they are few."""
    named = list(dict.fromkeys(ids))
    more = f" and {len(named) - _MOST_IDS:,} more (--report has all)" if len(named) > _MOST_IDS else ""
    return ", ".join(visible_line(each[:80]) for each in named[:_MOST_IDS]) + more
