"""Print a conversation, for a look at it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Part,
    ProviderDataPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

__all__ = ["print_messages"]


def print_messages(messages: Iterable[Message], *, max_text_length: int, indent: int) -> None:
    """Print messages to stdout.

    Args:
        messages: The messages.
        max_text_length: Longer texts are cut, and marked so.
        indent: Spaces before the parts of a message, and in JSON.
    """
    margin = " " * indent
    for message in messages:
        lines = [f"{message.role}:" if message.name is None else f"{message.role} ({message.name}):"]
        for part in message.parts:
            for title, text in _DESCRIBED[type(part)](part, indent):
                shown = _cut(text, max_text_length)
                lines += [margin + line for line in (f"{title}{shown}" if shown else title.rstrip(": ")).split("\n")]
        sys.stdout.write(_visible("\n".join(lines)) + "\n")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}... [{len(text) - most} more characters]"


def _visible(text: str) -> str:
    """Return the text with control characters and other invisible ones as escapes: a terminal must not obey a model."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(each if each in "\n\t" or each.isprintable() else ascii(each)[1:-1] for each in text)


def _json(value: Any, indent: int) -> str:
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def _text(part: Any, indent: int) -> Iterator[tuple[str, str]]:
    yield "", part.text


def _reasoning(part: Any, indent: int) -> Iterator[tuple[str, str]]:
    yield "reasoning: ", part.text


def _refusal(part: Any, indent: int) -> Iterator[tuple[str, str]]:
    yield "refusal: ", part.text


def _medium(part: Any, indent: int) -> Iterator[tuple[str, str]]:
    media: Media = part.media
    size = "" if media.data is None else f", {len(media.data)} bytes"
    where = media.url or media.file_id or media.filename
    yield f"<{type(part).__struct_config__.tag} {media.media_type or 'of unknown type'}{size}>: ", where or ""


def _call(part: Any, indent: int) -> Iterator[tuple[str, str]]:
    is_data = not part.custom and part.arguments_error is None
    yield f"calls {part.name} ({part.id}): ", _json(part.arguments, indent) if is_data else part.arguments_text


def _result(part: Any, indent: int) -> Iterator[tuple[str, str]]:
    yield f"{'error' if part.is_error else 'result'} of {part.tool_call_id}: ", part.content
    for each in part.media:
        yield from _medium(each, indent)


def _opaque(part: Any, indent: int) -> Iterator[tuple[str, str]]:
    yield f"<{part.kind} of {part.provider}>: ", ""


_DESCRIBED: dict[type[Part], Callable[[Any, int], Iterator[tuple[str, str]]]] = {
    TextPart: _text,
    ReasoningPart: _reasoning,
    RefusalPart: _refusal,
    ImagePart: _medium,
    FilePart: _medium,
    AudioPart: _medium,
    ToolCallPart: _call,
    ToolResultPart: _result,
    ProviderDataPart: _opaque,
}
