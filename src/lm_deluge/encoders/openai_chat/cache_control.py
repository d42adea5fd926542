"""Parse `cache_control` marks in requests of Chat Completions, which some hosts accept in Anthropic's format."""

from __future__ import annotations

from typing import Any, get_args

from lm_deluge.config import PromptCache

__all__ = ["read_cache_marks"]

JSON = dict[str, Any]


def read_cache_marks(raw: JSON) -> PromptCache | None:
    """Return the `PromptCache` value of the marks in a request, None if there are no marks.

    A mark covers everything before it, so the marks of the last messages decide. The messages in `raw` must be objects.
    """
    messages: list[JSON] = raw["messages"]
    marked = [_is_marked(message.get("content")) for message in messages if message.get("role") == "user"]
    if any(marked):
        values = [value for value in get_args(PromptCache) if value.startswith("last_")]
        last_first = marked[::-1]
        count = next((position for position, is_marked in enumerate(last_first) if not is_marked), len(last_first))
        found: PromptCache = values[min(max(count, 1), len(values)) - 1]
        return found
    if any(
        _is_marked(message.get("content")) for message in messages if message.get("role") in ("system", "developer")
    ):
        return "system_and_tools"
    return "tools_only" if _is_marked(raw.get("tools")) else None


def _is_marked(parts: Any) -> bool:
    return isinstance(parts, list) and any(isinstance(part, dict) and part.get("cache_control") for part in parts)
