"""Opaque data in an assistant message: signatures and encrypted reasoning, which are sent back to their provider."""

from __future__ import annotations

from typing import Any

from lm_deluge.adapters.adapter import Call
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import Part, ProviderDataPart, TextPart, ToolCallPart

__all__ = ["REASONING_DETAILS", "REASONING_ITEM", "THOUGHT_SIGNATURE", "add_opaque_fields"]

JSON = dict[str, Any]

REASONING_DETAILS = "reasoning_details"
"""Kind of opaque data: OpenRouter's reasoning, a field of the message."""
REASONING_ITEM = "reasoning_item"
"""Kind of opaque data: a piece of content with reasoning and its signature, after that reasoning (Databricks)."""
THOUGHT_SIGNATURE = "thought_signature"
"""Kind of opaque data: Google's signature, after the tool call or the text that it signs. The native API has it too."""


def add_opaque_fields(call: Call, message: Message, body: JSON) -> None:
    """Add the opaque data that belongs to the call's provider to the fields of an assistant message, in place."""
    owner = call.provider.opaque_owner
    owned = [part for part in message.parts if isinstance(part, ProviderDataPart) and part.provider == owner]
    for part in owned:
        if part.kind == REASONING_DETAILS:
            body[REASONING_DETAILS] = part.data
    if any(part.kind == REASONING_ITEM for part in owned):
        body["content"] = [piece for part in message.parts for piece in _pieces(part, owner)]
    if any(part.kind == THOUGHT_SIGNATURE for part in owned):
        _add_signatures(message, owner, body)


def _pieces(part: Part, owner: str) -> list[JSON]:
    if isinstance(part, TextPart):
        return [{"type": "text", "text": part.text}]
    if isinstance(part, ProviderDataPart) and part.provider == owner and part.kind == REASONING_ITEM:
        return [part.data]
    return []


def _add_signatures(message: Message, owner: str, body: JSON) -> None:
    """Add Google's signatures to the tool calls that they follow, and to the message if they follow its text."""
    calls = iter(body.get("tool_calls", ()))
    signed = body
    for part in message.parts:
        if isinstance(part, ToolCallPart):
            signed = next(calls)
        elif not isinstance(part, ProviderDataPart):
            signed = body
        elif part.provider == owner and part.kind == THOUGHT_SIGNATURE and isinstance(part.data, str):
            signed["extra_content"] = {"google": {"thought_signature": part.data}}
