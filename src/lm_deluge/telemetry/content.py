"""Prompts and answers in the JSON of OpenTelemetry's attributes, for programs that ask for content.

https://github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-input-messages.json (2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from lm_deluge.prompt.tool import ProviderTool, Tool
from lm_deluge.response import APIResponse

__all__ = ["input_messages", "output_messages", "system_instructions", "tool_definitions"]

JSON = dict[str, Any]

_MODALITIES = {ImagePart: "image", FilePart: "file", AudioPart: "audio"}


def system_instructions(messages: Iterable[Message]) -> str | None:
    """Return the parts of the system messages as JSON text; None if there are none."""
    parts = [part for message in messages if message.role == "system" for part in _parts_of(message)]
    return _text(parts) if parts else None


def input_messages(messages: Iterable[Message]) -> str:
    """Return all other messages as JSON text."""
    return _text([{"role": each.role, "parts": _parts_of(each)} for each in messages if each.role != "system"])


def output_messages(response: APIResponse) -> str:
    """Return the answer as JSON text."""
    reason = response.finish_reason or "error"
    parts = _parts_of(response.content)
    return _text([{"role": "assistant", "parts": parts, "finish_reason": _REASONS.get(reason, reason)}])


_REASONS = {"tool_calls": "tool_call"}  # the schema of the messages has its own word


def tool_definitions(tools: Iterable[Tool | ProviderTool]) -> str:
    """Return the tools as JSON text."""
    return _text(
        [
            {"type": "function", "name": tool.name, "description": tool.description, "parameters": tool.parameters}
            if isinstance(tool, Tool)
            else {"type": "provider", "name": tool.name}
            for tool in tools
        ]
    )


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _parts_of(message: Message) -> list[JSON]:
    return [shown for part in message.parts for shown in _shown(part)]


def _shown(part: Part) -> list[JSON]:
    if isinstance(part, TextPart | RefusalPart):
        return [{"type": "text", "content": part.text}]
    if isinstance(part, ReasoningPart):
        return [{"type": "reasoning", "content": part.text}]
    if isinstance(part, ToolCallPart):
        arguments = part.arguments_text if part.arguments is None else part.arguments
        return [{"type": "tool_call", "id": part.id, "name": part.name, "arguments": arguments}]
    if isinstance(part, ToolResultPart):
        result = {"type": "tool_call_response", "id": part.tool_call_id, "response": part.content}
        return [result, *map(_medium, part.media)]
    return [_medium(part)] if isinstance(part, ImagePart | FilePart | AudioPart) else []


def _medium(part: ImagePart | FilePart | AudioPart) -> JSON:
    """Return where a medium is, but not its bytes: an attribute with megabytes is cut off or refused."""
    media, modality = part.media, _MODALITIES[type(part)]
    shown = {"modality": modality, "mime_type": media.media_type}
    if media.file_id is not None:
        return {"type": "file", **shown, "file_id": media.file_id}
    is_inline = media.url is None or media.url.startswith("data:")
    return {"type": "blob", **shown, "content": ""} if is_inline else {"type": "uri", **shown, "uri": media.url}
