"""Read conversations that the older lm-deluge (0.0.168 and before) logged.

Signatures and other opaque data of providers are left out: its logs do not name the provider that they are valid at.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any, cast, get_args

from lm_deluge.errors import InvalidPromptError
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message, Role
from lm_deluge.prompt.parts import (
    FilePart,
    ImagePart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

__all__ = ["is_older_log", "read_older_log"]

JSON = Mapping[str, Any]


def is_older_log(log: Any) -> bool:
    """Whether data is a log of the older lm-deluge: it has a version, or in its first version only parts of its own."""
    if not isinstance(log, Mapping) or not isinstance(log.get("messages"), list) or "version" in log:
        return False
    return "log_version" in log or (
        "system" not in log and bool(log["messages"]) and all(map(_is_older, log["messages"]))
    )


def _is_older(message: Any) -> bool:
    content = message.get("content") if isinstance(message, Mapping) else None
    return isinstance(content, list) and all(isinstance(part, Mapping) and _is_part(part) for part in content)


def _is_part(part: JSON) -> bool:
    if part.get("type") == "tool_result":
        return "tool_call_id" in part
    return part.get("type") in _PARTS and "source" not in part and "thinking" not in part


def read_older_log(log: JSON) -> list[Message]:
    """Return the messages of such a log.

    Raises:
        InvalidPromptError: A part is of an unknown type, or has a value of a wrong type; the error names its place.
    """
    found = []
    for number, message in enumerate(log["messages"]):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in get_args(Role):
            raise InvalidPromptError(f"messages[{number}].role is {str(role)[:40]!r}")
        content = message.get("content")
        if not isinstance(content, list):
            raise InvalidPromptError(f"messages[{number}].content is no list")
        parts = [_part(part, f"messages[{number}].content[{position}]") for position, part in enumerate(content)]
        found.append(Message(cast("Role", role), parts))
    return found


def _part(part: Any, at: str) -> Part:
    kind = part.get("type") if isinstance(part, Mapping) else None
    read = _PARTS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise InvalidPromptError(
            f"{at}.type is {str(kind)[:40]!r}, which is no part of a log", hint=f"Known: {', '.join(_PARTS)}."
        )
    try:
        return read(part)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise InvalidPromptError(f"{at} is damaged: {type(error).__name__}") from error


def _text(part: JSON) -> Part:
    return TextPart(_string(part["text"]))


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _media(part: JSON) -> Media:
    data = base64.b64decode(_string(part["data"]), validate=True)
    return Media(media_type=part.get("media_type"), data=data, filename=part.get("filename"))


def _image(part: JSON) -> Part:
    if "data" not in part:  # logged without its data
        return TextPart(str(part.get("tag", "<image>")))
    detail = part.get("detail")
    return ImagePart(_media(part), None if detail == "auto" else detail)


def _file(part: JSON) -> Part:
    return FilePart(_media(part)) if "data" in part else TextPart(str(part.get("tag", "<file>")))


def _thinking(part: JSON) -> Part:
    return ReasoningPart(_string(part["content"]))


def _call(part: JSON) -> Part:
    arguments = part.get("arguments", {})
    return ToolCallPart(
        _string(part["id"]), _string(part["name"]), json.dumps(arguments, ensure_ascii=False), arguments
    )


def _result(part: JSON) -> Part:
    result = part.get("result", "")
    if not isinstance(result, list):
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
        return ToolResultPart(_string(part["tool_call_id"]), text)
    pieces = [_part(each, "result") for each in result]
    text = "".join(each.text for each in pieces if isinstance(each, TextPart))
    return ToolResultPart(
        _string(part["tool_call_id"]), text, tuple(each for each in pieces if isinstance(each, ImagePart))
    )


_PARTS: dict[str, Callable[[JSON], Part]] = {
    "text": _text,
    "image": _image,
    "file": _file,
    "thinking": _thinking,
    "tool_call": _call,
    "tool_result": _result,
}
