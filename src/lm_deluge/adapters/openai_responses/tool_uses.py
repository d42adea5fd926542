"""Count the uses of OpenAI's own tools in a response, for their fees: the usage object does not contain them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

__all__ = ["count_tool_uses"]

# Types of output items, and the tools. https://platform.openai.com/docs/pricing#built-in-tools (2026-11)
_TOOLS = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code_interpreter",
    "image_generation_call": "image_generation",
}


def count_tool_uses(items: Iterable[Any]) -> dict[str, int]:
    """Return how often each tool was used; opening a page or searching in it is no search."""
    counts: Counter[str] = Counter()
    for item in items:
        tool = _TOOLS.get(str(item.get("type"))) if isinstance(item, dict) else None
        action = item.get("action") if tool == "web_search" else None
        kind = action.get("type") if isinstance(action, dict) else None
        if tool is not None and kind in (None, "search"):
            counts[tool] += 1
    return dict(counts)
