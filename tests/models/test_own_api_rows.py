"""Providers with wire APIs of their own: the URLs and keys of their requests."""

from __future__ import annotations

import pytest

from lm_deluge import LLMClient
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import MissingAPIKeyError
from lm_deluge.events import (
    ProviderPart,
    ReasoningDelta,
    ResponseFinished,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.parts import ProviderDataPart, ReasoningPart, ToolCallPart, ToolResultPart
from lm_deluge.simulator import Script, Simulator

PLACES = [
    ("mistral", "/mistral", "/mistral/v1/chat/completions", "MISTRAL_API_KEY", "MISTRAL_BASE_URL"),
    ("cohere", "", "/v2/chat", "CO_API_KEY", "CO_API_URL"),
    ("cohere", "", "/v2/chat", "COHERE_API_KEY", "CO_API_URL"),
    ("ollama", "", "/api/chat", "OLLAMA_API_KEY", "OLLAMA_HOST"),
]


@pytest.mark.parametrize(("row", "base", "path", "key", "url"), PLACES)
async def test_the_environment_says_where_and_with_which_key(
    row: str, base: str, path: str, key: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Simulator("Hi") as sim:
        monkeypatch.setenv(key, "test-key-1234")
        monkeypatch.setenv(url, sim.url + base)
        client = LLMClient(f"{row}:some-model")
        response = await client.stream("Hi", echo=None)
        await client.close()
        asked = sim.requests[0]
    assert (response.completion, response.finish_reason) == ("Hi", "stop")
    assert (asked.path, asked.json["model"]) == (path, "some-model")
    assert asked.headers["authorization"] == "Bearer ...1234"


@pytest.mark.parametrize(("row", "key"), [("mistral", "MISTRAL_API_KEY"), ("cohere", "CO_API_KEY or COHERE_API_KEY")])
async def test_without_a_key_nothing_is_sent(row: str, key: str) -> None:
    client = LLMClient(f"{row}:some-model")
    with pytest.raises(MissingAPIKeyError, match=f"Set {key}"):
        await client.stream("Hi", echo=None)
    await client.close()


async def test_ollama_is_asked_without_a_key_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Simulator("Hi") as sim:
        monkeypatch.setenv("OLLAMA_HOST", f"0.0.0.0:{sim.port}")  # as the server itself reads it
        client = LLMClient("ollama:qwen3")
        response = await client.stream("Hi", echo=None)
        await client.close()
        assert "authorization" not in sim.requests[0].headers
    assert response.completion == "Hi"


@pytest.mark.parametrize(
    ("row", "base", "opaque"),
    [("mistral", "/mistral", "signature"), ("cohere", "", "tool_plan"), ("ollama", "", None)],
)
async def test_what_an_answer_holds_goes_back_with_the_result_of_its_tool(row: str, base: str, opaque: str) -> None:
    asked: list[ParsedRequest] = []
    thought = [ReasoningDelta("Hm."), *([ProviderPart(row, opaque, "kept")] if opaque else [])]
    call = ToolCallPart("abcDEF123", "weather", '{"city":"Roma"}', {"city": "Roma"})

    def answer(request: ParsedRequest) -> Script:
        asked.append(request)
        if len(asked) > 1:
            return Script(text="Sunny.")
        called = [ToolCallStarted(0, call.id, call.name), ToolCallDelta(0, call.arguments_text)]
        done = ToolCallFinished(0, call.id, call.name, call.arguments_text, call.arguments)
        return Script(events=[*thought, *called, done, ResponseFinished("tool_calls")])

    async with Simulator(answer) as sim:
        client = LLMClient(f"{row}:some-model", base_url=sim.url + base, api_key="test-key")
        conversation = Conversation.user("Weather?")
        first = await client.stream(conversation, tools=[{"name": "weather"}], echo=None)
        conversation.add(first.content).tool_result(call.id, "sunny")
        second = await client.stream(conversation, tools=[{"name": "weather"}], echo=None)
        await client.close()
    assert (second.completion, second.warnings) == ("Sunny.", ())
    assert asked[1].conversation.messages[2].parts == (ToolResultPart(call.id, "sunny"),)
    parts = asked[1].conversation.messages[1].parts
    assert [part for part in parts if isinstance(part, ReasoningPart)] == [ReasoningPart("Hm.")]
    assert [(part.kind, part.data) for part in parts if isinstance(part, ProviderDataPart)] == (
        [(opaque, "kept")] if opaque else []
    )
    assert [part for part in parts if isinstance(part, ToolCallPart)] == [call]
