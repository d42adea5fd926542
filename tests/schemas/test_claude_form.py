"""Schemas for Claude's structured output, compared with what Anthropic's own SDK makes of them."""

from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from anthropic.lib._parse._transform import transform_schema
from pydantic import BaseModel, Field

from lm_deluge.schemas.claude_form import claude_form
from lm_deluge.schemas.schema_type import schema_of
from lm_deluge.schemas.subschemas import walk_schemas


class Line(BaseModel):
    name: Annotated[str, Field(min_length=1, description="What was bought.")]
    price: float = Field(gt=0, le=1000)
    tags: list[str] = Field(default=[], max_length=3)


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Invoice(BaseModel):
    lines: list[Line] = Field(min_length=1)
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    total: Decimal


class Tree(BaseModel):
    parts: "list[Tree]"


class Open(BaseModel):
    prices: dict[str, float]


def keywords_of(schema: dict[str, Any]) -> set[str]:
    return {name for part in walk_schemas(schema) for name in part}


def test_limits_become_descriptions() -> None:
    found = claude_form(schema_of(Invoice).json_schema)
    assert found is not None
    line = found["$defs"]["Line"]
    assert line["properties"]["name"]["description"] == "What was bought. (minLength: 1)"
    assert line["properties"]["price"]["description"] == "(maximum: 1000, exclusiveMinimum: 0)"
    assert line["required"] == ["name", "price"]
    assert found["properties"]["lines"]["minItems"] == 1
    assert "(?" not in str(found)
    assert all(part.get("additionalProperties") is False for part in walk_schemas(found) if "properties" in part)


@pytest.mark.parametrize("kind", [Line, Invoice])
def test_no_keyword_is_sent_that_the_sdk_of_the_provider_leaves_out(kind: type) -> None:
    schema = schema_of(kind).json_schema
    found = claude_form(schema)
    assert found is not None
    assert keywords_of(found) - {"default", "title", "pattern"} <= keywords_of(transform_schema(schema))


@pytest.mark.parametrize(
    "schema",
    [
        schema_of(Tree).json_schema,
        schema_of(Open).json_schema,
        {"type": "object"},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "properties": {"a": {"type": "array", "prefixItems": [{"type": "string"}]}}},
    ],
)
def test_a_schema_that_cannot_be_enforced(schema: dict[str, Any]) -> None:
    assert claude_form(schema) is None
