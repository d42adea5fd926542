"""`client.close()` while calls are under way: they go on to their end, and nothing is left open after them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from lm_deluge import LLMClient
from loopback import END, HANG, HEAD, HELLO, NEXT, Loopback, answer, chunk, text


def client_of(server: Loopback, **options: Any) -> LLMClient:
    return LLMClient("gpt-4o", **{"api_key": "sk-test", "base_url": server.url, "progress": "none", **options})


async def streamed(client: LLMClient) -> str:
    return (await client.stream("Hi", echo=None)).completion


async def iterated(client: LLMClient) -> str:
    return "".join([token async for token in client.stream("Hi")])


async def batched(client: LLMClient) -> str:
    (response,) = await client.process_prompts_async(["Hi"])
    return response.completion


async def merged(client: LLMClient) -> str:
    streams = client.stream_many(["Hi"])
    async for _ in streams:
        pass
    return streams.responses[0].completion


async def started(client: LLMClient) -> str:
    return (await client.wait_for(client.start_nowait("Hi"))).completion


WAYS: list[Callable[[LLMClient], Coroutine[Any, Any, str]]] = [streamed, iterated, batched, merged, started]


@pytest.mark.parametrize(
    "options", [{}, {"hedge_after": 60}, {"on_break": "continue"}], ids=["plain", "hedged", "continued"]
)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("moment", ["before the headers", "in mid-stream"])
async def test_calls_under_way_go_on(
    way: Callable[[LLMClient], Coroutine[Any, Any, str]], moment: str, options: dict[str, Any]
) -> None:
    gate = asyncio.Event()
    early, late = ([gate], []) if moment == "before the headers" else ([], [gate])
    async with Loopback([*early, HEAD, chunk(text("a ")), *late, chunk(HELLO), END, NEXT]) as server:
        client = client_of(server, **options)
        call = asyncio.create_task(way(client))
        while not server.requests:
            await asyncio.sleep(0.001)
        await client.close()
        await client.close()
        gate.set()
        assert await call == "a Hello world"
        await server.settle()  # the connection is closed although the server keeps it alive
        assert len(server.requests) == 1


async def test_idle_connections_are_closed_at_once_and_the_client_may_be_used_again() -> None:
    gate = asyncio.Event()
    slow = [HEAD, gate, chunk(HELLO), END, NEXT]
    async with Loopback(slow, answer(HELLO)) as server:
        client = client_of(server)
        call = asyncio.create_task(streamed(client))
        while not server.requests:
            await asyncio.sleep(0.001)
        assert await streamed(client) == "Hello world"
        assert server.open == 2
        await client.close()
        while server.open > 1:
            await asyncio.sleep(0.001)
        assert await streamed(client) == "Hello world"
        gate.set()
        assert await call == "Hello world"
        assert await streamed(client) == "Hello world"
        assert server.connections == 3, "the connection that was opened after the close is kept"
        await client.close()
        await server.settle()


async def test_a_retry_after_the_close_is_sent() -> None:
    gate = asyncio.Event()
    refusal = [gate, b"HTTP/1.1 500 X\r\ncontent-length: 2\r\n\r\n{}", NEXT]
    async with Loopback(refusal, answer(HELLO)) as server:
        client = client_of(server)
        call = asyncio.create_task(streamed(client))
        while not server.requests:
            await asyncio.sleep(0.001)
        await client.close()
        gate.set()
        assert await call == "Hello world"
        await client.close()
        await server.settle()


async def test_a_stream_that_is_cancelled_after_the_close_leaves_nothing_open() -> None:
    async with Loopback([HEAD, chunk(text("a")), HANG]) as server:
        client = client_of(server)
        async with client.stream("Hi") as stream:
            await stream.next_batch()
            await client.close()
        await server.settle()


def test_a_sync_stream_goes_on() -> None:
    with Loopback([HEAD, chunk(text("a ")), 0.02, chunk(HELLO), END, NEXT]) as server:
        client = client_of(server)
        with client.stream_sync("Hi") as stream:
            tokens = iter(stream)
            assert next(tokens) == "a "
            client.close_sync()
            assert "".join(tokens) == "Hello world"
