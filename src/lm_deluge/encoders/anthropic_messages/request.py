"""Parse requests of Anthropic's Messages: the inverse of the adapter's request builder.

https://platform.claude.com/docs/en/api/messages

A request that cannot be answered raises `BadRequestError` with Anthropic's wording. Media are accepted inline, by
http(s) URL or by id only: a path in a request must never make a server read its own files. Blocks with more content
than a part of a message can hold, such as search results, become opaque data.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lm_deluge.config import PromptCache, SamplingParams
from lm_deluge.encoders.anthropic_messages.blocks import (
    API,
    bad_request,
    need,
    read_assistant,
    read_system,
    read_user,
    take,
)
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.encoders.tool_pairs import check_tool_pairs, joined_ids
from lm_deluge.errors import BadRequestError, ConfigurationError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.tool import ProviderTool, Tool
from lm_deluge.prompt.tool_pairs import OpenCalls, Orphans

__all__ = ["API", "parse_request", "read_turn"]

JSON = dict[str, Any]

_SAMPLING = ("temperature", "top_p", "service_tier")
_PARSED_FIELDS = {
    *_SAMPLING,
    *("model", "messages", "system", "stream", "max_tokens", "stop_sequences", "tools", "tool_choice"),
    *("thinking", "output_config", "output_format", "anthropic_version"),
}
_ADAPTIVE = ({"type": "adaptive"}, {"type": "adaptive", "display": "summarized"})
_TOOL_FIELDS = {"type", "name", "description", "input_schema", "strict", "cache_control"}


def parse_request(body: bytes, *, model: str | None = None, is_streamed: bool | None = None) -> ParsedRequest:
    """Parse the body of a request. Vertex AI has the model and the streaming mode in the path, so they are arguments.

    Raises:
        BadRequestError: The body is not a JSON object, lacks a required field, or has a value of a wrong type.
    """
    raw = _parse_json(body)
    if not isinstance(raw, dict):
        raise bad_request("Input should be a valid dictionary")
    name = take(raw, "model", str) or model
    if not name:
        raise bad_request("model: Field required")
    _check_thinking(raw)
    thinking, extra = _effort_and_extra(raw)
    try:
        return ParsedRequest(
            model=name,
            conversation=Conversation(_messages(raw)),
            params=_params(raw, thinking),
            is_streamed=take(raw, "stream", bool, default=is_streamed or False),
            wants_usage=True,
            tools=_tools(raw),
            output=_output(raw),
            cache=_cache(raw),
            extra={
                **{name: value for name, value in raw.items() if name not in _PARSED_FIELDS},
                **extra,
                **_tool_extra(raw),
            },
            raw=raw,
        )
    except ConfigurationError as error:
        raise bad_request(error.message) from error


def _parse_json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request("The request body is not valid JSON") from error


def _params(raw: JSON, effort: str | None) -> SamplingParams:
    fields = {name: raw[name] for name in _SAMPLING if raw.get(name) is not None}
    choice = take(raw, "tool_choice", dict, {})
    return SamplingParams(
        **fields,
        max_new_tokens=need(raw, "max_tokens", int),
        stop=take(raw, "stop_sequences", list) or None,
        reasoning_effort=effort,  # type: ignore[arg-type]  # unknown efforts are passed on
        tool_choice=_tool_choice(choice),
        parallel_tool_calls=False if choice.get("disable_parallel_tool_use") is True else None,
    )


_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def _tool_choice(choice: JSON) -> str | None:
    kind = take(choice, "type", str, at="tool_choice.")
    if kind != "tool":
        return _CHOICES.get(kind or "")
    name: str = need(choice, "name", str, at="tool_choice.")
    return name


def _effort_and_extra(raw: JSON) -> tuple[str | None, JSON]:
    """Return the reasoning effort, and the fields to pass on because no reasoning effort is equivalent to them."""
    thinking, config = take(raw, "thinking", dict, {}), take(raw, "output_config", dict, {})
    effort = take(config, "effort", str, at="output_config.")
    extra: JSON = {}
    if thinking == {"type": "disabled"} and effort is None:
        found = "none"
    elif thinking.get("type") == "adaptive" and effort is not None:
        found = effort
        extra = {} if thinking in _ADAPTIVE else {"thinking": thinking}
    else:
        found = None
        extra = {"thinking": thinking} if thinking else {}
    if config.keys() - {"effort", "format"} or (effort is not None and found is None):
        extra["output_config"] = config
    return found, extra


def _output(raw: JSON) -> JSON | None:
    form = take(take(raw, "output_config", dict, {}), "format", dict) or take(raw, "output_format", dict)
    return None if form is None else need(form, "schema", dict, at="output_config.format.")


def _tools(raw: JSON) -> tuple[Tool | ProviderTool, ...]:
    tools: list[Tool | ProviderTool] = []
    for position, tool in enumerate(take(raw, "tools", list, ())):
        if not isinstance(tool, dict):
            raise bad_request(f"tools.{position}: Input should be a valid dictionary")
        tools.append(_tool(tool, f"tools.{position}."))
    return tuple(tools)


def _tool(tool: JSON, at: str) -> Tool | ProviderTool:
    if tool.get("type") not in (None, "custom"):
        return ProviderTool(tool)
    name = need(tool, "name", str, at=at)
    schema = need(tool, "input_schema", dict, at=at)
    given = {"description": take(tool, "description", str, at=at), "strict": take(tool, "strict", bool, at=at)}
    known = {field: value for field, value in given.items() if value is not None}
    try:
        own = Tool(name=name, parameters=schema, **known)
    except ConfigurationError:  # Anthropic allows longer names than `Tool`
        return ProviderTool(tool)
    return own


def _tool_extra(raw: JSON) -> JSON:
    """Return the tools to pass on unchanged if one of the client's own tools has a field that `Tool` lacks."""
    tools = take(raw, "tools", list, [])
    own = [tool for tool in tools if isinstance(tool, dict) and tool.get("type") in (None, "custom")]
    return {"tools": tools} if any(tool.keys() - _TOOL_FIELDS for tool in own) else {}


def _cache(raw: JSON) -> PromptCache | None:
    """Return the `PromptCache` value closest to the `cache_control` marks of the request."""
    marked = 0
    for message in raw["messages"]:
        content = message.get("content")
        marked += message.get("role") == "user" and isinstance(content, list) and _has_mark(content)
    if marked:
        values: tuple[PromptCache, ...] = ("last_user_message", "last_2_user_messages", "last_3_user_messages")
        return values[min(marked, len(values)) - 1]
    if isinstance(raw.get("system"), list) and _has_mark(raw["system"]):
        return "system_and_tools"
    return "tools_only" if _has_mark(raw.get("tools") or ()) else None


def _has_mark(blocks: Any) -> bool:
    return any(isinstance(block, dict) and block.get("cache_control") for block in blocks)


def _messages(raw: JSON) -> list[Message]:
    messages = need(raw, "messages", list)
    if not messages:
        raise bad_request("messages: at least one message is required")
    found = read_system(raw.get("system"), "system")
    for position, message in enumerate(messages):
        found += read_turn(message, f"messages.{position}")
    check_tool_pairs(found, "next_turn", _unpaired_tools)
    return found


def read_turn(message: Any, at: str) -> list[Message]:
    """Return the messages of one entry of `messages`; `at` is its path.

    Raises:
        BadRequestError: The entry is malformed.
    """
    if not isinstance(message, dict):
        raise bad_request(f"{at}: Input should be a valid dictionary")
    role = need(message, "role", str, at=f"{at}.")
    read = {"user": read_user, "assistant": read_assistant, "system": read_system}.get(role)
    if read is None:
        raise bad_request(f"{at}.role: Input should be 'user' or 'assistant'")
    if message.get("content") is None:
        raise bad_request(f"{at}.content: Field required")
    return read(message["content"], f"{at}.content")


def _unpaired_tools(found: OpenCalls | Orphans) -> BadRequestError:
    if isinstance(found, Orphans):
        return bad_request(
            f"messages.{found.turn}.content: unexpected `tool_use_id` found in `tool_result` blocks: "
            f"{joined_ids(found)}. Each `tool_result` block must have a corresponding `tool_use` block in the previous "
            "message."
        )
    return bad_request(
        f"messages.{found.turn}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{joined_ids(found)}. Each `tool_use` block must have a corresponding `tool_result` block in the next message."
    )


def _check_thinking(raw: JSON) -> None:
    """Refuse thinking together with a temperature or a forced tool call.

    https://platform.claude.com/docs/en/build-with-claude/extended-thinking#feature-compatibility
    """
    kind = take(take(raw, "thinking", dict, {}), "type", str, at="thinking.")
    if kind in ("enabled", "adaptive") and raw.get("temperature") not in (None, 1):
        raise bad_request("`temperature` may only be set to 1 when thinking is enabled or in adaptive mode.")
    if kind == "enabled" and take(raw, "tool_choice", dict, {}).get("type") in ("any", "tool"):
        raise bad_request("Thinking may not be enabled when tool_choice forces tool use.")
