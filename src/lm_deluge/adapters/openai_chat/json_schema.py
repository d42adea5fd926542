"""OpenAI's requirements for strict JSON schemas."""

from __future__ import annotations

from typing import Any

__all__ = ["is_strict"]


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
