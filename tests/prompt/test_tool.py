"""Tools made of functions and models: their schemas, their calls, and what depends on them."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import functools
import pickle
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pydantic
import pytest

from lm_deluge import LLMClient, Tool
from lm_deluge.errors import ConfigurationError, InvalidPromptError, InvalidValueError
from lm_deluge.prompt.tool import ProviderTool, ToolReturn, to_tools
from lm_deluge.simulator import Simulator


class City(pydantic.BaseModel):
    """A city of the world."""

    name: str


@dataclasses.dataclass
class Trip:
    """A trip.

    Attributes:
        days: How long it takes.
    """

    city: City
    days: int = 1


class Options(TypedDict, total=False):
    limit: int


def weather(city: Annotated[str, "name of a city"], days: int = 3, unit: Literal["C", "F"] = "C") -> dict[str, Any]:
    """Return the weather.

    It is made up.

    Args:
        city: not used, the metadata is nearer
        days: How many days,
            from today.
        unit: The unit.

    Returns:
        The weather.
    """
    return {"city": city, "days": days, "unit": unit}


async def later(text: str) -> str:
    await asyncio.sleep(0)
    return text.upper()


class Shop:
    def __init__(self, price: int) -> None:
        self.price = price

    def buy(self, count: int) -> int:
        return self.price * count

    def __call__(self, count: int) -> int:
        """Buy things."""
        return self.price * count


def test_hints_docstring_and_defaults_are_the_schema() -> None:
    tool = Tool.from_function(weather)
    assert (tool.name, tool.description) == ("weather", "Return the weather.\n\nIt is made up.")
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "name of a city"},
            "days": {"type": "integer", "description": "How many days, from today.", "default": 3},
            "unit": {"enum": ["C", "F"], "type": "string", "description": "The unit.", "default": "C"},
        },
        "required": ["city"],
        "additionalProperties": False,
    }


NUMPY = """Add.

    Parameters
    ----------
    a : int
        The first one.
    """
SPHINX = """Add.

    :param a: The first one.
    :returns: the sum
    """
GOOGLE = """Add.

    Args:
        a (int): The first one.
    """


@pytest.mark.parametrize("docstring", [NUMPY, SPHINX, GOOGLE])
def test_styles_of_docstrings(docstring: str) -> None:
    def add(a: int) -> int:
        return a

    add.__doc__ = docstring
    tool = Tool.from_function(add)
    assert tool.description == "Add."
    assert tool.parameters["properties"]["a"] == {"type": "integer", "description": "The first one."}


def only_by_position(a: int, b: int = 2, /, *, c: int = 3) -> list[int]:
    return [a, b, c]


@pytest.mark.parametrize(
    ("function", "name", "arguments", "result"),
    [
        (weather, "weather", {"city": "Rome", "days": "2"}, {"city": "Rome", "days": 2, "unit": "C"}),
        (later, "later", {"text": "a"}, "A"),
        (Shop(3).buy, "buy", {"count": 2}, 6),
        (Shop(3), "Shop", {"count": 2}, 6),
        (functools.partial(weather, days=9), "weather", {"city": "Rome"}, {"city": "Rome", "days": 9, "unit": "C"}),
        (functools.partial(later), "later", {"text": "a"}, "A"),
        (only_by_position, "only_by_position", {"a": 1, "c": 5}, [1, 2, 5]),
        (only_by_position, "only_by_position", {"a": 1, "b": 4}, [1, 4, 3]),
    ],
)
async def test_every_kind_of_function(function: Any, name: str, arguments: dict[str, Any], result: Any) -> None:
    tool = Tool.from_function(function)
    assert tool.name == name
    assert tool.call(**arguments) == result  # in a running event loop, too
    assert await tool.acall(**arguments) == result
    assert await asyncio.to_thread(tool.call, **arguments) == result


def test_values_are_validated_and_converted_before_the_function_runs() -> None:
    seen: list[Any] = []

    def visit(trip: Trip, options: Options | None = None, cities: list[City] = []) -> None:  # noqa: B006
        seen.append((trip, options, cities))

    tool = Tool.from_function(visit)
    tool.call(trip={"city": {"name": "Rome"}, "days": "2"}, options={"limit": 3}, cities=[{"name": "Pisa"}])
    assert seen == [(Trip(City(name="Rome"), 2), {"limit": 3}, [City(name="Pisa")])]
    with pytest.raises(InvalidValueError) as caught:
        tool.call(trip={"city": {}, "days": "x"}, options={"limit": "many"}, wrong=1)
    assert len(seen) == 1
    assert {path for path, _ in caught.value.problems} == {
        ("trip", "city", "name"), ("trip", "days"), ("options", "limit"), ("wrong",),
    }  # fmt: skip
    with pytest.raises(InvalidValueError, match="trip: missing argument"):
        tool.call()


def test_null_for_a_parameter_without_null_keeps_its_default() -> None:
    """Models that a schema forces to name every parameter set those that they do not use to null."""
    assert Tool.from_function(weather).call(city="Rome", days=None)["days"] == 3
    with pytest.raises(InvalidValueError, match="city"):
        Tool.from_function(weather).call(city=None)


def with_fields(
    count: int = pydantic.Field(description="how many", ge=1),
    unit: str = pydantic.Field("C", description="the unit"),
    tags: list[str] = pydantic.Field(default_factory=list),  # noqa: B008
) -> Any:
    return count, unit, tags


def test_fields_of_pydantic_may_stand_as_defaults() -> None:
    tool = Tool.from_function(with_fields)
    assert tool.parameters["properties"]["count"] == {"type": "integer", "minimum": 1, "description": "how many"}
    assert tool.parameters["properties"]["unit"] == {"type": "string", "default": "C", "description": "the unit"}
    assert tool.parameters["required"] == ["count"]
    assert tool.call(count="2") == (2, "C", [])
    assert tool.call(count=2, tags=["a"]) == (2, "C", ["a"])
    with pytest.raises(InvalidValueError, match="count"):
        tool.call(count=0)


class Methods:
    @staticmethod
    def still(a: int) -> int:
        return a

    @classmethod
    def of_class(cls, a: int) -> int:
        return a


def test_static_methods_and_class_methods() -> None:
    for function in (Methods.still, Methods().still, Methods.of_class, Methods().of_class):
        assert Tool.from_function(function).call(a=1) == 1


def without_hint(city, days: int = 1):  # type: ignore[no-untyped-def]
    return city, days


def variadic(*cities: str) -> None: ...


def with_keywords(**cities: str) -> None: ...


def with_odd_type(done: Callable[[], None]) -> None: ...


def with_unknown_type(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (without_hint, "the parameter 'city' of the function without_hint has no type hint"),
        (variadic, r"takes \*cities"),
        (with_keywords, r"takes \*\*cities"),
        (with_odd_type, "the parameter 'done' of the function with_odd_type: the type .* has no JSON schema"),
        (with_unknown_type, "names a type that is not defined"),
        (lambda a: a, "has no name that a tool may have"),
        (3, "int is not a function"),
        (dict.fromkeys, "has no"),
    ],
)
def test_a_function_that_is_no_tool_is_refused_by_name(function: Any, text: str) -> None:
    with pytest.raises(InvalidPromptError, match=text):
        Tool.from_function(function)


def test_a_class_inside_a_function_is_found_by_its_name() -> None:
    class Local(pydantic.BaseModel):
        a: int

    def use(local: Local) -> int:
        return local.a

    assert Tool.from_function(use).call(local={"a": 3}) == 3


def test_two_classes_of_one_name_stay_apart() -> None:
    Other = pydantic.create_model("Trip", x=(int, ...), inner=(City | None, None))  # noqa: N806

    def both(one: list[Trip], other: list[Other], third: list[Trip]) -> int:
        return len(one) + len(other) + len(third)

    tool = Tool.from_function(both)
    assert set(tool.parameters["$defs"]) == {"Trip", "Trip_2", "City"}
    assert tool.parameters["properties"]["third"]["items"] == {"$ref": "#/$defs/Trip"}
    assert tool.call(one=[], other=[{"x": 1}], third=[]) == 1


def test_a_model_is_a_tool_whose_result_is_the_object() -> None:
    tool = Tool.from_model(Trip)
    assert (tool.name, tool.description) == ("Trip", "A trip.")
    assert tool.parameters["properties"]["days"] == {
        "type": "integer",
        "default": 1,
        "description": "How long it takes.",
    }
    assert tool.call(city={"name": "Rome"}) == Trip(City(name="Rome"))
    assert Tool.from_model(Trip, lambda trip: trip.days, name="days").call(city={"name": "Rome"}, days=2) == 2
    with pytest.raises(InvalidPromptError, match="no fields"):
        Tool.from_model(int)


def test_a_result_for_the_model_alone_is_not_the_result_for_the_program() -> None:
    def search(text: str) -> ToolReturn:
        return ToolReturn(value=[text], content="1 hit")

    assert Tool.from_function(search).call(text="a") == ["a"]


def test_nothing_depends_on_the_function() -> None:
    tool = Tool.from_function(weather)
    plain = Tool(name=tool.name, description=tool.description, parameters=tool.parameters)
    assert tool == plain
    assert repr(tool) == repr(plain)
    assert msgspec.json.encode(tool) == msgspec.json.encode(plain)
    assert pickle.loads(pickle.dumps(tool)) == plain  # noqa: S301
    assert pickle.loads(pickle.dumps(Tool.from_function(lambda: None, name="local"))).function is None  # noqa: S301
    assert tool.function is weather
    assert copy.copy(tool) == plain
    with pytest.raises(ConfigurationError, match="no function to run"):
        plain.call(city="Rome")


async def test_all_forms_of_a_tool_send_the_same_request() -> None:
    forms: list[Any] = [
        weather,
        Tool.from_function(weather),
        msgspec.to_builtins(Tool.from_function(weather)),
        pickle.loads(pickle.dumps(Tool.from_function(weather))),  # noqa: S301
    ]
    with Simulator().start_in_thread() as sim:
        async with LLMClient("gpt-5.4", base_url=sim.base_url, api_key="sk-test", progress="none") as client:
            for form in forms:
                await client.stream("Weather?", tools=[form, Trip])
            await client.process_prompts_async(["Weather?"], tools=[weather, Trip])
    sent = [request.json["tools"] for request in sim.requests]
    assert len(sent) == 5
    assert all(tools == sent[0] for tools in sent)
    assert [tool["function"]["name"] for tool in sent[0]] == ["weather", "Trip"]


def one_of_two() -> None: ...


@pytest.mark.parametrize(
    ("tools", "text"),
    [
        ([weather, Tool(name="weather")], "two tools are named 'weather'"),
        ([weather, functools.partial(weather)], "two tools are named 'weather'"),
        ([3], "int is no tool"),
        (weather, "tools must be a list"),
        ("weather", "tools must be a list"),
        ([without_hint], "has no type hint"),
        ([int], "no fields"),
        ([Tool(name="a", parameters={"anyOf": [{"type": "object"}]})], "has anyOf at its root"),
        ([Tool(name="a", parameters={"properties": {"x": {"type": "text"}}})], "type must be one of"),
        ([Tool(name="a", parameters={"properties": {"x": {"enum": []}}})], "enum must be a list of values"),
        ([Tool(name="a", parameters={"properties": {"x": {"$ref": "#/$defs/X"}}})], "which it does not have"),
        ([Tool(name="a", parameters={"properties": {"x": {"$ref": "http://x"}}})], "another document"),
        ([Tool(name="a", parameters={"properties": []})], "properties must be an object"),
        ([Tool(name="a", parameters={"required": "x"})], "required must be names"),
    ],
)
async def test_bad_tools_are_refused_before_anything_is_sent(tools: Any, text: str) -> None:
    with pytest.raises(InvalidPromptError, match=text):
        to_tools(tools)
    with Simulator().start_in_thread() as sim:
        async with LLMClient("gpt-5.4", base_url=sim.base_url, api_key="sk-test", progress="none") as client:
            with pytest.raises(InvalidPromptError, match=text):
                await client.stream("Weather?", tools=tools)
    assert sim.requests == []


def test_a_schema_that_refers_to_itself_is_accepted() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}
    tool = Tool(name="a", parameters={"type": "object", "properties": node["properties"], "$defs": {"node": node}})
    assert to_tools([tool, ProviderTool({"type": "web_search"})])[0] == tool
