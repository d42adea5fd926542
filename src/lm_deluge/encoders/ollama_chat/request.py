"""Parse requests of Ollama's own chat API: the inverse of the request builder of the adapter `ollama-chat`.

https://docs.ollama.com/api/chat
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from lm_deluge.config import ReasoningEffort, SamplingParams
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.encoders.openai_chat.request_fields import (
    RoleReaders,
    bad_request,
    need_field,
    parse_object,
    read_messages,
    read_tools,
    take_field,
    unknown_value,
    wrong_type,
)
from lm_deluge.errors import ConfigurationError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import load_media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ImagePart, Part, ReasoningPart, TextPart, ToolCallPart, ToolResultPart

__all__ = ["parse_request"]

JSON = dict[str, Any]

_PARAMETERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "num_predict": "max_new_tokens",
    "stop": "stop",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
_PARSED_FIELDS = {"model", "messages", "stream", "tools", "format", "options", "think", "logprobs", "top_logprobs"}
_EFFORTS: dict[str, ReasoningEffort] = {"low": "low", "medium": "medium", "high": "high"}


def parse_request(body: bytes, *, model: str | None = None, is_streamed: bool | None = None) -> ParsedRequest:
    """Parse the body of a request; `model` overrides that of the body.

    Ollama streams by default: a request without the field `stream` is streamed unless `is_streamed` is false.

    Raises:
        BadRequestError: The body is not a JSON object, lacks `model` or `messages`, or has a value of a wrong type.
    """
    raw = parse_object(body)
    options = take_field(raw, "options", dict, {})
    extra = {name: value for name, value in raw.items() if name not in _PARSED_FIELDS}
    others = {name: value for name, value in options.items() if name not in _PARAMETERS}
    if others:
        extra["options"] = others
    try:
        return ParsedRequest(
            model=model or need_field(raw, "model", str),
            conversation=Conversation(_with_ids(read_messages(raw, _ROLES, None), raw["messages"])),
            params=_params(raw, options),
            is_streamed=take_field(raw, "stream", bool, default=True if is_streamed is None else is_streamed),
            wants_usage=True,
            tools=read_tools(raw),
            output=raw["format"] if isinstance(raw.get("format"), dict) else None,
            extra=extra,
            raw=raw,
        )
    except ConfigurationError as error:
        raise bad_request(error.message, "invalid_value") from error


def _params(raw: JSON, options: JSON) -> SamplingParams:
    form = raw.get("format")
    if form is not None and not isinstance(form, str | dict):
        raise wrong_type("format", str, form)
    fields = {ours: options[theirs] for theirs, ours in _PARAMETERS.items() if options.get(theirs) not in (None, [])}
    if isinstance(fields.get("max_new_tokens"), int) and fields["max_new_tokens"] < 1:
        del fields["max_new_tokens"]  # Ollama's -1 and -2 mean no limit
    return SamplingParams(
        **fields,
        reasoning_effort=_effort(raw),
        json_mode=form == "json",
        logprobs=take_field(raw, "logprobs", bool, default=False),
        top_logprobs=take_field(raw, "top_logprobs", int),
    )


def _effort(raw: JSON) -> ReasoningEffort | None:
    think = raw.get("think")
    if think is None or isinstance(think, bool):
        return {None: None, True: "high", False: "none"}[think]
    if think not in _EFFORTS:
        raise unknown_value("think", think, _EFFORTS)
    return _EFFORTS[think]


def _with_ids(messages: list[Message], raw: list[JSON]) -> list[Message]:
    """Return the messages with an id for each call and its result: older clients send only the name of the tool."""
    named: list[Message] = []
    pending: list[tuple[str, str]] = []  # name and id of calls without a result
    for number, (message, fields) in enumerate(zip(messages, raw, strict=True)):
        tool = take_field(fields, "tool_name", str, at=f"messages[{number}].")
        parts: list[Part] = []
        for part in message.parts:
            if isinstance(part, ToolCallPart):
                call_id = part.id or f"call_{number}_{len(parts)}"
                pending.append((part.name, call_id))
                parts.append(msgspec.structs.replace(part, id=call_id))
            elif isinstance(part, ToolResultPart) and not part.tool_call_id:
                parts.append(msgspec.structs.replace(part, tool_call_id=_take_pending_id(tool, pending)))
            else:
                parts.append(part)
        named.append(Message(message.role, tuple(parts), tool))
    return named


def _take_pending_id(tool: str | None, pending: list[tuple[str, str]]) -> str:
    """Remove and return the id of the first pending call of the tool, or of any tool if the result names none."""
    candidates = [each for each in pending if tool in (None, each[0])]
    if not candidates:
        return ""
    pending.remove(candidates[0])
    return candidates[0][1]


def _text_parts(message: JSON, at: str) -> list[Part]:
    text = take_field(message, "content", str, "", at=at)
    return [TextPart(text)] if text else []


def _user(message: JSON, at: str) -> list[Part]:
    return [*_text_parts(message, at), *_images(message, at)]


def _images(message: JSON, at: str) -> list[ImagePart]:
    images = []
    for position, data in enumerate(take_field(message, "images", list, (), at=at)):
        item_path = f"{at}images[{position}]"
        if not isinstance(data, str):
            raise wrong_type(item_path, str, data)
        try:
            decoded = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise bad_request(f"Invalid '{item_path}': expected base64 text.", "invalid_value") from error
        images.append(ImagePart(load_media(decoded, kind="image")))
    return images


def _assistant(message: JSON, at: str) -> list[Part]:
    thinking = take_field(message, "thinking", str, at=at)
    parts: list[Part] = [ReasoningPart(thinking)] if thinking else []
    parts += _text_parts(message, at)
    for position, call in enumerate(take_field(message, "tool_calls", list, (), at=at)):
        item_path = f"{at}tool_calls[{position}]"
        if not isinstance(call, dict):
            raise wrong_type(item_path, dict, call)
        function = need_field(call, "function", dict, at=f"{item_path}.")
        name = need_field(function, "name", str, at=f"{item_path}.function.")
        arguments = take_field(function, "arguments", dict, {}, at=f"{item_path}.function.")
        call_id = take_field(call, "id", str, "", at=f"{item_path}.")
        parts.append(ToolCallPart(call_id, name, msgspec.json.encode(arguments).decode(), arguments))
    return parts


def _tool_result(message: JSON, at: str) -> list[Part]:
    text = take_field(message, "content", str, "", at=at)
    call_id = take_field(message, "tool_call_id", str, "", at=at)
    return [ToolResultPart(call_id, text, tuple(_images(message, at)))]


_ROLES: RoleReaders = {"system": _text_parts, "user": _user, "assistant": _assistant, "tool": _tool_result}
