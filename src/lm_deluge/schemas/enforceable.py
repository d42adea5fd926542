"""What the forms of a schema that providers enforce have in common. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from lm_deluge.schemas.subschemas import JSON

__all__ = ["NotEnforceableError", "simplified"]

# Keywords without an equivalent: no provider enforces a schema with one of them.
_NOT_ENFORCEABLE = frozenset(
    {
        *("not", "if", "then", "else", "dependentRequired", "dependentSchemas", "patternProperties", "prefixItems"),
        *("propertyNames", "unevaluatedProperties", "unevaluatedItems", "contains"),
    }
)
# Keywords that providers reject and that only describe.
_DROPPED = frozenset({"discriminator", "examples", "$schema", "$id", "deprecated", "readOnly"})
_LOOKAROUND = "(?"
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})


class NotEnforceableError(Exception):
    """The schema has no form that the provider enforces."""


def simplified(schema: JSON, *, drops: Iterable[str] = (), formats: Iterable[str] = ()) -> JSON:
    """Return a schema without the keywords that providers reject; the schemas inside it stay as they are.

    Answers are checked by the whole schema anyway.

    Args:
        schema: The schema.
        drops: Further keywords that this provider rejects, and that only narrow or describe.
        formats: Further values of `format` that this provider accepts.

    Raises:
        NotEnforceableError: The schema has a keyword without an equivalent, admits anything, or is an object with
            arbitrary keys.
    """
    if not schema or not _NOT_ENFORCEABLE.isdisjoint(schema):
        raise NotEnforceableError
    kept = {name: value for name, value in schema.items() if name not in _DROPPED and name not in drops}
    if _LOOKAROUND in str(kept.get("pattern", "")):
        del kept["pattern"]
    if "format" in kept and kept["format"] not in {*_FORMATS, *formats}:
        del kept["format"]
    if "oneOf" in kept:
        kept["anyOf"] = [*kept.get("anyOf", ()), *kept.pop("oneOf")]
    if kept.get("type") == "object" or "properties" in kept:
        if not kept.get("properties") or kept.get("additionalProperties", False) is not False:
            raise NotEnforceableError
        if not all(isinstance(each, dict) for each in kept["properties"].values()):
            raise NotEnforceableError
        kept["additionalProperties"] = False
    return kept
