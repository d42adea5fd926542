"""Requests that are valid JSON of an API, and that the provider refuses all the same.

A program that passes against the simulator should not meet these errors first at the provider.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lm_deluge.adapters.gemini_generate.signatures import is_older_gemini
from lm_deluge.adapters.openai_chat.json_schema import is_strict
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import BadRequestError, ConfigurationError
from lm_deluge.models.registry import find_model, find_provider
from lm_deluge.models.rows import ModelRow
from lm_deluge.prompt.parts import TextPart

__all__ = ["check_request", "requires_signatures"]

JSON = dict[str, Any]


def check_request(api: str, request: ParsedRequest) -> None:
    """Check a request as the provider of its model would.

    Raises:
        BadRequestError: The provider refuses the request.
    """
    _check_prefill(request)
    check = _CHECKS.get(api)
    if check is not None:
        check(request)


def _row_of(model: str) -> ModelRow | None:
    try:
        return find_model(model)
    except ConfigurationError:
        return None  # a name that only the simulator has


def _refused(message: str, code: str | None = None) -> BadRequestError:
    return BadRequestError(message, status_code=400, type="invalid_request_error", code=code)


def _check_prefill(request: ParsedRequest) -> None:
    """https://platform.claude.com/docs/en/build-with-claude/prompt-engineering/prefill-claudes-response (2026-11)."""
    last = request.conversation[-1] if len(request.conversation) else None
    if last is None or last.role != "assistant":
        return
    row = _row_of(request.model)
    if row is None or row.capabilities.prefill is not False:
        return
    if isinstance(last.parts[-1] if last.parts else None, TextPart):  # other parts continue a turn that was paused
        raise _refused(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )


def _check_chat(request: ParsedRequest) -> None:
    for function in _objects(request.raw.get("tools"), "function"):
        _check_schema(function, "parameters", f"Invalid schema for function '{function.get('name')}'")
    output = request.raw.get("response_format")
    schema = output.get("json_schema") if isinstance(output, dict) else None
    if isinstance(schema, dict):
        _check_schema(schema, "schema", f"Invalid schema for response_format '{schema.get('name')}'")
    if any("tool_calls" in message for message in _objects(request.raw.get("messages"))):
        row = _row_of(request.model)
        if row is not None and row.capabilities.reasoning and find_provider(row.provider).quirks.reasoning_required:
            _check_reasoning(request.raw)


def _check_reasoning(raw: JSON) -> None:
    """DeepSeek and Moonshot: https://api-docs.deepseek.com/guides/thinking_mode#tool-calls (2026-11)."""
    thinking = raw.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "disabled":
        return
    messages = [each for each in raw.get("messages") or () if isinstance(each, dict)]
    for position in range(len(messages) - 1, -1, -1):
        message = messages[position]
        if message.get("role") == "user":
            return
        if message.get("tool_calls") and not isinstance(message.get("reasoning_content"), str):
            raise _refused(
                "thinking is enabled but reasoning_content is missing in assistant tool call message "
                f"at index {position}"
            )


def _check_responses(request: ParsedRequest) -> None:
    for tool in _objects(request.raw.get("tools")):
        if tool.get("type") == "function":
            _check_schema(tool, "parameters", f"Invalid schema for function '{tool.get('name')}'")
    text = request.raw.get("text")
    output = text.get("format") if isinstance(text, dict) else None
    if isinstance(output, dict) and output.get("type") == "json_schema":
        _check_schema(output, "schema", f"Invalid schema for response_format '{output.get('name')}'")


def _check_schema(fields: JSON, name: str, subject: str) -> None:
    """https://platform.openai.com/docs/guides/structured-outputs#supported-schemas (2026-11).

    Without `strict` Chat Completions takes any schema, and Responses makes it strict where it can:
    https://platform.openai.com/docs/guides/function-calling#strict-mode (2026-11).

    Args:
        fields: The object with the schema and `strict`.
        name: The field with the schema.
        subject: The start of OpenAI's message.
    """
    if fields.get("strict") is True and not is_strict(fields.get(name)):
        raise _refused(
            f"{subject}: In context=(), 'additionalProperties' is required to be supplied and to be false, and "
            "'required' is required to be supplied and to be an array including every key in properties.",
            "invalid_function_parameters" if name == "parameters" else None,
        )


def requires_signatures(model: str) -> bool:
    """Whether function calls of this model of Google have to be sent back with their signature."""
    return not is_older_gemini(model) and _row_of(model) is not None


def _check_gemini(request: ParsedRequest) -> None:
    """https://ai.google.dev/gemini-api/docs/thought-signatures (2026-11): calls of the current turn are signed."""
    if not requires_signatures(request.model):
        return
    contents = list(_objects(request.raw.get("contents")))
    for position in range(len(contents) - 1, -1, -1):
        parts = list(_objects(contents[position].get("parts")))
        is_result = any("functionResponse" in part or "function_response" in part for part in parts)
        if contents[position].get("role", "user") == "user" and not is_result:
            return
        first = next((part for part in parts if "functionCall" in part or "function_call" in part), None)
        if first is not None and not (first.get("thoughtSignature") or first.get("thought_signature")):
            call = first.get("functionCall") or first.get("function_call")
            called = call.get("name") if isinstance(call, dict) else ""
            raise _refused(
                f"Function call `{called}` in the {position + 1}. content block is missing a `thought_signature`."
            )


def _objects(values: Any, name: str = "") -> Iterator[JSON]:
    """Yield the objects in a list, or the object in a field of each of them."""
    for value in values if isinstance(values, list) else ():
        found = value.get(name) if name and isinstance(value, dict) else value
        if isinstance(found, dict):
            yield found


_CHECKS: dict[str, Callable[[ParsedRequest], None]] = {
    "openai-chat": _check_chat,
    "openai-responses": _check_responses,
    "gemini-generate": _check_gemini,
}
