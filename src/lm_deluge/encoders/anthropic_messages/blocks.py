"""Parse the content blocks of messages in Anthropic's requests."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import msgspec

from lm_deluge.errors import BadRequestError
from lm_deluge.prompt.media import Media, load_media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    FilePart,
    ImagePart,
    Part,
    ProviderDataPart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

__all__ = ["API", "bad_request", "need", "read_assistant", "read_system", "read_user", "take"]

JSON = dict[str, Any]

API = "anthropic-messages"

_KINDS: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    list: "list",
    dict: "dictionary",
}


def bad_request(message: str) -> BadRequestError:
    """Return the error of a request that cannot be answered."""
    return BadRequestError(message, status_code=400, type="invalid_request_error")


def take(fields: JSON, name: str, kind: type, default: Any = None, *, at: str = "") -> Any:
    """Return a field of type `kind`, or `default` if the field is absent or null."""
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise bad_request(f"{at}{name}: Input should be a valid {_KINDS[kind]}")
    return value


def need(fields: JSON, name: str, kind: type, *, at: str = "") -> Any:
    """Return a required field of type `kind`."""
    value = take(fields, name, kind, at=at)
    if value is None:
        raise bad_request(f"{at}{name}: Field required")
    return value


def read_system(content: Any, at: str) -> list[Message]:
    """Return the system message of a text or of text blocks; no message if there is no text."""
    parts = [part for block, block_path in _blocks(content, at) for part in _text(block, block_path)]
    return [Message("system", tuple(parts))] if parts else []


def read_user(content: Any, at: str) -> list[Message]:
    """Return the messages of a user turn: each run of tool results becomes a message with the role `tool`."""
    messages: list[Message] = []
    for block, block_path in _blocks(content, at):
        part = _user_part(block, block_path)
        role = "tool" if isinstance(part, ToolResultPart) else "user"
        if messages and messages[-1].role == role:
            messages[-1] = Message(messages[-1].role, (*messages[-1].parts, part))
        else:
            messages.append(Message("tool" if role == "tool" else "user", (part,)))
    return messages


def read_assistant(content: Any, at: str) -> list[Message]:
    """Return the message of an assistant turn."""
    parts: list[Part] = []
    for block, block_path in _blocks(content, at):
        read = _ASSISTANT_BLOCKS.get(block["type"])
        parts += [_opaque("block", block)] if read is None else read(block, block_path)
    return [Message("assistant", tuple(parts))]


def _blocks(content: Any, at: str) -> list[tuple[JSON, str]]:
    if content is None:
        return []
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise bad_request(f"{at}: Input should be a valid string or list")
    for position, block in enumerate(content):
        if not isinstance(block, dict):
            raise bad_request(f"{at}.{position}: Input should be a valid dictionary")
        need(block, "type", str, at=f"{at}.{position}.")
    return [(block, f"{at}.{position}.") for position, block in enumerate(content)]


def _opaque(kind: str, data: Any) -> ProviderDataPart:
    return ProviderDataPart(API, kind, data)


def _user_part(block: JSON, at: str) -> Part:
    """Return the part with the whole content of the block, or the block as opaque data if no part can hold it."""
    found = _USER_BLOCKS.get(block["type"])
    if found is None:
        return _opaque("block", block)
    fields, read = found
    part = read(block, at) if block.keys() <= fields else None
    return _opaque("block", block) if part is None else part


def _plain_text(block: JSON, at: str) -> Part:
    return TextPart(need(block, "text", str, at=at))


def _image(block: JSON, at: str) -> Part | None:
    media = _media(block, at, "image")
    return None if media is None else ImagePart(media)


def _document(block: JSON, at: str) -> Part | None:
    media = _media(block, at, "file")
    if media is None:
        return None
    source = take(block, "source", dict, {})
    if source.get("type") == "base64" and media.media_type != "application/pdf":
        raise bad_request(f"{at}source.base64.media_type: Input should be 'application/pdf'")
    return FilePart(msgspec.structs.replace(media, filename=take(block, "title", str, at=at)))


def _media(block: JSON, at: str, kind: str) -> Media | None:
    source = need(block, "source", dict, at=at)
    read = _SOURCES.get(need(source, "type", str, at=f"{at}source."))
    return None if read is None else read(source, f"{at}source.", kind)


def _inline(source: JSON, at: str, kind: str) -> Media:
    text = need(source, "data", str, at=at)
    media_type = need(source, "media_type", str, at=at)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_request(f"{at}data: Input should be valid base64") from error
    # kind="file" skips the check of an image's format: the model decides whether it accepts the bytes.
    return load_media(data, kind="file", media_type=media_type)


def _by_url(source: JSON, at: str, kind: str) -> Media:
    url = need(source, "url", str, at=at)
    if not url.startswith(("http://", "https://")):
        raise bad_request(f"{at}url: Only http and https URLs are supported")
    return load_media(url, kind=kind)


def _by_id(source: JSON, at: str, kind: str) -> Media:
    return Media(file_id=need(source, "file_id", str, at=at))


def _as_text(source: JSON, at: str, kind: str) -> Media:
    return Media(media_type="text/plain", data=need(source, "data", str, at=at).encode("utf-8", "surrogatepass"))


_SOURCES: dict[str, Callable[[JSON, str, str], Media]] = {
    "base64": _inline,
    "url": _by_url,
    "file": _by_id,
    "text": _as_text,
}


def _result(block: JSON, at: str) -> Part | None:
    parts = [_user_part(inner, block_path) for inner, block_path in _blocks(block.get("content"), f"{at}content")]
    media = tuple(part for part in parts if isinstance(part, ImagePart | FilePart))
    text = [part.text for part in parts if isinstance(part, TextPart)]
    if len(media) + len(text) < len(parts):
        return None
    is_error = take(block, "is_error", bool, default=False, at=at)
    return ToolResultPart(need(block, "tool_use_id", str, at=at), "".join(text), media, is_error)


_USER_BLOCKS: dict[str, tuple[set[str], Callable[[JSON, str], Part | None]]] = {
    "text": ({"type", "text", "cache_control"}, _plain_text),
    "image": ({"type", "source", "cache_control"}, _image),
    "document": ({"type", "source", "title", "cache_control"}, _document),
    "tool_result": ({"type", "tool_use_id", "content", "is_error", "cache_control"}, _result),
}


def _text(block: JSON, at: str) -> list[Part]:
    parts: list[Part] = [TextPart(need(block, "text", str, at=at))]
    citations = take(block, "citations", list, at=at)
    return [*parts, _opaque("citations", citations)] if citations else parts


def _reasoning(block: JSON, at: str) -> list[Part]:
    text, signature = take(block, "thinking", str, at=at), take(block, "signature", str, at=at)
    parts: list[Part] = [ReasoningPart(text)] if text else []
    return [*parts, _opaque("signature", signature)] if signature else parts


_CALL_FIELDS = {"type", "id", "name", "input", "cache_control"}


def _call(block: JSON, at: str) -> list[Part]:
    arguments = need(block, "input", dict, at=at)
    text = msgspec.json.encode(arguments).decode()
    call = ToolCallPart(need(block, "id", str, at=at), need(block, "name", str, at=at), text, arguments)
    other_fields = {name: value for name, value in block.items() if name not in _CALL_FIELDS}
    return [call, _opaque("tool_use", other_fields)] if other_fields else [call]


_ASSISTANT_BLOCKS: dict[str, Callable[[JSON, str], list[Part]]] = {
    "text": _text,
    "thinking": _reasoning,
    "tool_use": _call,
}
