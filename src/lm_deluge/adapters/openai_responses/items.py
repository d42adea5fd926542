"""Which of the Responses API's items go back to the provider as they came, and how their opaque part is called.

https://platform.openai.com/docs/guides/conversation-state: without `previous_response_id` the items of an answer are
to be sent back among the input of the next request.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ECHOED", "OTHER_ITEM", "opaque_of"]

OTHER_ITEM = "output_item"  # of a type that nobody knew when this was written

# Tools that the provider runs itself, and calls that only it has a word for.
_WHOLE = frozenset(
    {
        "reasoning",
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "image_generation_call",
        "computer_call",
        "mcp_call",
        "mcp_list_tools",
        "mcp_approval_request",
        "local_shell_call",
        "shell_call",
        "shell_call_output",
        "apply_patch_call",
        "tool_search_call",
        "tool_search_output",
        "compaction",
        "program",
        "program_output",
    }
)

# What of these is in events of ours, and what the provider does not miss; the rest is kept behind them. Ids are for
# answers that the provider stores, and ours are sent back whole (2026-11: `store: false` takes items without any).
_SAID = {
    "message": {"type", "id", "status", "role", "content"},
    "function_call": {"type", "id", "status", "call_id", "name", "arguments"},
    "custom_tool_call": {"type", "id", "status", "call_id", "name", "input"},
}

ECHOED = frozenset({*_WHOLE, *_SAID, OTHER_ITEM})


def opaque_of(item: dict[str, Any]) -> tuple[str, Any] | None:
    """Return kind and data of the opaque part that stands behind an item, or None where there is none.

    Of messages and calls that is what has no place in ours, such as `phase` and `namespace`; all else is kept whole.
    """
    kind = item.get("type")
    if not isinstance(kind, str):
        return None
    said = _SAID.get(kind)
    if said is None:
        return (kind if kind in _WHOLE else OTHER_ITEM), item
    rest = {name: value for name, value in item.items() if name not in said and value is not None}
    return (kind, rest) if rest else None
