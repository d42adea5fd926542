"""Loops that are left at every await: tools, tasks and sockets end, and the conversation so far is valid."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agents.loops import ASKS, assert_next_turn, assert_valid, roles, serving
from client.test_abandoned import held_by, open_sockets
from lm_deluge import LLMClient
from lm_deluge.errors import StreamConsumedError
from lm_deluge.events import ToolResult
from lm_deluge.response import APIResponse
from lm_deluge.simulator import Script

MOST_STEPS = 400  # far more turns of the event loop than a loop of three rounds takes
SCRIPTS = [ASKS, Script(text="One more.", tool_calls=[("search", {"query": "wind"})]), "It is 21 degrees."]


class Tools:
    """Async tools that note what becomes of each run."""

    def __init__(self) -> None:
        self.running = 0
        self.started = asyncio.Event()
        self.hold = asyncio.Event()
        self.cancelled = 0

    async def weather(self, city: str) -> str:
        return f"21 degrees in {city}"

    async def search(self, query: str) -> str:
        self.running += 1
        self.started.set()
        try:
            await asyncio.sleep(0)
            await self.hold.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return f"nothing about {query}"

    @property
    def functions(self) -> list[Any]:
        return [self.weather, self.search]


def held_in_flight(client: LLMClient) -> dict[str, int]:
    """Count what calls hold. The idle connection of a round that ended well is left to the next call."""
    if client.dispatcher.transport is None:
        return {}
    held = held_by(client)
    idle = sum(
        len(each)
        for pool in client.dispatcher.transport._pools.values()
        for each in pool.session.connector._conns.values()
    )
    held["connections"] = held.get("connections", 0) - idle
    return {name: count for name, count in held.items() if count}


async def settled(client: LLMClient, tools: Tools) -> None:
    """Wait until what was left has ended; it takes a few turns of the event loop."""
    for _ in range(200):
        if not held_in_flight(client) and not tools.running:
            break
        await asyncio.sleep(0.001)
    assert held_in_flight(client) == {}
    assert tools.running == 0


def script(request: Any) -> Any:
    return SCRIPTS[sum(message.role == "assistant" for message in request.conversation)]


@asynccontextmanager
async def nothing_left(*, holds: bool = True, **options: Any) -> AsyncIterator[tuple[LLMClient, Tools]]:
    """Yield a client and tools, of which one waits; then check that nothing runs, and nothing is open."""
    gc.collect()
    tasks, sockets = asyncio.all_tasks(), open_sockets()
    tools = Tools()
    if not holds:
        tools.hold.set()
    async with serving(script, **options) as (_, client):
        yield client, tools
        await settled(client, tools)
    for _ in range(20):  # the simulator closes what was connected while it ended
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    assert open_sockets() == sockets


def start(client: LLMClient, tools: Tools, **options: Any) -> Any:
    return client.stream("Weather in Rome?", tools=tools.functions, run_tools=True, **options)


async def test_cancelled_at_every_await() -> None:
    """The task that reads is cancelled after each number of turns of the event loop, up to the end of the loop."""
    lengths = set()
    async with nothing_left(holds=False) as (client, tools):
        for steps in range(MOST_STEPS):
            stream = start(client, tools)
            task = asyncio.create_task(stream.read_to_end())
            for _ in range(steps):
                await asyncio.sleep(0)
            if task.done():
                break
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert_next_turn(client, stream.response)
            assert stream.response.finish_reason in (None, "stop")
            lengths.add(len(stream.response.conversation))
            await settled(client, tools)
        assert (await task).completion == "It is 21 degrees."
    assert steps > 20
    assert len(lengths) >= 3  # cancelled in each round


async def test_cancelling_the_stream_at_every_batch() -> None:
    async with nothing_left(holds=False) as (client, tools):
        for batches in range(MOST_STEPS):
            stream = start(client, tools)
            for _ in range(batches):
                if not await stream.next_batch():
                    break
            response = await stream.cancel()
            assert_next_turn(client, response)
            await settled(client, tools)
            if response.finish_reason == "stop":
                break
    assert response.finish_reason == "stop"
    assert batches > 5


async def by_cancel(client: LLMClient, tools: Tools) -> Any:
    stream = start(client, tools)
    reading = asyncio.create_task(stream.read_to_end())
    await tools.started.wait()
    response = await stream.cancel()
    assert tools.running == 0  # `cancel` waits for the tools
    assert (await reading).conversation == response.conversation
    return stream


async def by_cancelling_the_task(client: LLMClient, tools: Tools) -> Any:
    stream = start(client, tools)

    async def read() -> None:
        async with stream:
            async for _ in stream.events():
                pass

    task = asyncio.create_task(read())
    await tools.started.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    return stream


async def by_break(client: LLMClient, tools: Tools) -> Any:
    """The quick tool has a result while the other one runs."""
    stream = start(client, tools)
    async for event in stream.events():
        if isinstance(event, ToolResult):
            break
    return stream


async def by_an_exception(client: LLMClient, tools: Tools) -> Any:
    stream = start(client, tools)
    try:
        async with stream:
            async for event in stream.events():
                if isinstance(event, ToolResult):
                    raise ZeroDivisionError  # noqa: TRY301 - out of the loop, which is the point
    except ZeroDivisionError:
        pass
    assert tools.running == 0  # the block waits for the tools
    return stream


async def by_a_timeout(client: LLMClient, tools: Tools) -> Any:
    stream = start(client, tools)

    async def read() -> None:
        async with asyncio.timeout(None) as scope:
            timeouts.append(scope)
            await stream.read_to_end()

    timeouts: list[asyncio.Timeout] = []
    task = asyncio.create_task(read())
    await tools.started.wait()
    timeouts[0].reschedule(asyncio.get_running_loop().time())
    await asyncio.wait([task])
    assert isinstance(task.exception(), TimeoutError)
    return stream


async def by_abandoning(client: LLMClient, tools: Tools) -> Any:
    stream = start(client, tools)
    reading = asyncio.create_task(stream.read_to_end())
    await tools.started.wait()
    await asyncio.get_running_loop().run_in_executor(None, stream.abandon)
    await reading
    return stream


async def by_closing_the_iterator(client: LLMClient, tools: Tools) -> Any:
    stream = start(client, tools)
    events = stream.events()
    while not isinstance(await anext(events), ToolResult):
        pass
    await events.aclose()
    return stream


LEFT = [
    *(by_cancel, by_cancelling_the_task, by_break, by_an_exception, by_a_timeout, by_abandoning),
    by_closing_the_iterator,
]


@pytest.mark.parametrize("leave", LEFT)
async def test_a_loop_that_is_left_while_a_tool_runs(leave: Callable[[LLMClient, Tools], Awaitable[Any]]) -> None:
    async with nothing_left() as (client, tools):
        stream = await leave(client, tools)
        response: APIResponse = stream.response
        assert_next_turn(client, response)
        for _ in range(100):
            if tools.cancelled:
                break
            await asyncio.sleep(0.001)
        assert tools.cancelled == 1
    assert response.finish_reason is None
    assert roles(response.conversation) == ["user", "assistant", "tool"]
    quick, cancelled = response.conversation[2].parts
    assert quick.content == "21 degrees in Rome"  # a result is kept, whoever gave up waiting
    assert cancelled.is_error
    assert "cancelled" in cancelled.content


async def test_a_loop_that_is_dropped_ends() -> None:
    async with nothing_left() as (client, tools):
        events = start(client, tools).events()
        while not isinstance(await anext(events), ToolResult):
            pass
        del events
        gc.collect()
        for _ in range(100):
            if tools.cancelled:
                break
            await asyncio.sleep(0.001)
        assert tools.cancelled == 1


async def test_an_approval_that_waits_is_interrupted() -> None:
    waits, ended = asyncio.Event(), []

    async def approve(call: Any) -> bool:
        waits.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(call.name)
        return True

    async with nothing_left() as (client, tools):
        stream = start(client, tools, approve=approve)
        reading = asyncio.create_task(stream.read_to_end())
        await waits.wait()
        response = await stream.cancel()
        await reading
        assert_next_turn(client, response)
    assert ended == ["weather"]
    assert roles(response.conversation) == ["user", "assistant", "tool"]


async def test_a_cancelled_tool_that_does_not_end_is_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_deluge.agents import tool_tasks

    monkeypatch.setattr(tool_tasks, "_SETTLE_S", 0.01)
    started, end = asyncio.Event(), asyncio.Event()

    async def stubborn() -> str:
        started.set()
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue
        return "late"

    async with serving([Script(text="", tool_calls=[("stubborn", {})]), "Done."]) as (_, client):
        stream = client.stream("Go.", tools=[stubborn], run_tools=True)
        reading = asyncio.create_task(stream.read_to_end())
        await started.wait()
        response = await stream.cancel()
        await reading
        assert_valid(response.conversation)
        end.set()
        await asyncio.sleep(0)


async def test_a_loop_is_used_once() -> None:
    async with serving() as (_, client):
        stream = client.stream("Go.", tools=Tools().functions, run_tools=True, max_rounds=1)
        await stream.read_to_end()
        with pytest.raises(StreamConsumedError):
            stream.events()
