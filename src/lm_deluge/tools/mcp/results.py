"""Results of MCP tools as results of tools."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from lm_deluge.errors import ToolError
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.parts import Part, TextPart
from lm_deluge.prompt.tool import ToolReturn
from lm_deluge.schemas.json_values import to_json_text
from lm_deluge.tools.results import media_part

__all__ = ["to_tool_return"]


def to_tool_return(result: Any, tool: str) -> ToolReturn:
    """Return the result of an MCP tool: its content for the model, and its structured content, if any, as the value.

    Args:
        result: A `CallToolResult` of the SDK.
        tool: Name of the tool.

    Raises:
        ToolError: The tool reports an error.
    """
    parts = [_part(block) for block in result.content]
    text = "\n".join(part.text for part in parts if isinstance(part, TextPart))
    if result.is_error:
        raise ToolError(text or "the tool reports an error", tool=tool)
    structured = result.structured_content
    if not parts and structured is not None:
        return ToolReturn(structured, to_json_text(structured))
    content = text if all(isinstance(part, TextPart) for part in parts) else tuple(parts)
    return ToolReturn(content if structured is None else _unwrapped(structured), content)


def _unwrapped(structured: Any) -> Any:
    """Return the structured content; servers of the SDK wrap values that are no objects into `{"result": ...}`."""
    return structured["result"] if isinstance(structured, dict) and set(structured) == {"result"} else structured


def _part(block: Any) -> Part:
    match block.type:
        case "text":
            return TextPart(block.text)
        case "image" | "audio":
            return _medium(block.data, block.mime_type, None)
        case "resource":
            text = getattr(block.resource, "text", None)
            if text is not None:
                return TextPart(text)
            name = str(block.resource.uri).rpartition("/")[2]
            return _medium(block.resource.blob, block.resource.mime_type, name)
    return TextPart(to_json_text(block))  # a link to a resource


def _medium(data: str, media_type: str | None, filename: str | None) -> Part:
    try:
        decoded = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return TextPart("[the server sent damaged base64 data]")
    return media_part(Media(data=decoded, media_type=media_type or "application/octet-stream", filename=filename))
