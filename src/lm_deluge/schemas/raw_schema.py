"""JSON schemas that a user wrote, as plain data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lm_deluge.errors import ConfigurationError
from lm_deluge.schemas.problems import invalid_value
from lm_deluge.schemas.structure import fits_schema
from lm_deluge.schemas.subschemas import walk_schemas
from lm_deluge.schemas.validity import reference_problem

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

__all__ = ["RawSchema"]

# How a problem is worded, by keyword: the messages of the library quote the value, however long it is.
_PROBLEMS = {
    "type": "must be of type {}",
    "enum": "must be one of {}",
    "const": "must be {}",
    "pattern": "must match the pattern {}",
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be greater than {}",
    "exclusiveMaximum": "must be less than {}",
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minItems": "must have at least {} elements",
    "maxItems": "must have at most {} elements",
}
# Messages of the library that name properties only.
_NAMING = frozenset({"required", "additionalProperties", "dependentRequired", "unevaluatedProperties"})
# A list of hundreds of values, or a long pattern, is in the schema that the model has anyway.
_MOST_OF_KEYWORD = 200


class RawSchema:
    """A JSON schema as plain data.

    The library `jsonschema` checks all keywords; without it, only those that shape the structure are checked: types,
    properties, required names, elements, alternatives and literal values. `format` is an annotation, as the standard
    has it.

    Raises:
        ConfigurationError: It is not a JSON schema, or refers to another document.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.json_schema: dict[str, Any] = dict(schema)
        self.annotation: Any = schema
        self.name = str(self.json_schema.get("title") or "value")
        try:
            json.dumps(self.json_schema)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError("the JSON schema has values that do not fit into JSON") from error
        for part in walk_schemas(self.json_schema):
            if (problem := reference_problem(part, self.json_schema)) is not None:
                raise ConfigurationError(f"the JSON schema {problem}")

    def validate(self, value: Any) -> Any:
        """Return the value itself.

        Raises:
            InvalidValueError: The value does not fit the schema.
            ConfigurationError: The schema is not a valid JSON schema.
        """
        try:
            problems = list(self._problems(value))
        except RecursionError as error:  # a schema that refers to itself and to nothing else
            raise invalid_value([((), "nested too deeply")], self.name) from error
        if problems:
            raise invalid_value(problems, self.name)
        return value

    def _problems(self, value: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
        if self._validator is not None:
            for error in self._validator.iter_errors(value):
                yield _problem(error)
        elif not fits_schema(value, self.json_schema):
            yield (), "does not fit the JSON schema"

    @cached_property
    def _validator(self) -> Validator | None:
        try:
            from jsonschema import Draft202012Validator, SchemaError
            from jsonschema.validators import validator_for
            from referencing import Registry
        except ImportError:
            return None
        kind = validator_for(self.json_schema, default=Draft202012Validator)
        try:
            kind.check_schema(self.json_schema)
        except SchemaError as error:
            at = "/".join(map(str, error.absolute_path))
            raise ConfigurationError(
                f"this is not a JSON schema: {error.validator} at {at or 'its root'}", hint="See json-schema.org."
            ) from error
        return kind(self.json_schema, registry=Registry())  # an empty registry: nothing is fetched


def _problem(error: ValidationError) -> tuple[tuple[str | int, ...], str]:
    from jsonschema.exceptions import best_match

    error = best_match([error]) or error  # of several alternatives the one that fits best
    keyword = str(error.validator)
    if keyword in _NAMING:
        return tuple(error.absolute_path), error.message
    expected = json.dumps(error.validator_value, ensure_ascii=False)
    expected = expected if len(expected) <= _MOST_OF_KEYWORD else f"{expected[:_MOST_OF_KEYWORD]}..."
    text = _PROBLEMS.get(keyword, f"does not satisfy {keyword}: {{}}").format(expected)
    return tuple(error.absolute_path), text
