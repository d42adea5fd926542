"""Cohere's own SDK works with the simulator."""

from __future__ import annotations

from typing import Any

import cohere
import pytest

from lm_deluge.events import Citation, ProviderPart, ResponseFinished, TextDelta
from lm_deluge.simulator import Script, Simulator
from simulator.raw_client import TEXT

REQUEST: dict[str, Any] = {"model": "command-a-03-2025", "messages": [{"role": "user", "content": "Hi"}]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def client_of(sim: Simulator) -> cohere.AsyncClientV2:
    return cohere.AsyncClientV2(api_key="test-key", base_url=sim.url)


async def test_a_stream() -> None:
    async with Simulator(Script(text=TEXT, reasoning="Hm.")) as sim, client_of(sim) as client:
        events = [event async for event in client.chat_stream(**REQUEST)]
    assert [event.type for event in events[:2]] == ["message-start", "content-start"]
    pieces = [event.delta.message.content for event in events if event.type == "content-delta"]
    assert "".join(piece.text or "" for piece in pieces) == TEXT
    assert "".join(piece.thinking or "" for piece in pieces) == "Hm."
    end = events[-1]
    assert (end.type, end.delta.finish_reason) == ("message-end", "COMPLETE")
    assert end.delta.usage.tokens.output_tokens > 0


async def test_streamed_calls_and_their_plan() -> None:
    script = Script(tool_calls=[("weather", {"city": "Genève"}), ("weather", {"city": "Roma"})])
    async with Simulator(script) as sim, client_of(sim) as client:
        arguments = {0: "", 1: ""}
        async for event in client.chat_stream(**REQUEST, tools=[WEATHER], tool_choice="REQUIRED"):
            if event.type == "tool-call-start":
                assert event.delta.message.tool_calls.function.name == "weather"
            if event.type == "tool-call-delta":
                arguments[event.index] += event.delta.message.tool_calls.function.arguments
    assert arguments == {0: '{"city":"Genève"}', 1: '{"city":"Roma"}'}
    assert event.delta.finish_reason == "TOOL_CALL"


async def test_citations_and_plans() -> None:
    events = [
        ProviderPart("cohere", "tool_plan", "I will look."),
        TextDelta("Four"),
        Citation("https://a.test", "T", 0, 4),
        ResponseFinished("stop"),
    ]
    async with Simulator(Script(events=events)) as sim, client_of(sim) as client:
        seen = {event.type: event async for event in client.chat_stream(**REQUEST)}
    assert seen["tool-plan-delta"].delta.message.tool_plan == "I will look."
    cited = seen["citation-start"].delta.message.citations
    assert (cited.start, cited.end, cited.sources[0].document) == (0, 4, {"url": "https://a.test", "title": "T"})


async def test_a_plain_answer() -> None:
    script = Script(text=TEXT, reasoning="Hm.", tool_calls=[("weather", {"city": "Roma"})])
    async with Simulator(script) as sim, client_of(sim) as client:
        answer = await client.chat(**REQUEST, tools=[WEATHER])
    thought, words = answer.message.content
    assert (thought.thinking, words.text, answer.finish_reason) == ("Hm.", TEXT, "TOOL_CALL")
    assert answer.message.tool_calls[0].function.arguments == '{"city":"Roma"}'
    assert answer.usage.tokens.output_tokens > 0


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("status_400", cohere.BadRequestError),
        ("status_401", cohere.UnauthorizedError),
        ("status_404", cohere.NotFoundError),
        ("status_429", cohere.TooManyRequestsError),
        ("status_500", cohere.InternalServerError),
    ],
)
async def test_errors(fault: str, kind: type[Exception]) -> None:
    async with Simulator(faults=fault) as sim, client_of(sim) as client:
        with pytest.raises(kind, match="'message': "):
            await client.chat(**REQUEST, request_options={"max_retries": 0})


async def test_an_error_in_the_stream() -> None:
    async with Simulator(TEXT, faults="in_band_error_mid") as sim, client_of(sim) as client:
        events = [event async for event in client.chat_stream(**REQUEST)]
    assert events[-1].delta.finish_reason == "ERROR"
    assert "had an error" in events[-1].delta.error


def test_the_blocking_client() -> None:
    with (
        Simulator(TEXT).start_in_thread() as sim,
        cohere.ClientV2(api_key="test-key", base_url=sim.url) as client,
    ):
        events = client.chat_stream(**REQUEST)
        pieces = [event.delta.message.content.text for event in events if event.type == "content-delta"]
    assert "".join(pieces) == TEXT
