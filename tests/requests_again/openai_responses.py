"""The Responses API."""

from typing import Any

from requests_again import JSON, Again

API = "openai-responses"


def normal_item(raw: JSON) -> JSON:
    """Ids and states of messages and calls say nothing; a message is one by its role."""
    kind = raw.get("type", "message")
    found = {name: value for name, value in raw.items() if value is not None}
    if kind in ("message", "function_call"):
        found = {name: value for name, value in found.items() if name not in ("id", "status", "type")}
    if kind == "message" and isinstance(raw["content"], list) and all("text" in piece for piece in raw["content"]):
        found["content"] = "".join(piece["text"] for piece in raw["content"])
    return {**found, "kind": kind}


def normal_tool(raw: JSON) -> JSON:
    """Empty descriptions and a schema that need not be followed make no difference."""
    return {name: value for name, value in raw.items() if value not in (None, "", False)}


def normal_text(raw: Any) -> Any:
    """The name of a schema says nothing, and whether it is strict follows from the schema."""
    found = dict(raw or {})
    wanted = found.get("format") or {}
    if wanted.get("type") == "json_schema":
        found["format"] = wanted["schema"]
    return found


def normal(raw: JSON) -> JSON:
    """The instructions are the first message of the system; what makes the next turn work is always asked for."""
    found = {name: value for name, value in raw.items() if value is not None}
    asked = found.pop("input")
    items = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    if "instructions" in found:
        items = [{"role": "system", "content": found.pop("instructions")}, *items]
    found["input"] = [normal_item(item) for item in items]
    found["tools"] = [normal_tool(tool) for tool in raw.get("tools") or ()]
    found["text"] = normal_text(raw.get("text"))
    found["include"] = [name for name in raw.get("include") or () if name != "reasoning.encrypted_content"]
    found["store"] = raw.get("store") or False
    reasoning = {name: value for name, value in (raw.get("reasoning") or {}).items() if value is not None}
    found["reasoning"] = {name: value for name, value in reasoning.items() if (name, value) != ("summary", "auto")}
    return found


AGAIN = Again(
    normal,
    {
        "reasoning that only a store could find": lambda request: any(
            item.get("type") == "reasoning" and not item.get("encrypted_content") and not item.get("content")
            for item in request["input"]
            if isinstance(item, dict)
        ),
    },
)
