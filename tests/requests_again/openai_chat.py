"""Chat Completions."""

from typing import Any

from requests_again import JSON, Again

API = "openai-chat"


def normal_message(raw: JSON) -> JSON:
    """Join text pieces; treat empty content as absent and empty arguments as an empty object."""
    content = raw.get("content")
    if isinstance(content, list) and all(piece["type"] == "text" for piece in content):
        content = "".join(piece["text"] for piece in content)
    found: JSON = {"role": raw["role"], "content": content or None}
    for name in ("name", "tool_call_id", "refusal", "reasoning_details"):
        if raw.get(name):
            found[name] = raw[name]
    found["calls"] = [
        (call["id"], call.get("type") or "function", call["function"]["name"], call["function"]["arguments"] or "{}")
        for call in raw.get("tool_calls") or ()
    ]
    return found


def normal_tool(raw: JSON) -> JSON:
    """Drop empty descriptions and a null `strict`; add the schema of a tool without parameters."""
    if "function" not in raw:
        return raw
    function = {name: value for name, value in raw["function"].items() if value not in (None, "")}
    return {"parameters": {"type": "object", "properties": {}}, **function}


def normal_format(raw: Any) -> Any:
    """Return only the schema; its name is arbitrary, and its `strict` follows from the schema."""
    if isinstance(raw, dict) and raw.get("type") == "json_schema":
        return raw["json_schema"]["schema"]
    return None if raw == {"type": "text"} else raw


def normal(raw: JSON) -> JSON:
    found = {name: value for name, value in raw.items() if value is not None}
    found["messages"] = [normal_message(message) for message in raw["messages"]]
    found["tools"] = [normal_tool(tool) for tool in raw.get("tools") or ()]
    found["response_format"] = normal_format(raw.get("response_format"))
    found["limit"] = found.pop("max_tokens", found.pop("max_completion_tokens", None))
    if isinstance(raw.get("stop"), str):
        found["stop"] = [raw["stop"]]
    found.pop("stream_options", None)  # our requests always ask for usage
    if found.get("logprobs") is False:
        del found["logprobs"]
    return found


AGAIN = Again(
    normal,
    {
        "a tool message without tool_call_id": lambda request: any(
            message["role"] == "tool" and "tool_call_id" not in message for message in request["messages"]
        ),
        "tool calls in a user message": lambda request: any(
            message["role"] == "user" and "tool_calls" in message for message in request["messages"]
        ),
    },
)
