"""Types whose schemas msgspec makes and whose values it validates."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from typing import Any

import msgspec

from lm_deluge.errors import ConfigurationError, InvalidValueError
from lm_deluge.extras import install_hint
from lm_deluge.schemas.descriptions import add_descriptions, field_types, type_name
from lm_deluge.schemas.problems import invalid_value
from lm_deluge.schemas.subschemas import hoist_definitions, inline_root

__all__ = ["MsgspecType", "uses_msgspec"]

_PATH = re.compile(r" - at (?P<of_key>`key` in )?`\$(?P<path>[^`]*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


class MsgspecType:
    """A type that msgspec knows; a Pydantic model inside it is left to Pydantic.

    Raises:
        ConfigurationError: msgspec does not know the type.
    """

    def __init__(self, annotation: Any) -> None:
        self.name = type_name(annotation)
        self.annotation = annotation
        try:
            (schema,), definitions = msgspec.json.schema_components(
                [annotation], schema_hook=_model_schema, ref_template="#/$defs/{name}"
            )
            msgspec.json.Decoder(annotation, dec_hook=_to_model)  # refuses unions whose members it cannot tell apart
        except (TypeError, NameError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise ConfigurationError(f"the type {self.name} has no JSON schema: {reason[:300]}", hint=_HINT) from error
        if definitions:
            schema = {**schema, "$defs": definitions}
        self.json_schema: dict[str, Any] = add_descriptions(annotation, inline_root(hoist_definitions(schema)))

    def validate(self, value: Any) -> Any:
        """Return the value as an instance of the type.

        Raises:
            InvalidValueError: The value does not fit the type.
        """
        if type(value) is self.annotation and not isinstance(value, dict | list):
            return value
        try:
            return msgspec.convert(value, self.annotation, strict=False, dec_hook=_to_model)
        except msgspec.ValidationError as error:
            raise invalid_value([_problem(str(error))], self.name) from error
        except RecursionError as error:
            raise invalid_value([((), "nested too deeply")], self.name) from error


_HINT = install_hint("pydantic", otherwise="use types that msgspec knows")


def _problem(message: str) -> tuple[tuple[str | int, ...], str]:
    """Return the path and the rest of a message of msgspec: "Expected `int`, got `str` - at `$.lines[0]`"."""
    found = _PATH.search(message)
    if found is None:
        return (), message
    steps = [name or (int(index) if index.isdigit() else "*") for name, index in _STEP.findall(found["path"])]
    return tuple(steps), message[: found.start()] + (" as a key" if found["of_key"] else "")


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "__pydantic_core_schema__")


def _model_schema(kind: type) -> dict[str, Any]:
    if not _is_model(kind):
        raise NotImplementedError  # by which msgspec learns that a hook does not know a type
    from lm_deluge.schemas.pydantic_types import PydanticType

    return PydanticType(kind).json_schema


def _to_model(kind: type, value: Any) -> Any:
    if not _is_model(kind):
        raise NotImplementedError  # by which msgspec learns that a hook does not know a type
    from lm_deluge.schemas.pydantic_types import PydanticType

    try:
        return PydanticType(kind).validate(value)
    except InvalidValueError as error:
        raise ValueError(error.message) from error  # msgspec adds the path to errors of this class only


def uses_msgspec(annotation: Any) -> bool:
    """Whether a type has structs or constraints of msgspec, which Pydantic does not know or silently ignores."""
    return any(
        isinstance(each, msgspec.Meta) or (isinstance(each, type) and issubclass(each, msgspec.Struct))
        for each in _parts(annotation, set())
    )


def _parts(annotation: Any, seen: set[Any]) -> Iterator[Any]:
    """Iterate over a type, its arguments, its metadata and the types of its fields."""
    try:
        if annotation in seen:
            return
        seen.add(annotation)
    except TypeError:  # not hashable: metadata
        yield annotation
        return
    yield annotation
    for part in (*typing.get_args(annotation), *field_types(annotation).values()):
        yield from _parts(part, seen)
