"""`deluge decode`: the content of a recorded response body."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import msgspec

from lm_deluge.cli.render.escape import visible
from lm_deluge.cli.render.output import choose_output
from lm_deluge.cli.render.status_line import notes_of, summary
from lm_deluge.cli.render.terminal import SEPARATOR, is_terminal, report, report_aside, write_text
from lm_deluge.errors import DelugeError
from lm_deluge.response import APIResponse, ResponseBuilder
from lm_deluge.testing.decode import decode_events


@click.command()
@click.argument("api")
@click.argument("file")
@click.option("--events", "as_events", is_flag=True, help="Print each event as one line of JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole response as one line of JSON.")
def decode(api: str, file: str, *, as_events: bool, as_json: bool) -> None:
    """Show the content of FILE, a response body in the wire format of API, for example openai-chat; "-" is stdin.

    Without an option the text is written to stdout and everything else to stderr. A body that would fail in a live
    stream fails here too, after the content before the error.
    """
    body = _read(file)
    builder = ResponseBuilder()
    failure: DelugeError | None = None
    try:
        for event in decode_events(api, body):
            builder.add(event)
            if as_events:
                _print_line(msgspec.json.encode(event).decode())
    except DelugeError as error:
        failure = error
    response = builder.response()
    response.error = failure
    if as_json:
        _print_line(json.dumps(response.to_dict(), ensure_ascii=False))
    elif not as_events and (builder.has_deltas or failure is None):
        _print_answer(response)
    if failure is not None:
        raise failure


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise click.UsageError(f"Cannot read {file}: {error.strerror}.") from None


def _print_line(line: str) -> None:
    write_text(sys.stdout, (visible(line) if is_terminal(sys.stdout) else line) + "\n")


def _print_answer(response: APIResponse) -> None:
    output = choose_output(is_raw=False, shows_reasoning=True)
    output.write_reasoning(response.thinking)
    output.write(response.completion + response.content.refusal)
    output.end()
    for note in notes_of(response):
        report(note)
    report_aside(SEPARATOR.join((response.finish_reason or "no end", summary(response))))
