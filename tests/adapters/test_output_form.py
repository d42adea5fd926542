"""How each wire API is asked for an answer by a schema, and that the answer is text wherever it comes from."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from grammar import check_grammar
from lm_deluge import LLMClient, Tool
from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.output_form import ANSWER_TOOL, find_output_form
from lm_deluge.api_requests.request import build_blank_call
from lm_deluge.config import SamplingParams
from lm_deluge.errors import InvalidPromptError
from lm_deluge.events import TextDelta
from lm_deluge.models.registry import find_model, find_provider, register_model
from lm_deluge.models.rows import Capabilities, ModelRow
from lm_deluge.simulator import Script, Simulator
from outputs.invoices import DATA, INVOICE, NEGATIVE, TEXT, Invoice

# Provider and a model of it, for each wire API.
MODELS = {
    "openai-chat": ("openai", "gpt-4o"),
    "openai-responses": ("openai-responses", "gpt-4o"),
    "anthropic-messages": ("anthropic", "claude-haiku-4-5"),
    "gemini-generate": ("gemini", "gemini-2.5-flash"),
    "gemini-interactions": ("gemini-interactions", "gemini-2.5-flash"),
    "bedrock-converse": ("bedrock", "anthropic.claude-haiku-4-5-20251001-v1:0"),
    "bedrock-invoke": ("bedrock-invoke", "anthropic.claude-haiku-4-5-20251001-v1:0"),
    "mistral-chat": ("mistral", "mistral-small-latest"),
    "cohere-v2": ("cohere", "command-a-03-2025"),
    "ollama-chat": ("ollama", "qwen3"),
}
NO_SCHEMA = Capabilities(json_schema=False)
NO_TOOLS = Capabilities(json_schema=False, tools=False)
FORMS = {"schema": Capabilities(), "tool": NO_SCHEMA, "json": NO_TOOLS}
WITHOUT = {  # what stands in for a form that an API does not have
    ("ollama-chat", "tool"): "json",
    ("anthropic-messages", "json"): "text",
    ("bedrock-converse", "json"): "text",
    ("bedrock-invoke", "json"): "text",
}


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "token")
    monkeypatch.setenv("AWS_REGION", "us-east-1")


def row_of(api: str, form: str) -> ModelRow:
    provider, name = MODELS[api]
    return ModelRow(id=f"{api}-{form}", name=name, provider=provider, capabilities=FORMS[form])


@asynccontextmanager
async def asking(
    script: Any, api: str, form: str = "tool", *, row: ModelRow | None = None, **options: Any
) -> AsyncIterator[tuple[LLMClient, Simulator]]:
    row = row or row_of(api, form)
    register_model(row, replace=True)
    path = urlsplit(find_provider(row.provider).base_url or "").path.rstrip("/")
    async with (
        Simulator(script, **options) as sim,
        LLMClient(row.id, base_url=sim.url + path, api_key="sk-test", progress="none") as client,
    ):
        yield client, sim


def call_of(capabilities: Capabilities, provider: str = "openai", **fields: Any) -> Call:
    name = fields.pop("name", "m")
    row = ModelRow(id="m", name=name, provider=provider, capabilities=capabilities)
    call = build_blank_call(row, output={"type": "object", "properties": {}}, base_url="http://127.0.0.1:1")
    return msgspec.structs.replace(call, **fields)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("api", MODELS)
async def test_every_api_gives_the_object_as_text(api: str, form: str) -> None:
    expected = WITHOUT.get((api, form), form)
    script = Script(tool_calls=[(ANSWER_TOOL, DATA)]) if expected == "tool" else Script(text=TEXT)
    async with asking(script, api, form) as (client, sim):
        stream = client.stream("How much?", output=Invoice)
        async with stream:
            events = [event async for event in stream.events()]
        batch = await client.process_prompts_async(["How much?"], output=Invoice)
        body = json.dumps(sim.requests[0].json)
    check_grammar(events)
    assert stream.response.output == INVOICE
    assert batch[0].output == INVOICE
    assert json.loads("".join(event.text for event in events if isinstance(event, TextDelta))) == DATA
    assert (stream.response.tool_calls, stream.response.finish_reason) == ((), "stop")
    assert (ANSWER_TOOL in body) == (expected == "tool")
    assert ("single JSON object that follows" in body) == (expected in ("json", "text"))
    assert "lines" in body


@pytest.mark.parametrize("api", MODELS)
async def test_every_api_is_asked_again(api: str) -> None:
    def script(data: Any) -> Script:
        if (api, "tool") in WITHOUT:
            return Script(text=json.dumps(data))
        return Script(tool_calls=[(ANSWER_TOOL, data)])

    async with asking([script(json.loads(NEGATIVE)), script(DATA)], api) as (client, sim):
        response = await client.stream("How much?", output=Invoice, echo=None, max_output_retries=1)
        assert sim.stats.requests == 2
        assert "the total is negative" in json.dumps(sim.requests[1].json)
    assert response.output == INVOICE


async def test_an_answer_as_text_in_place_of_the_tool_is_taken_too() -> None:
    async with asking(Script(text=TEXT), "openai-chat") as (client, _):
        response = await client.stream("x", output=Invoice, echo=None)
    assert response.output == INVOICE


async def test_a_second_call_of_the_tool_is_left_out() -> None:
    script = Script(tool_calls=[(ANSWER_TOOL, DATA), (ANSWER_TOOL, {"number": 1})])
    async with asking(script, "openai-chat") as (client, _):
        response = await client.stream("x", output=Invoice, echo=None)
    assert (response.output, json.loads(response.completion)) == (INVOICE, DATA)


async def test_a_plain_body_in_place_of_a_stream() -> None:
    script = Script(tool_calls=[(ANSWER_TOOL, DATA)])
    async with asking(script, "openai-chat", faults="plain_for_stream") as (client, _):
        response = await client.stream("x", output=Invoice, echo=None)
    assert (response.output, response.tool_calls) == (INVOICE, ())


REASONING = Capabilities(json_schema=False, reasoning=True, forced_tool_choice="without_reasoning")


@pytest.mark.parametrize(
    ("call", "form"),
    [
        (call_of(Capabilities()), "schema"),
        (call_of(Capabilities(output_form="object")), "tool"),
        (call_of(NO_SCHEMA, tools=(Tool(name="look"),)), "json"),
        (call_of(Capabilities(json_schema=False, forced_tool_choice=False)), "json"),
        (call_of(REASONING), "json"),
        (call_of(REASONING, params=SamplingParams(reasoning_effort="none")), "tool"),
        (call_of(NO_SCHEMA, "anthropic", tools=(Tool(name="look"),)), "text"),
        (call_of(NO_SCHEMA, "bedrock", name="meta.llama3-1-8b-instruct-v1:0"), "text"),
        (call_of(NO_SCHEMA, "bedrock", name="amazon.nova-lite-v1:0"), "tool"),
        (call_of(Capabilities(), "bedrock-invoke", name="amazon.nova-lite-v1:0"), "tool"),
        (call_of(Capabilities(), "bedrock-invoke", name="meta.llama3-1-8b-instruct-v1:0"), "text"),
        (call_of(Capabilities(), "bedrock-invoke", name="openai.gpt-oss-20b-1:0"), "schema"),
    ],
)
def test_the_rows_of_model_and_host_decide(call: Call, form: str) -> None:
    assert find_output_form(call) == form


ENFORCED = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": []}


@pytest.mark.parametrize("api", ["anthropic-messages", "bedrock-converse", "bedrock-invoke"])
async def test_claude_gets_a_schema_that_it_enforces_or_a_tool(api: str) -> None:
    async with asking('{"a": 1}', api, "schema") as (client, sim):
        response = await client.stream("x", output=ENFORCED, echo=None)
        body = json.dumps(sim.requests[0].json).replace("\\", "")
        assert '"minimum"' not in body
        assert "(minimum: 1)" in body
        assert response.output == {"a": 1}
    script = Script(tool_calls=[(ANSWER_TOOL, {"any": 1})])
    async with asking(script, api, "schema") as (client, sim):
        response = await client.stream("x", output=dict[str, int], echo=None)
        assert ANSWER_TOOL in json.dumps(sim.requests[0].json)
    assert response.output == {"any": 1}


def test_a_model_of_the_registry_without_schemas() -> None:
    call = call_of(find_model("deepseek:deepseek-chat").capabilities, "deepseek")
    assert find_output_form(call) in ("tool", "json")


@pytest.mark.parametrize(
    "name", ["amazon.titan-text-lite-v1", "cohere.command-text-v14", "meta.llama3-8b-instruct-v1:0"]
)
async def test_models_that_complete_text_get_the_schema_in_it(name: str) -> None:
    row = ModelRow(id="completes", name=name, provider="bedrock-invoke")
    async with asking(Script(text=TEXT), "bedrock-invoke", row=row) as (client, sim):
        response = await client.stream("How much?", output=Invoice, echo=None)
        assert "single JSON object that follows" in json.dumps(sim.requests[0].json)
    assert response.output == INVOICE


async def test_a_prompt_that_cannot_be_sent_is_refused_in_every_form() -> None:
    for form in FORMS:
        async with asking(TEXT, "anthropic-messages", form) as (client, sim):
            with pytest.raises(InvalidPromptError):
                client.stream("", output=Invoice)
            assert sim.stats.requests == 0
