"""Types as JSON schemas, and values validated against them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import subprocess
import sys
import typing
import uuid
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import jsonschema
import msgspec
import pydantic
import pytest

from lm_deluge.errors import ConfigurationError, InvalidValueError
from lm_deluge.schemas.schema_type import schema_of


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Line(pydantic.BaseModel):
    """One line."""

    text: str
    price: float = pydantic.Field(description="in dollars", ge=0)


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)

    day: dt.date
    pair: tuple[int, str]


class Node(pydantic.BaseModel):
    value: int
    next: Node | None = None


@dataclasses.dataclass
class Invoice:
    """An invoice.

    Attributes:
        total: The sum.
        color: Its color.
    """

    total: int
    lines: list[Line]
    color: Color = Color.RED


class Person(TypedDict, total=False):
    name: Annotated[str, "the full name"]
    lines: list[Line]


class Point(NamedTuple):
    x: int
    y: int = 0


class Size(msgspec.Struct):
    width: Annotated[int, msgspec.Meta(ge=1, description="in pixels")]
    line: Line | None = None


SAMPLES: list[tuple[Any, Any, Any]] = [
    (int, 3, 3),
    (int, "3", 3),
    (str, "a", "a"),
    (bool, True, True),
    (None, None, None),
    (Any, {"a": [1]}, {"a": [1]}),
    (int | None, None, None),
    (Literal["a", "b"], "b", "b"),
    (Color, "blue", Color.BLUE),
    (list[int], [1, "2"], [1, 2]),
    (dict[str, int], {"a": 1}, {"a": 1}),
    (set[int], [1, 1, 2], {1, 2}),
    (tuple[int, str], [1, "a"], (1, "a")),
    (dt.datetime, "2026-01-02T03:04:05Z", dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)),
    (dt.date, "2026-01-02", dt.date(2026, 1, 2)),
    (uuid.UUID, "12345678123456781234567812345678", uuid.UUID(int=0x12345678123456781234567812345678)),
    (decimal.Decimal, "1.50", decimal.Decimal("1.50")),
    (Annotated[int, "a count"], 2, 2),
    (Line, {"text": "a", "price": 1}, Line(text="a", price=1)),
    (Strict, {"day": "2026-01-02", "pair": [1, "a"]}, Strict(day=dt.date(2026, 1, 2), pair=(1, "a"))),
    (Node, {"value": 1, "next": {"value": 2}}, Node(value=1, next=Node(value=2))),
    (Invoice, {"total": 1, "lines": [], "color": "blue"}, Invoice(1, [], Color.BLUE)),
    (Person, {"name": "x", "lines": [{"text": "a", "price": 1}]}, {"name": "x", "lines": [Line(text="a", price=1)]}),
    (list[Person], [{"name": "x"}], [{"name": "x"}]),
    (Point, [1, 2], Point(1, 2)),
    (Size, {"width": 2, "line": {"text": "a", "price": 1}}, Size(2, Line(text="a", price=1))),
    (list[Size], [{"width": 1}], [Size(1)]),
    (Size | None, None, None),
]


@pytest.mark.parametrize(("annotation", "value", "expected"), SAMPLES, ids=lambda each: str(each)[:30])
def test_a_value_becomes_an_instance_and_fits_a_valid_schema(annotation: Any, value: Any, expected: Any) -> None:
    schema = schema_of(annotation)
    found = schema.validate(value)
    assert found == expected
    assert type(found) is type(expected)
    jsonschema.Draft202012Validator.check_schema(schema.json_schema)
    if value not in ("3", [1, "2"], [1, 1, 2]):  # conversions go beyond the schema
        jsonschema.validate(value, schema.json_schema)


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (int, "x", ()),
        (list[int], [1, "x"], (1,)),
        (Line, {"text": "a", "price": -1}, ("price",)),
        (Line, {"price": 1}, ("text",)),
        (Node, {"value": 1, "next": {"value": "x"}}, ("next", "value")),
        (Invoice, {"total": 1, "lines": [{"text": 1, "price": 1}]}, ("lines", 0, "text")),
        (Person, {"name": 3}, ("name",)),
        (Person, {"lines": [{"text": "a", "price": -1}]}, ("lines", 0)),
        (Size, {"width": 0}, ("width",)),
        (list[Size], [{"width": 1}, {"width": "x"}], (1, "width")),
        (dict[str, Size], {"a": {"width": 0}}, ("*", "width")),
        (Literal["a"], "b", ()),
        (Color, "green", ()),
    ],
)
def test_a_wrong_value_is_reported_with_its_path(annotation: Any, value: Any, path: tuple[str | int, ...]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        schema_of(annotation).validate(value)
    assert caught.value.path == path
    assert caught.value.problems[0][0] == path
    assert "For further information" not in str(caught.value)


def test_all_wrong_places_are_named_but_not_endlessly() -> None:
    with pytest.raises(InvalidValueError) as caught:
        schema_of(list[int]).validate(["x"] * 50)
    assert len(caught.value.problems) == 50
    assert str(caught.value).count("[") == 11  # ten paths, and the name of the type
    assert "and 40 more" in str(caught.value)


def test_the_message_does_not_quote_the_value() -> None:
    for annotation in (Line, Size, {"type": "object", "properties": {"width": {"type": "integer"}}}):
        with pytest.raises(InvalidValueError) as caught:
            schema_of(annotation).validate({"text": ["secret"], "price": "secret", "width": "secret"})
        assert "secret" not in str(caught.value)


def test_descriptions_come_from_metadata_and_docstrings() -> None:
    invoice = schema_of(Invoice).json_schema
    assert invoice["description"] == "An invoice."
    assert invoice["properties"]["total"]["description"] == "The sum."
    assert schema_of(Person).json_schema["properties"]["name"]["description"] == "the full name"
    assert (
        schema_of(list[Person]).json_schema["$defs"]["Person"]["properties"]["name"]["description"] == "the full name"
    )
    assert schema_of(Size).json_schema["properties"]["width"]["description"] == "in pixels"
    assert schema_of(Line).json_schema["properties"]["price"]["description"] == "in dollars"
    assert schema_of(Annotated[int, "a count"]).json_schema["description"] == "a count"


def test_a_recursive_type_is_an_object_at_its_root() -> None:
    schema = schema_of(Node).json_schema
    assert schema["type"] == "object"
    assert schema["properties"]["next"]["anyOf"][0] == {"$ref": "#/$defs/Node"}
    jsonschema.validate({"value": 1, "next": {"value": 2}}, schema)


def test_fields_have_no_titles_that_repeat_their_names() -> None:
    assert "title" not in json.dumps(schema_of(Line).json_schema["properties"])


@pytest.mark.parametrize("annotation", [typing.Callable, type, "int"])
def test_a_type_without_a_schema_is_refused_by_name(annotation: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"no JSON schema|is a text"):
        schema_of(annotation)


def test_metadata_that_is_not_hashable_is_no_obstacle() -> None:
    assert schema_of(Annotated[int, ["x"]]).validate(3) == 3


WITHOUT_PYDANTIC = """
import sys
sys.modules["pydantic"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "pydantic" else find(name, *rest)
import dataclasses, typing
from lm_deluge import Tool
from lm_deluge.errors import ConfigurationError
from lm_deluge.schemas.schema_type import schema_of

@dataclasses.dataclass
class Line:
    text: str
    price: float

def buy(line: Line, count: typing.Annotated[int, "how many"] = 1) -> float:
    return line.price * count

tool = Tool.from_function(buy)
assert tool.parameters["properties"]["line"]["properties"]["price"] == {"type": "number"}, tool.parameters
assert tool.call(line={"text": "a", "price": 2}, count=3) == 6
try:
    schema_of(complex)
except ConfigurationError as error:
    assert "pydantic" in str(error), error
else:
    raise AssertionError
assert not [name for name in sys.modules if name.startswith("pydantic.")]
"""


def test_without_pydantic_msgspec_makes_the_schemas() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_PYDANTIC], check=True, timeout=60)  # noqa: S603
