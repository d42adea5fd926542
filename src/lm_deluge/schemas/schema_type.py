"""A Python type as a JSON schema, and the check of a value against it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

from lm_deluge.errors import ConfigurationError

__all__ = ["SchemaType", "schema_of"]


class SchemaType(Protocol):
    """The JSON schema of a type.

    Attributes:
        json_schema: The schema. Its references (`$ref`) point into its own `$defs`, and the schema of a class is not
            itself a reference.
        name: Name of the type, for messages and for APIs that name schemas.
        annotation: The type itself.
    """

    json_schema: dict[str, Any]
    name: str
    annotation: Any

    def validate(self, value: Any) -> Any:
        """Return a JSON value as an instance of the type.

        Raises:
            InvalidValueError: The value does not fit the type. The error names each place.
        """
        ...


def schema_of(annotation: Any) -> SchemaType:
    """Return the schema of a type.

    Args:
        annotation: A Pydantic model, dataclass, TypedDict, NamedTuple, msgspec struct, enum, `Literal`, `Optional`,
            union, collection, `datetime`, `UUID`, `Decimal`, any of these in `Annotated`, or a JSON schema as a
            mapping. Pydantic, where it is installed, makes the schema and validates; types that it does not know, and
            all types without Pydantic, are left to msgspec.

    Raises:
        ConfigurationError: The type has no JSON schema.

    Example:
        >>> schema_of(list[int]).validate(["1", 2])
        [1, 2]
    """
    if isinstance(annotation, Mapping):
        from lm_deluge.schemas.raw_schema import RawSchema

        return RawSchema(annotation)
    try:
        hash(annotation)
    except TypeError:  # `Annotated` with a list or dict as metadata
        return _make_schema(annotation)
    return _cached_schema(annotation)


def _make_schema(annotation: Any) -> SchemaType:
    from lm_deluge.schemas.msgspec_types import MsgspecType, uses_msgspec

    if annotation is None:
        annotation = type(None)
    if isinstance(annotation, str):
        raise ConfigurationError(f"the type {annotation[:80]!r} is a text", hint="Pass the type itself.")
    if has_pydantic() and not uses_msgspec(annotation):
        from lm_deluge.schemas.pydantic_types import PydanticType, is_unknown_to_pydantic

        try:
            return PydanticType(annotation)
        except ConfigurationError as error:
            if not is_unknown_to_pydantic(error.__cause__):
                raise
    return MsgspecType(annotation)


# A program has few types; the bound is for those that are made in a loop.
_cached_schema = lru_cache(maxsize=512)(_make_schema)


@lru_cache(maxsize=1)
def has_pydantic() -> bool:
    """Whether Pydantic is installed; it is not imported for the answer."""
    return importlib.util.find_spec("pydantic") is not None
