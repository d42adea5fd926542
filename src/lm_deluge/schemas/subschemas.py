"""The schemas inside a JSON schema, as opposed to values and names that only look like schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

__all__ = ["DEFINITIONS", "hoist_definitions", "inline_root", "map_subschemas", "walk_schemas"]

JSON: TypeAlias = dict[str, Any]

DEFINITIONS = "#/$defs/"
"""How a reference to a definition begins."""

# Keywords whose value is a schema, a list of schemas, or a mapping of names to schemas.
# https://json-schema.org/draft/2020-12/json-schema-core#section-10
_ONE = frozenset(
    {
        *("additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then"),
        *("unevaluatedItems", "unevaluatedProperties", "additionalItems"),
    }
)
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
_NAMED = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})


def map_subschemas(schema: JSON, change: Callable[[JSON], Any]) -> JSON:
    """Return a copy of a schema with `change` applied to each schema directly inside it."""

    def mapped(name: str, value: Any) -> Any:
        if name in _LISTS and isinstance(value, list):
            return [change(each) if isinstance(each, dict) else each for each in value]
        if name in _NAMED and isinstance(value, dict):
            return {key: change(each) if isinstance(each, dict) else each for key, each in value.items()}
        return change(value) if name in _ONE and isinstance(value, dict) else value

    return {name: mapped(name, value) for name, value in schema.items()}


def walk_schemas(schema: JSON) -> Iterator[JSON]:
    """Iterate over a schema and all schemas inside it."""
    found: list[JSON] = [schema]
    while found:
        each = found.pop()
        yield each
        map_subschemas(each, found.append)


def hoist_definitions(schema: JSON) -> JSON:
    """Return the schema with the `$defs` of all schemas inside it moved to its own.

    A schema with `$defs` must be complete in itself. Two different definitions of one name get different names.
    """
    shared: JSON = {}
    originals: dict[str, JSON] = {}

    def hoisted(part: JSON) -> JSON:
        own = part.get("$defs")
        if not isinstance(own, dict):
            return map_subschemas(part, hoisted)
        references: dict[str, str] = {}
        added: dict[str, Any] = {}
        for name, definition in own.items():
            original = _reachable(name, own)
            free = _free_name(name, original, originals)
            if free not in originals:
                originals[free] = original
                added[free] = definition
            references[DEFINITIONS + name] = DEFINITIONS + free
        for name, definition in added.items():
            shared[name] = hoisted(_renamed(definition, references)) if isinstance(definition, dict) else definition
        rest = {name: value for name, value in part.items() if name != "$defs"}
        return map_subschemas(_renamed(rest, references), hoisted)

    result = hoisted(schema)
    return {**result, "$defs": shared} if shared else result


def _reachable(name: str, definitions: JSON) -> JSON:
    """Return a definition and those that it refers to, by name."""
    found: JSON = {}
    waiting = [name]
    while waiting:
        each = waiting.pop()
        if each in found or each not in definitions:
            continue
        found[each] = definitions[each]
        parts = walk_schemas(found[each]) if isinstance(found[each], dict) else ()
        waiting += [str(part["$ref"]).removeprefix(DEFINITIONS) for part in parts if "$ref" in part]
    return found


def _free_name(name: str, definition: JSON, taken: Mapping[str, JSON]) -> str:
    number, free = 1, name
    while free in taken and taken[free] != definition:
        number += 1
        free = f"{name}_{number}"
    return free


def _renamed(schema: JSON, references: Mapping[str, str]) -> JSON:
    """Return the schema with other references; those of a schema inside it that has `$defs` are its own."""
    if "$defs" in schema:
        return schema
    copied = map_subschemas(schema, lambda part: _renamed(part, references))
    if copied.get("$ref") in references:
        copied["$ref"] = references[copied["$ref"]]
    return copied


def inline_root(schema: JSON) -> JSON:
    """Return a schema that is a reference to one of its own definitions as that definition: APIs demand an object.

    A definition that no reference needs any more is dropped.
    """
    reference = schema.get("$ref")
    definitions = schema.get("$defs", {})
    if not isinstance(reference, str) or not reference.startswith(DEFINITIONS):
        return schema
    name = reference.removeprefix(DEFINITIONS)
    target = definitions.get(name)
    if not isinstance(target, dict):
        return schema
    others = {key: value for key, value in schema.items() if key != "$ref"}
    result = {**target, **others}
    if not any(each.get("$ref") == reference for each in walk_schemas({**result, "$defs": definitions})):
        result["$defs"] = {key: value for key, value in definitions.items() if key != name}
    if not result["$defs"]:
        del result["$defs"]
    return result
