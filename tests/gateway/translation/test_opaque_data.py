"""Signatures and encrypted reasoning come back to their provider through clients of every other API."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anthropic
import openai
import pytest

from gateway.conftest import TEXT
from gateway.serving import Serving, serve
from gateway.test_client_needs import post
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.events import (
    Event,
    ProviderPart,
    ReasoningDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.gateway.configuration.settings import GatewaySettings, ServedModel
from lm_deluge.gateway.translation.opaque_data import OpaqueCarrier, unpacked, without_envelopes
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import Part, ProviderDataPart, ReasoningPart, TextPart, ToolResultPart
from lm_deluge.simulator import Script, Simulator
from lm_deluge.usage import Usage

# Of clients of tests before, which have no `close`.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

THOUGHT = "The user wants the weather of Rome."
SIGNATURE = base64.b64encode(b"signed by its provider").decode()
SUMMARY = [{"type": "summary_text", "text": THOUGHT}]
ITEM = {"id": "rs_1", "type": "reasoning", "summary": SUMMARY, "encrypted_content": "gAAAA"}
REASONING = ReasoningDelta(THOUGHT)
CALL: list[Event] = [
    ToolCallStarted(0, "call_one", "weather"),
    ToolCallDelta(0, '{"city":"Rome"}'),
    ToolCallFinished(0, "call_one", "weather", '{"city":"Rome"}', {"city": "Rome"}),
]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

# What each provider answers, and what has to stand in the next request to it.
ANSWERS: dict[str, list[Event]] = {
    "claude": [REASONING, ProviderPart("anthropic", "signature", SIGNATURE), *CALL],
    "gemini": [*CALL[:2], ProviderPart("google", "thought_signature", SIGNATURE), CALL[2]],
    "gpt": [REASONING, ProviderPart("openai", "reasoning", ITEM), *CALL],
    "bedrock": [REASONING, ProviderPart("bedrock-converse", "reasoning_signature", SIGNATURE), *CALL],
}
EXPECTED: dict[str, Any] = {
    "claude": {"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE},
    "gemini": {"thoughtSignature": SIGNATURE},
    "gpt": ITEM,
    "bedrock": {"reasoningText": {"text": THOUGHT, "signature": SIGNATURE}},
}
MODELS = {
    "claude": ("claude-sonnet-5-5", ""),
    "gemini": ("gemini-3.8-flash", ""),
    "gpt": ("openai-responses:gpt-5.4", "/v1"),
    "bedrock": ("bedrock:us.anthropic.claude-sonnet-4-5-20250929-v1:0", ""),
}
OWN = {"claude": "messages", "gemini": "gemini", "gpt": "responses"}


def answer_of(name: str) -> Callable[[ParsedRequest], Script]:
    """Call the tool; with its result, answer with text."""
    end = [UsageReported(Usage(input_tokens=5, output_tokens=5)), ResponseFinished("tool_calls")]
    events = [ResponseStarted("one", MODELS[name][0]), *ANSWERS[name], *end]

    def play(request: ParsedRequest) -> Script:
        parts = [part for message in request.conversation.messages for part in message.parts]
        return Script(text=TEXT) if any(isinstance(part, ToolResultPart) for part in parts) else Script(events=events)

    return play


@pytest.fixture
async def serving(request: pytest.FixtureRequest) -> AsyncIterator[Serving]:
    """A gateway to all the providers, which answer as the provider of the test does."""
    async with Simulator(answer_of(request.getfixturevalue("provider"))) as simulator:
        origin = simulator.base_url.removesuffix("/v1")
        models = tuple(
            ServedModel(
                name=name,
                models=(model,),
                options={"api_key": "sk-test", "base_url": origin + path, "progress": "none"},
            )
            for name, (model, path) in MODELS.items()
        )
        async with serve(GatewaySettings(models=models), simulator) as running:
            yield running


# Clients: each asks, gets a call, and sends everything back with the result. `then` is the model that is asked next.


async def by_responses(serving: Serving, model: str, *, streamed: bool, then: str) -> None:
    tools: Any = [{"type": "function", "name": "weather", "parameters": SCHEMA}]
    prompt: Any = [{"role": "user", "content": "Weather?"}]
    async with openai.AsyncOpenAI(api_key="any", base_url=f"{serving.url}/v1", max_retries=0) as client:
        if streamed:
            stream = await client.responses.create(model=model, input=prompt, tools=tools, stream=True)
            events = [event async for event in stream]
            done = [event.item for event in events if event.type == "response.output_item.done"]
            added = [event.item for event in events if event.type == "response.output_item.added"]
            assert [item.id for item in added] == [item.id for item in done] or model == "gpt"
            output = events[-1].response.output
            assert done == output
        else:
            output = (await client.responses.create(model=model, input=prompt, tools=tools)).output
        # Codex sends reasoning items back with their summary and encrypted content, and without ids.
        sent = [item.model_dump(exclude_none=True) for item in output]
        sent = [{name: value for name, value in item.items() if name != "id"} for item in sent]
        result = {"type": "function_call_output", "call_id": "call_one", "output": "21 degrees"}
        answer = await client.responses.create(model=then, input=[*prompt, *sent, result], tools=tools)
        assert answer.output_text == TEXT


async def by_messages(serving: Serving, model: str, *, streamed: bool, then: str) -> None:
    asked: Any = {"max_tokens": 500, "tools": [{"name": "weather", "input_schema": SCHEMA}]}
    prompt: Any = [{"role": "user", "content": "Weather?"}]
    async with anthropic.AsyncAnthropic(api_key="any", base_url=serving.url, max_retries=0) as client:
        if streamed:
            async with client.messages.stream(model=model, messages=prompt, **asked) as stream:
                content = (await stream.get_final_message()).content
        else:
            content = (await client.messages.create(model=model, messages=prompt, **asked)).content
        (call,) = [block for block in content if block.type == "tool_use"]
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "21 degrees"}
        history = [*prompt, {"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
        answer = await client.messages.create(model=then, messages=history, **asked)
        assert answer.content[0].text == TEXT


async def by_gemini(serving: Serving, model: str, *, streamed: bool, then: str) -> None:
    tools = [{"functionDeclarations": [{"name": "weather", "parameters": SCHEMA}]}]
    contents: list[Any] = [{"role": "user", "parts": [{"text": "Weather?"}]}]
    method = "streamGenerateContent?alt=sse" if streamed else "generateContent"
    answer = await post(serving, f"/v1beta/models/{model}:{method}", {"contents": contents, "tools": tools})
    frames = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    documents = frames if streamed else [answer.json()]
    parts = [part for each in documents for part in each["candidates"][0].get("content", {}).get("parts", [])]
    for part in parts:  # Google's SDK has bytes, and sends them in the alphabet for URLs
        if "thoughtSignature" in part:
            data = base64.b64decode(part["thoughtSignature"], validate=True)
            part["thoughtSignature"] = base64.urlsafe_b64encode(data).decode()
    result = {"functionResponse": {"name": "weather", "response": {"output": "21 degrees"}}}
    contents += [{"role": "model", "parts": parts}, {"role": "user", "parts": [result]}]
    again = await post(serving, f"/v1beta/models/{then}:generateContent", {"contents": contents, "tools": tools})
    assert again.status_code == 200, again.text
    assert again.json()["candidates"][0]["content"]["parts"][0]["text"] == TEXT


async def by_chat(serving: Serving, model: str, *, streamed: bool, then: str) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
    prompt: list[Any] = [{"role": "user", "content": "Weather?"}]
    body = {"model": model, "messages": prompt, "tools": tools}
    answer = await post(serving, "/v1/chat/completions", {**body, "stream": streamed})
    message = joined(answer.text) if streamed else answer.json()["choices"][0]["message"]
    message.pop("reasoning_content", None)  # clients do not send it back
    result = {"role": "tool", "tool_call_id": "call_one", "content": "21 degrees"}
    again = await post(serving, "/v1/chat/completions", {**body, "model": then, "messages": [*prompt, message, result]})
    assert again.json()["choices"][0]["message"]["content"] == TEXT


def joined(text: str) -> dict[str, Any]:
    """Return the message of a stream, as OpenRouter's clients join it."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "reasoning_details": [], "tool_calls": []}
    frames = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    for delta in [choice["delta"] for frame in frames for choice in frame["choices"]]:
        message["reasoning_details"] += delta.get("reasoning_details", [])
        for call in delta.get("tool_calls", []):
            if "id" in call:
                message["tool_calls"].append(call)
            else:
                message["tool_calls"][-1]["function"]["arguments"] += call["function"]["arguments"]
                message["tool_calls"][-1] |= {"extra_content": call["extra_content"]} if "extra_content" in call else {}
    return message


CLIENTS = {"responses": by_responses, "messages": by_messages, "gemini": by_gemini, "chat": by_chat}


def found_in(value: Any, expected: dict[str, Any]) -> bool:
    """Whether an object with these fields stands anywhere in a body."""
    if isinstance(value, dict):
        is_it = all(value.get(name) == each for name, each in expected.items())
        return is_it or any(found_in(each, expected) for each in value.values())
    return isinstance(value, list) and any(found_in(each, expected) for each in value)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize("provider", ANSWERS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_the_provider_gets_its_value_back(serving: Serving, client: str, provider: str, streamed: bool) -> None:
    await CLIENTS[client](serving, provider, streamed=streamed, then=provider)
    body = serving.simulator.requests[-1].json
    expected = {**EXPECTED[provider]}
    if client == OWN.get(provider):
        expected.pop("id", None)  # its client sends none
    assert found_in(body, expected), body
    assert "ZGVsdWdlOjE6" not in json.dumps(body)


@pytest.mark.parametrize("then", OWN)
@pytest.mark.parametrize("provider", ANSWERS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_a_provider_gets_no_value_of_another_one(serving: Serving, client: str, provider: str, then: str) -> None:
    if then == provider:
        return
    await CLIENTS[client](serving, provider, streamed=False, then=then)
    body = json.dumps(serving.simulator.requests[-1].json)
    assert "ZGVsdWdlOjE6" not in body
    if OWN.get(provider) != client:  # a value that its own client sends is passed on as it is
        assert SIGNATURE not in body
        assert "gAAAA" not in body


# Single values


def carried(dialect: str, *events: Event) -> list[Event]:
    carrier = OpaqueCarrier(dialect)
    return [each for event in events for each in carrier.packed([event])]


def restored(dialect: str, *parts: Part, api: str = "other", owner: str = "other") -> list[Part]:
    conversation = Conversation([Message.user("Hello"), Message("assistant", parts)])
    return list(unpacked(conversation, dialect=dialect, api=api, owner=owner).messages[1].parts)


def test_an_api_without_a_field_gets_none() -> None:
    signature = ProviderPart("anthropic", "signature", SIGNATURE)
    assert carried("ollama-chat", REASONING, signature, TextDelta("a")) == [REASONING, TextDelta("a")]


def test_a_value_in_a_call_follows_the_call() -> None:
    started, delta, finished = CALL
    signature = ProviderPart("google", "thought_signature", SIGNATURE)
    kinds = [type(event) for event in carried("anthropic-messages", started, signature, delta, finished)]
    assert kinds == [ToolCallStarted, ToolCallDelta, ToolCallFinished, ProviderPart]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("block", {"type": "redacted_thinking", "data": "x"}),
        ("redacted_reasoning", "x"),
        ("thought_signature", {"text": "", "thoughtSignature": "x"}),
        ("reasoning", {"type": "reasoning", "summary": [], "encrypted_content": "x"}),
    ],
)
def test_values_of_every_kind(kind: str, data: Any) -> None:
    (packed,) = carried("anthropic-messages", ProviderPart("owner", kind, data))
    assert isinstance(packed, ProviderPart)
    part = ProviderDataPart("anthropic-messages", packed.kind, packed.data)
    assert restored("anthropic-messages", part, TextPart("a")) == [
        ProviderDataPart("owner", kind, data),
        TextPart("a"),
    ]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("block", {"type": "server_tool_use"}),
        ("reasoning", {"type": "item_reference"}),
        ("signature", 5),
        ("other", "x"),
    ],
)
def test_nothing_else_is_carried_or_opened(kind: str, data: Any) -> None:
    event = ProviderPart("owner", kind, data)
    assert [each for each in carried("openai-responses", event) if each is not event] == []
    inner = json.dumps({"owner": "openai", "kind": kind, "data": data}).encode()
    forged = base64.b64encode(b"deluge:1:" + inner).decode()
    part = ProviderDataPart("anthropic-messages", "signature", forged)
    assert restored("anthropic-messages", part, owner="openai", api="openai-responses") == [part]


@pytest.mark.parametrize("text", ["ZGVsdWdlOjE6", "ZGVsdWdlOjE6!!!", "ZGVsdWdlOjE6bm8=", "ZGVsdWdlOjE6" + "W" * 40_000])
def test_broken_envelopes_are_values_of_the_client(text: str) -> None:
    part = ProviderDataPart("gemini-generate", "thought_signature", text)
    assert restored("gemini-generate", part) == [part]


def test_a_value_of_the_same_api_belongs_to_the_provider() -> None:
    part = ProviderDataPart("anthropic-messages", "signature", SIGNATURE)
    owned = ProviderDataPart("anthropic", "signature", SIGNATURE)
    assert restored("anthropic-messages", ReasoningPart("a"), part, api="anthropic-messages", owner="anthropic") == [
        ReasoningPart("a"),
        owned,
    ]


def test_bodies_without_values_stay_byte_for_byte() -> None:
    body = b'{"a": 1,  "b": "thinking"}'
    assert without_envelopes(body, model="gpt-4o") is body
