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
from lm_deluge.encoders.cache_marks import read_cache_marks
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import BadRequestError, ConfigurationError
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

_KINDS: dict[type, str] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


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
    raw = _parse_json(body)
    if not isinstance(raw, dict):
        raise _wrong_type("body", dict, raw)
    model = raw.get("model") or model
    if not isinstance(model, str) or not model:
        raise _bad("you must provide a model parameter")
    options = _take(raw, "stream_options", dict, {})
    try:
        return ParsedRequest(
            model=model,
            conversation=Conversation(_messages(raw)),
            params=_params(raw),
            is_streamed=_take(raw, "stream", bool, default=is_streamed or False),
            wants_usage=_take(options, "include_usage", bool, default=False),
            tools=_tools(raw),
            output=_output_schema(raw),
            cache=read_cache_marks(raw),
            extra={name: value for name, value in raw.items() if name not in _READ},
            raw=raw,
        )
    except ConfigurationError as error:
        raise _bad(error.message, "invalid_value") from error


def _parse_json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad("We could not parse the JSON body of your request: the API expects a JSON payload.") from error


def _bad(message: str, code: str | None = None) -> BadRequestError:
    return BadRequestError(message, status_code=400, code=code, type="invalid_request_error")


def _wrong_type(name: str, wanted: type, value: Any) -> BadRequestError:
    got = _KINDS.get(type(value), "something else")
    return _bad(f"Invalid type for '{name}': expected {_KINDS[wanted]}, but got {got} instead.", "invalid_type")


def _missing(name: str) -> BadRequestError:
    return _bad(f"Missing required parameter: '{name}'.", "missing_required_parameter")


def _unknown(name: str, value: Any, known: Any) -> BadRequestError:
    words = ", ".join(f"'{word}'" for word in known)
    return _bad(f"Invalid value: '{str(value)[:50]}' for '{name}'. Supported values are: {words}.", "invalid_value")


def _take(fields: JSON, name: str, kind: type, default: Any = None, *, at: str = "") -> Any:
    """Return a field of a certain kind; null counts as absent."""
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise _wrong_type(f"{at}{name}", kind, value)
    return value


def _need(fields: JSON, name: str, kind: type, *, at: str = "") -> Any:
    value = _take(fields, name, kind, at=at)
    if value is None:
        raise _missing(f"{at}{name}")
    return value


def _params(raw: JSON) -> SamplingParams:
    fields = {name: raw[name] for name in _SAMPLING if raw.get(name) is not None}
    limit = _take(raw, "max_completion_tokens", int, _take(raw, "max_tokens", int))
    stop = fields.get("stop")
    if stop is not None and not isinstance(stop, str | list):
        raise _wrong_type("stop", list, stop)
    response_format = _take(raw, "response_format", dict, {})
    return SamplingParams(
        **fields,
        max_new_tokens=limit,
        logprobs=_take(raw, "logprobs", bool, default=False),
        json_mode=response_format.get("type") == "json_object",
        tool_choice=_tool_choice(raw.get("tool_choice")),
    )


def _tool_choice(choice: Any) -> str | None:
    if choice is None or isinstance(choice, str):
        return choice
    if not isinstance(choice, dict):
        raise _wrong_type("tool_choice", dict, choice)
    inner = _need(choice, "function", dict, at="tool_choice.")
    name: str = _need(inner, "name", str, at="tool_choice.function.")
    return name


def _tools(raw: JSON) -> tuple[Tool | ProviderTool, ...]:
    tools: list[Tool | ProviderTool] = []
    for position, tool in enumerate(_take(raw, "tools", list, ())):
        at = f"tools[{position}]"
        if not isinstance(tool, dict):
            raise _wrong_type(at, dict, tool)
        if tool.get("type") != "function":
            _need(tool, "type", str, at=f"{at}.")
            tools.append(ProviderTool(tool))
            continue
        inner = _need(tool, "function", dict, at=f"{at}.")
        _need(inner, "name", str, at=f"{at}.function.")
        tools.append(Tool.from_dict({name: value for name, value in inner.items() if value is not None}))
    return tuple(tools)


def _output_schema(raw: JSON) -> JSON | None:
    response_format = _take(raw, "response_format", dict, {})
    if response_format.get("type") != "json_schema":
        return None
    inner = _need(response_format, "json_schema", dict, at="response_format.")
    schema: JSON = _take(inner, "schema", dict, {}, at="response_format.json_schema.")
    return schema


def _messages(raw: JSON) -> list[Message]:
    messages = _need(raw, "messages", list)
    if not messages:
        raise _bad("Invalid 'messages': empty array. Expected at least one message.", "empty_array")
    return [_message(message, f"messages[{position}]") for position, message in enumerate(messages)]


def _message(message: Any, at: str) -> Message:
    if not isinstance(message, dict):
        raise _wrong_type(at, dict, message)
    role = _need(message, "role", str, at=f"{at}.")
    if role not in _ROLES:
        raise _unknown(f"{at}.role", role, _ROLES)
    name = _take(message, "name", str, at=f"{at}.")
    return Message(role, tuple(_ROLES[role](message, f"{at}.")), name)


def _spoken(message: JSON, at: str) -> list[Part]:
    return _content(_required_content(message, at), f"{at}content", ("text",))


def _user(message: JSON, at: str) -> list[Part]:
    return _content(_required_content(message, at), f"{at}content", ("text", "image_url", "input_audio", "file"))


def _required_content(message: JSON, at: str) -> Any:
    if message.get("content") is None:
        raise _missing(f"{at}content")
    return message["content"]


def _assistant(message: JSON, at: str) -> list[Part]:
    parts: list[Part] = []
    # Two hosts' words for the same.
    reasoning = _take(message, "reasoning_content", str, at=at) or _take(message, "reasoning", str, at=at)
    if reasoning:
        parts.append(ReasoningPart(reasoning))
    if message.get("content"):
        parts += _content(message["content"], f"{at}content", ("text", "refusal"))
    refusal = _take(message, "refusal", str, at=at)
    if refusal:
        parts.append(RefusalPart(refusal))
    for position, call in enumerate(_take(message, "tool_calls", list, (), at=at)):
        parts.append(_call(call, f"{at}tool_calls[{position}]"))
    audio = _take(message, "audio", dict, at=at)
    if audio is not None:
        parts.append(AudioPart(Media(file_id=_need(audio, "id", str, at=f"{at}audio."))))
    details = _take(message, "reasoning_details", list, at=at)
    if details:
        parts.append(ProviderDataPart("openai-chat", "reasoning_details", details))
    return parts


def _tool_result(message: JSON, at: str) -> list[Part]:
    content = _content(_required_content(message, at), f"{at}content", ("text",))
    text = "".join(part.text for part in content if isinstance(part, TextPart))
    return [ToolResultPart(_need(message, "tool_call_id", str, at=at), text)]


_ROLES: dict[str, Callable[[JSON, str], list[Part]]] = {
    "system": _spoken,
    "developer": _spoken,
    "user": _user,
    "assistant": _assistant,
    "tool": _tool_result,
}


def _call(call: Any, at: str) -> ToolCallPart:
    if not isinstance(call, dict):
        raise _wrong_type(at, dict, call)
    call_id = _need(call, "id", str, at=f"{at}.")
    custom = _take(call, "custom", dict, at=f"{at}.")
    if custom is not None:
        name = _need(custom, "name", str, at=f"{at}.custom.")
        return ToolCallPart(call_id, name, _need(custom, "input", str, at=f"{at}.custom."), custom=True)
    function = _need(call, "function", dict, at=f"{at}.")
    name = _need(function, "name", str, at=f"{at}.function.")
    text = _need(function, "arguments", str, at=f"{at}.function.")
    try:
        return ToolCallPart(call_id, name, text, msgspec.json.decode(text) if text.strip() else {})
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        # The model wrote it, not the client: it travels as it is.
        return ToolCallPart(call_id, name, text, None, f"the arguments are not JSON: {error}"[:200])


def _content(content: Any, at: str, allowed: tuple[str, ...]) -> list[Part]:
    if isinstance(content, str):
        return [TextPart(content)]
    if not isinstance(content, list):
        raise _wrong_type(at, str, content)
    parts = []
    for position, piece in enumerate(content):
        here = f"{at}[{position}]"
        if not isinstance(piece, dict):
            raise _wrong_type(here, dict, piece)
        kind = _need(piece, "type", str, at=f"{here}.")
        if kind not in allowed:
            raise _unknown(f"{here}.type", kind, allowed)
        parts.append(_PIECES[kind](piece, f"{here}."))
    return parts


def _text(piece: JSON, at: str) -> Part:
    return TextPart(_need(piece, "text", str, at=at))


def _refusal(piece: JSON, at: str) -> Part:
    return RefusalPart(_need(piece, "refusal", str, at=at))


def _image(piece: JSON, at: str) -> Part:
    image = _need(piece, "image_url", dict, at=at)
    source = _need(image, "url", str, at=f"{at}image_url.")
    if not source.startswith(("http://", "https://", "data:")):
        raise _bad(f"Invalid '{at}image_url.url': expected an http(s) or data URL.", "invalid_image_url")
    return ImagePart(load_media(source, kind="image"), _take(image, "detail", str, at=f"{at}image_url."))


def _file(piece: JSON, at: str) -> Part:
    file = _need(piece, "file", dict, at=at)
    file_id = _take(file, "file_id", str, at=f"{at}file.")
    if file_id is not None:
        return FilePart(Media(file_id=file_id))
    source = _need(file, "file_data", str, at=f"{at}file.")
    if not source.startswith(("http://", "https://", "data:")):
        raise _bad(f"Invalid '{at}file.file_data': expected a data URL.", "invalid_value")
    filename = _take(file, "filename", str, at=f"{at}file.")
    return FilePart(msgspec.structs.replace(load_media(source, kind="file"), filename=filename))


def _audio(piece: JSON, at: str) -> Part:
    audio = _need(piece, "input_audio", dict, at=at)
    data = _need(audio, "data", str, at=f"{at}input_audio.")
    try:
        return AudioPart(load_media(base64.b64decode(data, validate=True), kind="audio"))
    except (binascii.Error, ValueError) as error:
        raise _bad(f"Invalid '{at}input_audio.data': no base64 text.", "invalid_value") from error


_PIECES: dict[str, Callable[[JSON, str], Part]] = {
    "text": _text,
    "refusal": _refusal,
    "image_url": _image,
    "file": _file,
    "input_audio": _audio,
}
