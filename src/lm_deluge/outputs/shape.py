"""The shape of an answer: how the value at each path of its JSON is validated. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lm_deluge.errors import ConfigurationError, InvalidValueError
from lm_deluge.outputs.type_parts import UNKNOWN_PART, TypePart, part_of
from lm_deluge.schemas.schema_type import SchemaType, schema_of
from lm_deluge.schemas.strict_form import admits_null, resolved, without_absent
from lm_deluge.schemas.subschemas import DEFINITIONS, JSON, walk_schemas

__all__ = ["Shape", "shape_of"]

_ELEMENT = -1  # the key of all elements of a list that have the same type


class Shape:
    """What is known of the value at a path.

    Attributes:
        is_optional: Whether null stands for a value that is missing.
    """

    def __init__(
        self,
        annotation: Any,
        schema: Any,
        root: JSON,
        validate: Callable[[Any], Any] | None,
        *,
        is_optional: bool = False,
        has_optional_parts: bool = False,
    ) -> None:
        self._annotation = annotation  # None: only the schema is known, or not even that
        self._schema = resolved(schema, root)
        self._root = root
        self._validate = validate
        self._parts: dict[str | int, Shape] = {}
        self.is_optional = is_optional
        self._has_optional_parts = has_optional_parts

    def part(self, key: str | int) -> Shape:
        """Return the shape of the value at a key."""
        slot = _ELEMENT if isinstance(key, int) and not self._has_positions else key
        found = self._parts.get(slot)
        if found is None:
            found = self._parts[slot] = self._make_part(key)
        return found

    @property
    def _has_positions(self) -> bool:
        """Whether each element of the list has a type of its own."""
        return isinstance(self._schema, Mapping) and "prefixItems" in self._schema

    def is_no(self, kind: str) -> bool:
        """Whether the value cannot be of a kind of JSON, such as `array`, as far as its schema states one kind."""
        schema = self._schema
        stated = schema.get("type") if isinstance(schema, Mapping) else None
        return isinstance(stated, str) and stated != kind

    def lacks(self, key: str) -> bool:
        """Whether an object of the shape cannot have a value at a key."""
        schema = self._schema
        if not isinstance(schema, Mapping) or schema.get("type") != "object":
            return False
        return key not in (schema.get("properties") or {}) and not (
            schema.get("additionalProperties") or "patternProperties" in schema
        )

    def check(self, value: Any) -> Any:
        """Return a complete value as an instance of its type, or unchanged where that is unknown.

        Raises:
            InvalidValueError: The value is not valid, whatever follows.
        """
        if self._validate is None:
            return value
        try:
            return self._validate(self.cleaned(value))
        except InvalidValueError:
            raise
        except Exception:  # noqa: BLE001 - a validator of the user, which may need the rest: the whole decides
            return value

    def cleaned(self, value: Any) -> Any:
        """Return the value without nulls in place of missing properties."""
        return without_absent(value, self._schema, self._root) if self._has_optional_parts else value

    def _make_part(self, key: str | int) -> Shape:
        schema, is_optional = self._part_schema(key)
        if isinstance(self._annotation, _Raw):
            part = TypePart(self._annotation, _schema_validator(schema, self._root))
        else:
            part = UNKNOWN_PART if self._annotation is None else part_of(self._annotation, key)
        return Shape(
            part.annotation,
            schema,
            self._root,
            part.validate,
            is_optional=is_optional,
            has_optional_parts=self._has_optional_parts,
        )

    def _part_schema(self, key: str | int) -> tuple[Any, bool]:
        """Return the schema at a key, and whether the value there may be missing."""
        schema = _only_alternative(self._schema, self._root)
        if not isinstance(schema, Mapping):
            return None, False
        if isinstance(key, int):
            first = schema.get("prefixItems") or ()
            return (first[key] if key < len(first) else schema.get("items")), False
        found = (schema.get("properties") or {}).get(key)
        if found is None:
            return schema.get("additionalProperties"), False
        is_optional = key not in (schema.get("required") or ()) and not admits_null(found, self._root)
        return found, is_optional


class _Raw:
    """Marks a shape whose type is the JSON schema itself."""


def shape_of(schema_type: SchemaType, *, has_optional_parts: bool) -> Shape:
    """Return the shape of a type.

    Args:
        schema_type: The type.
        has_optional_parts: Whether its schema has properties that may be missing, and not be null.
    """
    schema = schema_type.json_schema
    is_raw = isinstance(schema_type.annotation, Mapping)
    annotation = _Raw() if is_raw else schema_type.annotation
    return Shape(annotation, schema, schema, schema_type.validate, has_optional_parts=has_optional_parts)


def _only_alternative(schema: Any, root: JSON) -> Any:
    """Return the only alternative of a schema beside null; a schema without alternatives is returned unchanged."""
    alternatives = schema.get("anyOf") if isinstance(schema, Mapping) else None
    if not isinstance(alternatives, list):
        return schema
    others = [each for each in alternatives if each != {"type": "null"}]
    return resolved(others[0], root) if len(others) == 1 else None


def _schema_validator(schema: Any, root: JSON) -> Callable[[Any], Any] | None:
    """Return the validator of a part of a JSON schema; None if it refers to more than the definitions of the whole."""
    if not isinstance(schema, dict) or not schema:
        return None
    for part in walk_schemas(schema):
        if not str(part.get("$ref", DEFINITIONS)).startswith(DEFINITIONS):
            return None
    definitions = {"$defs": root["$defs"]} if "$defs" in root else {}
    try:
        return schema_of({**definitions, **schema}).validate
    except ConfigurationError:
        return None
