"""JSON schemas as Claude's structured output takes them, at Anthropic and through Bedrock. Pure.

Limits of numbers, lengths and lists become part of the description: the API rejects them, and answers are checked by
the whole schema anyway. https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
"""

from __future__ import annotations

import json
from typing import Any

from lm_deluge.schemas.enforceable import NotEnforceableError, simplified
from lm_deluge.schemas.subschemas import JSON, map_subschemas
from lm_deluge.schemas.validity import is_recursive

__all__ = ["claude_form"]

_DESCRIBED = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
    *("minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
)
_MOST_MIN_ITEMS = 1  # minItems of 0 and 1 are accepted
_UNSUPPORTED_IN_PATTERNS = ("\\b", "\\B", *(f"\\{digit}" for digit in range(1, 10)))


def claude_form(schema: JSON) -> JSON | None:
    """Return the form of a schema that can be enforced; None if it has none.

    It has none if objects have arbitrary keys, or if it refers to itself.
    """
    if is_recursive(schema):
        return None
    try:
        return _converted(schema)
    except (NotEnforceableError, RecursionError):
        return None


def _converted(schema: JSON) -> JSON:
    kept = simplified(schema, formats=("uri",))
    if any(each in str(kept.get("pattern", "")) for each in _UNSUPPORTED_IN_PATTERNS):
        del kept["pattern"]
    limits = {name: kept.pop(name) for name in _DESCRIBED if name in kept and not _is_accepted(name, kept[name])}
    if limits:
        text = ", ".join(f"{name}: {json.dumps(value)}" for name, value in limits.items())
        kept["description"] = f"{kept['description']} ({text})" if kept.get("description") else f"({text})"
    return map_subschemas(kept, _converted)


def _is_accepted(name: str, value: Any) -> bool:
    return name == "minItems" and isinstance(value, int) and value <= _MOST_MIN_ITEMS
