"""`deluge stream`: the answer to one prompt."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import click

from lm_deluge.cli.options import CommandOptions, build_client, call_options
from lm_deluge.cli.prompt_input import STDIN, attach, read_prompt, read_schema
from lm_deluge.cli.render.code_block import FirstCodeBlock
from lm_deluge.cli.render.output import choose_output
from lm_deluge.cli.render.status_line import notes_of, summary
from lm_deluge.cli.render.stream_view import show_stream, watch_for_closed_stdout
from lm_deluge.cli.render.terminal import report, report_aside, write_text
from lm_deluge.client.client import LLMClient
from lm_deluge.errors import DelugeError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.response import APIResponse


@click.command()
@click.argument("prompt", required=False)
@call_options
@click.option(
    "--attachment",
    "-a",
    "attachments",
    multiple=True,
    metavar="FILE",
    help="Send an image, audio or document: path, URL, or - for stdin. The kind is detected. Repeatable.",
)
@click.option("--image", "images", multiple=True, metavar="FILE", help="Send an image: path or URL. Repeatable.")
@click.option("--file", "files", multiple=True, metavar="FILE", help="Send a document. Repeatable.")
@click.option("--json-mode", is_flag=True, help="Request one JSON object; the prompt must request JSON too.")
@click.option(
    "--schema", metavar="FILE", help="Request an answer that follows this JSON schema: a file, or '{...}' itself."
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole response as one line of JSON at the end.")
@click.option("--extract", "-x", is_flag=True, help="Print the first code block of the answer only.")
@click.option("--quiet", "-q", is_flag=True, help="No summary on stderr; that an answer was cut off is still reported.")
def stream(prompt: str | None, **options: Any) -> None:
    """Stream the answer to PROMPT.

    The answer is written to stdout: rendered as Markdown on a terminal, byte for byte into a pipe. Everything else is
    written to stderr. Text that is piped in is put before PROMPT; without PROMPT, or if it is "-", that text is the
    prompt.
    """
    if options["extract"] and options["as_json"]:
        raise click.UsageError("--extract and --json cannot be used together.")
    settings = CommandOptions.from_options(options)
    schema = read_schema(options["schema"]) if options["schema"] else None
    client, notice = build_client(settings)
    conversation = _conversation(prompt, settings.system, options)
    if notice:
        report(notice)
    asyncio.run(_stream(client, conversation, schema, settings, options))


def _conversation(prompt: str | None, system: str | None, options: dict[str, Any]) -> Conversation:
    attachments = options["attachments"]
    if attachments.count(STDIN) > (prompt != STDIN):
        raise click.UsageError("Stdin can be read only once: - stands for it twice.")
    message = Message.user(read_prompt(prompt, is_stdin_taken=STDIN in attachments))
    for image in options["images"]:
        message = message.with_image(image)
    for file in options["files"]:
        message = message.with_file(file)
    for attachment in attachments:
        message = attach(message, attachment)
    conversation = Conversation() if system is None else Conversation.system(system)
    return conversation.add(message)


async def _stream(
    client: LLMClient,
    conversation: Conversation,
    schema: dict[str, Any] | None,
    settings: CommandOptions,
    options: dict[str, Any],
) -> None:
    as_json = options["as_json"]
    code = FirstCodeBlock() if options["extract"] else None
    output = choose_output(
        is_raw=settings.raw,
        shows_reasoning=settings.show_reasoning,
        is_silent=as_json,
        is_code=code is not None,
    )
    stream = client.stream(conversation, output=schema)
    async with client:
        with watch_for_closed_stdout():
            try:
                response = await show_stream(stream, output, code=code, is_quiet=options["quiet"])
            except DelugeError as error:
                if as_json:
                    _print_json(_failed(error))
                raise
        if as_json:
            _print_json(response)
    if code is not None and not code.is_found:
        report("The answer has no code block, so all of it was printed.")
    for note in notes_of(response, is_quiet=options["quiet"]):
        report(note)
    if not options["quiet"]:
        report_aside(summary(response), is_raw=settings.raw)


def _failed(error: DelugeError) -> APIResponse:
    response = error.partial or APIResponse(model_internal=error.model or "")
    response.error = error
    return response


def _print_json(response: APIResponse) -> None:
    write_text(sys.stdout, json.dumps(response.to_dict(), ensure_ascii=False) + "\n")
