"""Schemas inside schemas: definitions that move, references that follow them."""

from __future__ import annotations

from typing import Any

import jsonschema
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.schemas.subschemas import hoist_definitions, inline_root, map_subschemas, walk_schemas


def test_definitions_of_one_name_stay_apart() -> None:
    one = {"$ref": "#/$defs/A", "$defs": {"A": {"type": "integer"}}}
    other = {"type": "array", "items": {"$ref": "#/$defs/A"}, "$defs": {"A": {"type": "string"}}}
    hoisted = hoist_definitions({"type": "object", "properties": {"one": one, "other": other, "same": one}})
    assert hoisted["$defs"] == {"A": {"type": "integer"}, "A_2": {"type": "string"}}
    assert hoisted["properties"]["same"] == {"$ref": "#/$defs/A"}
    jsonschema.validate({"one": 1, "other": ["x"], "same": 2}, hoisted)
    assert not jsonschema.Draft202012Validator(hoisted).is_valid({"other": [1]})


def test_a_definition_that_refers_to_itself_is_renamed_with_its_references() -> None:
    def tree(kind: str) -> dict[str, Any]:
        node = {"properties": {"value": {"type": kind}, "next": {"$ref": "#/$defs/Node"}}}
        return {"$ref": "#/$defs/Node", "$defs": {"Node": node}}

    hoisted = hoist_definitions({"properties": {"a": tree("integer"), "b": tree("string")}})
    assert hoisted["$defs"]["Node_2"]["properties"]["next"] == {"$ref": "#/$defs/Node_2"}


def test_values_and_names_that_look_like_schemas_are_left_alone() -> None:
    schema = {
        "properties": {"$defs": {"type": "string"}, "$ref": {"type": "string"}},
        "enum": [{"$defs": {"A": 1}}],
        "default": {"$ref": "#/$defs/A"},
    }
    assert hoist_definitions(schema) == schema


def test_a_root_that_is_a_reference_becomes_its_target() -> None:
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object"}}, "description": "x"}
    assert inline_root(schema) == {"type": "object", "description": "x"}
    recursive = {"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"a": {"$ref": "#/$defs/A"}}}}}
    assert inline_root(recursive)["$defs"] == recursive["$defs"]
    assert inline_root({"$ref": "#/$defs/none"}) == {"$ref": "#/$defs/none"}


SCHEMAS = st.recursive(
    st.sampled_from([{"type": "string"}, {"type": "integer", "minimum": 1}, {}]),
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(["a", "b"]), inner).map(lambda each: {"type": "object", "properties": each}),
        inner.map(lambda each: {"type": "array", "items": each}),
        st.lists(inner, min_size=1, max_size=2).map(lambda each: {"anyOf": each}),
        inner.map(lambda each: {"$ref": "#/$defs/A", "$defs": {"A": each}}),
    ),
    max_leaves=6,
)
VALUES = st.recursive(
    st.sampled_from([0, 1, "x", None]),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(["a", "b"]), inner)),
    max_leaves=5,
)


def inlined(schema: Any, definitions: Any = None) -> Any:
    """Return the schema with every reference replaced; each schema with `$defs` is complete in itself."""
    if isinstance(schema, dict) and "$ref" in schema:
        own = schema.get("$defs", definitions)
        return inlined(own[schema["$ref"].rpartition("/")[2]], own)
    return map_subschemas(schema, lambda part: inlined(part, schema.get("$defs", definitions)))


@given(SCHEMAS, VALUES)
def test_hoisting_changes_no_verdict(schema: dict[str, Any], value: Any) -> None:
    hoisted = hoist_definitions(schema)
    assert sum("$defs" in part for part in walk_schemas(hoisted)) == ("$defs" in hoisted)
    expected = jsonschema.Draft202012Validator(inlined(schema)).is_valid(value)
    assert jsonschema.Draft202012Validator(hoisted).is_valid(value) == expected
