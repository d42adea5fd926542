"""Messages given as dicts, in the format of Chat Completions; content may also have the types of the Responses API.

Media are accepted as http(s) URL, data URL or base64 only. Dicts often come from a client of a server, and a path in
them must never make the server read its own files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast, get_args

from lm_deluge.errors import InvalidPromptError
from lm_deluge.prompt.media import Media, load_media
from lm_deluge.prompt.message import Message, Role
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from lm_deluge.prompt.plain_values import to_plain

__all__ = ["message_from_dict"]

JSON: TypeAlias = Mapping[str, Any]


def message_from_dict(data: JSON) -> Message:
    """Return the message that a dict describes, for example `{"role": "user", "content": "Hello"}`.

    Fields that a message does not have, such as ids and times of a chat program, are ignored.

    Raises:
        InvalidPromptError: The role is missing or unknown, or the content cannot be read.
    """
    role: Any = data.get("role")
    if not isinstance(role, str) or role not in get_args(Role):
        known = ", ".join(get_args(Role))
        found = "no role" if role is None else f"the unknown role {str(role)[:40]!r}"
        raise InvalidPromptError(
            f"a message has {found}", hint=f'Write {{"role": "user", "content": "..."}}. Roles: {known}.'
        )
    if data.get("function_call") is not None:
        raise InvalidPromptError("a message has the field 'function_call'", hint="Use tool_calls and the role tool.")
    parts = _READERS[role](data)
    name = data.get("name")
    return Message(cast("Role", to_plain(role)), tuple(parts), None if name is None else _text(name, "name"))


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidPromptError(f"the field {field!r} of a message must be text, not {type(value).__name__}")
    return str.__str__(value)


def _mapping(value: Any, field: str) -> JSON:
    if not isinstance(value, Mapping):
        raise InvalidPromptError(f"the field {field!r} of a message must be a dict, not {type(value).__name__}")
    return value


def _content(data: JSON) -> list[Part]:
    content = data.get("content")
    if isinstance(content, str):
        return [TextPart(_text(content, "content"))]
    if not isinstance(content, list | tuple):
        kind = "missing" if content is None else f"of the type {type(content).__name__}"
        raise InvalidPromptError(f"the content of a message is {kind}", hint="Give a text, or a list of content parts.")
    return [_part(piece) for piece in content]


def _part(piece: Any) -> Part:
    if isinstance(piece, get_args(Part)):
        return cast("Part", piece)
    kind = _mapping(piece, "content").get("type")
    read = _PARTS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise InvalidPromptError(
            f"a content part has the unknown type {str(kind)[:40]!r}", hint=f"Known types: {', '.join(_PARTS)}."
        )
    return read(piece)


def _url(source: Any, field: str) -> str:
    text = _text(source, field)
    if not text.startswith(("http://", "https://", "data:")):
        raise InvalidPromptError(
            f"the field {field!r} of a message is neither an http(s) URL nor a data URL",
            hint="Load a file with Message.user(...), which takes a path.",
        )
    return text


def _text_part(piece: JSON) -> Part:
    return TextPart(_text(piece.get("text"), "text"))


def _refusal(piece: JSON) -> Part:
    return RefusalPart(_text(piece.get("refusal"), "refusal"))


def _image(piece: JSON) -> Part:
    image = piece.get("image_url")
    fields = piece if isinstance(image, str) or image is None else _mapping(image, "image_url")
    detail = fields.get("detail")
    detail = None if detail is None else _text(detail, "detail")
    if fields.get("file_id") is not None:
        return ImagePart(Media(file_id=_text(fields["file_id"], "file_id")), detail)
    source = fields.get("url") if fields is not piece else image
    return ImagePart(load_media(_url(source, "image_url"), kind="image"), detail)


def _audio(piece: JSON) -> Part:
    fields = _mapping(piece.get("input_audio"), "input_audio")
    data = _text(fields.get("data"), "data")
    source = data if data.startswith("data:") else f"data:;base64,{data}"
    return AudioPart(load_media(source, kind="audio"))


def _file(piece: JSON) -> Part:
    inner = piece.get("file")
    fields = piece if inner is None else _mapping(inner, "file")
    if fields.get("file_id") is not None:
        return FilePart(Media(file_id=_text(fields["file_id"], "file_id")))
    name = fields.get("filename")
    filename = None if name is None else _text(name, "filename")
    field = "file_url" if fields.get("file_url") is not None else "file_data"
    return FilePart(load_media(_url(fields.get(field), field), kind="file", filename=filename))


_PARTS: dict[str, Callable[[JSON], Part]] = {
    "text": _text_part,
    "input_text": _text_part,
    "output_text": _text_part,
    "refusal": _refusal,
    "image_url": _image,
    "input_image": _image,
    "input_audio": _audio,
    "file": _file,
    "input_file": _file,
}


def _assistant(data: JSON) -> list[Part]:
    parts: list[Part] = []
    # DeepSeek calls the field `reasoning_content`, OpenRouter `reasoning`.
    reasoning = data.get("reasoning_content") or data.get("reasoning")
    if isinstance(reasoning, str):
        parts.append(ReasoningPart(_text(reasoning, "reasoning")))
    if data.get("content"):
        parts += _content(data)
    if data.get("refusal"):
        parts.append(_refusal(data))
    calls = data.get("tool_calls") or ()
    if not isinstance(calls, list | tuple):
        raise InvalidPromptError(f"the field 'tool_calls' must be a list, not {type(calls).__name__}")
    return [*parts, *(_call(_mapping(call, "tool_calls")) for call in calls)]


def _call(call: JSON) -> Part:
    call_id = _text(call.get("id"), "id")
    if call.get("custom") is not None:
        custom = _mapping(call["custom"], "custom")
        name, text = _text(custom.get("name"), "name"), _text(custom.get("input"), "input")
        return ToolCallPart(call_id, name, text, custom=True)
    function = _mapping(call.get("function"), "function")
    name, arguments = _text(function.get("name"), "name"), function.get("arguments")
    if isinstance(arguments, Mapping):
        plain = to_plain(arguments)
        return ToolCallPart(call_id, name, json.dumps(plain, ensure_ascii=False), plain)
    text = "" if arguments is None else _text(arguments, "arguments")
    try:
        return ToolCallPart(call_id, name, text, json.loads(text) if text.strip() else {})
    except (ValueError, RecursionError):  # the model wrote the text, so invalid JSON is passed on
        return ToolCallPart(call_id, name, text, None, "the arguments are not JSON")


def _tool_result(data: JSON) -> list[Part]:
    call_id = _text(data.get("tool_call_id"), "tool_call_id")
    content = data.get("content")
    if isinstance(content, list | tuple) and all(isinstance(each, Mapping) and "type" in each for each in content):
        parts = _content(data)
        text = "".join(part.text for part in parts if isinstance(part, TextPart))
        media = tuple(part for part in parts if isinstance(part, ImagePart | FilePart | AudioPart))
        return [ToolResultPart(call_id, text, media, is_error=data.get("is_error") is True)]
    return list(Message.tool_result(call_id, content, is_error=data.get("is_error") is True).parts)


_READERS: dict[str, Callable[[JSON], list[Part]]] = {
    "system": _content,
    "developer": _content,
    "user": _content,
    "assistant": _assistant,
    "tool": _tool_result,
}
