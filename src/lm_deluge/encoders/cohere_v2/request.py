"""Parse requests of Cohere's Chat API: the inverse of the request builder of the adapter `cohere-v2`.

https://docs.cohere.com/v2/reference/chat-stream
"""

from __future__ import annotations

from typing import Any

from lm_deluge.config import ReasoningEffort, SamplingParams
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.encoders.openai_chat.request_fields import (
    PieceReaders,
    RoleReaders,
    bad_request,
    need_field,
    parse_object,
    read_call,
    read_content,
    read_image,
    read_messages,
    read_text,
    read_tools,
    required_content,
    take_field,
    unknown_value,
    unpaired_tools,
)
from lm_deluge.errors import ConfigurationError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.parts import Part, ProviderDataPart, ReasoningPart, TextPart, ToolResultPart
from lm_deluge.prompt.tool import ProviderTool, Tool

__all__ = ["parse_request"]

JSON = dict[str, Any]

_PARAMETERS = {
    "temperature": "temperature",
    "p": "top_p",
    "max_tokens": "max_new_tokens",
    "stop_sequences": "stop",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
_PARSED_FIELDS = {
    *_PARAMETERS,
    *("model", "messages", "stream", "tools", "strict_tools", "tool_choice", "response_format", "logprobs"),
}
_CHOICES = {"REQUIRED": "required", "NONE": "none"}

# The reasoning effort of each thinking budget in tokens: the inverse of the adapter's table.
_EFFORTS: dict[int | None, ReasoningEffort] = {512: "minimal", 2_048: "low", 8_192: "medium", None: "high"}


def parse_request(body: bytes, *, model: str | None = None, is_streamed: bool | None = None) -> ParsedRequest:
    """Parse the body of a request; `model` overrides that of the body, `is_streamed` is the default of `stream`.

    Raises:
        BadRequestError: The body is not a JSON object, lacks `model` or `messages`, or has a value of a wrong type.
    """
    raw = parse_object(body)
    effort = _effort(raw)
    parsed_fields = _PARSED_FIELDS if effort is None else {*_PARSED_FIELDS, "thinking"}
    try:
        return ParsedRequest(
            model=model or need_field(raw, "model", str),
            conversation=Conversation(read_messages(raw, _ROLES, unpaired_tools)),
            params=_params(raw, effort),
            is_streamed=take_field(raw, "stream", bool, default=is_streamed or False),
            wants_usage=True,
            tools=_tools(raw),
            output=_schema(raw),
            extra={name: value for name, value in raw.items() if name not in parsed_fields},
            raw=raw,
        )
    except ConfigurationError as error:
        raise bad_request(error.message, "invalid_value") from error


def _params(raw: JSON, effort: ReasoningEffort | None) -> SamplingParams:
    choice = take_field(raw, "tool_choice", str)
    if choice is not None and choice not in _CHOICES:
        raise unknown_value("tool_choice", choice, _CHOICES)
    response_format = take_field(raw, "response_format", dict, {})
    return SamplingParams(
        **{ours: raw[theirs] for theirs, ours in _PARAMETERS.items() if raw.get(theirs) is not None},
        reasoning_effort=effort,
        logprobs=take_field(raw, "logprobs", bool, default=False),
        json_mode=response_format.get("type") == "json_object" and _schema(raw) is None,
        tool_choice=None if choice is None else _CHOICES[choice],
    )


def _effort(raw: JSON) -> ReasoningEffort | None:
    """Return the reasoning effort equivalent to the request's thinking budget, None if no effort has this budget."""
    thinking = take_field(raw, "thinking", dict)
    if thinking is None:
        return None
    if thinking.get("type") == "disabled":
        return "none"
    return _EFFORTS.get(take_field(thinking, "token_budget", int, at="thinking."))


def _tools(raw: JSON) -> tuple[Tool | ProviderTool, ...]:
    tools = read_tools(raw)
    if not take_field(raw, "strict_tools", bool, default=False):
        return tools
    return tuple(
        Tool(name=tool.name, description=tool.description, parameters=tool.parameters, strict=True)
        if isinstance(tool, Tool)
        else tool
        for tool in tools
    )


def _schema(raw: JSON) -> JSON | None:
    response_format = take_field(raw, "response_format", dict, {})
    # Older clients call the field `schema`.
    schema = take_field(response_format, "schema", dict, at="response_format.")
    found: JSON | None = take_field(response_format, "json_schema", dict, schema, at="response_format.")
    return found


def _system(message: JSON, at: str) -> list[Part]:
    return read_content(required_content(message, at), f"{at}content", {"text": read_text})


def _user(message: JSON, at: str) -> list[Part]:
    return read_content(required_content(message, at), f"{at}content", {"text": read_text, "image_url": read_image})


def _assistant(message: JSON, at: str) -> list[Part]:
    parts: list[Part] = []
    if message.get("content"):
        content = read_content(message["content"], f"{at}content", _ASSISTANT_PARTS)
        parts += [part for part in content if not isinstance(part, TextPart) or part.text]
    plan = take_field(message, "tool_plan", str, at=at)
    if plan:
        parts.append(ProviderDataPart("cohere-v2", "tool_plan", plan))
    for position, call in enumerate(take_field(message, "tool_calls", list, (), at=at)):
        parts.append(read_call(call, f"{at}tool_calls[{position}]"))
    return parts


def _tool_result(message: JSON, at: str) -> list[Part]:
    content = read_content(required_content(message, at), f"{at}content", {"text": read_text, "document": _document})
    text = "".join(part.text for part in content if isinstance(part, TextPart))
    return [ToolResultPart(need_field(message, "tool_call_id", str, at=at), text)]


_ROLES: RoleReaders = {"system": _system, "user": _user, "assistant": _assistant, "tool": _tool_result}


def _thinking(piece: JSON, at: str) -> Part:
    return ReasoningPart(need_field(piece, "thinking", str, at=at))


def _document(piece: JSON, at: str) -> Part:
    """Return the text in the fields of a document."""
    data = need_field(need_field(piece, "document", dict, at=at), "data", dict, at=f"{at}document.")
    return TextPart("\n".join(value for value in data.values() if isinstance(value, str)))


_ASSISTANT_PARTS: PieceReaders = {"text": read_text, "thinking": _thinking}
