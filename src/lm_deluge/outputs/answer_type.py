"""`AnswerType`: what `output=` stands for, checked before anything is sent. Pure."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from lm_deluge.errors import ConfigurationError, InvalidValueError
from lm_deluge.outputs.shape import Shape, shape_of
from lm_deluge.prompt.plain_values import to_plain
from lm_deluge.schemas.problems import invalid_value, shown_path
from lm_deluge.schemas.schema_type import SchemaType, schema_of
from lm_deluge.schemas.strict_form import has_optional_properties, resolved
from lm_deluge.schemas.subschemas import DEFINITIONS, JSON, map_subschemas, walk_schemas
from lm_deluge.schemas.validity import schema_problem

__all__ = ["WRAPPER", "AnswerType", "Path", "answer_type", "schema_sent"]

Path: TypeAlias = tuple[str | int, ...]

WRAPPER = "value"
"""The only property of the object around an answer that is a list, a number or the like: APIs require an object."""
_VALUES = (str, bytes, int, float, list, tuple, set)  # that msgspec or Pydantic could take for types
_EXAMPLES = "a Pydantic model, a dataclass, a TypedDict, list[...] or a JSON schema"


class AnswerType:
    """The type of a typed answer.

    Attributes:
        name: Its name, for messages.
        schema: The JSON schema of the object that the model generates.
        is_schema: Whether it was given as a JSON schema, so that objects stay plain data.
        is_wrapped: Whether that object has the answer as its only property, `value`.
        shape: How the values at the paths of the answer are validated.
    """

    def __init__(self, schema_type: SchemaType) -> None:
        own = schema_type.json_schema
        self._type = schema_type
        self.name = schema_type.name
        self.is_schema = isinstance(schema_type.annotation, Mapping)
        self.is_wrapped = not _is_object(own)
        self.schema: JSON = _wrapped(own, schema_type.name) if self.is_wrapped else own
        self.shape: Shape = shape_of(schema_type, has_optional_parts=has_optional_properties(own))

    def validate(self, value: Any) -> Any:
        """Return a complete JSON value as an instance of the type.

        Raises:
            InvalidValueError: It is not valid; the error has the places.
        """
        try:
            return self._type.validate(self.shape.cleaned(value))
        except InvalidValueError:
            raise
        except Exception as error:  # a validator of the user may raise anything
            raise invalid_value([((), f"a validator raised {type(error).__name__}")], self.name) from error

    def shape_at(self, path: Path) -> Shape:
        """Return the shape of the value at a path."""
        shape = self.shape
        for key in path:
            shape = shape.part(key)
        return shape

    def check_list(self, path: Path) -> None:
        """Check that there may be a list at a path.

        Raises:
            ConfigurationError: The type has no such list.
        """
        shape = self.shape
        for number, key in enumerate(path):
            if isinstance(key, str) and shape.lacks(key):
                at = shown_path(path[:number])
                raise ConfigurationError(f"output {self.name} has no {key!r}" + (f" in {at}" if at else ""))
            shape = shape.part(key)
        if shape.is_no("array"):
            raise ConfigurationError(
                f"output {self.name} has no list at {shown_path(path) or 'its root'}",
                hint='Name the path of a list: stream.items("lines").',
            )


def answer_type(output: Any) -> AnswerType:
    """Return the type that `output=` stands for.

    Args:
        output: A Pydantic model, dataclass, TypedDict, msgspec struct, `list[...]` or another annotation, or a JSON
            schema as a mapping.

    Raises:
        ConfigurationError: It is none of these, or no provider accepts its schema.
    """
    if isinstance(output, AnswerType):
        return output
    if isinstance(output, Mapping):
        plain: JSON = to_plain(output)
        return _checked(schema_of(plain))
    if output is None or isinstance(output, _VALUES) or inspect.isroutine(output):
        raise ConfigurationError(f"output is {_shown(output)}, and no type", hint=f"Pass {_EXAMPLES}.")
    try:
        hash(output)
    except TypeError:  # `Annotated` with a list or dict as metadata
        return _of_type(output)
    return _cached(output)


def schema_sent(output: Any) -> JSON | None:
    """Return the JSON schema that is sent for an `output=`; None for None.

    Raises:
        ConfigurationError: It is no type, or no provider accepts its schema.
    """
    return None if output is None else answer_type(output).schema


def _of_type(output: Any) -> AnswerType:
    try:
        return _checked(schema_of(output))
    except ConfigurationError as error:
        if error.hint is None:
            error.hint = f"Pass {_EXAMPLES}."
        raise


# A program has few types of answers; the bound is for those that are made in a loop.
_cached = lru_cache(maxsize=256)(_of_type)


def _shown(output: Any) -> str:
    return "None" if output is None else f"of type {type(output).__name__}"


def _checked(schema_type: SchemaType) -> AnswerType:
    schema = schema_type.json_schema
    if not schema:
        raise ConfigurationError(
            f"output {schema_type.name} has a schema without any type, which no provider accepts",
            hint='Write {"type": "object", "properties": {...}}.',
        )
    problem = schema_problem(schema)
    if problem is None and any(resolved(part, schema) is None for part in walk_schemas(schema)):
        problem = "has a reference that leads to itself only"
    if problem is not None:
        raise ConfigurationError(f"no provider accepts the JSON schema of the output, which {problem}")
    if isinstance(schema_type.annotation, Mapping):
        with contextlib.suppress(InvalidValueError):
            schema_type.validate(None)  # the library `jsonschema`, where it is installed, checks the schema first
    return AnswerType(schema_type)


def _is_object(schema: JSON) -> bool:
    return schema.get("type") == "object" or ("type" not in schema and "properties" in schema)


def _wrapped(schema: JSON, name: str) -> JSON:
    """Return the schema of an object whose only property has a schema. Definitions stay at the root."""
    inner = _moved({key: value for key, value in schema.items() if key != "$defs"})
    inner = {"type": "array", **inner} if "items" in inner and "type" not in inner else inner
    definitions = {"$defs": {key: _moved(each) for key, each in schema["$defs"].items()}} if "$defs" in schema else {}
    return {
        "title": str(schema.get("title") or "".join(each for each in name if each.isalnum()) or "Answer"),
        "type": "object",
        "properties": {WRAPPER: inner},
        "required": [WRAPPER],
        "additionalProperties": False,
        **definitions,
    }


def _moved(schema: Any) -> Any:
    """Return a schema whose references to other places than definitions point into the property of the wrapper."""
    if not isinstance(schema, dict):
        return schema
    moved = map_subschemas(schema, _moved)
    reference = moved.get("$ref")
    if isinstance(reference, str) and reference.startswith("#") and not reference.startswith(DEFINITIONS):
        moved["$ref"] = f"#/properties/{WRAPPER}{reference[1:]}"
    return moved
