"""Calls that are left in the middle, by the hundred and without the garbage collector, leave nothing behind."""

import asyncio
import contextlib
import gc
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from lm_deluge import LLMClient
from loopback import HANG, HEAD, Loopback, chunk, text

TIMES = 10_000 if os.environ.get("DELUGE_SOAK") else 500
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


def held_by(client: LLMClient) -> dict[str, int]:
    """Count what calls take and have to give back."""
    held = {}
    for pool in client.dispatcher.transport._pools.values():
        connector = pool.session.connector
        held["connections"] = len(connector._acquired) + sum(map(len, connector._conns.values()))
        held["places among connections"] = pool.slots.used
    limiter = client.dispatcher.limiter().limiter
    held["tickets"] = len(limiter._open)
    held["places"] = limiter._concurrency.used + sum(route.concurrency.used for route in limiter._routes.values())
    held["waiting"] = client.dispatcher.runner().waiting
    return {name: count for name, count in held.items() if count}


# One stream


async def by_break(client: LLMClient) -> None:
    async for _ in client.stream("hi"):
        break


async def by_break_from_events(client: LLMClient) -> None:
    async with client.stream("hi") as stream:
        async for _ in stream.events():
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


async def by_cancellation_before_anything(client: LLMClient) -> None:
    """At each of the first steps of a call, one after the other."""
    task = asyncio.create_task(_await(client))
    by_cancellation_before_anything.steps = (by_cancellation_before_anything.steps + 1) % 12
    for _ in range(by_cancellation_before_anything.steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


by_cancellation_before_anything.steps = 0


async def _await(client: LLMClient) -> None:
    await client.stream("hi", echo=None)


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


async def by_dropping_it(client: LLMClient) -> None:
    tokens = aiter(client.stream("hi"))
    assert await anext(tokens) == "tok "
    del tokens


async def by_aclose(client: LLMClient) -> None:
    events = client.stream("hi").events()
    await anext(events)
    await events.aclose()


async def by_its_own_cancel(client: LLMClient) -> None:
    stream = client.stream("hi")
    async for _ in stream:
        assert (await stream.cancel()).completion == "tok "


ONE = [
    *(by_break, by_break_from_events, by_cancellation, by_cancellation_before_anything, by_exception, by_timeout),
    *(by_dropping_it, by_aclose, by_its_own_cancel),
]


# Many calls: each way leaves a hundred of them, of which most wait for their turn


async def by_cancelling_the_batch(client: LLMClient, server: Loopback) -> None:
    batch = asyncio.create_task(client.process_prompts_async(["hi"] * 100))
    await _until_it_flows(server)
    batch.cancel()
    await asyncio.wait([batch])
    assert batch.cancelled()


async def by_cancelling_the_batch_at_once(client: LLMClient, server: Loopback) -> None:
    """At each of the first steps of a batch, when its calls have tickets and no connection."""
    batch = asyncio.create_task(client.process_prompts_async(["hi"] * 100))
    by_cancelling_the_batch_at_once.steps = (by_cancelling_the_batch_at_once.steps + 1) % 12
    for _ in range(by_cancelling_the_batch_at_once.steps):
        await asyncio.sleep(0)
    batch.cancel()
    await asyncio.wait([batch])
    assert batch.cancelled()


by_cancelling_the_batch_at_once.steps = 0


async def by_timeout_of_the_batch(client: LLMClient, server: Loopback) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.process_prompts_async(["hi"] * 100)


async def by_break_from_merged(client: LLMClient, server: Loopback) -> None:
    async for _ in client.stream_many(["hi"] * 100):
        break


async def by_exception_from_merged(client: LLMClient, server: Loopback) -> None:
    try:
        async for _ in client.stream_many(["hi"] * 100):
            raise ZeroDivisionError  # noqa: TRY301
    except ZeroDivisionError:
        pass


async def by_aclose_of_merged(client: LLMClient, server: Loopback) -> None:
    async with contextlib.aclosing(aiter(client.stream_many(["hi"] * 100))) as merged:
        async for _ in merged:
            break


async def by_cancelling_who_reads_merged(client: LLMClient, server: Loopback) -> None:
    async def consume() -> None:
        async for _ in client.stream_many(["hi"] * 100):
            pass

    task = asyncio.create_task(consume())
    await _until_it_flows(server)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def by_cancelling_what_was_started(client: LLMClient, server: Loopback) -> None:
    """Some under way, most of them waiting for their slot."""
    for _ in range(100):
        client.start_nowait("hi")
    await _until_it_flows(server)
    for task in client._tasks.values():
        task.cancel()
    await asyncio.wait(list(client._tasks.values()))
    client._tasks.clear()


async def by_cancelling_them_one_after_the_other(client: LLMClient, server: Loopback) -> None:
    """A call that gets its slot in the very moment in which it is cancelled gives it back."""
    by_cancelling_them_one_after_the_other.steps = (by_cancelling_them_one_after_the_other.steps + 1) % 8
    for _ in range(100):
        client.start_nowait("hi")
    await _until_it_flows(server)
    tasks = list(client._tasks.values())
    for start in range(0, 100, 20):
        for task in tasks[start : start + 20]:
            task.cancel()
        for _ in range(by_cancelling_them_one_after_the_other.steps):
            await asyncio.sleep(0)
    await asyncio.wait(tasks)
    client._tasks.clear()


by_cancelling_them_one_after_the_other.steps = 0


async def by_cancelling_who_waits(client: LLMClient, server: Loopback) -> None:
    for _ in range(100):
        client.start_nowait("hi")
    waiting = asyncio.create_task(client.wait_for_all())
    await _until_it_flows(server)
    waiting.cancel()
    await asyncio.wait([waiting])
    await by_cancelling_what_was_started(client, server)


async def by_leaving_as_completed(client: LLMClient, server: Loopback) -> None:
    """The calls go on: whoever started them can still ask for them."""
    ids = [client.start_nowait("") for _ in range(50)] + [client.start_nowait("hi") for _ in range(50)]
    async for _ in client.as_completed(ids):
        break
    await by_cancelling_what_was_started(client, server)


MANY = [
    *(by_cancelling_the_batch, by_cancelling_the_batch_at_once, by_timeout_of_the_batch, by_break_from_merged),
    *(by_exception_from_merged, by_aclose_of_merged, by_cancelling_who_reads_merged, by_cancelling_what_was_started),
    *(by_cancelling_them_one_after_the_other, by_cancelling_who_waits, by_leaving_as_completed),
]


async def _until_it_flows(server: Loopback) -> None:
    async with asyncio.timeout(20):
        while server.open < 20:
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def nothing_left():
    """Yield server and client; then see to it that a quarter of a second later all is as it was."""
    tasks, sockets = asyncio.all_tasks(), open_sockets()
    async with Loopback(FLOWING) as server:
        options = {"api_key": "sk-test", "base_url": server.url, "max_concurrent_requests": 20, "progress": "none"}
        async with LLMClient("gpt-4o", **options) as client:
            yield server, client
            await asyncio.sleep(0.25)
            assert held_by(client) == {}
            await server.settle()
        assert not client.dispatcher.transport._pools
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    assert open_sockets() == sockets


@pytest.mark.timeout(900)
@pytest.mark.parametrize("leave", ONE)
async def test_no_stream_leaves_anything(leave: Callable[[LLMClient], Awaitable[None]]) -> None:
    async with nothing_left() as (server, client):
        for _ in range(TIMES // AT_ONCE):
            await asyncio.gather(*(leave(client) for _ in range(AT_ONCE)))
        if leave is not by_cancellation_before_anything:
            assert server.connections == len(server.requests) == TIMES


@pytest.mark.timeout(900)
@pytest.mark.parametrize("leave", MANY)
async def test_no_call_among_many_leaves_anything(leave: Callable[[LLMClient, Loopback], Awaitable[None]]) -> None:
    async with nothing_left() as (server, client):
        for _ in range(TIMES // 100):
            await leave(client, server)
            await server.settle()
