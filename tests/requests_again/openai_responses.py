"""The Responses API."""

from typing import Any

from requests_again import JSON, Again

API = "openai-responses"


def normal_item(raw: JSON) -> JSON:
    """Drop the id, status and type of messages and calls; join text pieces."""
    kind = raw.get("type", "message")
    found = {name: value for name, value in raw.items() if value is not None}
    if kind in ("message", "function_call"):
        found = {name: value for name, value in found.items() if name not in ("id", "status", "type")}
    if kind == "message" and isinstance(raw["content"], list) and all("text" in piece for piece in raw["content"]):
        found["content"] = "".join(piece["text"] for piece in raw["content"])
    return {**found, "kind": kind}


def normal_tool(raw: JSON) -> JSON:
    """Drop empty descriptions and a false `strict`."""
    return {name: value for name, value in raw.items() if value not in (None, "", False)}


def normal_text(raw: Any) -> Any:
    """Return only the schema of a format; its name is arbitrary, and its `strict` follows from the schema."""
    found = dict(raw or {})
    wanted = found.get("format") or {}
    if wanted.get("type") == "json_schema":
        found["format"] = wanted["schema"]
    return found


def normal(raw: JSON) -> JSON:
    """Convert instructions to a system message; drop encrypted reasoning from `include`, which is always requested."""
    found = {name: value for name, value in raw.items() if value is not None}
    original = found.pop("input")
    items = [{"role": "user", "content": original}] if isinstance(original, str) else original
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
        "reasoning that is only in the provider's store": lambda request: any(
            item.get("type") == "reasoning" and not item.get("encrypted_content") and not item.get("content")
            for item in request["input"]
            if isinstance(item, dict)
        ),
    },
)
