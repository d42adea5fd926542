"""Marks in a request of Chat Completions that say what of the prompt is to be cached, as some hosts take them."""

from __future__ import annotations

from typing import Any, get_args

from lm_deluge.config import PromptCache

__all__ = ["read_cache_marks"]

JSON = dict[str, Any]


def read_cache_marks(raw: JSON) -> PromptCache | None:
    """Return what the marks of a request ask for, None where there are none.

    A mark covers all before it, so the last ones say the most. `raw` was read already: its messages are objects.
    """
    messages: list[JSON] = raw["messages"]
    marked = [_is_marked(message.get("content")) for message in messages if message.get("role") == "user"]
    if any(marked):
        words = [word for word in get_args(PromptCache) if word.startswith("last_")]
        first = marked[::-1]
        count = next((place for place, is_marked in enumerate(first) if not is_marked), len(first))
        found: PromptCache = words[min(max(count, 1), len(words)) - 1]
        return found
    if any(
        _is_marked(message.get("content")) for message in messages if message.get("role") in ("system", "developer")
    ):
        return "system_and_tools"
    return "tools_only" if _is_marked(raw.get("tools")) else None


def _is_marked(pieces: Any) -> bool:
    return isinstance(pieces, list) and any(isinstance(piece, dict) and piece.get("cache_control") for piece in pieces)
