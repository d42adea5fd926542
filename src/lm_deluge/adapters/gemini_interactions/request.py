"""Build the request body of Gemini's Interactions API, in which a conversation is a list of steps.

https://ai.google.dev/gemini-api/docs/interactions, and the types of google-genai 3.6 (read 2026-11)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.capabilities import cannot_place, cannot_take, check_capabilities, check_tool_choice
from lm_deluge.adapters.gemini_generate.contents import INSTRUCTION_ROLES, leading_instructions
from lm_deluge.adapters.openai_chat.json_schema import tool_schema
from lm_deluge.adapters.text_files import with_inline_files
from lm_deluge.errors import InvalidPromptError, UnsupportedParameterError
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
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

__all__ = ["ECHOES", "build_interaction_body"]

JSON = dict[str, Any]

_SIGNATURE = "thought_signature"
_SERVER_TOOLS = (
    *("code_execution", "file_search", "google_maps", "google_search", "mcp_server_tool", "processing"),
    *("retrieval", "tool_search", "url_context"),
)
_SERVER_STEPS = frozenset(f"{tool}_{step}" for tool in _SERVER_TOOLS for step in ("call", "result"))
ECHOES = frozenset({_SIGNATURE, *_SERVER_STEPS})

_UNSUPPORTED = ("presence_penalty", "frequency_penalty", "top_logprobs", "verbosity")
_LEVELS = {
    "minimal": "minimal",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "xhigh",
}
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


def build_interaction_body(call: Call) -> JSON:
    """Return the request's JSON. Parameters that the caller did not set are not sent.

    Raises:
        UnsupportedParameterError: The model or the API cannot take a parameter or a part.
        InvalidPromptError: The conversation has only system messages, or a tool call has no result.
    """
    call = with_inline_files(call)  # documents are PDF only
    # Steps of an earlier interaction that Google stored are not in the conversation.
    is_stored = bool(call.extra_body.get("previous_interaction_id"))
    check_capabilities(call, pairs=None if is_stored else "later")
    params = call.params
    for name in _UNSUPPORTED:
        if getattr(params, name) is not None:
            raise cannot_take(call, name)
    if params.logprobs:
        raise cannot_take(call, "logprobs")
    if params.parallel_tool_calls is False:
        raise cannot_take(call, "parallel_tool_calls=False")
    body: JSON = {"model": call.model.name.removeprefix("models/"), "input": _steps(call)}
    optional = {
        "system_instruction": "\n\n".join(leading_instructions(call)),
        "tools": [tool.data if isinstance(tool, ProviderTool) else _tool(tool) for tool in call.tools],
        "generation_config": _generation_config(call),
        "response_format": _response_format(call),
        "service_tier": params.service_tier,
        "stream": call.is_streamed,
    }
    return body | {name: value for name, value in optional.items() if value}


def _tool(tool: Tool) -> JSON:
    fields: JSON = {"type": "function", "name": tool.name}
    if tool.description:
        fields["description"] = tool.description
    return fields | ({"parameters": tool_schema(tool)} if tool.parameters else {})


def _response_format(call: Call) -> JSON | None:
    if call.output is None and not call.params.json_mode:
        return None
    schema = {} if call.output is None else {"schema": call.output}
    return {"type": "text", "mime_type": "application/json", **schema}


def _generation_config(call: Call) -> JSON:
    params = call.params
    fields: JSON = {
        "temperature": params.temperature,
        "top_p": params.top_p,
        "max_output_tokens": params.max_new_tokens,
        "stop_sequences": list(params.stop) if params.stop else None,
        "seed": params.seed,
        "tool_choice": _tool_choice(call),
        **_thinking(call),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _thinking(call: Call) -> JSON:
    """Return the thinking fields, with visible summaries; none for a model that is not known to reason."""
    effort = call.params.reasoning_effort
    if effort is None:
        return {"thinking_summaries": "auto"} if call.model.capabilities.reasoning else {}
    if effort not in _LEVELS:
        raise UnsupportedParameterError(
            f"reasoning of {call.model.id} cannot be turned off",
            parameter="reasoning_effort",
            hint="The lowest value is reasoning_effort='minimal'.",
        )
    return {"thinking_level": _LEVELS[effort], "thinking_summaries": "auto"}


def _tool_choice(call: Call) -> str | JSON | None:
    choice = check_tool_choice(call)
    if choice in (None, "auto") and any(isinstance(tool, Tool) and tool.strict for tool in call.tools):
        return "validated"  # like auto, but the arguments of calls match their schemas
    if choice is None or choice in _CHOICES:
        return None if choice is None else _CHOICES[choice]
    return {"allowed_tools": {"mode": "any", "tools": [choice]}}


def _steps(call: Call) -> list[JSON]:
    steps: list[JSON] = []
    names: dict[str, str] = {}  # call id -> name of the function
    for message in call.conversation:
        if message.role in INSTRUCTION_ROLES:
            continue
        if message.name is not None:
            raise cannot_take(call, "name of a message")
        steps += _BUILDERS[message.role](call, message, names)
    if not steps:
        raise InvalidPromptError("the prompt has only system messages", hint="Add a user message.")
    return steps


def _user(call: Call, message: Message, names: dict[str, str]) -> list[JSON]:
    return [{"type": "user_input", "content": [_content(part, "user") for part in message.parts]}]


def _content(part: Part, role: str) -> JSON:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    kind = _KINDS.get(type(part))
    if kind is None or not isinstance(part, ImagePart | FilePart | AudioPart):
        raise cannot_place(part, role)
    content = {"type": kind, **_source(part.media)}
    if isinstance(part, ImagePart) and part.detail in ("low", "high"):
        content["resolution"] = part.detail
    return content


_KINDS: dict[type[Part], str] = {ImagePart: "image", FilePart: "document", AudioPart: "audio"}


def _source(media: Media) -> JSON:
    source = {"data": media.base64()} if media.data is not None else {"uri": media.file_id or media.url or ""}
    return source | ({"mime_type": media.media_type} if media.media_type else {})


def _tool_results(call: Call, message: Message, names: dict[str, str]) -> list[JSON]:
    steps = []
    for part in message.parts:
        if not isinstance(part, ToolResultPart):
            raise cannot_place(part, "tool")
        step: JSON = {"type": "function_result", "call_id": part.tool_call_id, "result": part.content}
        if part.tool_call_id in names:  # calls of an earlier interaction stored by Google are not in the conversation
            step["name"] = names[part.tool_call_id]
        if part.media:
            text = [{"type": "text", "text": part.content}] if part.content else []
            step["result"] = [*text, *(_content(each, "tool") for each in part.media)]
        steps.append(step | ({"is_error": True} if part.is_error else {}))
    return steps


def _assistant(call: Call, message: Message, names: dict[str, str]) -> list[JSON]:
    steps: list[JSON] = []
    reasoning = ""  # text of the previous part, if that is reasoning
    for part in message.parts:
        if isinstance(part, ProviderDataPart):
            _echo(call, part, reasoning, steps)
        elif isinstance(part, ToolCallPart):
            names[part.id] = part.name
            steps.append(_function_call(part))
        elif isinstance(part, TextPart | ImagePart):
            if not steps or steps[-1]["type"] != "model_output":
                steps.append({"type": "model_output", "content": []})
            steps[-1]["content"].append(_content(part, "assistant"))
        reasoning = part.text if isinstance(part, ReasoningPart) else ""
    return steps


def _function_call(part: ToolCallPart) -> JSON:
    arguments = part.arguments
    if not isinstance(arguments, dict):
        arguments = {"input": part.arguments_text} if part.arguments_text else {}
    return {"type": "function_call", "id": part.id, "name": part.name, "arguments": arguments}


def _echo(call: Call, part: ProviderDataPart, reasoning: str, steps: list[JSON]) -> None:
    """Append opaque data: a signature together with its reasoning, steps of server tools unchanged."""
    if part.provider != call.provider.opaque_owner:
        return
    if part.kind == _SIGNATURE and isinstance(part.data, str):
        summary = {"summary": [{"type": "text", "text": reasoning}]} if reasoning else {}
        steps.append({"type": "thought", "signature": part.data, **summary})
    elif part.kind in _SERVER_STEPS and isinstance(part.data, dict):
        steps.append(dict(part.data))


_BUILDERS: dict[str, Callable[[Call, Message, dict[str, str]], list[JSON]]] = {
    "user": _user,
    "assistant": _assistant,
    "tool": _tool_results,
}
