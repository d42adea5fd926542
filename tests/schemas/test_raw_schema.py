"""JSON schemas as plain data."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from lm_deluge.errors import ConfigurationError, InvalidValueError
from lm_deluge.schemas.schema_type import schema_of

SCHEMA = {
    "title": "Order",
    "type": "object",
    "properties": {
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "minItems": 1},
        "code": {"type": "string", "pattern": "^[A-Z]+$"},
        "kind": {"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}]},
    },
    "required": ["lines"],
    "additionalProperties": False,
    "$defs": {"line": {"type": "object", "properties": {"price": {"type": "number", "minimum": 0}}}},
}


@pytest.mark.parametrize(
    ("value", "path", "text"),
    [
        ({}, (), "'lines' is a required property"),
        ({"lines": []}, ("lines",), "must have at least 1 elements"),
        ({"lines": [{"price": "x"}]}, ("lines", 0, "price"), 'must be of type "number"'),
        ({"lines": [{"price": -1}]}, ("lines", 0, "price"), "must be at least 0"),
        ({"lines": [{}], "code": "a"}, ("code",), 'must match the pattern "^[A-Z]+$"'),
        ({"lines": [{}], "more": 1}, (), "Additional properties are not allowed ('more' was unexpected)"),
        ([], (), 'must be of type "object"'),
    ],
)
def test_a_wrong_value(value: Any, path: tuple[str | int, ...], text: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        schema_of(SCHEMA).validate(value)
    assert caught.value.problems == ((path, text),)
    assert str(caught.value).startswith("not a valid Order: ")


def test_a_fitting_value_is_returned_unchanged() -> None:
    value = {"lines": [{"price": 10**30}], "kind": None}
    assert schema_of(SCHEMA).validate(value) is value


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"$ref": "https://example.com/schema.json"}, "another document"),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "does not have"),
        ({"default": {1, 2}}, "do not fit into JSON"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        schema_of(schema)


def test_a_schema_that_is_none_is_refused_where_it_is_used() -> None:
    with pytest.raises(ConfigurationError, match="not a JSON schema: anyOf at properties/a/type"):
        schema_of({"properties": {"a": {"type": "text"}}}).validate({})


def test_a_schema_that_only_refers_to_itself_ends() -> None:
    with pytest.raises(InvalidValueError, match="nested too deeply"):
        schema_of({"$ref": "#"}).validate({})


def test_without_the_library_the_structure_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    schema = schema_of(SCHEMA)
    assert schema.validate({"lines": [{"price": 1}], "code": "lower"})  # a pattern is no structure
    with pytest.raises(InvalidValueError, match="does not fit the JSON schema"):
        schema.validate({"lines": [{"price": "x"}]})
