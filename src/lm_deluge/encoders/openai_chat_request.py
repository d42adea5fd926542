"""Requests of Chat Completions, read: the inverse of what the adapter builds.

https://platform.openai.com/docs/api-reference/chat/create

What cannot be answered raises `BadRequestError` in OpenAI's words. Media are taken inline or by http(s) URL only:
a path in a request must never make a server read its own files.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import msgspec

from lm_deluge.config import SamplingParams
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.encoders.request_fields import bad, missing, need, parse_json, take, unknown, wrong_type
from lm_deluge.errors import ConfigurationError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media, load_media
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
from lm_deluge.prompt.tool import ProviderTool, Tool

__all__ = ["parse_request"]

JSON = dict[str, Any]

_SAMPLING = (
    "temperature",
    "top_p",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "reasoning_effort",
    "top_logprobs",
    "parallel_tool_calls",
    "service_tier",
    "verbosity",
)
_READ = {
    *_SAMPLING,
    *("model", "messages", "stream", "stream_options", "tools", "tool_choice", "response_format", "logprobs"),
    *("max_completion_tokens", "max_tokens"),
}


def parse_request(body: bytes, *, model: str | None = None, is_streamed: bool | None = None) -> ParsedRequest:
    """Read the body of a request, which says everything: the path adds nothing to it.

    Raises:
        BadRequestError: It is no JSON object, lacks `model` or `messages`, or a value is of a wrong kind.
    """
    raw = parse_json(body)
    if not isinstance(raw, dict):
        raise wrong_type("body", dict, raw)
    model = raw.get("model") or model
    if not isinstance(model, str) or not model:
        raise bad("you must provide a model parameter")
    options = take(raw, "stream_options", dict, {})
    try:
        return ParsedRequest(
            model=model,
            conversation=Conversation(_messages(raw)),
            params=_params(raw),
            is_streamed=take(raw, "stream", bool, default=is_streamed or False),
            wants_usage=take(options, "include_usage", bool, default=False),
            tools=_tools(raw),
            output=_output_schema(raw),
            extra={name: value for name, value in raw.items() if name not in _READ},
            raw=raw,
        )
    except ConfigurationError as error:
        raise bad(error.message, "invalid_value") from error


def _params(raw: JSON) -> SamplingParams:
    fields = {name: raw[name] for name in _SAMPLING if raw.get(name) is not None}
    limit = take(raw, "max_completion_tokens", int, take(raw, "max_tokens", int))
    stop = fields.get("stop")
    if stop is not None and not isinstance(stop, str | list):
        raise wrong_type("stop", list, stop)
    response_format = take(raw, "response_format", dict, {})
    return SamplingParams(
        **fields,
        max_new_tokens=limit,
        logprobs=take(raw, "logprobs", bool, default=False),
        json_mode=response_format.get("type") == "json_object",
        tool_choice=_tool_choice(raw.get("tool_choice")),
    )


def _tool_choice(choice: Any) -> str | None:
    if choice is None or isinstance(choice, str):
        return choice
    if not isinstance(choice, dict):
        raise wrong_type("tool_choice", dict, choice)
    inner = need(choice, "function", dict, at="tool_choice.")
    name: str = need(inner, "name", str, at="tool_choice.function.")
    return name


def _tools(raw: JSON) -> tuple[Tool | ProviderTool, ...]:
    tools: list[Tool | ProviderTool] = []
    for position, tool in enumerate(take(raw, "tools", list, ())):
        at = f"tools[{position}]"
        if not isinstance(tool, dict):
            raise wrong_type(at, dict, tool)
        if tool.get("type") != "function":
            need(tool, "type", str, at=f"{at}.")
            tools.append(ProviderTool(tool))
            continue
        inner = need(tool, "function", dict, at=f"{at}.")
        need(inner, "name", str, at=f"{at}.function.")
        tools.append(Tool.from_dict({name: value for name, value in inner.items() if value is not None}))
    return tuple(tools)


def _output_schema(raw: JSON) -> JSON | None:
    response_format = take(raw, "response_format", dict, {})
    if response_format.get("type") != "json_schema":
        return None
    inner = need(response_format, "json_schema", dict, at="response_format.")
    schema: JSON = take(inner, "schema", dict, {}, at="response_format.json_schema.")
    return schema


def _messages(raw: JSON) -> list[Message]:
    messages = need(raw, "messages", list)
    if not messages:
        raise bad("Invalid 'messages': empty array. Expected at least one message.", "empty_array")
    return [_message(message, f"messages[{position}]") for position, message in enumerate(messages)]


def _message(message: Any, at: str) -> Message:
    if not isinstance(message, dict):
        raise wrong_type(at, dict, message)
    role = need(message, "role", str, at=f"{at}.")
    if role not in _ROLES:
        raise unknown(f"{at}.role", role, _ROLES)
    name = take(message, "name", str, at=f"{at}.")
    return Message(role, tuple(_ROLES[role](message, f"{at}.")), name)


def _spoken(message: JSON, at: str) -> list[Part]:
    return _content(_required_content(message, at), f"{at}content", ("text",))


def _user(message: JSON, at: str) -> list[Part]:
    return _content(_required_content(message, at), f"{at}content", ("text", "image_url", "input_audio", "file"))


def _required_content(message: JSON, at: str) -> Any:
    if message.get("content") is None:
        raise missing(f"{at}content")
    return message["content"]


def _assistant(message: JSON, at: str) -> list[Part]:
    parts: list[Part] = []
    reasoning = take(message, "reasoning_content", str, at=at)
    if reasoning:
        parts.append(ReasoningPart(reasoning))
    if message.get("content"):
        parts += _content(message["content"], f"{at}content", ("text", "refusal"))
    refusal = take(message, "refusal", str, at=at)
    if refusal:
        parts.append(RefusalPart(refusal))
    for position, call in enumerate(take(message, "tool_calls", list, (), at=at)):
        parts.append(_call(call, f"{at}tool_calls[{position}]"))
    audio = take(message, "audio", dict, at=at)
    if audio is not None:
        parts.append(AudioPart(Media(file_id=need(audio, "id", str, at=f"{at}audio."))))
    details = take(message, "reasoning_details", list, at=at)
    if details:
        parts.append(ProviderDataPart("openai-chat", "reasoning_details", details))
    return parts


def _tool_result(message: JSON, at: str) -> list[Part]:
    content = _content(_required_content(message, at), f"{at}content", ("text",))
    text = "".join(part.text for part in content if isinstance(part, TextPart))
    return [ToolResultPart(need(message, "tool_call_id", str, at=at), text)]


_ROLES: dict[str, Callable[[JSON, str], list[Part]]] = {
    "system": _spoken,
    "developer": _spoken,
    "user": _user,
    "assistant": _assistant,
    "tool": _tool_result,
}


def _call(call: Any, at: str) -> ToolCallPart:
    if not isinstance(call, dict):
        raise wrong_type(at, dict, call)
    call_id = need(call, "id", str, at=f"{at}.")
    custom = take(call, "custom", dict, at=f"{at}.")
    if custom is not None:
        name = need(custom, "name", str, at=f"{at}.custom.")
        return ToolCallPart(call_id, name, need(custom, "input", str, at=f"{at}.custom."), custom=True)
    function = need(call, "function", dict, at=f"{at}.")
    name = need(function, "name", str, at=f"{at}.function.")
    text = need(function, "arguments", str, at=f"{at}.function.")
    try:
        return ToolCallPart(call_id, name, text, msgspec.json.decode(text) if text.strip() else {})
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        # The model wrote it, not the client: it travels as it is.
        return ToolCallPart(call_id, name, text, None, f"the arguments are not JSON: {error}"[:200])


def _content(content: Any, at: str, allowed: tuple[str, ...]) -> list[Part]:
    if isinstance(content, str):
        return [TextPart(content)]
    if not isinstance(content, list):
        raise wrong_type(at, str, content)
    parts = []
    for position, piece in enumerate(content):
        here = f"{at}[{position}]"
        if not isinstance(piece, dict):
            raise wrong_type(here, dict, piece)
        kind = need(piece, "type", str, at=f"{here}.")
        if kind not in allowed:
            raise unknown(f"{here}.type", kind, allowed)
        parts.append(_PIECES[kind](piece, f"{here}."))
    return parts


def _text(piece: JSON, at: str) -> Part:
    return TextPart(need(piece, "text", str, at=at))


def _refusal(piece: JSON, at: str) -> Part:
    return RefusalPart(need(piece, "refusal", str, at=at))


def _image(piece: JSON, at: str) -> Part:
    image = need(piece, "image_url", dict, at=at)
    source = need(image, "url", str, at=f"{at}image_url.")
    if not source.startswith(("http://", "https://", "data:")):
        raise bad(f"Invalid '{at}image_url.url': expected an http(s) or data URL.", "invalid_image_url")
    return ImagePart(load_media(source, kind="image"), take(image, "detail", str, at=f"{at}image_url."))


def _file(piece: JSON, at: str) -> Part:
    file = need(piece, "file", dict, at=at)
    file_id = take(file, "file_id", str, at=f"{at}file.")
    if file_id is not None:
        return FilePart(Media(file_id=file_id))
    source = need(file, "file_data", str, at=f"{at}file.")
    if not source.startswith(("http://", "https://", "data:")):
        raise bad(f"Invalid '{at}file.file_data': expected a data URL.", "invalid_value")
    filename = take(file, "filename", str, at=f"{at}file.")
    return FilePart(msgspec.structs.replace(load_media(source, kind="file"), filename=filename))


def _audio(piece: JSON, at: str) -> Part:
    audio = need(piece, "input_audio", dict, at=at)
    data = need(audio, "data", str, at=f"{at}input_audio.")
    try:
        return AudioPart(load_media(base64.b64decode(data, validate=True), kind="audio"))
    except (binascii.Error, ValueError) as error:
        raise bad(f"Invalid '{at}input_audio.data': no base64 text.", "invalid_value") from error


_PIECES: dict[str, Callable[[JSON, str], Part]] = {
    "text": _text,
    "refusal": _refusal,
    "image_url": _image,
    "file": _file,
    "input_audio": _audio,
}
