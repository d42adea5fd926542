"""From what a user says to one `Call`."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, PydanticUserError

from lm_deluge import Conversation, Message, SamplingParams, Tool
from lm_deluge.api_requests.request import build_call, to_schema, to_tools
from lm_deluge.errors import ConfigurationError, InvalidPromptError
from lm_deluge.models.registry import find_model
from lm_deluge.models.rows import ModelRow

GPT = find_model("gpt-4o")
MINE = ModelRow(id="mine", name="mine", provider="openai-compatible")


class City(BaseModel):
    name: str
    people: int = 0


def test_what_is_left_alone_is_the_default() -> None:
    call = build_call(GPT, "hi")
    assert call.model is GPT
    assert call.provider.id == "openai"
    assert call.base_url == "https://api.openai.com/v1"
    assert call.params == SamplingParams()
    assert (call.tools, call.output, call.extra_headers, call.extra_body) == ((), None, {}, {})
    assert call.is_streamed
    assert call.max_event_bytes == 16 * 2**20


@pytest.mark.parametrize("prompt", ["hi", Message.user("hi"), [Message.user("hi")], Conversation.user("hi")])
def test_each_form_of_prompt_is_the_same_conversation_and_one_s_own(prompt: Any) -> None:
    call = build_call(GPT, prompt)
    assert call.conversation == Conversation.user("hi")
    assert call.conversation is not prompt


def test_tools_as_values_and_as_plain_data() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    own = Tool(name="a", description="d", parameters=schema)
    plain = {"name": "b", "parameters": schema, "strict": True}
    wrapped = {"type": "function", "function": {"name": "c"}}
    tools = build_call(GPT, "hi", tools=[own, plain, wrapped]).tools
    assert tools == (own, Tool(name="b", parameters=schema, strict=True), Tool(name="c"))
    assert to_tools(None) == to_tools([]) == ()
    assert to_tools(iter([own])) == (own,)  # type: ignore[arg-type]


@pytest.mark.parametrize("tools", ["add", {"name": "add"}, Tool(name="add"), 5, ["add"], [None], [{}],
                                   [{"name": 5}], [{"name": ""}], [{"name": "x" * 65}], [{"function": None}],
                                   [{"name": "a"}, Tool(name="a")], [{"name": "a", "parameters": {"type": "string"}}]]
)  # fmt: skip
def test_what_is_no_list_of_tools_is_refused(tools: Any) -> None:
    with pytest.raises(InvalidPromptError):
        build_call(GPT, "hi", tools=tools)


def test_the_schema_of_the_answer() -> None:
    schema = {"type": "object", "properties": {}}
    assert to_schema(None) is None
    assert to_schema(schema) is schema
    found = to_schema(City)
    assert found["properties"]["name"] == {"type": "string"}
    assert found["required"] == ["name"]
    assert build_call(GPT, "hi", output=City).output == found


def test_a_type_without_a_schema_is_our_error() -> None:
    class Uncommon(BaseModel):
        call: Callable[[], int]

    with pytest.raises(ConfigurationError, match="Uncommon has no JSON schema") as caught:
        to_schema(Uncommon)
    assert isinstance(caught.value.__cause__, PydanticUserError)


@pytest.mark.parametrize("output", [str, 5, "object", [], object()])
def test_what_is_no_schema_of_an_object_is_refused(output: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"a type or a JSON schema|has no JSON schema"):
        build_call(GPT, "hi", output=output)


@pytest.mark.parametrize("prompt", [None, b"hi", 5, {"role": "user"}, "", " ", [], Conversation(), ["hi"], [None]])
def test_what_is_no_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(InvalidPromptError):
        build_call(GPT, prompt)


def test_a_model_without_a_home_needs_an_address() -> None:
    with pytest.raises(ConfigurationError, match=r"the base URL of .* is not known"):
        build_call(MINE, "hi")
    assert build_call(MINE, "hi", base_url="http://h:1/").base_url == "http://h:1"


@pytest.mark.parametrize("name", ["extra_headers", "extra_body"])
@pytest.mark.parametrize("value", [5, "x", ["x"], [("a", "b")]])
def test_extras_are_mappings(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        build_call(GPT, "hi", **{name: value})


def test_extras_are_copied() -> None:
    headers, body = {"x": "1"}, {"a": 1}
    call = build_call(GPT, "hi", extra_headers=headers, extra_body=body)
    headers["x"], body["a"] = "2", 2
    assert (call.extra_headers, call.extra_body) == ({"x": "1"}, {"a": 1})


def test_sampling_is_of_its_own_type() -> None:
    with pytest.raises(ConfigurationError, match="SamplingParams"):
        build_call(GPT, "hi", params={"temperature": 1})  # type: ignore[arg-type]


def test_a_call_shows_nothing_of_what_was_said() -> None:
    call = build_call(
        GPT, "canary", extra_headers={"x": "canary"}, extra_body={"x": "canary"}, tools=[{"name": "canary"}]
    )
    assert "canary" not in repr(call)
