"""Answers whose tool calls get no result: cancelled or broken off, or calls that the program does not run."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import Part, ProviderDataPart, ReasoningPart, ToolCallPart, ToolResultPart

__all__ = ["closed_calls", "without_open_calls"]

_CANCELLED = "The call was cancelled before it had a result."


def without_open_calls(message: Message, *, is_partial: bool) -> Message:
    """Return an answer without its tool calls and the opaque data that belongs to them.

    Args:
        message: The answer.
        is_partial: The answer broke off. Reasoning at its end is removed too: OpenAI rejects a reasoning item without
            the item that follows it, and Anthropic a message that ends with thinking.
    """
    parts: list[Part] = []
    follows_call = False
    for part in message.parts:
        follows_call = isinstance(part, ToolCallPart) or (follows_call and isinstance(part, ProviderDataPart))
        if not follows_call:
            parts.append(part)
    had_calls = len(parts) < len(message.parts)
    return _with_parts(message, _without_last_reasoning(parts) if is_partial or had_calls else parts)


def closed_calls(message: Message, *, is_partial: bool) -> Iterator[Message]:
    """Yield an answer, and after it a message with a result for each of its calls that states its cancellation.

    Arguments that broke off are replaced by an empty object, because many hosts reject arguments that are not JSON.
    """
    parts = [_completed(part) if isinstance(part, ToolCallPart) else part for part in message.parts]
    answer = _with_parts(message, _without_last_reasoning(parts) if is_partial else parts)
    if answer.parts:
        yield answer
    if answer.tool_calls:
        results = tuple(ToolResultPart(call.id, _CANCELLED, is_error=True) for call in answer.tool_calls)
        yield Message("tool", results)


def _completed(call: ToolCallPart) -> ToolCallPart:
    if call.custom or (call.arguments_error is None and call.arguments is not None):
        return call
    return msgspec.structs.replace(call, arguments_text="{}", arguments={}, arguments_error=None)


def _without_last_reasoning(parts: list[Part]) -> list[Part]:
    """Return the parts without reasoning at the end; opaque data that follows another part stays with it."""
    while parts:
        end = len(parts)
        while end and isinstance(parts[end - 1], ProviderDataPart) and not _is_reasoning(parts[end - 1]):
            end -= 1
        if end and not _is_reasoning(parts[end - 1]):
            return parts
        parts = parts[: end - 1] if end else []
    return parts


def _is_reasoning(part: Part) -> bool:
    """Whether a part is reasoning; providers that encrypt it send it as opaque data."""
    if not isinstance(part, ProviderDataPart):
        return isinstance(part, ReasoningPart)
    kind = part.data.get("type") if isinstance(part.data, dict) else None
    return part.kind == "reasoning" or kind == "redacted_thinking"


def _with_parts(message: Message, parts: list[Part]) -> Message:
    return Message(message.role, tuple(parts), message.name)
