"""The Messages API."""

from typing import Any

from requests_again import JSON, Again

API = "anthropic-messages"


def blocks(content: Any) -> list[JSON]:
    """Return content as blocks, without blank text and cache marks."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    found = [block for block in content if "text" not in block or block["text"].strip()]
    return [{name: value for name, value in block.items() if name != "cache_control"} for block in found]


def normal_block(block: JSON) -> JSON:
    """Return a block with the content of a result as blocks, and without a false `is_error`."""
    if block["type"] == "tool_result":
        block["content"] = blocks(block.get("content") or "")
        if not block.get("is_error"):
            block.pop("is_error", None)
    if block.get("citations", ...) is None:
        del block["citations"]
    return block


def normal(request: JSON) -> JSON:
    """Merge consecutive messages of a role; drop empty descriptions."""
    messages: list[JSON] = []
    for message in request.pop("messages"):
        found = [normal_block(block) for block in blocks(message["content"])]
        if messages and messages[-1]["role"] == message["role"]:
            messages[-1]["content"] += found
        else:
            messages.append({"role": message["role"], "content": found})
    tools = [{name: value for name, value in tool.items() if value} for tool in blocks(request.pop("tools", []))]
    if "output_format" in request:  # the name of the field in the beta
        request["output_config"] = {"format": request.pop("output_format")}
    return {**request, "system": blocks(request.pop("system", [])), "messages": messages, "tools": tools}


AGAIN = Again(normal)
