"""JSON schemas as Claude's structured output takes them, at Anthropic and through Bedrock. Pure.

Limits of numbers, lengths and lists become part of the description: the API rejects them, and answers are checked by
the whole schema anyway. https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from lm_deluge.schemas.subschemas import DEFINITIONS, JSON, map_subschemas, walk_schemas

__all__ = ["claude_form"]

_DESCRIBED = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
    *("minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
)
_MOST_MIN_ITEMS = 1  # minItems of 0 and 1 are accepted
# Keywords without an equivalent: a schema with one of them cannot be enforced.
_NOT_POSSIBLE = frozenset(
    {
        *("not", "if", "then", "else", "dependentRequired", "dependentSchemas", "patternProperties", "prefixItems"),
        *("propertyNames", "unevaluatedProperties", "unevaluatedItems", "contains"),
    }
)
_DROPPED = frozenset({"discriminator", "examples", "$schema", "$id", "deprecated", "readOnly"})
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})
_LOOKAROUND = "(?"  # patterns without it, and without the next ones, are accepted
_UNSUPPORTED_IN_PATTERNS = (_LOOKAROUND, "\\b", "\\B", *(f"\\{digit}" for digit in range(1, 10)))


class _NotPossibleError(Exception):
    """The schema has no such form."""


def claude_form(schema: JSON) -> JSON | None:
    """Return the form of a schema that can be enforced; None if it has none.

    It has none if objects have arbitrary keys, or if it refers to itself.
    """
    if _is_recursive(schema):
        return None
    try:
        return _converted(schema)
    except (_NotPossibleError, RecursionError):
        return None


def _converted(schema: JSON) -> JSON:
    if not schema or not _NOT_POSSIBLE.isdisjoint(schema):
        raise _NotPossibleError
    kept = {name: value for name, value in schema.items() if name not in _DROPPED}
    if any(each in str(kept.get("pattern", "")) for each in _UNSUPPORTED_IN_PATTERNS):
        del kept["pattern"]
    if "format" in kept and kept["format"] not in _FORMATS:
        del kept["format"]
    if "oneOf" in kept:
        kept["anyOf"] = [*kept.get("anyOf", ()), *kept.pop("oneOf")]
    limits = {name: kept.pop(name) for name in _DESCRIBED if name in kept and not _is_accepted(name, kept[name])}
    if limits:
        text = ", ".join(f"{name}: {json.dumps(value)}" for name, value in limits.items())
        kept["description"] = f"{kept['description']} ({text})" if kept.get("description") else f"({text})"
    if kept.get("type") == "object" or "properties" in kept:
        if not kept.get("properties") or kept.get("additionalProperties", False) is not False:
            raise _NotPossibleError
        kept["additionalProperties"] = False
    return map_subschemas(kept, _converted)


def _is_accepted(name: str, value: Any) -> bool:
    return name == "minItems" and isinstance(value, int) and value <= _MOST_MIN_ITEMS


def _is_recursive(schema: JSON) -> bool:
    """Whether a definition refers to itself, at any distance; a reference to the root does, too."""
    definitions = schema.get("$defs", {})
    references = {name: set(_references(each)) for name, each in definitions.items() if isinstance(each, dict)}
    if any(not each.startswith(DEFINITIONS) for each in _references(schema)):
        return True
    for name, direct in references.items():
        seen: set[str] = set()
        waiting = set(direct)
        while waiting:
            target = waiting.pop().removeprefix(DEFINITIONS)
            if target == name:
                return True
            if target not in seen:
                seen.add(target)
                waiting |= references.get(target, set())
    return False


def _references(schema: JSON) -> Iterator[str]:
    for part in walk_schemas(schema):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
