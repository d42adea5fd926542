"""Descriptions for the model, from docstrings and from the metadata of `Annotated`."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from lm_deluge.schemas.subschemas import JSON

__all__ = ["Docstring", "add_descriptions", "description_of", "field_types", "read_docstring", "type_name"]


class Docstring(NamedTuple):
    """The parts of a docstring: the text before its sections, and the descriptions of parameters or attributes."""

    text: str = ""
    parameters: Mapping[str, str] = {}


@lru_cache(maxsize=512)
def read_docstring(text: str) -> Docstring:
    """Return the parts of a docstring with sections in the style of Google, NumPy, Sphinx or Epydoc."""
    import docstring_parser  # imported on first use

    try:
        parsed = docstring_parser.parse(text)
    except docstring_parser.ParseError:  # an unusual section: the docstring is one text
        return Docstring(inspect.cleandoc(text))
    parameters = {each.arg_name.lstrip("*"): " ".join((each.description or "").split()) for each in parsed.params}
    described = "\n\n".join(filter(None, (parsed.short_description, parsed.long_description)))
    return Docstring(described, {name: value for name, value in parameters.items() if value})


def description_of(annotation: Any) -> str | None:
    """Return the description in the metadata of `Annotated`: a text, or an object with a description."""
    for each in getattr(annotation, "__metadata__", ()):
        # `description` of pydantic.Field and msgspec.Meta, `documentation` of typing_extensions.Doc
        text = each if isinstance(each, str) else getattr(each, "description", getattr(each, "documentation", None))
        if isinstance(text, str):
            return text
    return None


def type_name(annotation: Any) -> str:
    """Return the name of a type for messages: of a class its name, of other types how they are written."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    if hasattr(annotation, "__metadata__"):
        return type_name(annotation.__origin__)
    return str(annotation).replace("typing.", "")[:80]


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and (
        dataclasses.is_dataclass(kind)
        or typing.is_typeddict(kind)
        or hasattr(kind, "__struct_fields__")
        or hasattr(kind, "model_fields")
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    )


def field_types(kind: Any) -> dict[str, Any]:
    """Return the types of the fields of a dataclass, TypedDict, NamedTuple, struct or model; {} for other types."""
    kind = typing.get_origin(kind) or kind
    if not _is_record(kind):
        return {}
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except Exception:  # noqa: BLE001 - a name that only the maker of the schema resolves, or reports
        return {}


def add_descriptions(annotation: Any, schema: JSON) -> JSON:
    """Return the schema with descriptions of fields that only our own reading of the types finds.

    These are texts in `Annotated`, and the section `Attributes` of the docstring of a class. Descriptions that the
    schema has already are kept.
    """
    definitions = dict(schema.get("$defs", {}))
    root = annotation.__origin__ if hasattr(annotation, "__metadata__") else annotation
    found = dict(schema)
    for kind in _records(annotation, {}):
        if kind is root:
            found = _described(kind, found)
        elif isinstance(definitions.get(kind.__name__), dict):
            definitions[kind.__name__] = _described(kind, definitions[kind.__name__])
    if (text := description_of(annotation)) is not None:
        found["description"] = text
    return {**found, "$defs": definitions} if definitions else found


def _records(annotation: Any, seen: dict[Any, None]) -> dict[Any, None]:
    """Return the classes with fields that a type contains."""
    for each in typing.get_args(annotation):
        _records(each, seen)
    if _is_record(annotation) and annotation not in seen:
        seen[annotation] = None
        for each in field_types(annotation).values():
            _records(each, seen)
    return seen


def _described(kind: type, schema: JSON) -> JSON:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return schema
    text = inspect.cleandoc(kind.__doc__) if kind.__doc__ else ""
    docstring = read_docstring(text) if schema.get("description") == text and text else Docstring()
    texts = {**docstring.parameters, **_annotated_texts(kind)}
    changed = {
        name: {**value, "description": texts[name]}
        if name in texts and isinstance(value, dict) and "description" not in value
        else value
        for name, value in properties.items()
    }
    described = {**schema, "properties": changed}
    if docstring.parameters:
        described["description"] = docstring.text
    return described


def _annotated_texts(kind: type) -> dict[str, str]:
    described = {name: description_of(each) for name, each in field_types(kind).items()}
    return {name: text for name, text in described.items() if text}
