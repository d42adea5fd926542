"""Results of tools as the content that the model reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lm_deluge.errors import ToolError
from lm_deluge.prompt.media import Media, load_media
from lm_deluge.prompt.parts import AudioPart, FilePart, ImagePart, Part, TextPart
from lm_deluge.schemas.json_values import to_json_text

__all__ = ["Content", "media_part", "sendable", "shortened", "to_content"]

Content = str | tuple[Part, ...]
_PARTS = (TextPart, ImagePart, FilePart, AudioPart)
_MEDIA = (ImagePart, FilePart, AudioPart, Media, bytes, bytearray)


def to_content(value: Any, tool: str) -> Content:
    """Return the result of a tool as text, or as parts where it contains images, files or audio.

    Text is unchanged, None is `null` (some APIs reject empty results), and data is JSON. Bytes are an image, audio or a
    file by their first bytes.

    Raises:
        ToolError: The result has no form in JSON.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (*_MEDIA, TextPart)):
        return (_part(value, tool),)
    if isinstance(value, list | tuple) and any(isinstance(each, (*_MEDIA, TextPart)) for each in value):
        return tuple(_part(each, tool) for each in value)
    return _json(value, tool)


def _part(value: Any, tool: str) -> Part:
    if isinstance(value, _PARTS):
        return value
    if isinstance(value, bytes | bytearray):
        return media_part(load_media(value, kind="file")) if value else TextPart("")
    if isinstance(value, Media):
        return media_part(value)
    return TextPart(value if isinstance(value, str) else _json(value, tool))


def media_part(media: Media) -> Part:
    """Return the part of a medium, by its media type."""
    kind = (media.media_type or "").partition("/")[0]
    if kind == "image":
        return ImagePart(media)
    return AudioPart(media) if kind == "audio" else FilePart(media)


def _json(value: Any, tool: str) -> str:
    try:
        return to_json_text(value)
    except (TypeError, ValueError) as error:
        raise ToolError(
            f"the result of the tool {tool} cannot be sent: {error}",
            tool=tool,
            reason="result",
            hint="Return text, or data that fits into JSON.",
        ) from error


def shortened(content: Content, most: int | None) -> tuple[Content, bool]:
    """Return the content with at most `most` characters of text, and whether some were cut off; a mark shows it."""
    if most is None:
        return content, False
    if isinstance(content, str):
        text = _cut(content, most, len(content))
        return text, text is not content
    total = sum(len(part.text) for part in content if isinstance(part, TextPart))
    return (content, False) if total <= most else (tuple(_cut_parts(content, most, total)), True)


def sendable(content: Content) -> Content:
    """Return the content without halves of surrogate pairs, which no request can contain: names of files have them."""
    if isinstance(content, str):
        return _sendable_text(content)
    parts = (each if not isinstance(each, TextPart) else TextPart(_sendable_text(each.text)) for each in content)
    return tuple(parts)


def _sendable_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _cut(text: str, most: int, total: int) -> str:
    return text if len(text) <= most else f"{text[:most]}\n[truncated: {most:,} of {total:,} characters]"


def _cut_parts(parts: Iterable[Part], most: int, total: int) -> Iterable[Part]:
    left, is_cut = most, False
    for part in parts:
        if not isinstance(part, TextPart):
            yield part
        elif not is_cut:
            is_cut = len(part.text) > left
            yield TextPart(f"{part.text[:left]}\n[truncated: {most:,} of {total:,} characters]") if is_cut else part
            left -= len(part.text)
