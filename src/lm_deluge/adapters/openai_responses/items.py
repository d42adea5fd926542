"""The output items of the Responses API that must be sent back unchanged, and the kind under which they are kept.

Without `previous_response_id` the input of the next request must contain the output items of the response
(https://platform.openai.com/docs/guides/conversation-state).
"""

from __future__ import annotations

from typing import Any

__all__ = ["ECHOED", "OTHER_ITEM", "opaque_of"]

OTHER_ITEM = "output_item"  # kind of items whose type is not listed below: newer than this list

# Types of items that are kept whole: tools that the provider runs, and calls without an equivalent in our parts.
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

# Types of items that our parts represent, with the fields that the parts contain or the provider does not need back.
# All other fields are kept as opaque data after the part. Ids refer to stored responses, and with `store: false` the
# API accepts items without ids (2026-11).
_REPRESENTED = {
    "message": {"type", "id", "status", "role", "content"},
    "function_call": {"type", "id", "status", "call_id", "name", "arguments"},
    "custom_tool_call": {"type", "id", "status", "call_id", "name", "input"},
}

ECHOED = frozenset({*_WHOLE, *_REPRESENTED, OTHER_ITEM})


def opaque_of(item: dict[str, Any]) -> tuple[str, Any] | None:
    """Return kind and data of the opaque part for an item, or None if the other parts represent the item completely.

    For messages and tool calls the data are the fields without an equivalent in our parts, such as `phase` and
    `namespace`; for all other items the data are the whole item.
    """
    kind = item.get("type")
    if not isinstance(kind, str):
        return None
    represented = _REPRESENTED.get(kind)
    if represented is None:
        return (kind if kind in _WHOLE else OTHER_ITEM), item
    rest = {name: value for name, value in item.items() if name not in represented and value is not None}
    return (kind, rest) if rest else None
