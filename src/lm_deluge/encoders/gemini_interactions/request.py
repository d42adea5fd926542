"""Parse requests of Gemini's Interactions API: the inverse of the adapter's request builder.

https://ai.google.dev/gemini-api/docs/interactions

`generation_config` is also passed on whole in `extra` if it contains settings without a counterpart.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from lm_deluge.config import SamplingParams
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.encoders.gemini_generate.fields import JSON, bad_request, need, parse_object, take
from lm_deluge.encoders.tool_pairs import check_tool_pairs, joined_ids
from lm_deluge.errors import BadRequestError, ConfigurationError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message, Role
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Part,
    ProviderDataPart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from lm_deluge.prompt.tool import ProviderTool, Tool
from lm_deluge.prompt.tool_pairs import OpenCalls, Orphans

__all__ = ["parse_request"]

_OWNER = "gemini-interactions"
_PARSED_FIELDS = {
    "model",
    "input",
    "system_instruction",
    "tools",
    "generation_config",
    "response_format",
    "service_tier",
    "stream",
}
_PARAMETERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "max_output_tokens": "max_new_tokens",
    "stop_sequences": "stop",
    "seed": "seed",
}
_TOOL_FIELDS = {"type", "name", "description", "parameters"}
_CHOICES = {"auto": "auto", "none": "none", "any": "required"}
_MEDIA: dict[str, type[ImagePart | FilePart | AudioPart]] = {
    "image": ImagePart,
    "document": FilePart,
    "audio": AudioPart,
}


def parse_request(body: bytes, *, model: str | None = None, is_streamed: bool | None = None) -> ParsedRequest:
    """Parse the body of a request; `model` and `is_streamed` are defaults for a body that lacks them.

    Raises:
        BadRequestError: The body is not a JSON object, lacks `model` or `input`, or has a value of a wrong type.
    """
    raw = parse_object(body)
    name = str(raw.get("model") or model or "").removeprefix("models/")
    if not name:
        raise bad_request("Either 'model' or 'agent' must be set.")
    config = take(raw, "generation_config", dict, {})
    extra = {name: value for name, value in raw.items() if name not in _PARSED_FIELDS}
    choice, is_complete = _tool_choice(config.get("tool_choice"))
    if not is_complete or not _is_known(config):
        extra["generation_config"] = config
    if any(tool.get("type") == "function" and set(tool) - _TOOL_FIELDS for tool in _tool_objects(raw)):
        extra["tools"] = raw["tools"]  # passed on unchanged: `Tool` lacks some of their fields
    schema, is_json = _format(raw)
    if raw.get("response_format") is not None and not is_json:
        extra["response_format"] = raw["response_format"]
    try:
        return ParsedRequest(
            model=name,
            conversation=Conversation([*_instruction(raw), *_messages(raw)]),
            params=_params(config, choice, raw, json_mode=is_json and schema is None),
            is_streamed=take(raw, "stream", bool, default=is_streamed or False),
            wants_usage=True,
            tools=tuple(_tools(raw)),
            output=schema,
            extra=extra,
            raw=raw,
        )
    except ConfigurationError as error:
        raise bad_request(error.message) from error


def _is_known(config: JSON) -> bool:
    """Whether the sampling parameters represent the settings completely; an effort implies thought summaries."""
    thinking = config.get("thinking_level"), config.get("thinking_summaries")
    is_known_thinking = thinking == (None, None) or (thinking[0] is not None and thinking[1] == "auto")
    return is_known_thinking and set(config) <= {*_PARAMETERS, "thinking_level", "thinking_summaries", "tool_choice"}


def _params(config: JSON, choice: str | None, raw: JSON, *, json_mode: bool) -> SamplingParams:
    read = {ours: config[name] for name, ours in _PARAMETERS.items() if config.get(name) is not None}
    level: Any = take(config, "thinking_level", str)
    return SamplingParams(
        **read,
        json_mode=json_mode,
        reasoning_effort=level if level in ("minimal", "low", "medium", "high", "xhigh") else None,
        tool_choice=choice,
        service_tier=take(raw, "service_tier", str),
    )


def _tool_choice(choice: Any) -> tuple[str | None, bool]:
    """Return the tool choice, and whether it represents the setting completely."""
    if choice is None:
        return None, True
    if isinstance(choice, str):
        return _CHOICES.get(choice), choice in _CHOICES
    allowed = choice.get("allowed_tools") if isinstance(choice, dict) else None
    names = allowed.get("tools") if isinstance(allowed, dict) else None
    if isinstance(names, list) and len(names) == 1 and allowed == {"mode": "any", "tools": names}:
        return str(names[0]), True
    return None, False


def _format(raw: JSON) -> tuple[JSON | None, bool]:
    """Return the schema that the response must follow, and whether the response must be JSON."""
    found = raw.get("response_format")
    if not isinstance(found, dict) or found.get("type") != "text" or found.get("mime_type") != "application/json":
        return None, False
    return take(found, "schema", dict, at="response_format."), True


def _tool_objects(raw: JSON) -> Iterator[JSON]:
    for position, tool in enumerate(take(raw, "tools", list, [])):
        if not isinstance(tool, dict):
            raise bad_request(f"Invalid value at 'tools[{position}]': it must be an object.")
        yield tool


def _tools(raw: JSON) -> Iterator[Tool | ProviderTool]:
    for tool in _tool_objects(raw):
        if tool.get("type") == "function":
            yield Tool.from_dict(
                {name: value for name, value in tool.items() if value is not None and name in _TOOL_FIELDS}
            )
        else:
            yield ProviderTool(tool)


def _instruction(raw: JSON) -> list[Message]:
    text = take(raw, "system_instruction", str)
    return [] if text is None else [Message.system(text)]


def _messages(raw: JSON) -> list[Message]:
    """Return the messages of the input, which is a text, a list of user content, or a list of steps."""
    steps_or_text = raw.get("input")
    if isinstance(steps_or_text, str):
        return [Message.user(steps_or_text)]
    steps = [steps_or_text] if isinstance(steps_or_text, dict) else steps_or_text
    if not isinstance(steps, list) or not steps:
        raise bad_request("Missing field 'input'.")
    if not all(isinstance(step, dict) and isinstance(step.get("type"), str) for step in steps):
        raise bad_request("Invalid value at 'input': each item must be an object with a type.")
    if all(step["type"] in ("text", *_MEDIA) for step in steps):
        return [Message("user", tuple(_content(step, "input") for step in steps))]
    messages: list[Message] = []
    for position, step in enumerate(steps):
        role, parts = _step(step, f"input[{position}].")
        last = messages[-1] if messages else None
        # Consecutive user steps stay separate messages; steps of other roles are joined.
        if last is not None and last.role == role and role != "user":
            messages[-1] = Message(role, (*last.parts, *parts))
        else:
            messages.append(Message(role, tuple(parts)))
    if not raw.get("previous_interaction_id"):
        check_tool_pairs(messages, "later", _unpaired_tools)
    return messages


def _unpaired_tools(found: OpenCalls | Orphans) -> BadRequestError:
    kinds = (
        ("function_call", "function_result") if isinstance(found, OpenCalls) else ("function_result", "function_call")
    )
    return bad_request(f"Invalid value at 'input': the {kinds[0]} of {joined_ids(found)} has no {kinds[1]}.")


def _step(step: JSON, at: str) -> tuple[Role, list[Part]]:
    read = _STEPS.get(step["type"])
    if read is None:
        return "assistant", [ProviderDataPart(_OWNER, step["type"], step)]
    return read(step, at)


def _user_input(step: JSON, at: str) -> tuple[Role, list[Part]]:
    return "user", [_content(each, at) for each in _contents(step.get("content"), at)]


def _model_output(step: JSON, at: str) -> tuple[Role, list[Part]]:
    return "assistant", [_content(each, at) for each in _contents(step.get("content"), at)]


def _reasoning(step: JSON, at: str) -> tuple[Role, list[Part]]:
    texts = [take(each, "text", str, "", at=at) for each in _contents(step.get("summary"), at)]
    signature = take(step, "signature", str, at=at)
    signed: list[Part] = [] if signature is None else [ProviderDataPart(_OWNER, "thought_signature", signature)]
    return "assistant", [*([ReasoningPart("".join(texts))] if texts else []), *signed]


def _function_call(step: JSON, at: str) -> tuple[Role, list[Part]]:
    arguments = take(step, "arguments", dict, {}, at=at)
    text = msgspec.json.encode(arguments).decode()
    return "assistant", [ToolCallPart(need(step, "id", str, at=at), need(step, "name", str, at=at), text, arguments)]


def _function_result(step: JSON, at: str) -> tuple[Role, list[Part]]:
    result, media, text = step.get("result"), [], ""
    if isinstance(result, str):
        text = result
    elif isinstance(result, list):
        parts = [_content(each, at) for each in _contents(result, at)]
        text = "".join(part.text for part in parts if isinstance(part, TextPart))
        media = [part for part in parts if isinstance(part, ImagePart | FilePart | AudioPart)]
    elif result is not None:
        text = msgspec.json.encode(result).decode()
    is_error = take(step, "is_error", bool, default=False, at=at)
    return "tool", [ToolResultPart(need(step, "call_id", str, at=at), text, tuple(media), is_error)]


_STEPS: dict[str, Callable[[JSON, str], tuple[Role, list[Part]]]] = {
    "user_input": _user_input,
    "model_output": _model_output,
    "thought": _reasoning,
    "function_call": _function_call,
    "function_result": _function_result,
}


def _contents(content: Any, at: str) -> list[JSON]:
    found = [] if content is None else content if isinstance(content, list) else [content]
    if not all(isinstance(each, dict) for each in found):
        raise bad_request(f"Invalid value at '{at}content': it must be a list of objects.")
    return found


def _content(content: JSON, at: str) -> Part:
    kind = content.get("type")
    if kind == "text":
        return TextPart(need(content, "text", str, at=at))
    if kind not in _MEDIA:
        raise bad_request(f"Invalid value at '{at}type': '{str(kind)[:50]}' is not supported.")
    media_type, data, uri = (take(content, name, str, at=at) for name in ("mime_type", "data", "uri"))
    if data is None and uri is None:
        raise bad_request(f"Missing field '{at}data'.")
    if data is not None:
        media = Media(media_type=media_type, data=_decoded(data, at))
    else:
        is_url = str(uri).startswith(("http://", "https://"))
        media = Media(media_type=media_type, url=uri if is_url else None, file_id=None if is_url else uri)
    return ImagePart(media, take(content, "resolution", str, at=at)) if kind == "image" else _MEDIA[kind](media)


def _decoded(data: str, at: str) -> bytes:
    try:
        return base64.b64decode(data.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_request(f"Invalid value at '{at}data': Base64 decoding failed.") from error
