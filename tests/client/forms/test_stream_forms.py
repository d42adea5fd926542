"""A stream as a coroutine, as tasks and groups take it; and the hints of forms that do not fit."""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import gc
from typing import Any

import pytest

from lm_deluge import LLMClient
from lm_deluge.errors import ConfigurationError, DelugeError, StreamConsumedError
from lm_deluge.simulator import Fault, Simulator
from loopback import HANG, HEAD, HELLO, Loopback, answer, chunk, text


def client_of(url: str, **options: Any) -> LLMClient:
    return LLMClient("gpt-4o", base_url=url, api_key="k", **options)


async def in_a_task(client: LLMClient) -> str:
    return (await asyncio.create_task(client.stream("Hi"))).completion


async def in_a_group(client: LLMClient) -> str:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(client.stream("Hi"))
    return task.result().completion


async def gathered(client: LLMClient) -> str:
    responses = await asyncio.gather(*(client.stream("Hi", echo=None) for _ in range(3)), client.stream("Hi"))
    assert {each.completion for each in responses} == {"Hello world"}
    return responses[0].completion


async def with_a_time_limit(client: LLMClient) -> str:
    return (await asyncio.wait_for(client.stream("Hi"), 10)).completion


async def shielded(client: LLMClient) -> str:
    return (await asyncio.shield(client.stream("Hi"))).completion


async def from_a_thread(client: LLMClient) -> str:
    loop = asyncio.get_running_loop()
    future = await asyncio.to_thread(asyncio.run_coroutine_threadsafe, client.stream("Hi"), loop)
    return (await asyncio.wrap_future(future)).completion


TAKERS = {each.__name__: each for each in (in_a_task, in_a_group, gathered, with_a_time_limit, shielded, from_a_thread)}


@pytest.mark.parametrize("name", TAKERS)
async def test_whatever_takes_a_coroutine_takes_a_stream(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with Loopback(answer(HELLO)) as server, client_of(server.url) as client:
        assert await TAKERS[name](client) == "Hello world"
    assert capsys.readouterr().out == "Hello world"


@pytest.mark.parametrize("debug", [False, True])
def test_asyncio_run_takes_a_stream(debug: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with Loopback(answer(HELLO)) as server:
        client = client_of(server.url)
        assert asyncio.run(client.stream("Hi"), debug=debug).completion == "Hello world"
        with asyncio.Runner(debug=debug) as runner:
            assert runner.run(client.stream("Hi", echo=None)).completion == "Hello world"
    assert capsys.readouterr().out == "Hello world"


async def test_a_stream_is_a_coroutine_that_is_run_once() -> None:
    async with Loopback(answer(HELLO)) as server, client_of(server.url) as client:
        stream = client.stream("Hi", echo=None)
        assert asyncio.iscoroutine(stream)
        assert isinstance(stream, collections.abc.Coroutine)
        task = asyncio.create_task(stream)
        assert "Stream()" in repr(task)
        await task
        with pytest.raises(StreamConsumedError):
            await asyncio.create_task(stream)
        with pytest.raises(StreamConsumedError):
            await stream
        assert len(server.requests) == 1


async def test_a_task_that_fails_raises_the_error_of_the_stream() -> None:
    async with Simulator("one two three", faults=[Fault("reset", after=1)]) as sim, client_of(sim.base_url) as client:
        with pytest.raises(DelugeError) as caught:
            await asyncio.create_task(client.stream("Hi", echo=None))
        assert caught.value.partial.completion == "one"


async def test_a_cancelled_task_ends_the_stream_at_once() -> None:
    async with Loopback([HEAD, chunk(text("a")), HANG]) as server, client_of(server.url) as client:
        stream = client.stream("Hi", echo=None)
        task = asyncio.create_task(stream)
        while not stream.response.completion:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.settle()
    assert stream.response.completion == "a"


async def test_a_stream_that_is_closed_or_never_run_sends_nothing_and_warns_of_nothing() -> None:
    async with Loopback(answer(HELLO)) as server, client_of(server.url) as client:
        closed = client.stream("Hi")
        closed.close()
        closed.close()
        with pytest.raises(StreamConsumedError):
            await closed
        task = asyncio.create_task(client.stream("Hi"))
        task.cancel()  # before its first step
        with contextlib.suppress(asyncio.CancelledError):
            await task
        client.stream("Hi")
        del task, closed
        gc.collect()
        assert server.requests == []


async def test_a_closed_stream_closes_its_connection() -> None:
    async with Loopback([HEAD, chunk(text("a")), HANG]) as server, client_of(server.url) as client:
        stream = client.stream("Hi")
        await stream.next_batch()
        stream.close()
        await server.settle()
        assert stream.response.completion == "a"


def uses(thing: Any) -> dict[str, Any]:
    def with_block() -> None:
        with thing:
            pass

    return {"for": lambda: [*thing], "list": lambda: list(thing), "with": with_block}


@pytest.mark.parametrize("use", ["for", "list", "with"])
def test_a_form_without_async_has_a_hint(use: str) -> None:
    client = client_of("http://127.0.0.1:9/v1")
    with pytest.raises(ConfigurationError, match=r"call client\.stream_sync\(\.\.\.\) instead"):
        uses(client.stream("Hi"))[use]()
    for thing in (client.stream_many(["Hi"]), client.answers(["Hi"])):
        with pytest.raises(ConfigurationError, match="needs `async"):
            uses(thing)[use]()


async def test_an_async_form_of_a_blocking_stream_has_a_hint() -> None:
    client = client_of("http://127.0.0.1:9/v1")
    hint = r"Use `for`, `with` or `\.result\(\)`; or call client\.stream\(\.\.\.\)"
    with pytest.raises(ConfigurationError, match=hint):
        await client.stream_sync("Hi")
    with pytest.raises(ConfigurationError, match=hint):
        async for _ in client.stream_sync("Hi"):
            pass
    with pytest.raises(ConfigurationError, match=hint):
        async with client.stream_sync("Hi"):
            pass
