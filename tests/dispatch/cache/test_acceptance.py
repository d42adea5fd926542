"""Only accepted answers are kept: those that `postprocess` and the schema of the call accept."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

import pytest

from lm_deluge import LLMClient
from lm_deluge.errors import OutputError
from lm_deluge.schemas.structure import fits_schema
from lm_deluge.simulator import Script, Simulator

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"enum": ["a", "b", 1]}},
        "boss": {"$ref": "#/$defs/boss"},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"boss": {"allOf": [{"type": ["object", "null"]}, {"required": ["name"]}]}},
}
FITTING = [
    '{"name": "x"}',
    '{"name": "x", "age": 3}',
    '{"name": "x", "age": 3.0, "tags": ["a", 1]}',
    '{"name":"","boss":{"name":1}}',
]
UNFIT = [
    "", "Sorry.", "[]", "{}", '{"name": 1}', '{"name": "x", "age": "3"}', '{"name": "x", "age": true}',
    '{"name": "x", "tags": ["c"]}', '{"name": "x", "tags": [true]}', '{"name": "x", "other": 1}',
    '{"name": "x", "boss": {}}', '{"name": "x"',
]  # fmt: skip


@pytest.mark.parametrize("text", FITTING)
def test_an_answer_that_fits(text: str) -> None:
    assert fits_schema(json.loads(text), PERSON)


@pytest.mark.parametrize(
    "schema", [True, {}, {"pattern": "x"}, {"$ref": "http://x"}, {"$ref": "#/none"}, {"type": "odd"}]
)
def test_what_a_schema_does_not_restrict_fits(schema: Any) -> None:
    assert fits_schema({"a": 1}, schema)


def test_a_schema_that_refers_to_itself_ends() -> None:
    assert fits_schema(1, {"$ref": "#"})
    tree = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["value"]}
    assert fits_schema({"value": 1, "next": {"value": 2}}, tree)
    assert not fits_schema({"value": 1, "next": {"next": {"value": 2}}}, tree)
    assert not fits_schema({"a": 1}, {"properties": {"a": False}})


class Shelf:
    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    async def put(self, key: str, value: bytes) -> None:
        self.values[key] = value


@pytest.mark.parametrize("text", [*UNFIT, *FITTING[:2]])
async def test_an_answer_that_the_schema_rejects_is_not_kept(text: str) -> None:
    shelf = Shelf()
    async with Simulator(text or Script(text="")) as sim:
        async with LLMClient("gpt-4o", base_url=sim.base_url, local_cache=shelf, progress=None) as client:
            with nullcontext() if text in FITTING else pytest.raises(OutputError):
                await client.stream("x", output=PERSON, echo=None)
            (response,) = await client.process_prompts_async(["x"], output=PERSON)
            assert response.is_error == (text in UNFIT)
        assert sim.stats.requests == (1 if text in FITTING else 2)
    assert len(shelf.values) == (text in FITTING)


async def test_tool_calls_need_no_text_of_the_schema_and_json_mode_an_object() -> None:
    shelf = Shelf()
    async with (
        Simulator(Script(tool_calls=[("look", {})])) as sim,
        LLMClient("gpt-4o", base_url=sim.base_url, local_cache=shelf) as client,
    ):
        await client.stream("x", output=PERSON, echo=None, tools=[{"name": "look"}])
    assert len(shelf.values) == 1
    for text, kept in (("[1]", 0), ("no", 0), ('{"a": 1}', 1)):
        shelf = Shelf()
        async with (
            Simulator(text) as sim,
            LLMClient("gpt-4o", base_url=sim.base_url, local_cache=shelf) as client,
        ):
            await client.stream("json", json_mode=True, echo=None)
        assert len(shelf.values) == kept


def reject(response: Any) -> Any:
    if "no" in response.completion:
        raise ValueError
    return response


@pytest.mark.parametrize("way", ["process", "many", "nowait", "answers"])
async def test_an_answer_that_postprocess_rejects_is_not_kept(way: str) -> None:
    texts = iter(["no", "no", "yes", "unused"])
    shelf = Shelf()
    found = []
    async with (
        Simulator(lambda _: Script(text=next(texts))) as sim,
        LLMClient("gpt-4o", base_url=sim.base_url, local_cache=shelf, progress=None, postprocess=reject) as client,
    ):
        for _ in range(4):
            if way == "process":
                (response,) = await client.process_prompts_async(["x"])
            elif way == "answers":
                ((_, response),) = [each async for each in client.answers(["x"])]
            elif way == "nowait":
                response = await client.wait_for(client.start_nowait("x"))
            else:
                streams = client.stream_many(["x"])
                async for _ in streams:
                    pass
                response = streams.responses[0]
            found.append((response.completion, response.is_error, response.local_cache_hit))
        assert sim.stats.requests == 3
    assert found == [("no", True, False), ("no", True, False), ("yes", False, False), ("yes", False, True)]


async def test_a_stored_answer_that_postprocess_rejects_now_is_asked_again() -> None:
    """A stream is not postprocessed, and an older program may have accepted more."""
    texts = iter(["no", "yes"])
    shelf = Shelf()
    async with (
        Simulator(lambda _: Script(text=next(texts))) as sim,
        LLMClient("gpt-4o", base_url=sim.base_url, local_cache=shelf, progress=None, postprocess=reject) as client,
    ):
        await client.stream("x", echo=None)
        (first,) = await client.process_prompts_async(["x"])
        (second,) = await client.process_prompts_async(["x"])
    assert (first.completion, first.local_cache_hit) == ("yes", False)
    assert (second.completion, second.local_cache_hit) == ("yes", True)


async def test_an_answer_that_an_older_version_stored_is_checked_too() -> None:
    shelf = Shelf()
    texts = iter(['{"name": "x"}', '{"name": "y"}'])
    async with (
        Simulator(lambda _: Script(text=next(texts))) as sim,
        LLMClient("gpt-4o", base_url=sim.base_url, local_cache=shelf) as client,
    ):
        await client.stream("x", output=PERSON, echo=None)
        (key,) = shelf.values
        shelf.values[key] = shelf.values[key].replace(b"name", b"nama")
        response = await client.stream("x", output=PERSON, echo=None)
    assert (response.completion, response.local_cache_hit) == ('{"name": "y"}', False)
