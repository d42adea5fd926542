"""Mistral's own SDK works with the simulator."""

from __future__ import annotations

from typing import Any

import pytest
from mistralai.client import Mistral, errors

from lm_deluge.events import ProviderPart, ReasoningDelta, ResponseFinished, TextDelta
from lm_deluge.simulator import FAULTS, Script, Simulator
from simulator.raw_client import TEXT

REQUEST: dict[str, Any] = {"model": "mistral-small-latest", "messages": [{"role": "user", "content": "Hi"}]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def client_of(sim: Simulator) -> Mistral:
    return Mistral(api_key="test-key", server_url=f"{sim.url}/mistral")


async def test_a_stream() -> None:
    async with Simulator(Script(text=TEXT)) as sim, client_of(sim) as client:
        stream = await client.chat.stream_async(**REQUEST)
        chunks = [event.data async for event in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == chunks[-1].usage.prompt_tokens + chunks[-1].usage.completion_tokens
    assert len({(chunk.id, chunk.model, chunk.created) for chunk in chunks}) == 1


async def test_streamed_calls() -> None:
    script = Script(tool_calls=[("weather", {"city": "Genève"}), ("weather", {"city": "Roma"})])
    async with Simulator(script) as sim, client_of(sim) as client:
        stream = await client.chat.stream_async(**REQUEST, tools=[WEATHER], tool_choice="any")
        arguments = {0: "", 1: ""}
        async for event in stream:
            choice = event.data.choices[0]
            for call in choice.delta.tool_calls or ():
                assert call.function.name == "weather"
                arguments[call.index] += call.function.arguments
    assert arguments == {0: '{"city":"Genève"}', 1: '{"city":"Roma"}'}
    assert choice.finish_reason == "tool_calls"


async def test_streamed_thoughts() -> None:
    events = [
        ReasoningDelta("Hm."),
        ProviderPart("mistral", "signature", "sig"),
        TextDelta("Four."),
        ResponseFinished("stop"),
    ]
    async with Simulator(Script(events=events)) as sim, client_of(sim) as client:
        stream = await client.chat.stream_async(**REQUEST)
        contents = [event.data.choices[0].delta.content async for event in stream]
    thoughts = [content[0] for content in contents if isinstance(content, list)]
    assert thoughts[0].thinking[0].text == "Hm."
    assert thoughts[1].signature == "sig"
    assert "Four." in contents


async def test_a_plain_answer() -> None:
    script = Script(text=TEXT, reasoning="Hm.", tool_calls=[("weather", {"city": "Roma"})])
    async with Simulator(script) as sim, client_of(sim) as client:
        answer = await client.chat.complete_async(**REQUEST, tools=[WEATHER])
    choice = answer.choices[0]
    thought, words = choice.message.content
    assert (thought.thinking[0].text, words.text, choice.finish_reason) == ("Hm.", TEXT, "tool_calls")
    assert choice.message.tool_calls[0].function.arguments == '{"city":"Roma"}'
    assert answer.usage.completion_tokens > 0


@pytest.mark.parametrize("fault", ["status_400", "status_401", "status_429", "status_500"])
async def test_errors(fault: str) -> None:
    async with Simulator(faults=fault) as sim, client_of(sim) as client:
        with pytest.raises(errors.SDKError) as caught:
            await client.chat.complete_async(**REQUEST, retries=None)
    assert caught.value.status_code == int(fault[-3:])
    assert '"object":"error"' in caught.value.body


async def test_a_request_that_cannot_be_answered() -> None:
    async with Simulator() as sim, client_of(sim) as client:
        with pytest.raises(errors.SDKError, match="Expected at least one message"):
            await client.chat.complete_async(model="m", messages=[])


def test_the_blocking_client() -> None:
    with Simulator(TEXT).start_in_thread() as sim, client_of(sim) as client:
        stream = client.chat.stream(**REQUEST)
        assert "".join(event.data.choices[0].delta.content or "" for event in stream) == TEXT


async def test_models() -> None:
    async with Simulator() as sim, client_of(sim) as client:
        listed = await client.models.list_async()
        one = await client.models.retrieve_async(model_id="simulator")
    assert [row.id for row in listed.data] == ["simulator", *(f"simulator/{name}" for name in FAULTS)]
    assert (one.id, one.capabilities.completion_chat) == ("simulator", True)
