"""Build the request body of Converse.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.anthropic_messages.request import build_thinking
from lm_deluge.adapters.bedrock_converse.blocks import build_blocks
from lm_deluge.adapters.bedrock_converse.models import find_vendor
from lm_deluge.adapters.capabilities import cannot_take, check_capabilities, check_tool_choice
from lm_deluge.adapters.openai_chat.json_schema import tool_schema
from lm_deluge.adapters.text_files import takes_documents, with_inline_files
from lm_deluge.errors import InvalidPromptError
from lm_deluge.prompt.tool import ProviderTool, Tool

__all__ = ["UNSUPPORTED", "build_converse_body", "build_messages", "build_tool_config", "reject_unsupported"]

JSON = dict[str, Any]

_NOT_AVAILABLE = "This tool is no longer available. Do not call it."
_CACHE_POINT: JSON = {"cachePoint": {"type": "default"}}
# Assumed output limit of Claude if neither the call nor the model's row has one; the thinking budget must fit into it.
# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InferenceConfiguration.html
_ASSUMED_OUTPUT_LIMIT = 4_096
_CACHED_USER_MESSAGES = {"last_user_message": 1, "last_2_user_messages": 2, "last_3_user_messages": 3}

UNSUPPORTED = ("seed", "presence_penalty", "frequency_penalty", "top_logprobs", "verbosity", "parallel_tool_calls")
"""Parameters for which the API has no field, for any model."""


def build_converse_body(call: Call) -> JSON:
    """Return the request's JSON. Parameters that the caller did not set are not sent.

    Raises:
        UnsupportedParameterError: The model or the API cannot take a parameter or a part.
    """
    call = with_inline_files(call, takes_documents(call))
    check_capabilities(call, pairs="next_turn")
    reject_unsupported(call, UNSUPPORTED)
    system, messages = build_messages(call)
    params = call.params
    inference = {
        "maxTokens": params.max_new_tokens,
        "temperature": params.temperature,
        "topP": params.top_p,
        "stopSequences": list(params.stop) if params.stop else None,
    }
    fields: JSON = {
        "system": system,
        "messages": messages,
        "inferenceConfig": {name: value for name, value in inference.items() if value is not None},
        "toolConfig": build_tool_config(call),
        "serviceTier": {"type": params.service_tier} if params.service_tier else None,
        "outputConfig": {"textFormat": _text_format(call.output)} if call.output is not None else None,
    }
    body = {name: value for name, value in fields.items() if value}
    if params.reasoning_effort is not None:
        _add_reasoning(call, params.reasoning_effort, body)
    elif find_vendor(call.model.name) == "anthropic":
        _add_claude_thinking(call, "", body)
    return body


def reject_unsupported(call: Call, names: tuple[str, ...]) -> None:
    """Check that the call has none of the parameters `names`, no `logprobs` and no `json_mode`.

    Raises:
        UnsupportedParameterError: The call has one of them.
    """
    for name in names:
        if getattr(call.params, name) is not None:
            raise cannot_take(call, name)
    if call.params.logprobs:
        raise cannot_take(call, "logprobs")
    if call.params.json_mode:
        raise cannot_take(call, "json_mode", hint="Pass a JSON schema as output=..., or ask for JSON in the prompt.")


def build_messages(call: Call) -> tuple[list[JSON], list[JSON]]:
    """Return the system blocks and the messages, with cache points.

    Raises:
        InvalidPromptError: The prompt has only system messages.
    """
    turns = build_blocks(call)
    system = turns.pop(0)[1] if turns and turns[0][0] == "system" else []
    if not turns:
        raise InvalidPromptError("the prompt has only system messages", hint="Add a user message.")
    if system and call.cache == "system_and_tools":
        system.append(_CACHE_POINT)
    user_turns = [blocks for role, blocks in turns if role == "user"]
    marked = _CACHED_USER_MESSAGES.get(call.cache or "", 0)
    for blocks in user_turns[len(user_turns) - min(marked, len(user_turns)) :]:
        blocks.append(_CACHE_POINT)
    return system, [{"role": role, "content": blocks} for role, blocks in turns]


def build_tool_config(call: Call) -> JSON | None:
    """Return the tools and the tool choice, or None without tools and without calls in the conversation.

    Raises:
        UnsupportedParameterError: The tool choice is `none`, for which the API has no value.
    """
    choice = check_tool_choice(call)
    if choice == "none":
        raise cannot_take(call, "tool_choice='none'", hint="Leave the tools out.")
    if not call.tools:
        return _tools_of_history(call)
    tools = [tool.data if isinstance(tool, ProviderTool) else _tool(tool) for tool in call.tools]
    if call.cache in ("tools_only", "system_and_tools"):
        tools.append(_CACHE_POINT)
    config: JSON = {"tools": tools}
    if choice is not None:
        config["toolChoice"] = {"auto": {"auto": {}}, "required": {"any": {}}}.get(choice) or {"tool": {"name": choice}}
    return config


def _tools_of_history(call: Call) -> JSON | None:
    """Return the tools that the conversation has called, or None.

    Without them the API answers: "The toolConfig field must be defined when using toolUse and toolResult content
    blocks" (https://github.com/vercel/ai/issues/7528). It has no tool choice that forbids calls.
    """
    found = (part.name for message in call.conversation for part in message.tool_calls)
    names = dict.fromkeys(re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "tool" for name in found)
    return {"tools": [_tool(Tool(name=name, description=_NOT_AVAILABLE)) for name in names]} if names else None


def _tool(tool: Tool) -> JSON:
    spec: JSON = {"name": tool.name, "inputSchema": {"json": tool_schema(tool)}}
    if tool.description:
        spec["description"] = tool.description
    if tool.strict is not None:
        spec["strict"] = tool.strict
    return {"toolSpec": spec}


def _text_format(schema: JSON) -> JSON:
    try:
        text = msgspec.json.encode(schema).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidPromptError(f"the schema does not fit into JSON: {error}") from error
    described: JSON = {"name": re.sub(r"[^A-Za-z0-9_-]", "_", str(schema.get("title") or "output"))[:64]}
    if isinstance(schema.get("description"), str):
        described["description"] = schema["description"]
    return {"type": "json_schema", "structure": {"jsonSchema": {"schema": text, **described}}}


def _add_reasoning(call: Call, effort: str, body: JSON) -> None:
    """Add the fields for `reasoning_effort`, which differ by vendor."""
    add = _REASONING_BUILDERS.get(find_vendor(call.model.name), _add_effort)
    add(call, effort, body)


def _add_effort(call: Call, effort: str, body: JSON) -> None:
    # https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_OutputConfig.html (2026-11)
    _check_effort(call, effort, "low", "medium", "high", "xhigh", "max")
    body["outputConfig"] = {**body.get("outputConfig", {}), "effort": effort}


def _add_claude_thinking(call: Call, effort: str, body: JSON) -> None:
    # https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-adaptive-thinking.html (2026-11)
    # The effort is that of the call; without one, only the models that think by default get fields.
    fields = build_thinking(call, call.params.max_new_tokens or call.model.max_output_tokens or _ASSUMED_OUTPUT_LIMIT)
    word = fields.get("output_config", {}).get("effort")
    if word is not None:
        body["outputConfig"] = {**body.get("outputConfig", {}), "effort": word}
    if fields:
        body["additionalModelRequestFields"] = {"thinking": fields["thinking"]}


def _add_nova_reasoning(call: Call, effort: str, body: JSON) -> None:
    # https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html (2026-11)
    _check_effort(call, effort, "none", "low", "medium", "high")
    config = {"type": "disabled"} if effort == "none" else {"type": "enabled", "maxReasoningEffort": effort}
    body["additionalModelRequestFields"] = {"reasoningConfig": config}


def _add_openai_reasoning(call: Call, effort: str, body: JSON) -> None:
    # https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-openai.html (2026-11)
    if "gpt-oss" in call.model.name:
        _check_effort(call, effort, "low", "medium", "high")
        body["additionalModelRequestFields"] = {"reasoning_effort": effort}
    else:
        _add_nested_effort(call, effort, body)


def _add_nested_effort(call: Call, effort: str, body: JSON) -> None:
    # The form of the Responses API. https://docs.aws.amazon.com/bedrock/latest/userguide/model-card-openai-gpt-6-astra.html
    # and .../model-card-xai-grok-4-6.html (2026-11)
    body["additionalModelRequestFields"] = {"reasoning": {"effort": effort}}


def _add_flat_effort(call: Call, effort: str, body: JSON) -> None:
    # Models with levels take them; of the others `high` alone turns reasoning on. pydantic-ai 2.68 (verified, 2026-11)
    has_levels = bool(call.model.capabilities.reasoning_efforts)
    body["additionalModelRequestFields"] = {
        "reasoning_effort": effort if has_levels or effort == "none" else "high",
    }


def _add_qwen_reasoning(call: Call, effort: str, body: JSON) -> None:
    # Converse accepts none, low, medium and high; `high` alone turns reasoning on. pydantic-ai 2.68 (verified, 2026-11)
    body["additionalModelRequestFields"] = {"reasoning_config": "none" if effort == "none" else "high"}


def _check_effort(call: Call, effort: str, *known: str) -> None:
    if effort not in known:
        raise cannot_take(call, f"reasoning_effort={effort!r} for this model", hint=f"It takes: {', '.join(known)}.")


_REASONING_BUILDERS: dict[str, Callable[[Call, str, JSON], None]] = {
    "anthropic": _add_claude_thinking,
    "amazon": _add_nova_reasoning,
    "deepseek": _add_flat_effort,
    "openai": _add_openai_reasoning,
    "qwen": _add_qwen_reasoning,
    "xai": _add_nested_effort,
    "zai": _add_flat_effort,
}
