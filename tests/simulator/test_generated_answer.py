"""Answers without a script: tools are called, schemas are followed, reasoning is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel

from lm_deluge import Conversation, LLMClient, SamplingParams, Tool
from lm_deluge.simulator import Script, Simulator
from lm_deluge.simulator.generated_answer import make_example

WEATHER = Tool(
    name="get_weather",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string", "examples": ["Paris"]}, "days": {"type": "integer", "minimum": 2}},
    },
)
CLOCK = Tool(name="clock")


async def ask(prompt: Any, script: Script | None = None, **options: Any) -> Any:
    async with Simulator(script) as sim, LLMClient("gpt-4.1", base_url=sim.base_url, api_key="any") as client:
        return await client.stream(prompt, echo=None, **options)


async def test_an_offered_tool_is_called_and_its_result_taken_up() -> None:
    conversation = Conversation.user("Weather?")
    response = await ask(conversation, tools=[WEATHER, CLOCK])
    assert response.finish_reason == "tool_calls"
    (call,) = response.tool_calls
    assert (call.name, call.arguments) == ("get_weather", {"city": "Paris", "days": 2})
    conversation.add(response.content).tool_result(call.id, "sunny")
    assert (await ask(conversation, tools=[WEATHER, CLOCK])).completion == "The tool returned: sunny"


async def test_the_choice_of_a_tool_is_obeyed() -> None:
    named = await ask("Hi", tools=[WEATHER, CLOCK], sampling_params=SamplingParams(tool_choice="clock"))
    assert [(call.name, call.arguments) for call in named.tool_calls] == [("clock", {})]
    none = await ask("Hi", tools=[WEATHER], sampling_params=SamplingParams(tool_choice="none"))
    assert none.completion.startswith("## You said: Hi")


async def test_a_script_with_content_is_not_completed_from_the_request() -> None:
    assert (await ask("Hi", Script(text="No."), tools=[WEATHER])).completion == "No."
    assert (await ask("Hi", Script(refusal="No."), tools=[WEATHER])).content.refusal == "No."


class Inner(BaseModel):
    name: str
    tags: list[str]


class Form(BaseModel):
    count: int
    share: float
    is_open: bool
    inner: Inner
    more: list[Inner]
    maybe: str | None


async def test_a_schema_is_followed() -> None:
    response = await ask("Hi", output=Form)
    assert Form.model_validate_json(response.completion).inner.name == "some name"
    strict = await ask("Hi", output=to_strict_json_schema(Form))
    assert Form.model_validate_json(strict.completion).is_open


async def test_json_mode_is_json() -> None:
    response = await ask("Is this JSON?", sampling_params=SamplingParams(json_mode=True))
    assert json.loads(response.completion) == {"simulated": True, "question": "Is this JSON?"}


async def test_thoughts_come_where_an_effort_is_asked_for() -> None:
    options = {"api_key": "any", "reasoning_effort": "low"}
    async with Simulator() as sim, LLMClient("any", base_url=sim.base_url, **options) as client:
        response = await client.stream("Hi", echo=None)
    assert response.thinking.startswith("A simulator does not think.")
    assert response.usage.reasoning_tokens > 5
    assert (await ask("Hi")).thinking == ""


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"enum": ["a", "b"]}, "a"),
        ({"const": 7}, 7),
        ({"type": "string", "default": "x"}, "x"),
        ({"type": ["null", "boolean"]}, True),
        ({"type": "null"}, None),
        ({"anyOf": [{"type": "null"}, {"type": "number", "maximum": -2.5}]}, -2.5),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2}, ["some text", "some text"]),
        ({"properties": {"a": {}}}, {"a": "some a"}),
        ({"$ref": "#/$defs/nowhere"}, None),
        ({"$ref": "#"}, None),
        ({"type": "hologram"}, None),
        (True, None),
    ],
)
def test_examples_of_schemas(schema: Any, value: Any) -> None:
    found = make_example(schema)
    assert found == value or (value is None and found == "some text")


def test_schemas_that_contain_themselves_end() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    assert json.dumps(make_example(node)).count("next") in range(1, 9)
