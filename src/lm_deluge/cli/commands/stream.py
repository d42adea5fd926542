"""`deluge stream`: the answer to one prompt."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import click

from lm_deluge.cli.options import CommandOptions, build_client, call_options, read_prompt, read_schema
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
@click.option("--image", "images", multiple=True, metavar="FILE", help="Send an image: path or URL. Repeatable.")
@click.option("--file", "files", multiple=True, metavar="FILE", help="Send a document. Repeatable.")
@click.option("--json-mode", is_flag=True, help="Request one JSON object; the prompt must request JSON too.")
@click.option("--schema", metavar="FILE", help="Request an answer that follows this JSON schema.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole response as one line of JSON at the end.")
@click.option("--quiet", "-q", is_flag=True, help="No summary on stderr.")
def stream(prompt: str | None, **options: Any) -> None:
    """Stream the answer to PROMPT.

    The answer is written to stdout: rendered as Markdown on a terminal, byte for byte into a pipe. Everything else is
    written to stderr. Without PROMPT, or if it is "-", the prompt is read from stdin.
    """
    settings = CommandOptions.from_options(options)
    schema = read_schema(options["schema"]) if options["schema"] else None
    client, notice = build_client(settings)
    conversation = _conversation(read_prompt(prompt), settings.system, options["images"], options["files"])
    if notice:
        report(notice)
    asyncio.run(_stream(client, conversation, schema, settings, options))


def _conversation(prompt: str, system: str | None, images: tuple[str, ...], files: tuple[str, ...]) -> Conversation:
    message = Message.user(prompt)
    for image in images:
        message = message.with_image(image)
    for file in files:
        message = message.with_file(file)
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
    output = choose_output(is_raw=settings.raw, shows_reasoning=settings.show_reasoning, is_silent=as_json)
    async with client:
        with watch_for_closed_stdout():
            try:
                response = await show_stream(client.stream(conversation, output=schema), output)
            except DelugeError as error:
                if as_json:
                    _print_json(_failed(error))
                raise
        if as_json:
            _print_json(response)
    if not options["quiet"]:
        for note in notes_of(response):
            report(note)
        report_aside(summary(response), is_raw=settings.raw)


def _failed(error: DelugeError) -> APIResponse:
    response = error.partial or APIResponse(model_internal=error.model or "")
    response.error = error
    return response


def _print_json(response: APIResponse) -> None:
    write_text(sys.stdout, json.dumps(response.to_dict(), ensure_ascii=False) + "\n")
