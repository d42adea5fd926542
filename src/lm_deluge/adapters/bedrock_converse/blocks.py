"""Convert the parts of messages into content blocks of Converse and of Nova's native API.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.bedrock_converse.stream import REDACTED, SERVER_TOOL, SIGNATURE
from lm_deluge.adapters.capabilities import cannot_place, cannot_take, parts_in_pairs
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Part,
    ProviderDataPart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

__all__ = ["AUDIO_FORMATS", "CONTENT_BLOCK", "DOCUMENT_FORMATS", "IMAGE_FORMATS", "VIDEO_FORMATS", "build_blocks"]

JSON = dict[str, Any]

CONTENT_BLOCK = "content_block"
"""Kind of opaque data: a block in the API's own format, for content without a part type of ours."""

IMAGE_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
DOCUMENT_FORMATS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
VIDEO_FORMATS = {
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/x-matroska": "mkv",
    "video/webm": "webm",
    "video/x-flv": "flv",
    "video/mpeg": "mpeg",
    "video/x-ms-wmv": "wmv",
    "video/3gpp": "three_gp",
}
AUDIO_FORMATS = {
    "audio/mpeg": "mp3",
    "audio/wav": "wav",
    "audio/ogg": "ogg",
    "audio/flac": "flac",
    "audio/aac": "aac",
    "audio/opus": "opus",
    "audio/mp4": "mp4",
    "audio/webm": "webm",
}

# Characters that are not allowed in a document's name: only letters, digits, white space, hyphens and brackets are.
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9\s()\[\]-]+")


class _DocumentNames:
    """Chooses the names of documents, which must be unique in a request."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def choose(self, filename: str | None) -> str:
        stem = (filename or "").rpartition(".")[0] or filename or ""
        base = " ".join(_NOT_IN_NAME.sub("-", stem).split())[:180].strip("- ") or "document"
        name, number = base, 1
        while name in self._used:
            number += 1
            name = f"{base}-{number}"
        self._used.add(name)
        return name


def build_blocks(call: Call) -> list[tuple[str, list[JSON]]]:
    """Return pairs of an API role and its blocks; consecutive messages of the same role are merged.

    Raises:
        UnsupportedParameterError: The API cannot take a part.
    """
    names = _DocumentNames()
    turns: list[tuple[str, list[JSON]]] = []
    for message in call.conversation:
        role, build = _ROLES[message.role]
        blocks = build(call, message, names)
        if not blocks:
            continue
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        else:
            turns.append((role, blocks))
    return turns


def _system(call: Call, message: Message, names: _DocumentNames) -> list[JSON]:
    blocks: list[JSON] = []
    for part in message.parts:
        if isinstance(part, ProviderDataPart) and _is_own(call, part):
            blocks.append(part.data)
        elif isinstance(part, TextPart):
            blocks.append({"text": part.text})
        else:
            raise cannot_place(part, message.role)
    return blocks


def _user(call: Call, message: Message, names: _DocumentNames) -> list[JSON]:
    blocks = []
    for part in message.parts:
        if isinstance(part, ProviderDataPart) and _is_own(call, part):
            blocks.append(part.data)
            continue
        build = _CONTENT.get(type(part))
        if build is None:
            raise cannot_place(part, "user")
        blocks.append(build(call, part, names))
    return blocks


def _assistant(call: Call, message: Message, names: _DocumentNames) -> list[JSON]:
    blocks: list[JSON] = []
    before: Part | None = None
    for part, after in parts_in_pairs(message):
        build = _ASSISTANT_CONTENT.get(type(part))
        # A signature without reasoning before it belongs to reasoning that the provider does not show.
        if _is_signature(call, part) and not isinstance(before, ReasoningPart):
            blocks += _reasoning(call, ReasoningPart(""), part, names)
        elif build is not None:
            blocks += build(call, part, after, names)
        before = part
    return blocks


def _is_signature(call: Call, part: Part | None) -> bool:
    return isinstance(part, ProviderDataPart) and part.kind == SIGNATURE and _is_own(call, part)


def _assistant_text(call: Call, part: Any, after: Part | None, names: _DocumentNames) -> list[JSON]:
    return [{"text": part.text}] if part.text.strip() else []  # the API rejects blank text


def _tool_use(call: Call, part: Any, after: Part | None, names: _DocumentNames) -> list[JSON]:
    # The API accepts only JSON objects, so other arguments are wrapped into an object.
    arguments = part.arguments if isinstance(part.arguments, dict) else {"input": part.arguments_text}
    return [{"toolUse": {"toolUseId": part.id, "name": part.name, "input": arguments}}]


def _reasoning(call: Call, part: Any, after: Part | None, names: _DocumentNames) -> list[JSON]:
    """Return a block for signed reasoning; unsigned reasoning, which may be another provider's, is not sent."""
    if not (isinstance(after, ProviderDataPart) and _is_signature(call, after)):
        return []
    return [{"reasoningContent": {"reasoningText": {"text": part.text, "signature": after.data}}}]


def _opaque(call: Call, part: Any, after: Part | None, names: _DocumentNames) -> list[JSON]:
    if not _is_own(call, part):
        return []
    if part.kind == REDACTED:
        return [{"reasoningContent": {"redactedContent": part.data}}]
    return [part.data] if part.kind in (SERVER_TOOL, CONTENT_BLOCK) else []


def _assistant_image(call: Call, part: Any, after: Part | None, names: _DocumentNames) -> list[JSON]:
    media = part.media
    is_readable = media.data is not None or (media.url or "").startswith("s3://")
    return [_image(call, part, names)] if is_readable and media.media_type in IMAGE_FORMATS else []


def _assistant_file(call: Call, part: Any, after: Part | None, names: _DocumentNames) -> list[JSON]:
    return [_file(call, part, names)] if part.media.data is not None else []


_ASSISTANT_CONTENT: dict[type, Callable[[Call, Any, Part | None, _DocumentNames], list[JSON]]] = {
    TextPart: _assistant_text,
    ToolCallPart: _tool_use,
    ReasoningPart: _reasoning,
    ProviderDataPart: _opaque,
    ImagePart: _assistant_image,
    FilePart: _assistant_file,
}


def _results(call: Call, message: Message, names: _DocumentNames) -> list[JSON]:
    blocks = []
    for part in message.parts:
        if not isinstance(part, ToolResultPart):
            raise cannot_place(part, "tool")
        content: list[JSON] = [{"text": part.content}] if part.content else []
        for medium in part.media:
            if isinstance(medium, AudioPart):
                raise cannot_take(
                    call, "audio in a tool result", hint="Put the audio into a user message after the result."
                )
            content.append(_CONTENT[type(medium)](call, medium, names))
        result: JSON = {"toolUseId": part.tool_call_id, "content": content}
        if part.is_error:
            result["status"] = "error"
        blocks.append({"toolResult": result})
    return blocks


def _text(call: Call, part: Any, names: _DocumentNames) -> JSON:
    return {"text": part.text}


def _image(call: Call, part: Any, names: _DocumentNames) -> JSON:
    return {"image": {"format": _format(call, part.media, IMAGE_FORMATS, "image"), "source": _source(call, part.media)}}


def _audio(call: Call, part: Any, names: _DocumentNames) -> JSON:
    return {"audio": {"format": _format(call, part.media, AUDIO_FORMATS, "audio"), "source": _source(call, part.media)}}


def _file(call: Call, part: Any, names: _DocumentNames) -> JSON:
    media = part.media
    if (media.media_type or "").startswith("video/"):
        return {"video": {"format": _format(call, media, VIDEO_FORMATS, "video"), "source": _source(call, media)}}
    kind = _document_format(call, media)
    # The name of a text file in another format than `txt` keeps its suffix as information for the model.
    is_other = kind == "txt" and (media.filename or "").lower().rpartition(".")[2] != "txt"
    document = {
        "format": kind,
        "name": names.choose(f"{media.filename or 'document'}." if is_other else media.filename),
    }
    return {"document": {**document, "source": _source(call, media)}}


def _document_format(call: Call, media: Media) -> str:
    """Return the format of a document; text without a format of its own is plain text."""
    if media.media_type not in DOCUMENT_FORMATS and media.text is not None:
        return "txt"
    return _format(call, media, DOCUMENT_FORMATS, "document")


def _format(call: Call, media: Media, formats: dict[str, str], kind: str) -> str:
    found = formats.get(media.media_type or "")
    if found is None and (media.filename or media.url):
        suffix = (media.filename or media.url or "").rpartition(".")[2].lower()
        found = {**{word: word for word in formats.values()}, "jpg": "jpeg"}.get(suffix)
    if found is None or (kind != "image" and found == "jpeg"):
        raise cannot_take(
            call, f"{kind} of the type {media.media_type}", hint=f"It takes: {', '.join(sorted(formats.values()))}."
        )
    return found


def _source(call: Call, media: Media) -> JSON:
    if media.data is not None:
        return {"bytes": media.base64()}
    if media.url is not None and media.url.startswith("s3://"):
        return {"s3Location": {"uri": media.url}}
    raise cannot_take(call, "media by URL", hint="Pass a path, bytes, or an s3:// URL in a Media.")


def _is_own(call: Call, part: ProviderDataPart) -> bool:
    return part.provider == call.provider.opaque_owner and part.kind in (
        SIGNATURE,
        REDACTED,
        SERVER_TOOL,
        CONTENT_BLOCK,
    )


_CONTENT: dict[type, Callable[[Call, Any, _DocumentNames], JSON]] = {
    TextPart: _text,
    ImagePart: _image,
    FilePart: _file,
    AudioPart: _audio,
}

_ROLES: dict[str, tuple[str, Callable[[Call, Message, _DocumentNames], list[JSON]]]] = {
    "system": ("system", _system),
    "developer": ("system", _system),
    "user": ("user", _user),
    "assistant": ("assistant", _assistant),
    "tool": ("user", _results),
}
