"""Messages."""

from typing import Any

from requests_again import JSON, Again

API = "anthropic-messages"


def blocks(content: Any) -> list[JSON]:
    """Text is a block of text; marks for the cache, and blank text, say nothing."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    said = [block for block in content if "text" not in block or block["text"].strip()]
    return [{name: value for name, value in block.items() if name != "cache_control"} for block in said]


def normal_block(block: JSON) -> JSON:
    """Results are text or blocks of it; an `is_error` that is not so is absent."""
    if block["type"] == "tool_result":
        block["content"] = blocks(block.get("content") or "")
        if not block.get("is_error"):
            block.pop("is_error", None)
    if block.get("citations", ...) is None:
        del block["citations"]
    return block


def normal(request: JSON) -> JSON:
    """Messages of one side are one message; an empty description is none."""
    messages: list[JSON] = []
    for message in request.pop("messages"):
        found = [normal_block(block) for block in blocks(message["content"])]
        if messages and messages[-1]["role"] == message["role"]:
            messages[-1]["content"] += found
        else:
            messages.append({"role": message["role"], "content": found})
    tools = [{name: value for name, value in tool.items() if value} for tool in blocks(request.pop("tools", []))]
    if "output_format" in request:  # its name in the beta
        request["output_config"] = {"format": request.pop("output_format")}
    return {**request, "system": blocks(request.pop("system", [])), "messages": messages, "tools": tools}


AGAIN = Again(normal)
