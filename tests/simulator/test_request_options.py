"""Tools with any fields are called, and options such as `logprobs` and `n` are followed, in every API that has them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from lm_deluge import LLMClient
from lm_deluge.encoders.catalog import find_encoder, list_encoders
from lm_deluge.events import ProviderPart, ReasoningDelta, ResponseFinished, ResponseStarted, TextDelta
from lm_deluge.models.registry import list_providers
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.parts import ProviderDataPart
from lm_deluge.prompt.tool import Tool
from lm_deluge.simulator import Pace, Script, Simulator
from lm_deluge.testing import decode_body
from samples.api_calls import simulated_url
from simulator.raw_client import exchange, http

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PROMPT = [{"role": "user", "content": "Hi"}]
CONTENTS = [{"role": "user", "parts": [{"text": "Hi"}]}]
BLOCKS = [{"role": "user", "content": [{"text": "Hi"}]}]
NEW: dict[str, Any] = {
    "eager_input_streaming": True,
    "defer_loading": True,
    "input_examples": [{"city": "Rome"}],
    "allowed_callers": ["direct"],
    "cache_control": {"type": "ephemeral"},
    "brand_new_field": {"a": [1, None]},
    "brand_new_null": None,
}
FUNCTION = {"name": "weather", "description": "The weather.", "parameters": SCHEMA}
CHAT_TOOL = {"type": "function", "function": {**FUNCTION, **NEW}, **NEW}
CLAUDE_TOOL = {"name": "weather", "input_schema": SCHEMA, **NEW}
CONVERSE_TOOL = {"toolSpec": {"name": "weather", "inputSchema": {"json": SCHEMA, **NEW}, **NEW}}

# Path and body of a request with the tool, without `stream`.
OFFERS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai-chat": ("/v1/chat/completions", {"model": "m", "messages": PROMPT, "tools": [CHAT_TOOL]}),
    "openai-responses": (
        "/v1/responses",
        {"model": "m", "input": "Hi", "tools": [{"type": "function", **FUNCTION, **NEW}]},
    ),
    "anthropic-messages": (
        "/v1/messages",
        {"model": "m", "max_tokens": 99, "messages": PROMPT, "tools": [CLAUDE_TOOL]},
    ),
    "gemini-generate": (
        "/v1beta/models/m:generateContent",
        {"contents": CONTENTS, "tools": [{"functionDeclarations": [{**FUNCTION, **NEW}]}]},
    ),
    "gemini-interactions": (
        "/v1beta/interactions",
        {"model": "m", "input": "Hi", "tools": [{"type": "function", **FUNCTION, **NEW}]},
    ),
    "bedrock-converse": ("/model/m/converse", {"messages": BLOCKS, "toolConfig": {"tools": [CONVERSE_TOOL]}}),
    "bedrock-invoke": (
        "/model/anthropic.claude-m/invoke",
        {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 99, "messages": PROMPT, "tools": [CLAUDE_TOOL]},
    ),
    "mistral-chat": ("/mistral/v1/chat/completions", {"model": "m", "messages": PROMPT, "tools": [CHAT_TOOL]}),
    "cohere-v2": ("/v2/chat", {"model": "m", "messages": PROMPT, "tools": [CHAT_TOOL]}),
    "ollama-chat": ("/api/chat", {"model": "m", "messages": PROMPT, "tools": [CHAT_TOOL], "stream": False}),
}


async def post(sim: Simulator, path: str, body: dict[str, Any]) -> bytes:
    reply = await exchange(sim, http(json.dumps(body).encode(), path=path, connection="close"))
    assert reply.status == 200, reply.body
    return reply.body


def test_every_api_offers_a_tool_in_these_tests() -> None:
    assert set(OFFERS) == {encoder.name for encoder in list_encoders()}


@pytest.mark.parametrize(("api", "offer"), OFFERS.items(), ids=OFFERS)
async def test_a_function_with_unknown_fields_is_called(api: str, offer: tuple) -> None:
    asked: list[Any] = []

    def answer(request: Any) -> Script:
        asked.append(request.tools)
        return Script()

    async with Simulator(answer) as sim:
        response = decode_body(api, await post(sim, *offer))
    (call,) = response.tool_calls
    assert (call.name, call.arguments, response.finish_reason) == ("weather", {"city": "some city"}, "tool_calls")
    ((tool,),) = asked
    assert isinstance(tool, Tool)
    assert tool.parameters == SCHEMA


@pytest.mark.parametrize("name", ["mcp.server:weather", "n" * 100])
@pytest.mark.parametrize("api", ["anthropic-messages", "gemini-generate"])
async def test_a_function_with_a_name_of_its_api_is_called(api: str, name: str) -> None:
    path, body = OFFERS[api]
    text = json.dumps(body).replace('"name": "weather"', f'"name": "{name}"')
    async with Simulator() as sim:
        response = decode_body(api, await post(sim, path, json.loads(text)))
    assert [(call.name, call.arguments) for call in response.tool_calls] == [(name, {"city": "some city"})]


@pytest.mark.parametrize(
    ("api", "tool"),
    [
        ("anthropic-messages", {"type": "web_search_20250305", "name": "web_search", **NEW}),
        ("openai-responses", {"type": "web_search", **NEW}),
        ("gemini-generate", {"googleSearch": NEW}),
    ],
)
async def test_a_tool_that_the_provider_runs_is_not_called(api: str, tool: dict) -> None:
    path, body = OFFERS[api]
    async with Simulator() as sim:
        response = decode_body(api, await post(sim, path, {**body, "tools": [tool]}))
    assert response.tool_calls == ()
    assert response.completion


async def test_mistral_sends_each_call_whole() -> None:
    script = Script(tool_calls=[("weather", {"city": "Genève"}), ("weather", {"city": "Roma"})])
    path, body = OFFERS["mistral-chat"]
    async with Simulator(script, pace=Pace(tokens_per_second=10_000)) as sim:
        data = await post(sim, path, {**body, "stream": True})
    chunks = [json.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: {")]
    calls = [
        chunk["choices"][0]["delta"]["tool_calls"] for chunk in chunks if "tool_calls" in chunk["choices"][0]["delta"]
    ]
    assert [json.loads(call["function"]["arguments"])["city"] for (call,) in calls] == ["Genève", "Roma"]
    assert [call["index"] for (call,) in calls] == [0, 1]


LOGPROBS = {
    "openai-chat": {"logprobs": True, "top_logprobs": 3},
    "openai-responses": {"include": ["message.output_text.logprobs"], "top_logprobs": 3},
    "gemini-generate": {"generationConfig": {"responseLogprobs": True, "logprobs": 3}},
    "mistral-chat": {"logprobs": True, "top_logprobs": 3},
    "ollama-chat": {"logprobs": True, "top_logprobs": 3},
    "cohere-v2": {"logprobs": True},
}


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("api", LOGPROBS)
async def test_log_probabilities_are_answered_where_asked_for(api: str, is_streamed: bool) -> None:
    path, body = OFFERS[api]
    if api == "gemini-generate":
        path = path.replace(":generate", ":streamGenerate") if is_streamed else path
    elif is_streamed:
        body = {**body, "stream": True}
    body = {name: value for name, value in body.items() if name != "tools"}
    async with Simulator("Grüße, 世界!") as sim:
        asked = decode_body(api, await post(sim, path, {**body, **LOGPROBS[api]}))
        plain = decode_body(api, await post(sim, path, body))
    tokens = asked.content.parts[0].logprobs
    assert "".join(token.token for token in tokens) == asked.completion == "Grüße, 世界!"
    assert all(token.logprob < 0 for token in tokens)
    if api != "cohere-v2":  # which has no alternatives
        assert all(len(token.top_logprobs) == 3 for token in tokens)
        assert all(token.top_logprobs[0].token == token.token for token in tokens)
        assert all(sum(math.exp(other.logprob) for other in token.top_logprobs) <= 1 for token in tokens)
    assert plain.content.parts[0].logprobs == ()


CHOICES = {
    "openai-chat": ({"n": 3}, "choices"),
    "mistral-chat": ({"n": 3}, "choices"),
    "gemini-generate": ({"generationConfig": {"candidateCount": 3}}, "candidates"),
}


def chunks_of(body: bytes) -> list[dict[str, Any]]:
    if body.startswith(b"{"):
        return [json.loads(body)]
    return [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]


def text_of(choice: dict[str, Any]) -> str:
    if "content" in choice:
        return "".join(part.get("text", "") for part in choice["content"].get("parts", ()))
    return (choice.get("delta") or choice.get("message") or {}).get("content") or ""


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("api", CHOICES)
async def test_several_choices(api: str, is_streamed: bool) -> None:
    path, body = OFFERS[api]
    options, field = CHOICES[api]
    if api == "gemini-generate":
        path = path.replace(":generate", ":streamGenerate") + "?alt=sse" if is_streamed else path
    elif is_streamed:
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    async with Simulator(Script(text="Grüße, 世界!", tool_calls=[("weather", {"city": "Roma"})])) as sim:
        several = await post(sim, path, {**body, **options})
        one = await post(sim, path, body)
    texts = {0: "", 1: "", 2: ""}
    ids: list[str] = []
    finishes = []
    for chunk in chunks_of(several):
        for choice in chunk.get(field, ()):
            texts[choice["index"]] += text_of(choice)
            message = choice.get("delta") or choice.get("message") or {}
            ids += [call["id"] for call in message.get("tool_calls") or () if call.get("id")]
            finishes += [choice["index"]] if choice.get("finish_reason") or choice.get("finishReason") else []
    assert set(texts.values()) == {"Grüße, 世界!"}
    assert sorted(finishes) == [0, 1, 2]
    assert len(set(ids)) == len(ids)
    assert several.count(b"[DONE]") == one.count(b"[DONE]")
    assert decode_body(api, one).usage.output_tokens * 3 == last_usage(several)


def last_usage(body: bytes) -> int:
    """Return the number of output tokens in the last chunk that has any."""
    names = ("completion_tokens", "candidatesTokenCount")
    usages = [chunk.get("usage") or chunk.get("usageMetadata") for chunk in chunks_of(body)]
    return [usage[name] for usage in usages if usage for name in names if name in usage][-1]


@pytest.mark.parametrize("count", [0, -1, 129, 1.5, "2", True])
@pytest.mark.parametrize("api", CHOICES)
async def test_a_number_of_choices_outside_the_limits_is_refused(api: str, count: Any) -> None:
    path, body = OFFERS[api]
    options = json.loads(json.dumps(CHOICES[api][0]).replace("3", json.dumps(count)))
    async with Simulator() as sim:
        reply = await exchange(sim, http(json.dumps({**body, **options}).encode(), path=path, connection="close"))
    assert reply.status == 400


SIGNED = [row for row in list_providers() if row.id in ("anthropic", "bedrock", "gemini-interactions", "gemini")]


@pytest.mark.parametrize("row", SIGNED, ids=lambda row: row.id)
async def test_reasoning_is_signed_where_the_api_signs_it(row: Any) -> None:
    script = Script(reasoning="Hm, let me see.", text="4", tool_calls=[("weather", {"city": "Roma"})])
    tools = [Tool(name="weather", parameters=SCHEMA)]
    conversation = Conversation.user("Hi")
    async with Simulator([script, "Thanks."]) as sim:
        client = LLMClient(f"{row.id}:some-model", base_url=simulated_url(sim, row), api_key="test-key")
        first = await client.stream(conversation, tools=tools, echo=None)
        conversation.add(first.content).tool_result(first.tool_calls[0].id, "sunny")
        await client.stream(conversation, tools=tools, echo=None)
        await client.close()
        sent = json.dumps(sim.requests[1].json)
    (signature,) = {part.data for part in first.content.parts if isinstance(part, ProviderDataPart)}
    assert signature
    assert signature in sent


async def test_a_thinking_block_of_anthropic_has_a_signature() -> None:
    path, body = OFFERS["anthropic-messages"]
    async with Simulator(Script(reasoning="Hm.", text="4")) as sim:
        plain = json.loads(await post(sim, path, body))
        streamed = await post(sim, path, {**body, "stream": True})
    assert plain["content"][0]["type"] == "thinking"
    assert plain["content"][0]["signature"]
    deltas = [chunk["delta"] for chunk in chunks_of(streamed) if chunk["type"] == "content_block_delta"]
    assert [delta["type"] for delta in deltas] == ["thinking_delta", "signature_delta", "text_delta"]
    assert deltas[1]["signature"] == plain["content"][0]["signature"]


async def test_signatures_of_the_script_are_kept() -> None:
    events = [ResponseStarted("1", "m"), ReasoningDelta("Hm."), TextDelta("4"), ResponseFinished("stop")]
    signed = Script(reasoning="Hm.", text="4", extra=[ProviderPart("anthropic", "signature", "mine")])
    path, body = OFFERS["anthropic-messages"]
    async with Simulator([Script(events=events), signed]) as sim:
        unsigned = json.loads(await post(sim, path, body))
        own = await post(sim, path, body)
    assert unsigned["content"][0]["signature"] == ""  # exactly the events of the script
    assert b"mine" in own
    assert own.count(b'"signature":"') == 2  # the empty one of the thinking block, and the script's


LEGACY = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": '{"city": "Roma"}'}},
    {"role": "function", "name": "weather", "content": "sunny"},
]


async def test_the_deprecated_role_function_is_a_tool_result() -> None:
    parsed = find_encoder("openai-chat").parse_request(json.dumps({"model": "m", "messages": LEGACY}).encode())
    call, result = parsed.conversation.messages[1].parts[0], parsed.conversation.messages[2].parts[0]
    assert [message.role for message in parsed.conversation] == ["user", "assistant", "tool"]
    assert (call.name, call.arguments) == ("weather", {"city": "Roma"})
    assert (result.tool_call_id, result.content) == (call.id, "sunny")
    async with Simulator() as sim:
        response = decode_body(
            "openai-chat", await post(sim, "/v1/chat/completions", {"model": "m", "messages": LEGACY})
        )
    assert response.completion == "The tool returned: sunny"
