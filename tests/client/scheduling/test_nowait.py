"""Calls started with `start_nowait`: giving up a wait ends the wait alone."""

from __future__ import annotations

import asyncio

import pytest

from lm_deluge import LLMClient
from lm_deluge.errors import ConfigurationError
from loopback import END, HEAD, HELLO, Loopback, chunk


def client_of(server: Loopback) -> LLMClient:
    return LLMClient("gpt-4o", api_key="sk-test", base_url=server.url)


async def give_up(waiting: asyncio.Task[object]) -> None:
    """Cancel a wait that has begun."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("method", ["wait_for", "wait_for_all", "as_completed"])
async def test_giving_up_a_wait_does_not_end_the_call(method: str) -> None:
    gate = asyncio.Event()
    async with Loopback([HEAD, gate, chunk(HELLO), END]) as server, client_of(server) as client:
        first, second = client.start_nowait("Hi"), client.start_nowait("Hi")

        async def wait() -> object:
            if method == "as_completed":
                return [pair async for pair in client.as_completed()]
            return await (client.wait_for(first) if method == "wait_for" else client.wait_for_all())

        await give_up(asyncio.create_task(wait()))
        gate.set()
        responses = await client.wait_for_all([first, second])
        assert [response.completion for response in responses] == ["Hello world"] * 2
        assert [response.id for response in responses] == [first, second]
        assert len(server.requests) == 2, "nothing was sent again"


async def test_a_wait_that_times_out_can_be_repeated() -> None:
    gate = asyncio.Event()
    async with Loopback([HEAD, gate, chunk(HELLO), END]) as server, client_of(server) as client:
        task_id = client.start_nowait("Hi")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.wait_for(task_id), 0.01)
        gate.set()
        assert (await client.wait_for(task_id)).completion == "Hello world"


async def test_several_waiters_get_the_same_answer() -> None:
    gate = asyncio.Event()
    async with Loopback([HEAD, gate, chunk(HELLO), END]) as server, client_of(server) as client:
        task_id = client.start_nowait("Hi")

        async def completed() -> object:
            return await anext(response async for _, response in client.as_completed([task_id]))

        waits = [
            client.wait_for(task_id),
            client.wait_for(task_id),
            client.wait_for_all([task_id, task_id]),
            completed(),
        ]
        waiting = [asyncio.create_task(wait) for wait in waits]
        await asyncio.sleep(0)
        gate.set()
        first, second, (third, fourth), fifth = await asyncio.gather(*waiting)
        assert first is second is third is fourth is fifth
        assert first.completion == "Hello world"
        with pytest.raises(ConfigurationError, match="no call 1 to wait for"):
            await client.wait_for(task_id)


async def test_waiting_for_nothing_returns_nothing() -> None:
    client = LLMClient("gpt-4o", api_key="sk-test")
    assert await client.wait_for_all() == await client.wait_for_all([]) == []
    assert [pair async for pair in client.as_completed()] == []
