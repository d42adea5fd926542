"""Schemas that no provider accepts, and schemas that refer to themselves."""

from __future__ import annotations

from typing import Any

import pytest

from lm_deluge import LLMClient, Tool
from lm_deluge.errors import InvalidPromptError
from lm_deluge.schemas.validity import argument_schema_problem, is_recursive
from lm_deluge.simulator import Simulator

NODE = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}


@pytest.mark.parametrize(
    ("schema", "recursive"),
    [
        ({"properties": {"a": {"type": "string"}}}, False),
        ({"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}}, False),
        ({"properties": {"a": {"$ref": "#/$defs/node"}}, "$defs": {"node": NODE}}, True),
        ({"properties": {"a": {"$ref": "#"}}}, True),
        (
            {
                "$ref": "#/$defs/a",
                "$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"items": {"$ref": "#/$defs/a"}}},
            },
            True,
        ),
    ],
)
def test_references_in_a_circle(schema: dict[str, Any], recursive: bool) -> None:
    assert is_recursive(schema) is recursive
    assert argument_schema_problem(schema) is None


async def test_claude_takes_a_schema_that_refers_to_itself_unless_it_is_strict() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/node"}}, "$defs": {"node": NODE}}
    with Simulator().start_in_thread() as sim:
        async with LLMClient("claude-sonnet-4-5", base_url=sim.base_url.removesuffix("/v1"), api_key="k") as client:
            await client.stream("Hi", tools=[Tool(name="tree", parameters=schema)])
            with pytest.raises(InvalidPromptError, match="refers to itself"):
                await client.stream("Hi", tools=[Tool(name="tree", parameters=schema, strict=True)])
    assert len(sim.requests) == 1


def test_values_are_not_mistaken_for_schemas() -> None:
    schema = {"properties": {"type": {"type": "string", "enum": ["type"], "default": {"type": 3}}}}
    assert argument_schema_problem(schema) is None
    assert argument_schema_problem({"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}) is None
