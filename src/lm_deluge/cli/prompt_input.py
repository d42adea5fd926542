"""What a command sends: the prompt, text from a pipe, attachments, a JSON schema."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from lm_deluge.prompt.message import Message

__all__ = ["STDIN", "attach", "read_prompt", "read_schema"]

STDIN = "-"
_PATIENCE_S = 3.0  # most programs write into a pipe within this time; the notice is for a stdin left open by mistake


def read_prompt(prompt: str | None, *, is_stdin_taken: bool = False) -> str:
    """Return the prompt. Text that was piped in stands before it, or is the prompt if it is missing or `-`.

    Args:
        prompt: The argument of the command.
        is_stdin_taken: Whether stdin is an attachment.

    Raises:
        click.UsageError: There is no prompt, or it is not UTF-8 text.
    """
    stdin: TextIO | None = None if is_stdin_taken else sys.stdin
    if prompt is None and (stdin is None or stdin.isatty()):
        raise click.UsageError("The prompt is missing. Give it as an argument, or pipe it in.")
    try:
        if stdin is not None and prompt in (None, STDIN):
            return stdin.buffer.read().decode("utf-8")
        prompt = prompt or ""
        prompt.encode("utf-8")
        piped = "" if stdin is None else _read_pipe(stdin)
    except UnicodeError:
        raise click.UsageError(
            "The prompt is not UTF-8 text. To send what is piped in as a file: deluge stream -a - PROMPT."
        ) from None
    if not piped.strip():
        return prompt
    return f"{piped}{'' if piped.endswith(chr(10)) else chr(10)}\n{prompt}"


def _read_pipe(stdin: TextIO) -> str:
    """Return the text of `stdin` if it is a pipe, a file or a socket, else an empty text: /dev/null is none of them."""
    try:
        mode = os.fstat(stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return ""
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
        return ""
    with _notice_after(_PATIENCE_S, "Reading stdin until it ends; its text is put before the prompt."):
        return stdin.buffer.read().decode("utf-8")


@contextlib.contextmanager
def _notice_after(seconds: float, notice: str) -> Iterator[None]:
    """Print a notice if the block takes longer."""
    from lm_deluge.cli.render.terminal import report

    timer = threading.Timer(seconds, report, [notice])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def attach(message: Message, source: str) -> Message:
    """Return the message with an attachment, whose kind is detected: an image, audio, or a file.

    Args:
        message: The message.
        source: A path, an http(s) URL, a data URL, or `-` for the bytes of stdin.

    Raises:
        click.UsageError: The kind of a URL is not known from its path.
        InvalidPromptError: The file cannot be read, or is empty.
    """
    from lm_deluge.prompt.media import load_media

    media_type = None
    if source.startswith(("http://", "https://")):
        media_type = _type_of_url(source)
    media = load_media(sys.stdin.buffer.read() if source == STDIN else source, kind="file", media_type=media_type)
    kind = (media.media_type or "").partition("/")[0]
    if kind == "image":
        return message.with_image(media)
    return message.with_audio(media) if kind == "audio" else message.with_file(media)


def _type_of_url(url: str) -> str:
    """Return the media type that the path of a URL suggests: a URL is sent as it is and never fetched."""
    import mimetypes
    from urllib.parse import urlsplit

    found = mimetypes.guess_type(urlsplit(url).path)[0]
    if found is None:
        raise click.UsageError(f"The kind of {url} is not known. Name it: --image URL or --file URL.")
    return found


def read_schema(source: str) -> dict[str, Any]:
    """Return a JSON schema: the text itself if it starts with a brace, else the contents of a file.

    Raises:
        click.UsageError: The file cannot be read, or the text is not a JSON object.
    """
    is_inline = source.lstrip().startswith("{")
    name = "in --schema" if is_inline else source
    try:
        schema = json.loads(source if is_inline else Path(source).read_bytes())
    except OSError as error:
        raise click.UsageError(f"Cannot read the schema {source}: {error.strerror}.") from None
    except ValueError as error:
        raise click.UsageError(f"The schema {name} is not JSON: {error}.") from None
    if not isinstance(schema, dict):
        raise click.UsageError(f"The schema {name} is not a JSON object.")
    return schema
