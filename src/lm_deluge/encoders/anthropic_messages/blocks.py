"""The blocks of messages in Anthropic's requests, read into our parts."""

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

__all__ = ["API", "bad", "need", "read_assistant", "read_system", "read_user", "take"]

JSON = dict[str, Any]

API = "anthropic-messages"

_KINDS: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    list: "list",
    dict: "dictionary",
}


def bad(message: str) -> BadRequestError:
    """Return the error for a request that cannot be answered."""
    return BadRequestError(message, status_code=400, type="invalid_request_error")


def take(fields: JSON, name: str, kind: type, default: Any = None, *, at: str = "") -> Any:
    """Return a field of a certain kind; null counts as absent."""
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise bad(f"{at}{name}: Input should be a valid {_KINDS[kind]}")
    return value


def need(fields: JSON, name: str, kind: type, *, at: str = "") -> Any:
    """Return a field that must be there."""
    value = take(fields, name, kind, at=at)
    if value is None:
        raise bad(f"{at}{name}: Field required")
    return value


def read_system(content: Any, at: str) -> list[Message]:
    """Return what the system says: text, or blocks of it."""
    parts = [part for block, here in _blocks(content, at) for part in _text(block, here)]
    return [Message("system", tuple(parts))] if parts else []


def read_user(content: Any, at: str) -> list[Message]:
    """Return what the user's side says: results of tools are messages of their own."""
    messages: list[Message] = []
    for block, here in _blocks(content, at):
        part = _said(block, here)
        role = "tool" if isinstance(part, ToolResultPart) else "user"
        if messages and messages[-1].role == role:
            messages[-1] = Message(messages[-1].role, (*messages[-1].parts, part))
        else:
            messages.append(Message("tool" if role == "tool" else "user", (part,)))
    return messages


def read_assistant(content: Any, at: str) -> list[Message]:
    """Return what the model said."""
    parts: list[Part] = []
    for block, here in _blocks(content, at):
        read = _OWN.get(block["type"])
        parts += [_opaque("block", block)] if read is None else read(block, here)
    return [Message("assistant", tuple(parts))]


def _blocks(content: Any, at: str) -> list[tuple[JSON, str]]:
    if content is None:
        return []
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise bad(f"{at}: Input should be a valid string or list")
    for position, block in enumerate(content):
        if not isinstance(block, dict):
            raise bad(f"{at}.{position}: Input should be a valid dictionary")
        need(block, "type", str, at=f"{at}.{position}.")
    return [(block, f"{at}.{position}.") for position, block in enumerate(content)]


def _opaque(kind: str, data: Any) -> ProviderDataPart:
    return ProviderDataPart(API, kind, data)


def _said(block: JSON, at: str) -> Part:
    """Return the part that says all that the block says, or the block as it is."""
    found = _SAID.get(block["type"])
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
        raise bad(f"{at}data: Input should be valid base64") from error
    # As a file: whether an image is what it is called is for the model to see.
    return load_media(data, kind="file", media_type=media_type)


def _by_url(source: JSON, at: str, kind: str) -> Media:
    url = need(source, "url", str, at=at)
    if not url.startswith(("http://", "https://")):
        raise bad(f"{at}url: Only http and https URLs are supported")
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
    parts = [_said(inner, here) for inner, here in _blocks(block.get("content"), f"{at}content")]
    media = tuple(part for part in parts if isinstance(part, ImagePart | FilePart))
    text = [part.text for part in parts if isinstance(part, TextPart)]
    if len(media) + len(text) < len(parts):
        return None
    is_error = take(block, "is_error", bool, default=False, at=at)
    return ToolResultPart(need(block, "tool_use_id", str, at=at), "".join(text), media, is_error)


_SAID: dict[str, tuple[set[str], Callable[[JSON, str], Part | None]]] = {
    "text": ({"type", "text", "cache_control"}, _plain_text),
    "image": ({"type", "source", "cache_control"}, _image),
    "document": ({"type", "source", "title", "cache_control"}, _document),
    "tool_result": ({"type", "tool_use_id", "content", "is_error", "cache_control"}, _result),
}


def _text(block: JSON, at: str) -> list[Part]:
    parts: list[Part] = [TextPart(need(block, "text", str, at=at))]
    citations = take(block, "citations", list, at=at)
    return [*parts, _opaque("citations", citations)] if citations else parts


def _thought(block: JSON, at: str) -> list[Part]:
    text, signature = take(block, "thinking", str, at=at), take(block, "signature", str, at=at)
    parts: list[Part] = [ReasoningPart(text)] if text else []
    return [*parts, _opaque("signature", signature)] if signature else parts


_CALL_FIELDS = {"type", "id", "name", "input", "cache_control"}


def _call(block: JSON, at: str) -> list[Part]:
    given = need(block, "input", dict, at=at)
    text = msgspec.json.encode(given).decode()
    call = ToolCallPart(need(block, "id", str, at=at), need(block, "name", str, at=at), text, given)
    others = {name: value for name, value in block.items() if name not in _CALL_FIELDS}
    return [call, _opaque("tool_use", others)] if others else [call]


_OWN: dict[str, Callable[[JSON, str], list[Part]]] = {"text": _text, "thinking": _thought, "tool_use": _call}
