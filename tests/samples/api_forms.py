"""How each wire API writes a parameter, from the pages of the providers and not from the code: path -> value.

OpenAI: https://platform.openai.com/docs/api-reference/chat/create, .../responses/create
Anthropic: https://platform.claude.com/docs/en/api/messages, .../build-with-claude/effort, .../extended-thinking
Google: https://ai.google.dev/api/generate-content, .../docs/thinking, .../docs/interactions
AWS: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
Mistral: https://docs.mistral.ai/api, Cohere: https://docs.cohere.com/v2/reference/chat (all 2026-11)

An entry of None is a parameter that the API does not have.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["ATOMS", "EFFORTS", "PDF", "PNG", "PREFILLED", "SCHEMA", "differences", "expected_form"]

Form: TypeAlias = dict[tuple[str | int, ...], Any]

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
PNG, PDF = b"\x89PNG\r\n\x1a\n", b"%PDF-1.4"
_PNG, _PDF = base64.b64encode(PNG).decode(), base64.b64encode(PDF).decode()
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
PREFILLED = "One"
ATOMS = {
    "tools": "tools",
    "required": "tool_choice",
    "named": "tool_choice",
    "parallel": "parallel_tool_calls",
    "temperature": "temperature",
    "top_p": "top_p",
    "stop": "stop",
    "prefill": "prefill",
    "schema": "output",
    "image": "image",
    "pdf": "file",
    "effort": "reasoning_effort",
}
"""The parameters that the calls have, with the names that errors give them."""

_LAST = ("messages", -1)
_CHAT: dict[str, Form | None] = {
    "tools": {("tools", 0, "type"): "function", ("tools", 0, "function", "name"): "weather"},
    "required": {("tool_choice",): "required"},
    "named": {("tool_choice",): {"type": "function", "function": {"name": "weather"}}},
    "parallel": {("parallel_tool_calls",): False},
    "temperature": {("temperature",): 0.3},
    "top_p": {("top_p",): 0.97},
    "stop": {("stop",): ["END"]},
    "prefill": {(*_LAST, "role"): "assistant", (*_LAST, "content"): PREFILLED},
    "schema": {
        ("response_format", "type"): "json_schema",
        ("response_format", "json_schema", "schema"): SCHEMA,
        ("response_format", "json_schema", "strict"): True,
    },
    "image": {(*_LAST, "content", 1): {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_PNG}"}}},
    "pdf": {
        (*_LAST, "content", 1, "type"): "file",
        (*_LAST, "content", 1, "file", "file_data"): f"data:application/pdf;base64,{_PDF}",
    },
}
_RESPONSES: dict[str, Form | None] = {
    "tools": {("tools", 0, "type"): "function", ("tools", 0, "name"): "weather", ("tools", 0, "strict"): False},
    "required": {("tool_choice",): "required"},
    "named": {("tool_choice",): {"type": "function", "name": "weather"}},
    "parallel": {("parallel_tool_calls",): False},
    "temperature": {("temperature",): 0.3},
    "top_p": {("top_p",): 0.97},
    "stop": None,
    "prefill": {("input", -1, "role"): "assistant", ("input", -1, "content"): PREFILLED},
    "schema": {("text", "format", "type"): "json_schema", ("text", "format", "schema"): SCHEMA},
    "image": {
        ("input", -1, "content", 1, "type"): "input_image",
        ("input", -1, "content", 1, "image_url"): f"data:image/png;base64,{_PNG}",
    },
    "pdf": {
        ("input", -1, "content", 1, "type"): "input_file",
        ("input", -1, "content", 1, "file_data"): f"data:application/pdf;base64,{_PDF}",
    },
}
_ANTHROPIC: dict[str, Form | None] = {
    "tools": {("tools", 0, "name"): "weather", ("tools", 0, "input_schema", "type"): "object"},
    "required": {("tool_choice", "type"): "any"},
    "named": {("tool_choice", "type"): "tool", ("tool_choice", "name"): "weather"},
    "parallel": {("tool_choice", "disable_parallel_tool_use"): True},
    "temperature": {("temperature",): 0.3},
    "top_p": {("top_p",): 0.97},
    "stop": {("stop_sequences",): ["END"]},
    "prefill": {(*_LAST, "role"): "assistant", (*_LAST, "content"): PREFILLED},
    "schema": {("output_config", "format", "type"): "json_schema", ("output_config", "format", "schema"): SCHEMA},
    "image": {
        (*_LAST, "content", 1): {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": _PNG},
        }
    },
    "pdf": {
        (*_LAST, "content", 1, "type"): "document",
        (*_LAST, "content", 1, "source"): {"type": "base64", "media_type": "application/pdf", "data": _PDF},
    },
}
_CALLING = ("toolConfig", "functionCallingConfig")
_GENERATE: dict[str, Form | None] = {
    "tools": {("tools", 0, "functionDeclarations", 0, "name"): "weather"},
    "required": {(*_CALLING, "mode"): "ANY"},
    "named": {(*_CALLING, "mode"): "ANY", (*_CALLING, "allowedFunctionNames"): ["weather"]},
    "parallel": None,
    "temperature": {("generationConfig", "temperature"): 0.3},
    "top_p": {("generationConfig", "topP"): 0.97},
    "stop": {("generationConfig", "stopSequences"): ["END"]},
    "prefill": {("contents", -1): {"role": "model", "parts": [{"text": PREFILLED}]}},
    "schema": {
        ("generationConfig", "responseMimeType"): "application/json",
        ("generationConfig", "responseJsonSchema"): SCHEMA,
    },
    "image": {("contents", -1, "parts", 1): {"inlineData": {"mimeType": "image/png", "data": _PNG}}},
    "pdf": {("contents", -1, "parts", 1): {"inlineData": {"mimeType": "application/pdf", "data": _PDF}}},
}
_INTERACTIONS: dict[str, Form | None] = {
    "tools": {("tools", 0, "type"): "function", ("tools", 0, "name"): "weather"},
    "required": {("generation_config", "tool_choice"): "any"},
    "named": {("generation_config", "tool_choice", "allowed_tools"): {"mode": "any", "tools": ["weather"]}},
    "parallel": None,
    "temperature": {("generation_config", "temperature"): 0.3},
    "top_p": {("generation_config", "top_p"): 0.97},
    "stop": {("generation_config", "stop_sequences"): ["END"]},
    "prefill": {("input", -1, "type"): "model_output"},
    "schema": {("response_format", "schema"): SCHEMA, ("response_format", "mime_type"): "application/json"},
    "image": {("input", -1, "content", 1, "type"): "image", ("input", -1, "content", 1, "data"): _PNG},
    "pdf": {("input", -1, "content", 1, "type"): "document", ("input", -1, "content", 1, "data"): _PDF},
}
_CONVERSE: dict[str, Form | None] = {
    "tools": {("toolConfig", "tools", 0, "toolSpec", "name"): "weather"},
    "required": {("toolConfig", "toolChoice"): {"any": {}}},
    "named": {("toolConfig", "toolChoice"): {"tool": {"name": "weather"}}},
    "parallel": None,
    "temperature": {("inferenceConfig", "temperature"): 0.3},
    "top_p": {("inferenceConfig", "topP"): 0.97},
    "stop": {("inferenceConfig", "stopSequences"): ["END"]},
    "prefill": {(*_LAST, "role"): "assistant", (*_LAST, "content"): [{"text": PREFILLED}]},
    "schema": {("outputConfig", "textFormat", "type"): "json_schema"},
    "image": {(*_LAST, "content", 1, "image"): {"format": "png", "source": {"bytes": _PNG}}},
    "pdf": {
        (*_LAST, "content", 1, "document", "format"): "pdf",
        (*_LAST, "content", 1, "document", "source"): {"bytes": _PDF},
    },
}
_MISTRAL: dict[str, Form | None] = {
    **_CHAT,
    "required": {("tool_choice",): "any"},
    "prefill": {(*_LAST, "role"): "assistant", (*_LAST, "content"): PREFILLED, (*_LAST, "prefix"): True},
    "pdf": {
        (*_LAST, "content", 1, "type"): "document_url",
        (*_LAST, "content", 1, "document_url"): f"data:application/pdf;base64,{_PDF}",
    },
}
_COHERE: dict[str, Form | None] = {
    **_CHAT,
    "required": {("tool_choice",): "REQUIRED"},
    "named": None,
    "parallel": None,
    "top_p": {("p",): 0.97},
    "stop": {("stop_sequences",): ["END"]},
    "schema": {("response_format",): {"type": "json_object", "json_schema": SCHEMA}},
    "pdf": None,
}
_FORMS = {
    "openai-chat": _CHAT,
    "openai-responses": _RESPONSES,
    "anthropic-messages": _ANTHROPIC,
    "gemini-generate": _GENERATE,
    "gemini-interactions": _INTERACTIONS,
    "bedrock-converse": _CONVERSE,
    "bedrock-invoke": _ANTHROPIC,  # of the vendors there, the matrix has Claude only
    "mistral-chat": _MISTRAL,
    "cohere-v2": _COHERE,
}

# --- reasoning ---

# Our own choice for models that take a budget: the documentation has no efforts for them.
_CLAUDE_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768, "max": 63999}
_GEMINI_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
_COHERE_BUDGETS = {"minimal": 512, "low": 2048, "medium": 8192}
_OLD_CLAUDE = r"claude-(3-7|(opus|sonnet|haiku)-4(-[015])?(?!-?[6-9])([-@]\d{8}|[-:@]|$))"


def _claude(effort: str, name: str, limit: int) -> Form:
    if effort == "none":
        is_new = re.search(r"claude-sonnet-5[-.]5", name)
        return {("thinking",): {"type": "between_tools" if is_new else "disabled"}}
    if re.search(_OLD_CLAUDE, name):
        budget = min(_CLAUDE_BUDGETS[effort], int(limit * 0.8))
        return {("thinking",): {"type": "enabled", "budget_tokens": budget}}
    word = {"minimal": "low"}.get(effort, effort)
    return {("thinking",): {"type": "adaptive", "display": "summarized"}, ("output_config", "effort"): word}


def _gemini(effort: str, name: str, limit: int) -> Form:
    config = ("generationConfig", "thinkingConfig")
    if not re.search(r"gemini-2[-.]5", name):
        return {(*config, "thinkingLevel"): effort, (*config, "includeThoughts"): True}
    if effort == "none":
        return {config: {"thinkingBudget": 0}}
    return {(*config, "thinkingBudget"): _GEMINI_BUDGETS[effort], (*config, "includeThoughts"): True}


def _interactions(effort: str, name: str, limit: int) -> Form | None:
    level = {"none": None, "max": "xhigh"}.get(effort, effort)  # the levels are minimal, low, medium, high and xhigh
    return None if level is None else {("generation_config", "thinking_level"): level}


def _converse(effort: str, name: str, limit: int) -> Form:
    more = "additionalModelRequestFields"
    if "anthropic." in name:
        form = _claude(effort, name, limit)
        word = form.get(("output_config", "effort"))
        effort_field: Form = {} if word is None else {("outputConfig", "effort"): word}
        return {(more, "thinking"): form["thinking",], **effort_field}
    forms: tuple[tuple[str, Form], ...] = (
        ("gpt-oss", {(more,): {"reasoning_effort": effort}}),
        (r"openai\.|xai\.", {(more,): {"reasoning": {"effort": effort}}}),
        (r"zai\.glm-5\.3", {(more,): {"reasoning_effort": effort}}),
        (r"zai\.|deepseek\.", {(more,): {"reasoning_effort": "none" if effort == "none" else "high"}}),
        (r"qwen\.", {(more,): {"reasoning_config": "none" if effort == "none" else "high"}}),
        (
            "nova",
            {
                (more, "reasoningConfig"): {"type": "disabled"}
                if effort == "none"
                else {"type": "enabled", "maxReasoningEffort": effort}
            },
        ),
        ("", {("outputConfig", "effort"): effort}),
    )
    return next(form for pattern, form in forms if re.search(pattern, name))


def _chat(effort: str, name: str, provider: str) -> Form:
    thinking: Form = {("thinking",): {"type": "enabled"}, ("reasoning_effort",): effort}
    if effort == "none":
        thinking = {("thinking",): {"type": "disabled"}}
    return {
        "openrouter": {("reasoning",): {"effort": effort}},
        "deepseek": thinking,
        "zai": thinking,
        "xiaomi": thinking,
        "alibaba": {("enable_thinking",): effort != "none"},
    }.get(provider, {("reasoning_effort",): effort})


def _cohere(effort: str, name: str, limit: int) -> Form:
    if effort == "none":
        return {("thinking",): {"type": "disabled"}}
    budget = _COHERE_BUDGETS.get(effort)
    return {("thinking",): {"type": "enabled"} | ({} if budget is None else {"token_budget": budget})}


_EFFORT_FORMS: dict[str, Callable[[str, str, int], Form | None]] = {
    "openai-responses": lambda effort, _name, _limit: {("reasoning", "effort"): effort},
    "anthropic-messages": _claude,
    "bedrock-invoke": _claude,
    "gemini-generate": _gemini,
    "gemini-interactions": _interactions,
    "bedrock-converse": _converse,
    "mistral-chat": lambda effort, _name, _limit: {("reasoning_effort",): effort},
    "cohere-v2": _cohere,
}


def expected_form(api: str, atom: str, *, name: str, provider: str, limit: int) -> Form | None:
    """Return the fields for a parameter; None if the API does not have it.

    Args:
        api: The wire API.
        atom: The parameter, of `ATOMS`; an effort is `effort LEVEL`.
        name: The model's name on the wire, in lower case.
        provider: Id of the provider.
        limit: The limit of output tokens that the request has.
    """
    _, is_effort, effort = atom.partition("effort ")
    if not is_effort:
        return _FORMS[api][atom]
    if api == "openai-chat":
        return _chat(effort, name, provider)
    return _EFFORT_FORMS[api](effort, name, limit)


def read(body: Any, path: tuple[str | int, ...]) -> Any:
    """Return the value at a path of a body; None if there is none."""
    for step in path:
        try:
            body = body[step]
        except (KeyError, IndexError, TypeError):
            return None
    return body


def differences(body: bytes, form: Form) -> dict[str, Any]:
    """Return the paths at which a body differs from a form."""
    parsed = json.loads(body)
    return {str(path): read(parsed, path) for path, value in form.items() if read(parsed, path) != value}
