"""Build the request body of Gemini's `generateContent`.

https://ai.google.dev/api/generate-content (read 2026-11)
"""

from __future__ import annotations

from typing import Any

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.capabilities import cannot_take, check_capabilities, check_tool_choice
from lm_deluge.adapters.gemini_generate.contents import build_contents, build_instruction
from lm_deluge.adapters.openai_chat.json_schema import tool_schema
from lm_deluge.adapters.text_files import takes_documents, with_inline_files
from lm_deluge.errors import InvalidPromptError, UnsupportedParameterError
from lm_deluge.prompt.tool import ProviderTool, Tool

__all__ = ["build_generate_body", "thinking_config", "wire_name"]

JSON = dict[str, Any]

_UNSUPPORTED = ("verbosity",)

# Gemini 3 takes a thinking level, Gemini 2.5 (`reasoning_budget` in its row) a budget in tokens. The budgets are
# those of Google's OpenAI-compatible endpoint: https://ai.google.dev/gemini-api/docs/openai#thinking (2026-11). Levels
# above `high` are sent to models that are known to have them, such as Gemini 4 Hydrogen.
_LEVELS = {"minimal": "minimal", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_BUDGETS = {
    "none": 0,
    "minimal": 1_024,
    "low": 1_024,
    "medium": 8_192,
    "high": 24_576,
    "xhigh": 24_576,
    "max": 24_576,
}
_TOOL_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


def wire_name(name: str) -> tuple[str, str]:
    """Return the model's collection, `models` if the name has none, and its name in the collection."""
    collection, slash, rest = name.partition("/")
    return (collection, rest) if slash and collection in ("models", "tunedModels") else ("models", name)


def build_generate_body(call: Call) -> JSON:
    """Return the request's JSON. Parameters that the caller did not set are not sent.

    Raises:
        UnsupportedParameterError: The model or the API cannot take a parameter or a part.
        InvalidPromptError: A tool call has no result, a result has no call, or there are only system messages.
    """
    call = with_inline_files(call, takes_documents(call))
    check_capabilities(call, pairs="next_turn")
    for name in _UNSUPPORTED:
        if getattr(call.params, name) is not None:
            raise cannot_take(call, name)
    body: JSON = {"contents": build_contents(call)}
    if not body["contents"]:
        raise InvalidPromptError("the prompt has only system messages", hint="Add a user message.")
    optional = {
        "systemInstruction": build_instruction(call),
        "tools": _tools(call.tools),
        "toolConfig": _tool_config(call),
        "generationConfig": _generation_config(call),
        "serviceTier": call.params.service_tier,
    }
    return body | {name: value for name, value in optional.items() if value}


def _tools(tools: tuple[Tool | ProviderTool, ...]) -> list[JSON]:
    declarations = [_declaration(tool) for tool in tools if isinstance(tool, Tool)]
    provider_tools = [tool.data for tool in tools if isinstance(tool, ProviderTool)]
    return [*([{"functionDeclarations": declarations}] if declarations else []), *provider_tools]


def _declaration(tool: Tool) -> JSON:
    declaration: JSON = {"name": tool.name}
    if tool.description:
        declaration["description"] = tool.description
    if tool.parameters:
        # This field takes JSON schemas; the older `parameters` only a subset of OpenAPI's.
        declaration["parametersJsonSchema"] = tool_schema(tool)
    return declaration


def _tool_config(call: Call) -> JSON | None:
    if call.params.parallel_tool_calls is False:
        raise cannot_take(call, "parallel_tool_calls=False")
    choice = check_tool_choice(call)
    config: JSON = {}
    if choice is not None:
        config["mode"] = _TOOL_MODES.get(choice, "ANY")
        if choice not in _TOOL_MODES:
            config["allowedFunctionNames"] = [choice]
    if choice in (None, "auto") and any(isinstance(tool, Tool) and tool.strict for tool in call.tools):
        config["mode"] = "VALIDATED"  # like AUTO, but the arguments of calls match their schemas
    return {"functionCallingConfig": config} if config else None


def _generation_config(call: Call) -> JSON:
    params = call.params
    is_json = call.output is not None or params.json_mode
    fields: JSON = {
        "temperature": params.temperature,
        "topP": params.top_p,
        "maxOutputTokens": params.max_new_tokens,
        "stopSequences": list(params.stop) if params.stop else None,
        "seed": params.seed,
        "presencePenalty": params.presence_penalty,
        "frequencyPenalty": params.frequency_penalty,
        "responseLogprobs": True if params.logprobs or params.top_logprobs is not None else None,
        "logprobs": params.top_logprobs,
        "responseMimeType": "application/json" if is_json else None,
        "responseJsonSchema": call.output,
        "thinkingConfig": thinking_config(call),
    }
    return {name: value for name, value in fields.items() if value is not None}


def thinking_config(call: Call) -> JSON | None:
    """Return the thinking level or budget, and the request to include thoughts, which are hidden by default.

    Returns None for a model that is not known to reason, because models without reasoning reject the field.
    """
    effort = call.params.reasoning_effort
    if effort is None:
        return {"includeThoughts": True} if call.model.capabilities.reasoning else None
    size: JSON = {}
    if call.model.capabilities.reasoning_budget:
        size = {"thinkingBudget": _BUDGETS[effort]}
    elif effort in _LEVELS:
        is_known = effort in call.model.capabilities.reasoning_efforts
        size = {"thinkingLevel": effort if is_known else _LEVELS[effort]}
    else:
        raise UnsupportedParameterError(
            f"reasoning of {call.model.id} cannot be turned off",
            parameter="reasoning_effort",
            hint="The lowest value is reasoning_effort='minimal'.",
        )
    return size if effort == "none" else {**size, "includeThoughts": True}
