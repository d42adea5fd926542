"""Parse requests of Mistral's chat completions: the inverse of the adapter's request builder.

https://docs.mistral.ai/api/#tag/chat
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from lm_deluge.config import SamplingParams
from lm_deluge.encoders.encoder import ParsedRequest
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
    wrong_type,
)
from lm_deluge.encoders.tool_pairs import joined_ids
from lm_deluge.errors import BadRequestError, ConfigurationError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media, load_media
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Part,
    ProviderDataPart,
    ReasoningPart,
    TextPart,
    ToolResultPart,
)
from lm_deluge.prompt.tool_pairs import OpenCalls, Orphans

__all__ = ["parse_request"]

JSON = dict[str, Any]

_SAMPLING = (
    "temperature",
    "top_p",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "reasoning_effort",
    "top_logprobs",
    "parallel_tool_calls",
    "service_tier",
)
_PARSED_FIELDS = {
    *_SAMPLING,
    *("model", "messages", "stream", "tools", "tool_choice", "response_format", "logprobs", "max_tokens"),
    "random_seed",
}


def parse_request(body: bytes, *, model: str | None = None, is_streamed: bool | None = None) -> ParsedRequest:
    """Parse the body of a request; `model` overrides that of the body, `is_streamed` is the default of `stream`.

    Raises:
        BadRequestError: The body is not a JSON object, lacks `model` or `messages`, or has a value of a wrong type.
    """
    raw = parse_object(body)
    try:
        return ParsedRequest(
            model=model or need_field(raw, "model", str),
            conversation=Conversation(read_messages(raw, _ROLES, _unpaired_tools)),
            params=_params(raw),
            is_streamed=take_field(raw, "stream", bool, default=is_streamed or False),
            wants_usage=True,
            tools=read_tools(raw),
            output=read_output_schema(raw),
            extra={name: value for name, value in raw.items() if name not in _PARSED_FIELDS},
            raw=raw,
        )
    except ConfigurationError as error:
        raise bad_request(error.message, "invalid_value") from error


def _params(raw: JSON) -> SamplingParams:
    fields = {name: raw[name] for name in _SAMPLING if raw.get(name) is not None}
    stop = fields.get("stop")
    if stop is not None and not isinstance(stop, str | list):
        raise wrong_type("stop", list, stop)
    choice = read_tool_choice(raw.get("tool_choice"))
    return SamplingParams(
        **fields,
        seed=take_field(raw, "random_seed", int),
        max_new_tokens=take_field(raw, "max_tokens", int),
        logprobs=take_field(raw, "logprobs", bool, default=False),
        json_mode=take_field(raw, "response_format", dict, {}).get("type") == "json_object",
        tool_choice="required" if choice == "any" else choice,
    )


def _unpaired_tools(found: OpenCalls | Orphans) -> BadRequestError:
    if isinstance(found, Orphans):
        return bad_request(f"Unexpected tool call id {joined_ids(found)} in tool results")
    return bad_request("Not the same number of function calls and responses")


def _system(message: JSON, at: str) -> list[Part]:
    return read_content(required_content(message, at), f"{at}content", {"text": read_text})


def _user(message: JSON, at: str) -> list[Part]:
    return read_content(required_content(message, at), f"{at}content", _USER_PARTS)


def _assistant(message: JSON, at: str) -> list[Part]:
    parts: list[Part] = []
    content = message.get("content")
    if isinstance(content, list):
        parts += _assistant_content(content, f"{at}content")
    elif content:
        parts += read_content(content, f"{at}content", {})
    for position, call in enumerate(take_field(message, "tool_calls", list, (), at=at)):
        parts.append(read_call(call, f"{at}tool_calls[{position}]"))
    return parts


def _assistant_content(content: list[Any], at: str) -> list[Part]:
    """Return the parts of an assistant message; the signature of a thinking part follows it as opaque data."""
    parts: list[Part] = []
    for position, piece in enumerate(content):
        part_path = f"{at}[{position}]"
        parts += read_content([piece], part_path, {"text": read_text, "thinking": _thinking})
        signature = take_field(piece, "signature", str, at=part_path)
        if signature is not None:
            parts.append(ProviderDataPart("mistral-chat", "signature", signature))
    return parts


def _tool_result(message: JSON, at: str) -> list[Part]:
    text: list[str] = []
    media: list[ImagePart | FilePart | AudioPart] = []
    for part in read_content(required_content(message, at), f"{at}content", _USER_PARTS):
        if isinstance(part, TextPart):
            text.append(part.text)
        elif isinstance(part, ImagePart | FilePart | AudioPart):
            media.append(part)
    return [ToolResultPart(need_field(message, "tool_call_id", str, at=at), "".join(text), tuple(media))]


_ROLES: RoleReaders = {"system": _system, "user": _user, "assistant": _assistant, "tool": _tool_result}


def _thinking(piece: JSON, at: str) -> Part:
    inner = read_content(need_field(piece, "thinking", list, at=at), f"{at}thinking", {"text": read_text})
    return ReasoningPart("".join(part.text for part in inner if isinstance(part, TextPart)))


def _document(piece: JSON, at: str) -> Part:
    source = checked_source(need_field(piece, "document_url", str, at=at), f"{at}document_url")
    filename = take_field(piece, "document_name", str, at=at)
    return FilePart(msgspec.structs.replace(load_media(source, kind="file"), filename=filename))


def _file(piece: JSON, at: str) -> Part:
    return FilePart(Media(file_id=need_field(piece, "file_id", str, at=at)))


def _audio(piece: JSON, at: str) -> Part:
    source = need_field(piece, "input_audio", str, at=at)
    if source.startswith(("http://", "https://", "data:")):
        return AudioPart(load_media(source, kind="audio"))
    try:
        return AudioPart(load_media(base64.b64decode(source, validate=True), kind="audio"))
    except (binascii.Error, ValueError) as error:
        raise bad_request(f"Invalid '{at}input_audio': expected base64 text.", "invalid_value") from error


_USER_PARTS: PieceReaders = {
    "text": read_text,
    "image_url": read_image,
    "document_url": _document,
    "file": _file,
    "input_audio": _audio,
}
