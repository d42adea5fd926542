"""Requirements of APIs that enforce JSON schemas."""

from __future__ import annotations

from typing import Any

from lm_deluge.prompt.tool import Tool

__all__ = ["close_objects", "is_strict", "strict_tool_schema", "tool_schema"]

_EMPTY = {"type": "object", "properties": {}}
_NULL = {"type": "null"}
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
    if _is_object(schema) and "additionalProperties" not in schema:
        closed["additionalProperties"] = False
    return closed


def _is_object(schema: dict[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind)


def tool_schema(tool: Tool) -> dict[str, Any]:
    """Return the schema of a tool's arguments; the schema of a strict tool is closed."""
    schema = {"type": "object", **(tool.parameters or _EMPTY)}
    closed: dict[str, Any] = close_objects(schema) if tool.strict else schema
    return closed


def strict_tool_schema(tool: Tool) -> tuple[dict[str, Any], bool | None]:
    """Return the schema of a tool's arguments as OpenAI accepts it, and the value of `strict`.

    OpenAI rejects a strict tool with optional properties: they become required and may be null, as its guide
    recommends. A schema that cannot be strict, one with free keys for example, is sent unchanged with `strict: false`.
    https://platform.openai.com/docs/guides/structured-outputs#all-fields-must-be-required (2026-11)
    """
    schema = tool_schema(tool)
    if not tool.strict:
        return schema, tool.strict
    required: dict[str, Any] = _require_all(schema)
    return (required, True) if is_strict(required) else ({"type": "object", **(tool.parameters or _EMPTY)}, False)


def _require_all(schema: Any) -> Any:
    """Return the schema with all properties required, and null allowed for those that were optional."""
    if isinstance(schema, list):
        return [_require_all(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {name: value if name in _LITERALS else _require_all(value) for name, value in schema.items()}
    properties = changed.get("properties")
    required = changed.get("required") or ()
    if isinstance(properties, dict) and _is_object(changed) and not properties.keys() <= set(required):
        changed["properties"] = {
            name: each if name in required else _nullable(each) for name, each in properties.items()
        }
        changed["required"] = list(properties)
    return changed


def _nullable(schema: Any) -> Any:
    """Return the schema of a property that may also be null; without a default, which strict schemas must not have."""
    if not isinstance(schema, dict):
        return schema
    schema = {name: value for name, value in schema.items() if name != "default"}
    kind = schema.get("type")
    if isinstance(kind, str | list) and "const" not in schema:
        kinds = [kind] if isinstance(kind, str) else kind
        schema["type"] = kind if "null" in kinds else [*kinds, "null"]
        if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
            schema["enum"] = [*schema["enum"], None]
        return schema
    if isinstance(schema.get("anyOf"), list):
        return schema | {"anyOf": [*(each for each in schema["anyOf"] if each != _NULL), _NULL]}
    return {"anyOf": [schema, _NULL]}


def is_strict(schema: Any) -> bool:
    """Whether OpenAI accepts the schema as strict: no object allows additional properties, all properties are required.

    https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
    """
    if isinstance(schema, list):
        return all(is_strict(item) for item in schema)
    if not isinstance(schema, dict):
        return True
    if _is_object(schema) or "properties" in schema:
        names = set(schema.get("properties", {}))
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != names:
            return False
    return all(is_strict(value) for name, value in schema.items() if name not in _LITERALS)
