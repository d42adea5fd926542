"""Types whose schemas Pydantic makes and whose values it validates."""

from __future__ import annotations

import json
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation
from pydantic.json_schema import GenerateJsonSchema

from lm_deluge.errors import ConfigurationError
from lm_deluge.schemas.descriptions import add_descriptions, type_name
from lm_deluge.schemas.problems import invalid_value
from lm_deluge.schemas.subschemas import inline_root

__all__ = ["PydanticType", "is_unknown_to_pydantic"]


class _WithoutFieldTitles(GenerateJsonSchema):
    """Leaves out titles that only repeat the names of fields: each costs tokens and adds nothing."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


class PydanticType:
    """A type that Pydantic knows.

    Raises:
        ConfigurationError: Pydantic does not know the type, or the type has no JSON schema; its cause is the error of
            Pydantic.
    """

    def __init__(self, annotation: Any) -> None:
        self.name = type_name(annotation)
        self.annotation = annotation
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(annotation)
            schema = self._adapter.json_schema(schema_generator=_WithoutFieldTitles)
        except (PydanticUserError, PydanticUndefinedAnnotation, TypeError, NameError, RecursionError) as error:
            reason = str(error).partition("\n")[0]
            raise ConfigurationError(
                f"the type {self.name} has no JSON schema: {reason}", hint="Its values must fit into JSON."
            ) from error
        self.json_schema: dict[str, Any] = add_descriptions(annotation, inline_root(schema))

    def validate(self, value: Any) -> Any:
        """Return the value as an instance of the type.

        Raises:
            InvalidValueError: The value does not fit the type.
        """
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            found = error
        except RecursionError as error:
            raise invalid_value([((), "nested too deeply")], self.name) from error
        try:  # strict models take dates, UUIDs and tuples from JSON only
            return self._adapter.validate_json(json.dumps(value))
        except (ValidationError, TypeError, ValueError, RecursionError):
            problems = [
                (each["loc"], each["msg"])
                for each in found.errors(include_url=False, include_context=False, include_input=False)
            ]
            raise invalid_value(problems, self.name) from found


def is_unknown_to_pydantic(error: BaseException | None) -> bool:
    """Whether Pydantic refused a type that msgspec may know: its own structs, and `TypedDict` before Python 3.12."""
    return isinstance(error, PydanticSchemaGenerationError) or (
        isinstance(error, PydanticUserError) and error.code == "typed-dict-version"
    )
