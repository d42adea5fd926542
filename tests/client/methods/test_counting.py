"""`client.count_tokens` and `client.context_window`: what the provider counts, or a stated estimate."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lm_deluge import Conversation, LLMClient, Timeouts, Tool
from lm_deluge import errors as e
from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.adapters.count_api import CountsTokens, is_without_count
from lm_deluge.client import counting
from lm_deluge.models.registry import find_provider, list_providers
from lm_deluge.models.rows import ModelRow
from lm_deluge.prompt.parts import ToolCallPart
from lm_deluge.simulator import Simulator
from lm_deluge.usage import TokenCount
from loopback import HANG, Loopback, Step, plain
from samples.api_calls import simulated_url

COUNTING = [row for row in list_providers() if row.counts_tokens and row.id != "simulator"]
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool(name="weather", description="Look up the weather.", parameters=SCHEMA)
QUESTION = Conversation.system("Be brief.").user("How warm is it in Rome, and how warm is it in Oslo?")
COUNT = json.dumps({"input_tokens": 7}).encode()


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting.random, "random", lambda: 0.0)


def test_providers_with_an_endpoint_have_an_adapter_that_uses_it() -> None:
    assert {row.id for row in COUNTING} >= {"openai", "openai-responses", "anthropic", "gemini", "vertex", "bedrock"}
    assert all(isinstance(find_adapter(row.adapter), CountsTokens) for row in COUNTING)


@pytest.mark.parametrize("row", COUNTING, ids=lambda row: row.id)
async def test_the_count_is_the_input_of_the_answer(row: Any) -> None:
    async with Simulator() as sim:
        client = LLMClient(f"{row.id}:some-model", base_url=simulated_url(sim, row), api_key="test-key")
        bare = await client.count_tokens(QUESTION)
        tokens = await client.count_tokens(QUESTION, tools=[WEATHER])
        response = await client.stream(QUESTION, tools=[WEATHER], echo=None)
    assert response.usage is not None
    assert tokens == response.usage.input_tokens > bare > 0
    assert (tokens.estimated, tokens.tokens, type(tokens.tokens)) == (False, tokens, int)
    assert sum("count" in request.path or "input_tokens" in request.path for request in sim.requests) == 2
    assert "test-key" not in repr(sim.requests[0].path)


async def test_the_simulator_counts_without_a_key() -> None:
    client = LLMClient("simulator")
    assert not (await client.count_tokens("Hello")).estimated


@pytest.mark.parametrize("name", ["mistral-large-latest", "cohere:command-a", "ollama:qwen3", "groq:some-model"])
async def test_other_providers_are_estimated_without_a_request_and_a_key(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in find_provider(LLMClient(name).models[0].provider).key_env:
        monkeypatch.delenv(variable, raising=False)
    async with Simulator() as sim:
        client = LLMClient(name, base_url=sim.base_url)
        tokens = await client.count_tokens("x" * 400)
        longer = await client.count_tokens("x" * 400, tools=[WEATHER])
        assert sim.requests == []
    assert (tokens, tokens.estimated) == (100, True)
    assert longer > tokens
    assert repr(tokens) == "TokenCount(100, estimated=True)"
    assert f"{tokens}" == str(tokens) == "100"


async def test_audio_is_estimated_where_the_endpoint_does_not_take_it() -> None:
    async with Simulator() as sim:
        client = LLMClient("openai:some-model", base_url=sim.base_url, api_key="k")
        tokens = await client.count_tokens(Conversation.user("What is this?", audio=b"ID3"))
        assert (tokens.estimated, sim.requests) == (True, [])


async def asked(*transcripts: list[Step], model: str = "openai:m", **options: Any) -> TokenCount:
    async with Loopback(*transcripts) as server:
        client = LLMClient(model, base_url=server.url, api_key="sk-secret", **options)
        try:
            return await client.count_tokens("Hello")
        finally:
            await client.close()


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed", "501 Not Implemented"])
async def test_a_proxy_without_the_endpoint(status: str) -> None:
    tokens = await asked(plain(status, b"{}"))
    assert (tokens, tokens.estimated) == (2, True)


async def test_a_model_of_bedrock_that_is_not_counted() -> None:
    body = json.dumps({"message": "The provided model doesn't support counting tokens."}).encode()
    refusal = plain("400 Bad Request", body, "x-amzn-ErrorType: ValidationException")
    tokens = await asked(refusal, model="bedrock:amazon.nova-lite-v1:0")
    assert tokens.estimated


def test_a_404_of_the_provider_itself_is_about_the_model() -> None:
    row = find_provider("anthropic")
    call = Call(model=ModelRow(id="m", name="m", provider=row.id), provider=row, conversation=QUESTION)
    missing = e.NotFoundError("model: m", status_code=404)
    own, other = (is_without_count(missing, each) for each in (_at(call, row.base_url), _at(call, "http://proxy.test")))
    assert (own, other) == (False, True)


def _at(call: Call, url: str) -> Call:
    return Call(model=call.model, provider=call.provider, conversation=call.conversation, base_url=url)


@pytest.mark.parametrize(
    "first",
    [
        plain("429 Too Many Requests", b"{}", "retry-after: 0"),
        plain("503 Service Unavailable", b"{}"),
        [b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{", "rst"],
    ],
    ids=["429", "503", "reset"],
)
async def test_a_failed_count_is_sent_again(first: list[Step]) -> None:
    assert await asked(first, plain("200 OK", COUNT)) == 7
    with pytest.raises(e.DelugeError) as caught:
        await asked(first, plain("200 OK", COUNT), max_attempts=1)
    assert (caught.value.provider, caught.value.model) == ("openai", "openai:m")


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (plain("401 Unauthorized", b'{"error": {"message": "bad key sk-secret"}}'), e.AuthenticationError),
        (plain("400 Bad Request", b'{"error": {"message": "no"}}'), e.BadRequestError),
        (plain("200 OK", b"<html>"), e.ContentTypeError),
        (plain("200 OK", b"[]"), e.ContentTypeError),
        (plain("200 OK", b'{"input_tokens": -1}'), e.ContentTypeError),
        (plain("200 OK", b'{"input_tokens": true}'), e.ContentTypeError),
        (plain("200 OK", b'{"total": 5}'), e.ContentTypeError),
        (plain("307 Temporary Redirect", b"", "location: http://localhost:1/"), e.RedirectRefusedError),
    ],
    ids=["401", "400", "html", "list", "negative", "bool", "missing", "redirect"],
)
async def test_refusals_and_answers_that_are_none(reply: list[Step], kind: type[e.DelugeError]) -> None:
    with pytest.raises(kind) as caught:
        await asked(reply, max_attempts=1)
    assert "sk-secret" not in str(caught.value)


async def test_the_time_of_the_whole_call_is_limited() -> None:
    with pytest.raises(e.TimeoutError) as caught:
        await asked([HANG], timeouts=Timeouts(total=0.05))
    assert caught.value.phase == "total"


async def test_bad_input_is_refused_before_anything_is_sent() -> None:
    async with Simulator() as sim:
        client = LLMClient("openai:m", base_url=sim.base_url, api_key="k")
        with pytest.raises(e.InvalidPromptError, match="the prompt is empty"):
            await client.count_tokens("")
        with pytest.raises(e.InvalidPromptError, match="two tools are named"):
            await client.count_tokens("a", tools=[WEATHER, WEATHER])
        with pytest.raises(e.ConfigurationError, match="'x' is none of the client's models"):
            await client.count_tokens("a", model="x")
        assert sim.requests == []


async def test_the_model_of_the_count() -> None:
    async with Simulator() as sim:
        client = LLMClient(["openai:a", "openai:b"], base_url=sim.base_url, api_key="k")
        await client.count_tokens("Hi")
        await client.count_tokens("Hi", model="openai:b")
    assert [request.json["model"] for request in sim.requests] == ["a", "b"]


def count_url(provider: str, name: str, **fields: Any) -> str:
    row = find_provider(provider)
    model = ModelRow(id=name, name=name, provider=provider)
    call = Call(model=model, provider=row, base_url="https://a.test", conversation=QUESTION, **fields)
    adapter = find_adapter(row.adapter)
    assert isinstance(adapter, CountsTokens)
    request = adapter.build_count(call)
    assert request is not None
    assert request.method == "POST"
    return request.url.removeprefix("https://a.test")


def test_the_addresses_of_the_endpoints() -> None:
    profile = "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-haiku-4-5-20251001-v1:0"
    bare = "/model/anthropic.claude-haiku-4-5-20251001-v1%3A0/count-tokens"
    assert (
        count_url("bedrock", profile) == count_url("bedrock", "global.anthropic.claude-haiku-4-5-20251001-v1:0") == bare
    )
    assert count_url("bedrock", "my-import") == "/model/my-import/count-tokens"
    assert count_url("vertex", "gemini-3-pro") == "/models/gemini-3-pro:countTokens"
    assert count_url("gemini", "tunedModels/mine") == "/v1beta/tunedModels/mine:countTokens"
    assert count_url("vertex-anthropic", "claude-haiku-4-5") == "/models/count-tokens:rawPredict"
    assert count_url("anthropic", "claude-haiku-4-5") == "/v1/messages/count_tokens"
    assert count_url("openai", "gpt-5.4") == "/responses/input_tokens"


async def test_the_whole_conversation_is_counted() -> None:
    conversation = QUESTION.copy().assistant("Let me look.")
    conversation[-1].add_tool_call("c1", "weather", {"city": "Rome"})
    conversation.tool_result("c1", "21 degrees").user("Thanks")
    assert isinstance(conversation[2].parts[1], ToolCallPart)
    async with Simulator() as sim:
        client = LLMClient("anthropic:m", base_url=sim.url, api_key="k", reasoning_effort="none")
        await client.count_tokens(conversation, tools=[WEATHER])
    body = sim.requests[0].json
    assert set(body) <= {"model", "messages", "system", "tools", "thinking"}
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]


def test_the_context_window() -> None:
    assert LLMClient("claude-haiku-4-5").context_window() == 200_000
    both = LLMClient(["claude-haiku-4-5", "claude-sonnet-5"])
    assert both.context_window() == 200_000
    assert both.context_window("claude-sonnet-5") == both.models[1].context_window > 200_000
    assert LLMClient(["claude-haiku-4-5", "groq:mine"]).context_window() is None
    assert LLMClient("claude-haiku-4-5", fallback="claude-sonnet-5").context_window("claude-sonnet-5") is not None
    with pytest.raises(e.ConfigurationError, match="'x' is none of the client's models"):
        both.context_window("x")
