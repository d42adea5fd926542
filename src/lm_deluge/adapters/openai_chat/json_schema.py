"""Requirements of APIs that enforce JSON schemas."""

from __future__ import annotations

from typing import Any

from lm_deluge.prompt.tool import Tool

__all__ = ["close_objects", "is_strict", "tool_schema"]

_EMPTY = {"type": "object", "properties": {}}
_LITERALS = {"enum", "const", "default", "examples"}  # keywords that contain values, not schemas


def close_objects(schema: Any) -> Any:
    """Return the schema with `additionalProperties: false` added to objects without that keyword.

    APIs that enforce a schema require it: Anthropic, Converse and OpenAI reject open objects.
    https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
    """
    if isinstance(schema, list):
        return [close_objects(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: value if name in _LITERALS else close_objects(value) for name, value in schema.items()}
    if schema.get("type") == "object" and "additionalProperties" not in schema:
        closed["additionalProperties"] = False
    return closed


def tool_schema(tool: Tool) -> dict[str, Any]:
    """Return the schema of a tool's arguments; the schema of a strict tool is closed."""
    schema = {"type": "object", **(tool.parameters or _EMPTY)}
    closed: dict[str, Any] = close_objects(schema) if tool.strict else schema
    return closed


def is_strict(schema: Any) -> bool:
    """Whether OpenAI accepts the schema as strict: no object allows additional properties, all properties are required.

    https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
    """
    if isinstance(schema, list):
        return all(is_strict(item) for item in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        names = set(schema.get("properties", {}))
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != names:
            return False
    return all(is_strict(value) for value in schema.values())
