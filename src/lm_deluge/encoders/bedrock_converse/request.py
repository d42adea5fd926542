"""Parse requests of Converse: the inverse of the adapter's request builder.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from lm_deluge.config import PromptCache, SamplingParams
from lm_deluge.encoders.bedrock_converse.fields import invalid, need, read_object, take
from lm_deluge.encoders.bedrock_converse.messages import CACHE_POINT, MessageReader, without_marks
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import ConfigurationError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.tool import ProviderTool, Tool

__all__ = ["extract_cache", "parse_request", "read_tool_choice", "read_tools"]

JSON = dict[str, Any]
ConversationAndTools: TypeAlias = tuple[Conversation, tuple[Tool | ProviderTool, ...]]

_PARSED_FIELDS = {"messages", "system", "inferenceConfig", "toolConfig", "serviceTier", "outputConfig"}
_ADAPTIVE = ({"type": "adaptive"}, {"type": "adaptive", "display": "summarized"})
_VENDOR_FIELDS = "additionalModelRequestFields"
_VALUES_BY_USER_MARKS: dict[int, PromptCache] = {
    1: "last_user_message",
    2: "last_2_user_messages",
    3: "last_3_user_messages",
}


def parse_request(body: bytes, *, model: str | None = None, is_streamed: bool | None = None) -> ParsedRequest:
    """Parse the body of a request; the model and the streaming mode are in the path, so they are arguments.

    Raises:
        BadRequestError: The body is not a JSON object, lacks `messages`, or has a value of a wrong type.
    """
    raw = read_object(body)
    if not model:
        raise invalid("The value at modelId failed to satisfy constraint: Member must not be null.")
    reader = MessageReader("bedrock-converse")
    try:
        cache, (conversation, tools) = extract_cache(raw, reader, reader.read(raw))
        effort, extra = _effort(raw)
        return ParsedRequest(
            model=model,
            conversation=conversation,
            params=_params(raw, effort),
            is_streamed=bool(is_streamed),
            wants_usage=True,
            tools=tools,
            output=_output(raw),
            cache=cache,
            extra=extra,
            raw=raw,
        )
    except ConfigurationError as error:
        raise invalid(error.message) from error


def _params(raw: JSON, effort: Any) -> SamplingParams:
    config = take(raw, "inferenceConfig", dict, {})
    at = "inferenceConfig."
    return SamplingParams(
        max_new_tokens=take(config, "maxTokens", int, at=at),
        temperature=take(config, "temperature", (int, float), at=at),
        top_p=take(config, "topP", (int, float), at=at),
        stop=take(config, "stopSequences", list, at=at) or None,
        service_tier=take(take(raw, "serviceTier", dict, {}), "type", str, at="serviceTier."),
        tool_choice=read_tool_choice(raw),
        reasoning_effort=effort,
    )


def _effort(raw: JSON) -> tuple[str | None, JSON]:
    """Return the reasoning effort, and the fields of the body to pass on because they have no counterpart."""
    extra = {name: value for name, value in raw.items() if name not in _PARSED_FIELDS}
    effort: str | None = take(take(raw, "outputConfig", dict, {}), "effort", str, at="outputConfig.")
    found = _effort_of_fields(raw.get(_VENDOR_FIELDS), effort)
    if found is not None:
        del extra[_VENDOR_FIELDS]
    return found or effort, extra


def _effort_of_fields(fields: Any, effort: str | None) -> str | None:
    """Return the reasoning effort in a vendor's own fields, None if they contain anything besides it."""
    match fields:
        case {"thinking": {"type": "adaptive"} as thinking} if len(fields) == 1 and thinking in _ADAPTIVE:
            return effort
        case {"thinking": {"type": "disabled"}} | {"reasoningConfig": {"type": "disabled"}} if len(fields) == 1:
            return "none"
        case {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": str(value)}} if len(fields) == 1:
            return value
        case {"reasoning_effort": str(value)} if len(fields) == 1:
            return value
        case _:
            return None


def read_tools(raw: JSON) -> tuple[Tool | ProviderTool, ...]:
    """Return the tools; a tool that is not a `toolSpec` becomes a `ProviderTool`.

    Raises:
        BadRequestError: A tool is malformed.
    """
    tools: list[Tool | ProviderTool] = []
    for position, tool in enumerate(take(take(raw, "toolConfig", dict, {}), "tools", list, (), at="toolConfig.")):
        at = f"toolConfig.tools.{position}."
        if not isinstance(tool, dict):
            raise invalid(f"The value at {at[:-1]} is of a wrong type.")
        spec = take(tool, "toolSpec", dict, at=at)
        if spec is None:
            tools.append(ProviderTool(tool))
            continue
        at = f"{at}toolSpec."
        schema = need(need(spec, "inputSchema", dict, at=at), "json", dict, at=f"{at}inputSchema.")
        tools.append(
            Tool(
                name=need(spec, "name", str, at=at),
                description=take(spec, "description", str, "", at=at),
                parameters=schema,
                strict=take(spec, "strict", bool, at=at),
            )
        )
    return tuple(tools)


def read_tool_choice(raw: JSON) -> str | None:
    """Return the tool choice: "auto", "required", the name of a tool, or None if the request has none.

    Raises:
        BadRequestError: The tool choice is malformed.
    """
    choice = take(take(raw, "toolConfig", dict, {}), "toolChoice", dict, at="toolConfig.")
    if not choice:
        return None
    (choice_type, value), *_ = choice.items()
    if choice_type == "tool" and isinstance(value, dict):
        name: str = need(value, "name", str, at="toolConfig.toolChoice.tool.")
        return name
    return {"auto": "auto", "any": "required"}.get(choice_type)


def _find_cache(raw: JSON, reader: MessageReader) -> PromptCache | None:
    """Return the `PromptCache` value equivalent to all cache points, None if there are none or no value matches."""
    tools = take(take(raw, "toolConfig", dict, {}), "tools", list, (), at="toolConfig.")
    marks = [tool for tool in tools if isinstance(tool, dict) and "cachePoint" in tool]
    total = reader.marks + len(marks)
    has_marked_tools = bool(tools) and tools[-1] == CACHE_POINT
    has_tools, has_system = len(tools) > len(marks), any(block != CACHE_POINT for block in raw.get("system") or ())
    user_marks = sum(reader.marked_users)
    if total and user_marks == total and all(reader.marked_users[-total:]):
        return _VALUES_BY_USER_MARKS.get(total)
    if total == has_marked_tools == 1:
        return "tools_only"
    is_all = reader.is_system_marked == has_system and has_marked_tools == has_tools
    return "system_and_tools" if total and is_all and total == has_system + has_tools else None


def extract_cache(
    raw: JSON, reader: MessageReader, messages: list[Message]
) -> tuple[PromptCache | None, ConversationAndTools]:
    """Return the `PromptCache` value, the messages and the tools; with a value, they have no cache points."""
    tools = read_tools(raw)
    cache = _find_cache(raw, reader)
    if cache is not None:
        messages = without_marks(messages)
        tools = tuple(tool for tool in tools if not (isinstance(tool, ProviderTool) and tool.data == CACHE_POINT))
    return cache, (Conversation(messages), tools)


def _output(raw: JSON) -> JSON | None:
    text_format = take(take(raw, "outputConfig", dict, {}), "textFormat", dict, at="outputConfig.")
    if text_format is None:
        return None
    at = "outputConfig.textFormat."
    inner = need(need(text_format, "structure", dict, at=at), "jsonSchema", dict, at=f"{at}structure.")
    text = need(inner, "schema", str, at=f"{at}structure.jsonSchema.")
    try:
        schema = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise invalid(f"The value at {at}structure.jsonSchema.schema is not JSON.") from error
    if not isinstance(schema, dict):
        raise invalid(f"The value at {at}structure.jsonSchema.schema is not a JSON schema.")
    return schema
