"""JSON schemas as OpenAI's strict mode takes them, in which every property is required. Pure.

A property that may be missing is sent as one that may be null, and a null in its place is read as a missing one.
https://platform.openai.com/docs/guides/structured-outputs#supported-schemas (read 2026-11)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lm_deluge.schemas.enforceable import NotEnforceableError, simplified
from lm_deluge.schemas.structure import fits_schema
from lm_deluge.schemas.subschemas import JSON, map_subschemas, walk_schemas

__all__ = ["admits_null", "has_optional_properties", "resolved", "strict_form", "without_absent"]

_NULL = {"type": "null"}
_DROPPED = ("default", "uniqueItems")  # rejected, and answers are checked by the whole schema anyway
_DESCRIBING = frozenset({"description", "title"})
_DEPTH = 64  # of references to references; a schema that refers to itself ends here


def strict_form(schema: JSON) -> JSON | None:
    """Return the strict form of a schema; None if it has none, because objects have arbitrary keys for example."""
    try:
        return _strict(schema)
    except (NotEnforceableError, RecursionError):
        return None


def _strict(schema: JSON) -> JSON:
    kept = simplified(schema, drops=_DROPPED)
    if "allOf" in kept:
        kept = _merged(kept)
    if "$ref" in kept:
        return _reference(kept)
    if "properties" in kept:
        kept = _all_required(kept)
    converted = map_subschemas(kept, _strict)
    for name in ("anyOf", "items"):
        if isinstance(converted.get(name), bool):
            raise NotEnforceableError
    return converted


def _merged(schema: JSON) -> JSON:
    """Return a schema with the only part of its `allOf` merged into it."""
    parts = schema["allOf"]
    if len(parts) != 1 or not isinstance(parts[0], dict):
        raise NotEnforceableError
    return {**parts[0], **{name: value for name, value in schema.items() if name != "allOf"}}


def _reference(schema: JSON) -> JSON:
    """Return a reference, which must stand alone in strict mode."""
    reference = {"$ref": schema["$ref"]}
    outer = {name: value for name, value in schema.items() if name in _DESCRIBING}
    found: JSON = {"anyOf": [reference], **outer} if outer else reference
    if "$defs" in schema:
        found["$defs"] = {name: _strict(each) for name, each in schema["$defs"].items()}
    return found


def _all_required(schema: JSON) -> JSON:
    properties = schema["properties"]
    required = set(schema.get("required", ()))
    return {
        **schema,
        "properties": {name: each if name in required else _nullable(each) for name, each in properties.items()},
        "required": list(properties),
    }


def _nullable(schema: JSON) -> JSON:
    """Return a schema that admits null as well; the description stays outside, where models look for it."""
    if "anyOf" in schema and len(schema["anyOf"]) > 1:
        return schema if _NULL in schema["anyOf"] else {**schema, "anyOf": [*schema["anyOf"], _NULL]}
    if schema.get("type") == "null" or (isinstance(schema.get("type"), list) and "null" in schema["type"]):
        return schema
    outer = {name: value for name, value in schema.items() if name in _DESCRIBING}
    inner = {name: value for name, value in schema.items() if name not in outer}
    return {**outer, "anyOf": [inner, _NULL]}


def resolved(schema: Any, root: JSON) -> Any:
    """Return the schema that a reference stands for; another schema is returned unchanged."""
    for _ in range(_DEPTH):
        reference = schema.get("$ref") if isinstance(schema, Mapping) else None
        if not isinstance(reference, str) or not reference.startswith("#"):
            return schema
        schema = root
        for step in reference.split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            schema = schema.get(key) if isinstance(schema, Mapping) else None
    return None


def admits_null(schema: Any, root: JSON) -> bool:
    """Whether null fits a schema."""
    return fits_schema(None, schema, root)


def _optional_names(schema: JSON, root: JSON) -> Iterator[str]:
    required = schema.get("required") or ()
    properties = schema.get("properties")
    for name, each in properties.items() if isinstance(properties, Mapping) else ():
        if name not in required and not admits_null(each, root):
            yield name


def has_optional_properties(schema: JSON) -> bool:
    """Whether an object of the schema has a property that may be missing, and not be null."""
    return any(True for part in walk_schemas(schema) for _ in _optional_names(part, schema))


def without_absent(value: Any, schema: Any, root: JSON) -> Any:
    """Return a JSON value without the nulls that stand for missing properties.

    Args:
        value: The value.
        schema: The schema that it should follow.
        root: The whole schema, in which references are looked up.
    """
    schema = resolved(schema, root)
    if not isinstance(schema, Mapping) or not isinstance(value, dict | list):
        return value
    for keyword in ("anyOf", "oneOf", "allOf"):
        for part in schema.get(keyword) or ():
            changed = without_absent(value, part, root)
            if keyword == "allOf" or fits_schema(changed, part, root):
                value = changed
                if keyword != "allOf":
                    break
    if isinstance(value, list):
        return [without_absent(each, _item_schema(schema, index), root) for index, each in enumerate(value)]
    absent = {name for name in _optional_names(dict(schema), root) if name in value and value[name] is None}
    properties = schema.get("properties") or {}
    others = schema.get("additionalProperties")
    return {
        name: without_absent(each, properties.get(name, others), root)
        for name, each in value.items()
        if name not in absent
    }


def _item_schema(schema: Mapping[str, Any], index: int) -> Any:
    first = schema.get("prefixItems") or ()
    return first[index] if index < len(first) else schema.get("items")
