"""Streams that are left in the middle, by the hundred and without the garbage collector, leave nothing behind."""

import asyncio
import contextlib
import gc
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from lm_deluge import LLMClient
from loopback import HANG, HEAD, Loopback, chunk, text

TIMES = 2_000 if os.environ.get("DELUGE_SOAK") else 500
AT_ONCE = 50
FLOWING = [HEAD, chunk(text("tok ")), HANG]


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def open_sockets() -> int:
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("sockets are counted in /proc")
    count = 0
    for link in folder.iterdir():
        with contextlib.suppress(OSError):  # the folder itself, while it is read
            count += str(link.readlink()).startswith("socket:")
    return count


async def by_break(client: LLMClient) -> None:
    async for _ in client.stream("hi"):
        break


async def by_cancellation(client: LLMClient) -> None:
    started = asyncio.Event()

    async def consume() -> None:
        async with client.stream("hi") as stream:
            async for _ in stream.events():
                started.set()

    task = asyncio.create_task(consume())
    await started.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def by_exception(client: LLMClient) -> None:
    try:
        async for _ in client.stream("hi"):
            raise ZeroDivisionError  # noqa: TRY301 - out of the loop, which is the point
    except ZeroDivisionError:
        pass


async def by_timeout(client: LLMClient) -> None:
    seen = []
    try:
        async with asyncio.timeout(None) as scope:
            async for token in client.stream("hi"):
                seen.append(token)
                scope.reschedule(asyncio.get_running_loop().time())
    except TimeoutError:
        pass
    assert seen == ["tok "]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("leave", [by_break, by_cancellation, by_exception, by_timeout])
async def test_nothing_is_left(leave: Callable[[LLMClient], Awaitable[None]]) -> None:
    tasks, sockets = asyncio.all_tasks(), open_sockets()
    async with Loopback(FLOWING) as server:
        async with LLMClient("gpt-4o", api_key="sk-test", base_url=server.url) as client:
            for _ in range(TIMES // AT_ONCE):
                await asyncio.gather(*(leave(client) for _ in range(AT_ONCE)))
            await server.settle()
            (pool,) = client._transport._pools.values()
            connector = pool.session.connector
            assert (len(connector._acquired), sum(map(len, connector._conns.values()))) == (0, 0)
            assert server.connections == len(server.requests) == TIMES
        assert not client._transport._pools
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    assert open_sockets() == sockets
