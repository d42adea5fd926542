"""Whether a value has the structure that a JSON schema asks for, without a library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["fits_schema"]

JSON = Mapping[str, Any]

_MAX_DEPTH = 64  # deeper than any schema that providers accept; a schema that refers to itself ends here


def fits_schema(value: Any, schema: Any, root: Any = None, depth: int = 0) -> bool:
    """Whether a JSON value fits a JSON schema. Keywords that shape no structure, such as `pattern`, are not checked.

    Args:
        value: The value.
        schema: The schema, or a part of it.
        root: The whole schema, in which references are looked up; None: `schema`.
        depth: Number of schemas around this one.
    """
    if not isinstance(schema, Mapping):
        return schema is not False
    if depth > _MAX_DEPTH:
        return True
    root = schema if root is None else root

    def fits(part: Any, of: Any) -> bool:
        return fits_schema(part, of, root, depth + 1)

    return all(check(value, schema[name], schema, fits) for name, check in _CHECKS.items() if name in schema) and (
        "$ref" not in schema or fits(value, _referred(str(schema["$ref"]), root))
    )


def _referred(reference: str, root: Any) -> Any:
    """Return the part of the schema that a reference names; one that accepts everything if it names none."""
    found = root
    for name in reference.removeprefix("#").split("/")[1:]:
        key = name.replace("~1", "/").replace("~0", "~")
        found = found.get(key, True) if isinstance(found, Mapping) else True
    return found if reference.startswith("#") else True


def _is_equal(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)  # in Python, 1 and True are equal


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": _is_number,
    "integer": lambda value: _is_number(value) and value == value // 1,
}

Fits = Callable[[Any, Any], bool]


def _has_type(value: Any, names: Any, _: JSON, __: Fits) -> bool:
    known = [names] if isinstance(names, str) else names if isinstance(names, list) else []
    return not known or any(_TYPES.get(str(name).lower(), lambda _: True)(value) for name in known)


def _has_properties(value: Any, properties: Any, _: JSON, fits: Fits) -> bool:
    if not isinstance(value, dict) or not isinstance(properties, Mapping):
        return True
    return all(fits(value[name], part) for name, part in properties.items() if name in value)


def _has_no_others(value: Any, others: Any, schema: JSON, fits: Fits) -> bool:
    known = schema.get("properties") or {}
    if not isinstance(value, dict) or "patternProperties" in schema:
        return True
    return all(fits(part, others) for name, part in value.items() if name not in known)


_CHECKS: dict[str, Callable[[Any, Any, JSON, Fits], bool]] = {
    "type": _has_type,
    "enum": lambda value, known, _, __: any(_is_equal(value, each) for each in known),
    "const": lambda value, only, _, __: _is_equal(value, only),
    "required": lambda value, names, _, __: not isinstance(value, dict) or all(name in value for name in names),
    "properties": _has_properties,
    "additionalProperties": _has_no_others,
    "items": lambda value, part, _, fits: not isinstance(value, list) or all(fits(each, part) for each in value),
    "anyOf": lambda value, parts, _, fits: any(fits(value, part) for part in parts),
    "oneOf": lambda value, parts, _, fits: any(fits(value, part) for part in parts),
    "allOf": lambda value, parts, _, fits: all(fits(value, part) for part in parts),
}
