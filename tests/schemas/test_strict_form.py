"""Schemas for OpenAI's strict mode, and the nulls that it brings in place of missing properties."""

import datetime as dt
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from lm_deluge.adapters.openai_chat.json_schema import is_strict
from lm_deluge.schemas.schema_type import schema_of
from lm_deluge.schemas.strict_form import has_optional_properties, strict_form, without_absent


class Kind(Enum):
    A = "a"
    B = "b"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    tail: float | None = None


class Node(BaseModel):
    name: str
    next: "Node | None" = None


class Everything(BaseModel):
    text: str
    day: dt.date
    price: Decimal
    link: Annotated[str, Field(json_schema_extra={"format": "uri"})] = "none"
    kind: Kind = Kind.A
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    tags: set[str] = set()
    first: Cat = Field(default=Cat(kind="cat"), description="The first one.")
    maybe: int | None = None


STRICT = (Everything, Node, Cat)
OPEN: dict[str, dict[str, Any]] = {
    "any keys": {"type": "object", "properties": {"a": {"type": "object", "additionalProperties": {"type": "string"}}}},
    "an object of unknown properties": {"type": "object"},
    "anything": {"type": "object", "properties": {"a": {}}},
    "a tuple": {"type": "object", "properties": {"a": {"type": "array", "prefixItems": [{"type": "string"}]}}},
    "not": {"type": "object", "properties": {"a": {"not": {"type": "string"}}}},
    "two parts": {"type": "object", "properties": {"a": {"allOf": [{"type": "string"}, {"minLength": 1}]}}},
    "a property that never fits": {"type": "object", "properties": {"a": False}},
}


def keywords_of(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(keywords_of, schema))
    if not isinstance(schema, dict):
        return set()
    names = {"properties", "$defs"}
    inner = [*(schema.get(name, {}).values() for name in names)]
    others = [value for name, value in schema.items() if name not in names]
    return set(schema) | keywords_of(others) | set().union(*(keywords_of(list(each)) for each in inner))


@pytest.mark.parametrize("kind", STRICT)
def test_the_strict_form_of_a_type(kind: type) -> None:
    schema = schema_of(kind).json_schema
    found = strict_form(schema)
    assert found is not None
    assert is_strict(found)
    assert not keywords_of(found) & {"default", "oneOf", "allOf", "discriminator", "uniqueItems"}
    assert "(?" not in str(found)
    assert "uri" not in str(found)


def test_what_may_be_missing_may_be_null() -> None:
    found = strict_form(schema_of(Dog).json_schema)
    assert found is not None
    assert found["required"] == ["kind", "tail"]
    assert found["properties"]["tail"]["anyOf"] == [{"type": "number"}, {"type": "null"}]
    everything = strict_form(schema_of(Everything).json_schema)
    assert everything is not None
    assert everything["properties"]["first"] == {
        "description": "The first one.",
        "anyOf": [{"$ref": "#/$defs/Cat"}, {"type": "null"}],
    }


@pytest.mark.parametrize("name", OPEN)
def test_a_schema_without_a_strict_form(name: str) -> None:
    assert strict_form(OPEN[name]) is None


def test_a_part_alone_is_merged() -> None:
    schema = {"type": "object", "properties": {"a": {"allOf": [{"type": "string"}], "description": "d"}}}
    found = strict_form(schema)
    assert found is not None
    assert found["properties"]["a"] == {"description": "d", "anyOf": [{"type": "string"}, {"type": "null"}]}


DATA: dict[str, Any] = {
    "text": "x", "day": "2026-11-30", "price": "1.5", "link": None, "kind": None, "tags": None, "first": None,
    "pet": {"kind": "cat", "lives": None}, "maybe": None,
}  # fmt: skip


def test_nulls_of_the_strict_form_are_missing_values() -> None:
    kind = schema_of(Everything)
    schema = kind.json_schema
    assert has_optional_properties(schema)
    cleaned = without_absent(DATA, schema, schema)
    assert cleaned == {
        "text": "x", "day": "2026-11-30", "price": "1.5", "pet": {"kind": "cat"}, "maybe": None,
    }  # fmt: skip
    assert kind.validate(cleaned).pet == Cat(kind="cat", lives=9)


def test_nulls_in_lists_and_in_references_to_the_schema_itself() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "more": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["more"],
    }
    value = {"a": None, "more": [{"a": None, "more": []}, {"a": "x", "more": []}], "other": None}
    assert without_absent(value, schema, schema) == {"more": [{"more": []}, {"a": "x", "more": []}], "other": None}
    assert not has_optional_properties({"type": "object", "properties": {"a": {"type": ["string", "null"]}}})
