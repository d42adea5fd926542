"""Loops with tools of an MCP server: connected for the loop, shared by many loops, closed at each kind of end."""

import asyncio
from typing import Any

import pytest

from agents.loops import assert_next_turn, events_of, serving
from lm_deluge import MCPServer
from lm_deluge.errors import ConfigurationError, DelugeError
from lm_deluge.events import ToolProgress, ToolResult
from lm_deluge.simulator import Script

mcp = pytest.importorskip("mcp.server.mcpserver")


def server() -> Any:
    app = mcp.MCPServer("calculator")

    @app.tool()
    async def add(first: int, second: int, context: mcp.Context) -> int:
        """Add two numbers."""
        await context.report_progress(1, 2)
        return first + second

    @app.tool()
    async def hang() -> int:
        """Never answer."""
        await asyncio.Event().wait()
        return 0

    return app


ADDS = Script(text="", tool_calls=[("add", {"first": 2, "second": 3})])


async def test_a_loop_connects_and_disconnects() -> None:
    calculator = MCPServer(server())
    async with serving([ADDS, "5"]) as (sim, client):
        stream = client.stream("2 + 3?", tools=[calculator], run_tools=True)
        events = await events_of(stream)
        assert_next_turn(client, stream.response)
        assert [tool["function"]["name"] for tool in sim.requests[0].json["tools"]] == ["add", "hang"]
    result = next(event for event in events if isinstance(event, ToolResult))
    assert (result.result, result.error) == ("5", None)
    assert any(isinstance(event, ToolProgress) for event in events)
    with pytest.raises(ConfigurationError, match="is not connected"):
        assert calculator.tools


async def test_a_connected_server_stays_connected() -> None:
    async with MCPServer(server()) as calculator, serving([ADDS, "5"]) as (_, client):
        await events_of(client.stream("2 + 3?", tools=[calculator], run_tools=True))
        assert [tool.name for tool in calculator.tools] == ["add", "hang"]


async def test_a_batch_shares_the_server() -> None:
    calculator = MCPServer(server())

    def script(request: Any) -> Any:
        return "5" if any(message.role == "tool" for message in request.conversation) else ADDS

    async with serving(script) as (_, client):
        responses = await client.process_prompts_async(["2 + 3?"] * 5, tools=[calculator], run_tools=True)
    assert [response.completion for response in responses] == ["5"] * 5
    with pytest.raises(ConfigurationError, match="is not connected"):
        assert calculator.tools


async def test_a_loop_that_is_cancelled_disconnects() -> None:
    before = asyncio.all_tasks()
    calculator = MCPServer(server())
    async with serving([Script(text="", tool_calls=[("hang", {})]), "5"]) as (_, client):
        stream = client.stream("2 + 3?", tools=[calculator], run_tools=True)
        reading = asyncio.create_task(stream.read_to_end())
        while not stream.response.tool_calls:
            await asyncio.sleep(0.001)
        response = await stream.cancel()
        await reading
        assert_next_turn(client, response)
    with pytest.raises(ConfigurationError, match="is not connected"):
        assert calculator.tools
    assert asyncio.all_tasks() == before


async def test_a_server_that_does_not_start_is_an_error_of_the_loop() -> None:
    async with serving([ADDS, "5"]) as (sim, client):
        stream = client.stream("2 + 3?", tools=[MCPServer("no-such-program-of-ours")], run_tools=True)
        with pytest.raises(DelugeError, match="no-such-program-of-ours"):
            await stream.read_to_end()
        assert sim.requests == []
