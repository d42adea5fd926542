"""Agent loops in every wire API: the results go back in the API's own form, and so does what the provider signed."""

import json

import pytest

from agents.loops import APIS, TOOLS, assert_next_turn, events_of, roles, serving
from lm_deluge.events import ReasoningDelta, TextDelta, ToolCallFinished, ToolResult
from lm_deluge.prompt.parts import ProviderDataPart, ToolResultPart
from lm_deluge.simulator import Script

ASKS = Script(
    text="Let me look.",
    reasoning="I need the weather.",
    tool_calls=[("weather", {"city": "Rome"}), ("search", {"query": "rain"})],
)
AGAIN = Script(text="One more.", tool_calls=[("weather", {"city": "Oslo"})])
REASONS = tuple(api for api in APIS if api not in ("ollama-chat", "cohere-v2"))


@pytest.mark.parametrize("api", APIS)
async def test_a_loop_of_three_rounds(api: str) -> None:
    async with serving([ASKS, AGAIN, "It is 21 degrees."], api=api) as (sim, client):
        stream = client.stream("Weather in Rome?", tools=TOOLS, run_tools=True)
        events = await events_of(stream)
        response = stream.response
        assert_next_turn(client, response)
    assert response.completion == "It is 21 degrees."
    assert response.finish_reason == "stop"
    assert response.error is None
    assert len(response.rounds) == len(sim.requests) == 3
    assert roles(response.conversation) == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    calls = [event for event in events if isinstance(event, ToolCallFinished)]
    assert [(call.index, call.name) for call in calls] == [(0, "weather"), (1, "search"), (2, "weather")]
    results = {event.call_id: event for event in events if isinstance(event, ToolResult)}
    assert set(results) == {call.id for call in calls}
    assert json.loads(results[calls[2].id].result) == {"city": "Oslo", "celsius": 21}
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert text == "Let me look.One more.It is 21 degrees."
    assert response.usage.input_tokens == sum(each.usage.input_tokens for each in response.rounds)
    assert response.usage.output_tokens == sum(each.usage.output_tokens for each in response.rounds)


@pytest.mark.parametrize("api", APIS)
async def test_the_model_reads_the_results_in_the_order_of_its_calls(api: str) -> None:
    seen = []

    def script(request):
        seen.append(request.conversation)
        return ASKS if len(seen) == 1 else "It is 21 degrees."

    async with serving(script, api=api) as (_, client):
        await events_of(client.stream("Weather?", tools=TOOLS, run_tools=True))
    parts = [part for message in seen[1] for part in message.parts if isinstance(part, ToolResultPart)]
    assert len(parts) == 2
    assert json.loads(parts[0].content) == {"city": "Rome", "celsius": 21}
    assert parts[1].content == "nothing about rain"


@pytest.mark.parametrize(
    "api", [api for api in APIS if api in ("anthropic-messages", "bedrock-converse", "gemini-generate")]
)
async def test_signatures_go_back_with_the_calls(api: str) -> None:
    async with serving([ASKS, "Done."], api=api) as (sim, client):
        stream = client.stream("Weather?", tools=TOOLS, run_tools=True)
        events = await events_of(stream)
        assert any(isinstance(event, ReasoningDelta) for event in events)
        signed = [part for part in stream.response.rounds[0].content.parts if isinstance(part, ProviderDataPart)]
        assert signed
        body = json.dumps(sim.requests[1].json)
    assert all(str(part.data) in body for part in signed)
