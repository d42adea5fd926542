"""The files of a batch: its input, which must be readable to the last line, its output and its journal."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from lm_deluge.cli.environment import state_folder
from lm_deluge.cli.render.escape import visible_line
from lm_deluge.cli.render.terminal import is_terminal, report
from lm_deluge.dispatch.batch.input_file import InputFile
from lm_deluge.dispatch.batch.output import check_output
from lm_deluge.dispatch.batch.survey import BadRow, Survey
from lm_deluge.errors import ConfigurationError

__all__ = [
    "STDIO",
    "check_bad_rows",
    "check_target",
    "journal_path_of",
    "listed_rows",
    "open_source",
    "open_target",
    "stdout_bytes",
]

STDIO = Path("-")
"""The name of stdin as IN, and of stdout as OUT."""
_MOST_ROWS = 20  # what a screen shows together with the rest of the message
_JSON_STARTS = (b'"', b"{", b"[")  # of JSON lines


def open_source(path: Path) -> InputFile:
    """Return the input; stdin and pipes are read to their end.

    Raises:
        ConfigurationError: It cannot be read.
    """
    if path != STDIO:
        return InputFile(path)
    if sys.stdin is None:
        raise ConfigurationError("there is no stdin to read the lines from")
    if is_terminal(sys.stdin):
        report("Reading lines from the terminal, up to Ctrl-D.")
    return InputFile(path, sys.stdin.buffer)


def open_target(path: Path) -> Path | None:
    """Return the output, which can be written; None for stdout.

    Raises:
        ConfigurationError: It cannot be written.
    """
    if path == STDIO:
        stdout_bytes()
        return None
    check_output(path)
    return path


def stdout_bytes() -> BinaryIO:
    """Return stdout as a file of bytes.

    Raises:
        ConfigurationError: There is no stdout.
    """
    if sys.stdout is None:
        raise ConfigurationError("there is no stdout to write the answers to")
    return sys.stdout.buffer


def journal_path_of(source: InputFile, target: Path | None, options: Mapping[str, object]) -> Path:
    """Return the path of the journal: beside OUT, or without OUT beside IN.

    Without both it is in the folder for state, under a name that is made of the input and the options, so that the same
    command with the same input finds it again.

    Args:
        source: The input.
        target: The output; None for stdout.
        options: The options that shape the answers.
    """
    beside = source.path if target is None else target
    if beside is not None:
        return beside.with_name(beside.name + ".journal")
    digest = hashlib.sha256(repr(sorted(options.items(), key=str)).encode("utf-8", "replace"))
    with source.open() as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    folder = state_folder() / "batches"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"cannot create {folder} for the journal: {error.strerror}", hint="Name a file for it with --journal."
        ) from error
    return folder / f"{digest.hexdigest()[:32]}.journal"


def check_target(source: InputFile, target: Path | None, journal: Path, *, overwrite: bool) -> None:
    """Check that no other file would be overwritten.

    Raises:
        ConfigurationError: OUT exists already, and is the input or of another batch.
    """
    if target is not None and target.exists():
        if source.path is not None and target.samefile(source.path):
            raise ConfigurationError("IN and OUT are the same file")
        if not overwrite and not journal.exists():
            raise ConfigurationError(
                f"{target.name} exists already and has no journal",
                hint="Choose another file, or replace this file with --overwrite.",
            )


def check_bad_rows(survey: Survey, source: InputFile, *, skips: bool) -> None:
    """Check that all rows can be read.

    Args:
        survey: The rows.
        source: Their file.
        skips: Whether bad rows are left out, as long as there are others.

    Raises:
        ConfigurationError: There are bad rows; the message has their places and reasons.
    """
    count = len(survey.bad)
    if count:
        _check_form(survey, source)
    if not count or (skips and count < len(survey.keys)):
        return
    subject = "1 bad line" if count == 1 else f"{count:,} bad lines"
    advice = "Mend the file." if count == len(survey.keys) else "Mend them, or leave them out with --skip-bad."
    raise ConfigurationError(f"{source.name} has {subject}, and nothing was sent:\n{listed_rows(survey.bad)}\n{advice}")


def _check_form(survey: Survey, source: InputFile) -> None:
    """Refuse a file whose lines are not JSON, as a whole and with a hint how to read it."""
    bad = list(survey.bad.values())
    not_json = [row for row in bad if row.error.message.startswith("the line is not JSON")]
    if not not_json:
        return
    with source.open_text() as file:
        start = file.read(1 << 10).lstrip(b"\xef\xbb\xbf \t\r\n")
    is_first_bad = bad[0] is next(iter(not_json)) and next(iter(survey.bad)) == next(iter(survey.keys))
    if is_first_bad and start.partition(b"\n")[0].strip() in (b"[", b"{"):
        raise ConfigurationError(
            f"{source.name} has one JSON document over several lines, in place of one value in each line",
            hint="Convert it: jq -c '.[]' IN > NEW for a list, jq -c . IN > NEW for anything else.",
        )
    if len(bad) == len(survey.keys) and not start.startswith(_JSON_STARTS):
        raise ConfigurationError(
            f"{source.name} has no JSON lines",
            hint="If each of its lines is a prompt, add --lines. If it is a table, its name must end in .csv.",
        )


def listed_rows(bad: Mapping[str, BadRow]) -> str:
    """Return the places and reasons of bad rows, one in each line, and only the number of those beyond the first 20."""
    rows = list(bad.values())
    lines = [f"  {each.place}: {visible_line(_reason(each))}" for each in rows[:_MOST_ROWS]]
    if len(rows) > _MOST_ROWS:
        lines.append(f"  and {len(rows) - _MOST_ROWS:,} more.")
    return "\n".join(lines)


def _reason(row: BadRow) -> str:
    return str(row.error).removeprefix("the line is ").removeprefix("the line has ").removeprefix("the line ")
