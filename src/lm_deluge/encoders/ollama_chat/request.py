"""Requests of Ollama's own chat API, read: the inverse of what the adapter `ollama-chat` builds.

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

_NAMES = {
    "temperature": "temperature",
    "top_p": "top_p",
    "num_predict": "max_new_tokens",
    "stop": "stop",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
_READ = {"model", "messages", "stream", "tools", "format", "options", "think", "logprobs", "top_logprobs"}
_EFFORTS: dict[str, ReasoningEffort] = {"low": "low", "medium": "medium", "high": "high"}


def parse_request(body: bytes, *, model: str | None = None, is_streamed: bool | None = None) -> ParsedRequest:
    """Read the body of a request, which says everything: the path adds nothing to it. It asks for a stream by default.

    Raises:
        BadRequestError: It is no JSON object, lacks `model` or `messages`, or a value is of a wrong kind.
    """
    raw = parse_object(body)
    options = take_field(raw, "options", dict, {})
    extra = {name: value for name, value in raw.items() if name not in _READ}
    others = {name: value for name, value in options.items() if name not in _NAMES}
    if others:
        extra["options"] = others
    try:
        return ParsedRequest(
            model=model or need_field(raw, "model", str),
            conversation=Conversation(_with_ids(read_messages(raw, _ROLES), raw["messages"])),
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
    fields = {ours: options[theirs] for theirs, ours in _NAMES.items() if options.get(theirs) not in (None, [])}
    if isinstance(fields.get("max_new_tokens"), int) and fields["max_new_tokens"] < 1:
        del fields["max_new_tokens"]  # -1 and -2 are "no limit"
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
    """Return the messages with an id for each call and its result; older clients have the tool's name alone."""
    named: list[Message] = []
    waiting: list[tuple[str, str]] = []  # calls without a result: name and id
    for number, (message, fields) in enumerate(zip(messages, raw, strict=True)):
        tool = take_field(fields, "tool_name", str, at=f"messages[{number}].")
        parts: list[Part] = []
        for part in message.parts:
            if isinstance(part, ToolCallPart):
                call_id = part.id or f"call_{number}_{len(parts)}"
                waiting.append((part.name, call_id))
                parts.append(msgspec.structs.replace(part, id=call_id))
            elif isinstance(part, ToolResultPart) and not part.tool_call_id:
                parts.append(msgspec.structs.replace(part, tool_call_id=_taken_id(tool, waiting)))
            else:
                parts.append(part)
        named.append(Message(message.role, tuple(parts), tool))
    return named


def _taken_id(tool: str | None, waiting: list[tuple[str, str]]) -> str:
    """Take the first call of a tool that waits for its result; of any tool, where the result does not say which."""
    fitting = [each for each in waiting if tool in (None, each[0])]
    if not fitting:
        return ""
    waiting.remove(fitting[0])
    return fitting[0][1]


def _spoken(message: JSON, at: str) -> list[Part]:
    text = take_field(message, "content", str, "", at=at)
    return [TextPart(text)] if text else []


def _user(message: JSON, at: str) -> list[Part]:
    return [*_spoken(message, at), *_images(message, at)]


def _images(message: JSON, at: str) -> list[ImagePart]:
    images = []
    for position, data in enumerate(take_field(message, "images", list, (), at=at)):
        here = f"{at}images[{position}]"
        if not isinstance(data, str):
            raise wrong_type(here, str, data)
        try:
            decoded = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise bad_request(f"Invalid '{here}': no base64 text.", "invalid_value") from error
        images.append(ImagePart(load_media(decoded, kind="image")))
    return images


def _assistant(message: JSON, at: str) -> list[Part]:
    thinking = take_field(message, "thinking", str, at=at)
    parts: list[Part] = [ReasoningPart(thinking)] if thinking else []
    parts += _spoken(message, at)
    for position, call in enumerate(take_field(message, "tool_calls", list, (), at=at)):
        here = f"{at}tool_calls[{position}]"
        if not isinstance(call, dict):
            raise wrong_type(here, dict, call)
        function = need_field(call, "function", dict, at=f"{here}.")
        name = need_field(function, "name", str, at=f"{here}.function.")
        arguments = take_field(function, "arguments", dict, {}, at=f"{here}.function.")
        call_id = take_field(call, "id", str, "", at=f"{here}.")
        parts.append(ToolCallPart(call_id, name, msgspec.json.encode(arguments).decode(), arguments))
    return parts


def _tool_result(message: JSON, at: str) -> list[Part]:
    text = take_field(message, "content", str, "", at=at)
    call_id = take_field(message, "tool_call_id", str, "", at=at)
    return [ToolResultPart(call_id, text, tuple(_images(message, at)))]


_ROLES: RoleReaders = {"system": _spoken, "user": _user, "assistant": _assistant, "tool": _tool_result}
