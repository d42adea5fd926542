"""The types of the parts of a type: of its fields, elements and values. Pure.

A part is known only where a value that the whole type accepts is accepted by the part alone, too. A type that changes
its input before it reads the parts (a validator with the mode `before`, for example) has no known parts.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, NamedTuple

from lm_deluge.errors import ConfigurationError
from lm_deluge.schemas.descriptions import field_types, type_name
from lm_deluge.schemas.problems import invalid_value
from lm_deluge.schemas.schema_type import schema_of

__all__ = ["UNKNOWN_PART", "TypePart", "part_of"]

# Settings of a Pydantic model that change how the values inside its fields are read.
_COERCING = frozenset(
    {
        *("coerce_numbers_to_str", "str_strip_whitespace", "str_to_lower", "str_to_upper", "use_enum_values"),
        *("val_json_bytes", "allow_inf_nan", "str_min_length", "str_max_length"),
    }
)


class TypePart(NamedTuple):
    """A part of a type.

    Attributes:
        annotation: Its type; None if it is not known what it contains.
        validate: Returns a JSON value as an instance of the part, or raises an `InvalidValueError`; None: unknown.
    """

    annotation: Any
    validate: Callable[[Any], Any] | None


UNKNOWN_PART = TypePart(None, None)


def part_of(annotation: Any, key: str | int) -> TypePart:
    """Return the part of a type at a key of its JSON form."""
    kind = _plain(annotation)
    origin = typing.get_origin(kind) or kind
    if not isinstance(origin, type):
        return UNKNOWN_PART
    if isinstance(key, int):
        return _typed(_element_type(origin, typing.get_args(kind), key))
    return _part_of_mapping(kind, origin, key)


def _part_of_mapping(kind: Any, origin: type, key: str) -> TypePart:
    if issubclass(origin, Mapping) and not typing.is_typeddict(origin):
        arguments = typing.get_args(kind)
        return _typed(arguments[1] if len(arguments) == 2 else None)  # noqa: PLR2004 - types of keys and values
    if hasattr(origin, "model_fields"):
        return _pydantic_part(kind, key)
    if kind is not origin or _has_any_decorators(getattr(origin, "__pydantic_decorators__", None)):
        return UNKNOWN_PART  # a generic class, or a dataclass of Pydantic with validators
    return _typed(_fields(origin).get(key))


def _plain(annotation: Any) -> Any:
    """Return the type itself, without metadata and without None; None if its values may be read in another way."""
    while True:
        if hasattr(annotation, "__metadata__"):
            if any(type(each).__module__ == "pydantic.functional_validators" for each in annotation.__metadata__):
                return None
            annotation = annotation.__origin__
        elif hasattr(annotation, "__supertype__"):  # NewType
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType" and not typing.get_args(annotation):
            annotation = annotation.__value__
        elif typing.get_origin(annotation) in (typing.Union, UnionType):
            members = [each for each in typing.get_args(annotation) if each is not NoneType]
            if len(members) != 1:
                return None
            annotation = members[0]
        else:
            return annotation


def _typed(annotation: Any) -> TypePart:
    if annotation is None or isinstance(annotation, typing.TypeVar):
        return UNKNOWN_PART
    try:
        return TypePart(annotation, schema_of(annotation).validate)
    except ConfigurationError:  # valid inside the whole type only, because of a reference for example
        return UNKNOWN_PART


def _element_type(origin: type, arguments: tuple[Any, ...], index: int) -> Any:
    if not arguments or issubclass(origin, str | bytes | Mapping):
        return None
    if issubclass(origin, tuple):
        if len(arguments) == 2 and arguments[1] is Ellipsis:  # noqa: PLR2004 - tuple[int, ...]
            return arguments[0]
        return arguments[index] if index < len(arguments) else None
    return arguments[0]


def _fields(kind: type) -> dict[str, Any]:
    """Return the types of the fields by their names in JSON."""
    found = field_types(kind)
    names = getattr(kind, "__struct_fields__", None)
    if names is not None:  # a struct may rename its fields
        encoded = dict(zip(names, kind.__struct_encode_fields__, strict=True))  # type: ignore[attr-defined]
        return {encoded[name]: each for name, each in found.items() if name in encoded}
    return found


def _pydantic_part(kind: Any, key: str) -> TypePart:
    """Return a field of a Pydantic model, validated with the model's own settings and validators of the field."""
    fields, decorators = kind.model_fields, kind.__pydantic_decorators__
    if decorators.model_validators or decorators.root_validators or getattr(kind, "__pydantic_root_model__", False):
        return UNKNOWN_PART
    name = _name_of_field(fields, key)
    config = kind.model_config
    if name is None or config.get("frozen") or fields[name].frozen or _needs_other_fields(decorators, name):
        return UNKNOWN_PART
    field = fields[name]
    is_changed = _has_decorators(decorators, name) or not _COERCING.isdisjoint(config)
    is_changed = is_changed or any(type(each).__module__ == "pydantic.functional_validators" for each in field.metadata)
    return TypePart(None if is_changed else field.annotation, _FieldValidator(kind, name))


def _has_any_decorators(decorators: Any) -> bool:
    kinds = ("validators", "field_validators", "root_validators", "model_validators")
    return decorators is not None and any(getattr(decorators, kind) for kind in kinds)


def _name_of_field(fields: Mapping[str, Any], key: str) -> str | None:
    for name, field in fields.items():
        alias = field.validation_alias or field.alias or name
        if key in (getattr(alias, "choices", None) or (alias,)):
            return name
    return None


def _validators_of(decorators: Any, name: str) -> list[Any]:
    found = [*decorators.field_validators.values(), *decorators.validators.values()]
    return [each for each in found if name in each.info.fields or "*" in each.info.fields]


def _has_decorators(decorators: Any, name: str) -> bool:
    return bool(_validators_of(decorators, name))


def _needs_other_fields(decorators: Any, name: str) -> bool:
    """Whether a validator of the field reads the fields before it, or is of an old form that may do so."""
    return any(
        each in decorators.validators.values() or _count_arguments(each.func) > 1 + (each.info.mode == "wrap")
        for each in _validators_of(decorators, name)
    )


def _count_arguments(function: Any) -> int:
    return int(function.__code__.co_argcount) - hasattr(function, "__self__") if hasattr(function, "__code__") else 2


class _FieldValidator:
    """Validates one field of a model, without the others."""

    def __init__(self, model: Any, name: str) -> None:
        self._model = model
        self._name = name

    def __call__(self, value: Any) -> Any:
        from pydantic import ValidationError

        try:
            return self._assigned(value, strict=None)
        except ValidationError as error:
            found = error
        try:  # strict models take dates and tuples from JSON, which this way of validation does not know
            return self._assigned(value, strict=False)
        except ValidationError:
            problems = [
                (each["loc"][1:], each["msg"])
                for each in found.errors(include_url=False, include_context=False, include_input=False)
            ]
            raise invalid_value(problems, type_name(self._model)) from found

    def _assigned(self, value: Any, *, strict: bool | None) -> Any:
        instance = self._model.model_construct()
        self._model.__pydantic_validator__.validate_assignment(instance, self._name, value, strict=strict)
        return instance.__dict__[self._name]
