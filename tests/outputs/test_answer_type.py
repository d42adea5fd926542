"""What may stand after `output=`: types, wrapped and checked before anything is sent."""

import dataclasses
import datetime as dt
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel, field_validator, model_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass

from lm_deluge.errors import ConfigurationError, InvalidValueError
from lm_deluge.outputs.answer_type import AnswerType, answer_type


class Line(BaseModel):
    name: str
    price: float = Field(gt=0)


class Model(BaseModel):
    lines: list[Line]
    day: dt.date


@dataclasses.dataclass
class Record:
    lines: list[Line]
    day: dt.date


@pydantic_dataclass
class Checked:
    lines: list[Line]
    day: dt.date


class Typed(TypedDict):
    lines: list[Line]
    day: dt.date


class Struct(msgspec.Struct):
    lines: list[Line]
    day: dt.date


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "lines": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "price": {"type": "number", "exclusiveMinimum": 0}},
                "required": ["name", "price"],
            },
        },
        "day": {"type": "string"},
    },
    "required": ["lines", "day"],
}
KINDS = (Model, Record, Checked, Typed, Struct, SCHEMA)
NAMES = [getattr(kind, "__name__", "JSON schema") for kind in KINDS]
DATA = {"lines": [{"name": "a", "price": 1}], "day": "2026-11-30"}


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_every_kind_of_type_validates_the_whole_and_each_part(kind: Any) -> None:
    found = answer_type(kind)
    assert not found.is_wrapped
    assert found.schema["type"] == "object"
    whole = found.validate(DATA)
    day = whole["day"] if isinstance(whole, dict) else whole.day
    assert day == ("2026-11-30" if kind is SCHEMA else dt.date(2026, 11, 30))
    assert found.shape_at(("day",)).check("2026-11-30") == day
    line = found.shape_at(("lines", 0)).check({"name": "a", "price": 1})
    assert line == ({"name": "a", "price": 1} if kind is SCHEMA else Line(name="a", price=1))
    with pytest.raises(InvalidValueError):
        found.shape_at(("lines", 7, "price")).check("much")
    with pytest.raises(InvalidValueError):
        found.shape_at(("lines", 7, "price")).check(-1)
    with pytest.raises(InvalidValueError) as caught:
        found.validate({"lines": [{"name": "a", "price": 1}, {"name": "b", "price": "much"}], "day": "2026-11-30"})
    # A Pydantic model inside a type of msgspec is one place for msgspec.
    assert caught.value.path == ("lines", 1, "price")[: 2 if kind in (Typed, Struct) else 3]


def test_each_type_is_read_once() -> None:
    assert answer_type(Model) is answer_type(Model)


WRAPPED: tuple[tuple[Any, Any, Any], ...] = (
    (list[Line], [{"name": "a", "price": 1}], [Line(name="a", price=1)]),
    (int, 3, 3),
    (Literal["yes", "no"], "yes", "yes"),
    (Line | None, None, None),
    ({"type": "array", "items": {"type": "integer"}}, [1], [1]),
    ({"anyOf": [{"type": "object", "properties": {}}, {"type": "string"}]}, "x", "x"),
    (tuple[int, str], [1, "a"], (1, "a")),
)


@pytest.mark.parametrize(("kind", "value", "expected"), WRAPPED, ids=[str(each[0])[:30] for each in WRAPPED])
def test_what_is_no_object_is_wrapped_in_one(kind: Any, value: Any, expected: Any) -> None:
    found = answer_type(kind)
    assert found.is_wrapped
    assert found.schema["type"] == "object"
    assert found.schema["required"] == ["value"]
    assert found.schema["additionalProperties"] is False
    assert found.validate(value) == expected


def test_references_of_a_wrapped_schema_still_lead_to_its_parts() -> None:
    schema = {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"$ref": "#"}]}}
    found = answer_type(schema).schema
    assert found["properties"]["value"]["items"]["anyOf"][1] == {"$ref": "#/properties/value"}
    assert answer_type(schema).validate([1, [2, [3]]]) == [1, [2, [3]]]
    recursive = answer_type(list[Tree])
    assert recursive.schema["properties"]["value"]["items"] == {"$ref": "#/$defs/Tree"}
    assert "Tree" in recursive.schema["$defs"]


class Tree(BaseModel):
    name: str
    parts: "list[Tree]" = []


def test_a_type_that_refers_to_itself_is_an_object_at_its_root() -> None:
    found = answer_type(Tree)
    assert found.schema["type"] == "object"
    assert found.shape_at(("parts", 0, "parts", 1)).check({"name": "x"}) == Tree(name="x")


class Uncommon(BaseModel):
    call: Callable[[], int]


BAD: dict[str, tuple[Any, str]] = {
    "a text": ("Model", "no type"),
    "a number": (5, "no type"),
    "a list": ([Line], "no type"),
    "a function": (lambda: None, "no type"),
    "an instance": (Line(name="a", price=1), "no JSON schema"),
    "a type without a schema": (Uncommon, "Uncommon has no JSON schema"),
    "an unknown type": ({"type": "strin"}, "no provider accepts"),
    "an unknown type inside": ({"type": "object", "properties": {"a": {"type": "text"}}}, "'text'"),
    "an empty schema": ({}, "without any type"),
    "a list of properties": ({"type": "object", "properties": ["a"]}, "properties must be"),
    "a text of required names": ({"type": "object", "required": "a"}, "required must be"),
    "required numbers": ({"type": "object", "required": [1]}, "required must be names"),
    "enum must be": ({"enum": []}, "enum must be"),
    "no alternatives": ({"anyOf": []}, "anyOf must be"),
    "another document": ({"$ref": "https://example.com/schema"}, "another document"),
    "a missing definition": (
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/B"}}},
        "refers to #/$defs/B, which it does not have",
    ),
    "a circle": ({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}, "leads to itself"),
    "a value that is no JSON": ({"type": "object", "properties": {}, "default": object()}, "JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_type_is_refused(name: str) -> None:
    output, words = BAD[name]
    with pytest.raises(ConfigurationError) as caught:
        answer_type(output)
    assert words in str(caught.value)


# What must not be judged before the whole object is known.


class SplitsTags(BaseModel):
    tags: list[int]
    total: int

    @field_validator("tags", mode="before")
    @classmethod
    def split(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value


class ReadsAll(BaseModel):
    total: int

    @model_validator(mode="before")
    @classmethod
    def unpack(cls, value: Any) -> Any:
        return {"total": len(value["total"])}


class ReadsOthers(BaseModel):
    low: int
    high: int

    @field_validator("high")
    @classmethod
    def above(cls, value: int, info: Any) -> int:
        if value <= info.data["low"]:
            raise ValueError("high is not above low")
        return value


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    total: int


class Coercing(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)
    names: list[str]


class StrictDay(BaseModel):
    model_config = ConfigDict(strict=True)
    day: dt.date


class Positive(BaseModel):
    total: int

    @field_validator("total")
    @classmethod
    def positive(cls, value: int) -> int:
        if value < 0:
            raise ValueError("negative")
        return value


class Aliased(BaseModel):
    total: int = Field(alias="totalAmount")


def shape(kind: Any, *path: str | int) -> Any:
    return AnswerType.shape_at(answer_type(kind), path)


def test_a_part_is_judged_as_the_whole_would_judge_it() -> None:
    assert shape(SplitsTags, "tags").check("1,2") == [1, 2]
    assert shape(SplitsTags, "tags", 0).check("x") == "x"
    assert shape(ReadsAll, "total").check("abc") == "abc"
    assert shape(ReadsOthers, "high").check(0) == 0
    assert shape(Frozen, "total").check("x") == "x"
    assert shape(RootModel[dict[str, int]], "root").check("x") == "x"
    assert shape(Coercing, "names").check([1]) == ["1"]
    assert shape(Coercing, "names", 0).check(1) == 1
    assert shape(StrictDay, "day").check("2026-11-30") == dt.date(2026, 11, 30)
    assert shape(dict[str, int], "a").check("1") == 1
    assert shape(Annotated[list[int], BeforeValidator(str.split)], 0).check("x") == "x"
    assert shape(int | list[int], 0).check("x") == "x"
    assert shape(list[int] | None, 0).check("3") == 3


def test_validators_of_a_field_judge_it_alone() -> None:
    assert shape(Positive, "total").check(5) == 5
    with pytest.raises(InvalidValueError) as caught:
        shape(Positive, "total").check(-5)
    assert caught.value.problems == (((), "Value error, negative"),)
    assert shape(Aliased, "totalAmount").check("5") == 5
    with pytest.raises(InvalidValueError):
        shape(Aliased, "totalAmount").check("x")


def test_a_validator_that_fails_in_another_way_is_left_to_the_end() -> None:
    class Broken(BaseModel):
        total: int

        @field_validator("total")
        @classmethod
        def divide(cls, value: int) -> float:
            return 1 / value

    assert shape(Broken, "total").check(0) == 0
    with pytest.raises(InvalidValueError, match="a validator raised ZeroDivisionError"):
        answer_type(Broken).validate({"total": 0})


def test_the_path_of_a_list_is_checked() -> None:
    answer_type(Model).check_list(("lines",))
    answer_type(list[Line]).check_list(())
    answer_type({"type": "object", "properties": {}, "additionalProperties": True}).check_list(("any",))
    for path, words in ((("linez",), "has no 'linez'"), (("day",), "no list at day"), ((), "no list at its root")):
        with pytest.raises(ConfigurationError, match=words):
            answer_type(Model).check_list(path)
