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
    """Merge consecutive messages of a role; drop empty descriptions, and the request for visible thinking."""
    messages: list[JSON] = []
    for message in request.pop("messages"):
        found = [normal_block(block) for block in blocks(message["content"])]
        if messages and messages[-1]["role"] == message["role"]:
            messages[-1]["content"] += found
        else:
            messages.append({"role": message["role"], "content": found})
    tools = [{name: value for name, value in tool.items() if value} for tool in blocks(request.pop("tools", []))]
    thinking = request.get("thinking") or {}
    if thinking.pop("display", None) == "summarized" and "effort" not in request.get("output_config", {}):
        del request["thinking"]  # `adaptive` without an effort is the default of the models that get it
    if "output_format" in request:  # the name of the field in the beta
        request["output_config"] = {"format": request.pop("output_format")}
    return {**request, "system": blocks(request.pop("system", [])), "messages": messages, "tools": tools}


def has_strange_result(request: JSON) -> bool:
    """Whether a result names a call that is not in the request."""
    found = [block for message in request["messages"] for block in blocks(message["content"])]
    calls = {block["id"] for block in found if block["type"] == "tool_use"}
    return any(block["type"] == "tool_result" and block["tool_use_id"] not in calls for block in found)


AGAIN = Again(normal, {"a result of no call, which the API took in 2024": has_strange_result})
