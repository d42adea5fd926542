"""Parse requests of Chat Completions: the inverse of the adapter's request builder.

https://platform.openai.com/docs/api-reference/chat/create

A request that cannot be answered raises `BadRequestError` with OpenAI's wording. Media are accepted inline or by
http(s) URL only: a path in a request must never make a server read its own files.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from lm_deluge.config import SamplingParams
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.encoders.openai_chat.cache_control import read_cache_marks
from lm_deluge.encoders.openai_chat.request_fields import (
    PieceReaders,
    RoleReaders,
    bad_request,
    checked_source,
    need_field,
    parse_object,
    read_call,
    read_content,
    read_image,
    read_messages,
    read_output_schema,
    read_text,
    read_tool_choice,
    read_tools,
    required_content,
    take_field,
    unpaired_tools,
    wrong_type,
)
from lm_deluge.errors import ConfigurationError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media, load_media
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    Part,
    ProviderDataPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolResultPart,
)

__all__ = ["CHAT_ROLES", "parse_request"]

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
_PARSED_FIELDS = {
    *_SAMPLING,
    *("model", "messages", "stream", "stream_options", "tools", "tool_choice", "response_format", "logprobs"),
    *("max_completion_tokens", "max_tokens"),
}


def parse_request(body: bytes, *, model: str | None = None, is_streamed: bool | None = None) -> ParsedRequest:
    """Parse the body of a request; `model` and `is_streamed` are defaults for a body that lacks them.

    Raises:
        BadRequestError: The body is not a JSON object, lacks `model` or `messages`, or has a value of a wrong type.
    """
    raw = parse_object(body)
    model = raw.get("model") or model
    if not isinstance(model, str) or not model:
        raise bad_request("you must provide a model parameter")
    options = take_field(raw, "stream_options", dict, {})
    try:
        return ParsedRequest(
            model=model,
            conversation=Conversation(read_messages(raw, CHAT_ROLES, unpaired_tools)),
            params=_params(raw),
            is_streamed=take_field(raw, "stream", bool, default=is_streamed or False),
            wants_usage=take_field(options, "include_usage", bool, default=False),
            tools=read_tools(raw),
            output=read_output_schema(raw),
            cache=read_cache_marks(raw),
            extra={name: value for name, value in raw.items() if name not in _PARSED_FIELDS},
            raw=raw,
        )
    except ConfigurationError as error:
        raise bad_request(error.message, "invalid_value") from error


def _params(raw: JSON) -> SamplingParams:
    fields = {name: raw[name] for name in _SAMPLING if raw.get(name) is not None}
    limit = take_field(raw, "max_completion_tokens", int, take_field(raw, "max_tokens", int))
    stop = fields.get("stop")
    if stop is not None and not isinstance(stop, str | list):
        raise wrong_type("stop", list, stop)
    response_format = take_field(raw, "response_format", dict, {})
    return SamplingParams(
        **fields,
        max_new_tokens=limit,
        logprobs=take_field(raw, "logprobs", bool, default=False),
        json_mode=response_format.get("type") == "json_object",
        tool_choice=read_tool_choice(raw.get("tool_choice")),
    )


def _system(message: JSON, at: str) -> list[Part]:
    return read_content(required_content(message, at), f"{at}content", _TEXT_PARTS)


def _user(message: JSON, at: str) -> list[Part]:
    return read_content(required_content(message, at), f"{at}content", _USER_PARTS)


def _assistant(message: JSON, at: str) -> list[Part]:
    parts: list[Part] = []
    # DeepSeek calls the field `reasoning_content`, OpenRouter `reasoning`.
    reasoning = take_field(message, "reasoning_content", str, at=at) or take_field(message, "reasoning", str, at=at)
    if reasoning:
        parts.append(ReasoningPart(reasoning))
    if message.get("content"):
        parts += read_content(message["content"], f"{at}content", _ASSISTANT_PARTS)
    refusal = take_field(message, "refusal", str, at=at)
    if refusal:
        parts.append(RefusalPart(refusal))
    for position, call in enumerate(take_field(message, "tool_calls", list, (), at=at)):
        parts.append(read_call(call, f"{at}tool_calls[{position}]"))
        parts += _signature(call, f"{at}tool_calls[{position}].")
    parts += _signature(message, at)
    function_call = take_field(message, "function_call", dict, at=at)
    if function_call is not None:
        call = {"id": _legacy_id(function_call.get("name")), "function": function_call}
        parts.append(read_call(call, f"{at}function_call"))
    audio = take_field(message, "audio", dict, at=at)
    if audio is not None:
        parts.append(AudioPart(Media(file_id=need_field(audio, "id", str, at=f"{at}audio."))))
    details = take_field(message, "reasoning_details", list, at=at)
    if details:
        parts.append(ProviderDataPart("openai-chat", "reasoning_details", details))
    return parts


def _signature(signed: JSON, at: str) -> list[Part]:
    """Return Google's signature of a call or a message as opaque data."""
    extra = take_field(signed, "extra_content", dict, {}, at=at)
    google = take_field(extra, "google", dict, {}, at=f"{at}extra_content.")
    signature = take_field(google, "thought_signature", str, at=f"{at}extra_content.google.")
    return [ProviderDataPart("openai-chat", "thought_signature", signature)] if signature else []


def _tool_result(message: JSON, at: str) -> list[Part]:
    content = read_content(required_content(message, at), f"{at}content", _TEXT_PARTS)
    text = "".join(part.text for part in content if isinstance(part, TextPart))
    return [ToolResultPart(need_field(message, "tool_call_id", str, at=at), text)]


def _function_result(message: JSON, at: str) -> list[Part]:
    name = need_field(message, "name", str, at=at)
    text = take_field(message, "content", str, "", at=at)
    return [ToolResultPart(_legacy_id(name), text)]


def _legacy_id(name: Any) -> str:
    """Return the id of a deprecated `function_call` and of its result, which refer to each other by the name alone."""
    return f"function_{name}"


CHAT_ROLES: RoleReaders = {
    "system": _system,
    "developer": _system,
    "user": _user,
    "assistant": _assistant,
    "tool": _tool_result,
    "function": _function_result,
}


def _refusal(piece: JSON, at: str) -> Part:
    return RefusalPart(need_field(piece, "refusal", str, at=at))


def _file(piece: JSON, at: str) -> Part:
    file = need_field(piece, "file", dict, at=at)
    file_id = take_field(file, "file_id", str, at=f"{at}file.")
    if file_id is not None:
        return FilePart(Media(file_id=file_id))
    source = checked_source(need_field(file, "file_data", str, at=f"{at}file."), f"{at}file.file_data", "a data URL")
    filename = take_field(file, "filename", str, at=f"{at}file.")
    media = load_media(source, kind="file", filename=filename)
    if media.data is not None and media.media_type != "application/pdf":
        raise bad_request(
            f"Invalid file data: '{at}file.file_data'. Expected a base64-encoded data URL with an application/pdf MIME "
            f"type, but got unsupported MIME type '{media.media_type}'.",
            "invalid_value",
        )
    return FilePart(media)


def _audio(piece: JSON, at: str) -> Part:
    audio = need_field(piece, "input_audio", dict, at=at)
    data = need_field(audio, "data", str, at=f"{at}input_audio.")
    try:
        return AudioPart(load_media(base64.b64decode(data, validate=True), kind="audio"))
    except (binascii.Error, ValueError) as error:
        raise bad_request(f"Invalid '{at}input_audio.data': expected base64 text.", "invalid_value") from error


def _reasoning(piece: JSON, at: str) -> list[Part]:
    """Return the reasoning in a piece of content, with the piece as opaque data (Databricks)."""
    summary = need_field(piece, "summary", list, at=at)
    entries = [entry for entry in summary if isinstance(entry, dict)]
    text = "".join(take_field(entry, "text", str, "", at=f"{at}summary.") for entry in entries)
    reasoning: list[Part] = [ReasoningPart(text)] if text else []
    return [*reasoning, ProviderDataPart("openai-chat", "reasoning_item", piece)]


_TEXT_PARTS: PieceReaders = {"text": read_text}
_USER_PARTS: PieceReaders = {**_TEXT_PARTS, "image_url": read_image, "input_audio": _audio, "file": _file}
_ASSISTANT_PARTS: PieceReaders = {**_TEXT_PARTS, "refusal": _refusal, "reasoning": _reasoning}
