"""Whether a JSON schema is one that at least one provider accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lm_deluge.schemas.subschemas import DEFINITIONS, JSON, walk_schemas

__all__ = ["argument_schema_problem", "is_recursive", "reference_problem", "schema_problem"]

_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
# OpenAI and Anthropic refuse these at the root of the schema of a tool (2026-11):
# "input_schema does not support oneOf, allOf, or anyOf at the top level".
_NOT_AT_ROOT = ("anyOf", "oneOf", "allOf", "not", "enum")


def argument_schema_problem(schema: JSON) -> str | None:
    """Return why no provider accepts a schema of a tool's arguments, or None."""
    found = next((name for name in _NOT_AT_ROOT if name in schema), None)
    return schema_problem(schema) if found is None else f"has {found} at its root"


def schema_problem(schema: JSON) -> str | None:
    """Return why no provider accepts a schema anywhere, or None."""
    try:
        return next(_problems(schema), None)
    except RecursionError:
        return "is nested too deeply"


def _problems(schema: JSON) -> Iterator[str]:
    for part in walk_schemas(schema):
        for keyword, (is_valid, expected) in _KEYWORDS.items():
            if keyword in part and not is_valid(part[keyword]):
                yield f"has {keyword}: {str(part[keyword])[:80]!r}, but {keyword} must be {expected}"
        if (problem := reference_problem(part, schema)) is not None:
            yield problem


def reference_problem(part: JSON, root: JSON) -> str | None:
    """Return what is wrong with the reference in a part of a schema, or None."""
    reference = part.get("$ref")
    if reference is None:
        return None
    if not str(reference).startswith("#"):
        return "refers to another document, which nothing fetches: copy it into $defs"
    return None if _exists(str(reference), root) else f"refers to {str(reference)[:100]}, which it does not have"


def is_recursive(schema: JSON) -> bool:
    """Whether the schema refers to itself, or has a definition that does."""
    definitions = {name: part for name, part in schema.get("$defs", {}).items() if isinstance(part, dict)}
    targets = {
        name: {str(each["$ref"]).removeprefix(DEFINITIONS) for each in walk_schemas(part) if "$ref" in each}
        for name, part in {**definitions, "#": {key: value for key, value in schema.items() if key != "$defs"}}.items()
    }

    def reached(name: str) -> set[str]:
        found: set[str] = set()
        waiting = [name]
        while waiting:
            new = targets.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        return found

    return any(name in reached(name) for name in targets)


def _exists(reference: str, schema: Any) -> bool:
    if not reference.startswith("#/"):  # the schema itself, or an anchor
        return True
    for step in reference.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        try:
            schema = schema[int(name)] if isinstance(schema, list) else schema[name]
        except (KeyError, IndexError, TypeError, ValueError):
            return False
    return True


def _are_types(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return all(isinstance(name, str) and name.lower() in _TYPES for name in names)  # Gemini's are in upper case


def _are_schemas(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(each, Mapping | bool) for each in value.values())


_KEYWORDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "type": (_are_types, "one of " + ", ".join(sorted(_TYPES))),
    "properties": (_are_schemas, "an object of schemas"),
    "$defs": (_are_schemas, "an object of schemas"),
    "required": (lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value), "names"),
    "enum": (lambda value: isinstance(value, list) and bool(value), "a list of values"),
    "anyOf": (lambda value: isinstance(value, list) and bool(value), "a list of schemas"),
    "oneOf": (lambda value: isinstance(value, list) and bool(value), "a list of schemas"),
    "allOf": (lambda value: isinstance(value, list) and bool(value), "a list of schemas"),
}
