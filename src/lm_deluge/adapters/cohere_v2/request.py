"""Build request bodies of Cohere's Chat API, version 2.

https://docs.cohere.com/v2/reference/chat-stream. Fields without a parameter here, such as `documents`,
`citation_options`, `safety_mode` and `k`, go into `extra_body`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.capabilities import (
    cannot_place,
    cannot_take,
    check_capabilities,
    check_tool_choice,
    result_text,
)
from lm_deluge.adapters.openai_chat.request import (
    CHAT_CONTENT,
    ContentTable,
    MessageTable,
    build_content,
    build_messages,
    function_call_fields,
    tool_fields,
)
from lm_deluge.adapters.text_files import with_inline_files
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    ProviderDataPart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from lm_deluge.prompt.tool import Tool

__all__ = ["THINKING_BUDGETS", "TOOL_PLAN", "build_body"]

JSON = dict[str, Any]

TOOL_PLAN = "tool_plan"
"""Kind of opaque data with the plan that a model writes before it calls tools."""

# The API has no effort levels but a budget in tokens, up to 31,000, and recommends to omit it
# (https://docs.cohere.com/docs/reasoning). So `high` and above have no budget. The documentation gives no budgets for
# lower levels: each one here is four times the one below it.
THINKING_BUDGETS: Mapping[str, int | None] = {
    "minimal": 512,
    "low": 2_048,
    "medium": 8_192,
    "high": None,
    "xhigh": None,
    "max": None,
}

_CHOICES = {"required": "REQUIRED", "none": "NONE"}  # the API has no word for "auto", its default


def build_body(call: Call) -> JSON:
    """Return the JSON body for `call`. Parameters that the call does not set are omitted; `stream` is always sent.

    Raises:
        UnsupportedParameterError: The model or the API does not support a parameter or a part.
        InvalidPromptError: Media are referred to in a form that the API does not accept, or a tool call has no
            result.
    """
    call = with_inline_files(call)
    check_capabilities(call, pairs="next_message")
    body: JSON = {
        "model": call.model.name,
        "messages": build_messages(call, _MESSAGES),
        "stream": call.is_streamed,
        **_sampling(call),
    }
    if call.tools:
        body["tools"] = [_without_strict(tool) for tool in tool_fields(call, may_be_optional=True)]
        if any(isinstance(tool, Tool) and tool.strict for tool in call.tools):
            body["strict_tools"] = True
    choice = check_tool_choice(call)
    if choice in _CHOICES:
        body["tool_choice"] = _CHOICES[choice]
    elif choice not in (None, "auto"):
        raise cannot_take(call, "tool_choice by name", hint='Pass that tool alone, with tool_choice="required".')
    if call.output is not None:
        body["response_format"] = {"type": "json_object", "json_schema": call.output}
    elif call.params.json_mode:
        body["response_format"] = {"type": "json_object"}
    return body


def _without_strict(tool: JSON) -> JSON:
    """Return a tool without `strict`: in this API `strict_tools` applies to all tools together."""
    function = tool.get("function")
    if not isinstance(function, dict) or "strict" not in function:
        return tool
    return {**tool, "function": {name: value for name, value in function.items() if name != "strict"}}


def _sampling(call: Call) -> JSON:
    params = call.params
    for name in ("top_logprobs", "parallel_tool_calls", "service_tier", "verbosity"):
        if getattr(params, name) is not None:
            raise cannot_take(call, name)
    fields: JSON = {
        "temperature": params.temperature,
        "p": params.top_p,
        "max_tokens": params.max_new_tokens,
        "stop_sequences": list(params.stop) if params.stop else None,
        "seed": params.seed,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        "logprobs": params.logprobs or None,
        "thinking": _thinking(params.reasoning_effort),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _thinking(effort: str | None) -> JSON | None:
    if effort is None:
        return None
    if effort == "none":
        return {"type": "disabled"}
    budget = THINKING_BUDGETS[effort]
    return {"type": "enabled"} if budget is None else {"type": "enabled", "token_budget": budget}


def _system(call: Call, message: Message) -> list[JSON]:
    for part in message.parts:
        if not isinstance(part, TextPart):
            raise cannot_place(part, message.role)
    return [{"role": "system", "content": _unnamed(call, message).completion}]


def _user(call: Call, message: Message) -> list[JSON]:
    return [{"role": "user", "content": build_content(call, _unnamed(call, message), _CONTENT)}]


def _unnamed(call: Call, message: Message) -> Message:
    if message.name is not None:
        raise cannot_take(call, "name of a message", hint="Put the name into the text.")
    return message


def _assistant(call: Call, message: Message) -> list[JSON]:
    body: JSON = {"role": "assistant"}
    if message.thinking:
        body["content"] = [
            _assistant_piece(part) for part in message.parts if isinstance(part, TextPart | ReasoningPart)
        ]
    elif message.completion or not message.tool_calls:
        body["content"] = message.completion
    calls = [function_call_fields(part) for part in _unnamed(call, message).parts if isinstance(part, ToolCallPart)]
    if calls:
        body["tool_calls"] = calls
    for part in message.parts:
        if (
            isinstance(part, ProviderDataPart)
            and part.kind == TOOL_PLAN
            and part.provider == call.provider.opaque_owner
        ):
            body[TOOL_PLAN] = part.data
    return [body]


def _assistant_piece(part: TextPart | ReasoningPart) -> JSON:
    kind = "text" if isinstance(part, TextPart) else "thinking"
    return {"type": kind, kind: part.text}


def _tool_results(call: Call, message: Message) -> list[JSON]:
    results: list[JSON] = []
    for part in message.parts:
        if not isinstance(part, ToolResultPart):
            raise cannot_place(part, "tool")
        results.append({"role": "tool", "tool_call_id": part.tool_call_id, "content": result_text(part)})
    return results


def _file_content(call: Call, part: Any) -> JSON:
    raise cannot_take(call, "files", hint='Pass their text: extra_body={"documents": [...]}.')


def _audio_content(call: Call, part: Any) -> JSON:
    raise cannot_take(call, "audio")


_CONTENT: ContentTable = {
    TextPart: CHAT_CONTENT[TextPart],
    ImagePart: CHAT_CONTENT[ImagePart],
    FilePart: _file_content,
    AudioPart: _audio_content,
}

_MESSAGES: MessageTable = {
    "system": _system,
    "developer": _system,  # OpenAI's newer name for the same role
    "user": _user,
    "assistant": _assistant,
    "tool": _tool_results,
}
