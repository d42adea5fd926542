"""Agent loops against the simulator: tools, scripts, clients of each wire API, and the checks of every loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from grammar import check_grammar
from lm_deluge import LLMClient
from lm_deluge.adapters.catalog import adapter_names
from lm_deluge.events import Event, RoundStarted, ToolCallFinished, ToolResult
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.tool_pairs import find_unpaired
from lm_deluge.response import APIResponse
from lm_deluge.simulator import Script, Simulator

# A provider of each wire API that has tools, and the path below the root of the simulator.
PROVIDERS = {
    "openai-chat": ("openai:gpt-4o", "/v1"),
    "openai-responses": ("openai-responses:gpt-5.4", "/v1"),
    "anthropic-messages": ("anthropic:claude-sonnet-4-5", ""),
    "bedrock-converse": ("bedrock:anthropic.claude-sonnet-4-5-20250929-v1:0", ""),
    "bedrock-invoke": ("bedrock-invoke:anthropic.claude-sonnet-4-5-20250929-v1:0", ""),
    "gemini-generate": ("gemini:gemini-2.5-flash", ""),
    "gemini-interactions": ("gemini-interactions:gemini-2.5-flash", ""),
    "mistral-chat": ("mistral:mistral-large-latest", "/mistral"),
    "cohere-v2": ("cohere:command-a-03-2025", ""),
    "ollama-chat": ("ollama:qwen3", ""),
}
APIS = tuple(PROVIDERS)
assert set(APIS) == set(adapter_names())


def weather(city: str) -> dict[str, Any]:
    """Return the weather in a city."""
    return {"city": city, "celsius": 21}


async def search(query: str) -> str:
    """Search the web."""
    await asyncio.sleep(0)
    return f"nothing about {query}"


TOOLS = [weather, search]
ASKS = Script(text="Let me look.", tool_calls=[("weather", {"city": "Rome"}), ("search", {"query": "rain"})])
SCRIPTS = [ASKS, "It is 21 degrees."]


@asynccontextmanager
async def serving(
    script: Any = SCRIPTS, *, api: str = "openai-chat", faults: Any = None, **options: Any
) -> AsyncIterator[tuple[Simulator, LLMClient]]:
    """Yield a simulator, and a client of it that speaks a wire API."""
    model, below = PROVIDERS[api]
    async with asyncio.timeout(60), Simulator(script, faults=faults) as sim:
        options = {"api_key": "test-key", "base_url": sim.url + below, "progress": "none", **options}
        async with LLMClient(options.pop("model", model), **options) as client:
            yield sim, client


async def events_of(stream: Any) -> list[Event]:
    """Read a stream to its end; its events follow the grammar."""
    async with stream:
        events = [event async for event in stream.events()]
    check_loop(events)
    return events


def check_loop(events: Sequence[Event], *, is_complete: bool = True) -> None:
    """Check the grammar of a loop: one start and finish, calls numbered throughout, at most one result for each."""
    check_grammar(events, is_complete=is_complete)
    ids = [event.id for event in events if isinstance(event, ToolCallFinished)]
    assert len(ids) == len(set(ids))
    results = [event.call_id for event in events if isinstance(event, ToolResult)]
    assert len(results) == len(set(results))
    rounds = [event.number for event in events if isinstance(event, RoundStarted)]
    assert rounds == sorted(set(rounds))


def assert_valid(conversation: Conversation | None) -> None:
    """Check that each call has one result, in the next message, and no result is without a call."""
    assert conversation is not None
    assert list(find_unpaired(conversation.messages, "next_message")) == []
    assert all(message.parts for message in conversation)


def assert_next_turn(client: LLMClient, response: APIResponse) -> None:
    """Check that the conversation of a loop is valid, and that the client's API takes it for another turn."""
    assert_valid(response.conversation)
    planner = client.dispatcher.planner()
    plan = planner.plan(client.models[0].id, response.conversation.copy().user("Go on."))
    assert not any(warning.startswith("dropped") for warning in plan.call.warnings), plan.call.warnings


@functools.cache
def client_of(api: str) -> LLMClient:
    return LLMClient(PROVIDERS[api][0], api_key="test-key", base_url="http://127.0.0.1:9")


def assert_next_turn_everywhere(response: APIResponse) -> None:
    """Check that each wire API takes the conversation of a loop for another turn."""
    assert_valid(response.conversation)
    for api in APIS:
        client = client_of(api)
        conversation = response.conversation.copy().user("Go on.")
        client.dispatcher.planner().plan(client.models[0].id, conversation)


def roles(conversation: Conversation | None) -> list[str]:
    assert conversation is not None
    return [message.role for message in conversation]
