"""The messages of AG-UI -> our messages.

https://docs.ag-ui.com/concepts/messages (2026-11); version 1.0.0 of the protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from lm_deluge.encoders.openai_chat.request_fields import read_call
from lm_deluge.errors import ChatRequestError
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import Part, TextPart, ToolCallPart, ToolResultPart
from lm_deluge.ui.request_files import file_part

__all__ = ["read_ag_ui"]

JSON = dict[str, Any]

_FILES = ("image", "audio", "video", "document", "binary")
_SKIPPED = ("activity", "reasoning")


def read_ag_ui(messages: Sequence[JSON], max_file_bytes: int, open_ids: Collection[str] = ()) -> list[Message]:
    """Return the messages of a request. Calls without results are left out, except those with `open_ids`.

    Raises:
        ChatRequestError: One of them is malformed.
        BadRequestError: A call is malformed.
    """
    answered = {message.get("toolCallId") for message in messages if message["role"] == "tool"}
    found: list[Message] = []
    for position, message in enumerate(messages):
        role, at = message["role"], f"messages[{position}]"
        if role in _SKIPPED:
            continue
        if role not in _ROLES:
            raise ChatRequestError(f"{at}.role is none of {', '.join((*_ROLES, *_SKIPPED))}")
        parts = _ROLES[role](message, at, max_file_bytes)
        if role == "assistant":
            parts += [call for call in _calls(message, at) if call.id in answered or call.id in open_ids]
        if parts:
            found.append(Message(role, parts))
    return found


def _content(message: JSON, at: str, max_file_bytes: int) -> list[Part]:
    content = message.get("content")
    if isinstance(content, str) or content is None:
        return [TextPart(content)] if content else []
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise ChatRequestError(f"{at}.content is neither a text nor a list of objects")
    return [_part(part, f"{at}.content[{index}]", max_file_bytes) for index, part in enumerate(content)]


def _part(part: JSON, at: str, max_file_bytes: int) -> Part:
    kind, text, source = part.get("type"), part.get("text"), part.get("source")
    if kind == "text" and isinstance(text, str):
        return TextPart(text)
    if kind not in _FILES or not isinstance(source, dict) or not isinstance(source.get("value"), str):
        raise ChatRequestError(f"{at} is neither a text nor a file")
    value, media_type = source["value"], source.get("mimeType")
    if source.get("type") == "file":
        raise ChatRequestError(f"{at} is stored at a provider, which is not allowed here")
    url = f"data:{media_type};base64,{value}" if source.get("type") == "data" else value
    return file_part(url, media_type, None, at=at, max_bytes=max_file_bytes)


def _result(message: JSON, at: str, max_file_bytes: int) -> list[Part]:
    call_id, error = message.get("toolCallId"), message.get("error")
    if not isinstance(call_id, str):
        raise ChatRequestError(f"{at}.toolCallId is not a text")
    parts = _content(message, at, max_file_bytes)
    text = "".join(part.text for part in parts if isinstance(part, TextPart))
    media = [part for part in parts if not isinstance(part, TextPart)]
    shown = text or (error if isinstance(error, str) else "")
    return [ToolResultPart(call_id, shown, tuple(media), is_error=isinstance(error, str))]  # type: ignore[arg-type]


_ROLES: Mapping[str, Callable[[JSON, str, int], list[Part]]] = {
    "system": _content,
    "developer": _content,
    "user": _content,
    "assistant": _content,
    "tool": _result,
}


def _calls(message: JSON, at: str) -> list[ToolCallPart]:
    calls = message.get("toolCalls")
    if calls is None:
        return []
    if not isinstance(calls, list):
        raise ChatRequestError(f"{at}.toolCalls is not a list")
    return [read_call(call, f"{at}.toolCalls[{index}]") for index, call in enumerate(calls)]
