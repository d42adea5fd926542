"""The shared limiter in an event loop, with a real server that is killed, paused, and refuses."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from dispatch.scheduling.shared.redis_server import RedisServer, need_redis
from lm_deluge.client.client import LLMClient
from lm_deluge.config import ClientOptions
from lm_deluge.dispatch.scheduling.limiter import Limit
from lm_deluge.dispatch.scheduling.queue import Job, Route
from lm_deluge.dispatch.scheduling.runner import LimiterLock, Runner
from lm_deluge.dispatch.scheduling.shared import link as link_module
from lm_deluge.dispatch.scheduling.shared.configuration import GroupLimits, SharedConfiguration, state_key
from lm_deluge.dispatch.scheduling.shared.connection import parse_address
from lm_deluge.dispatch.scheduling.shared.limiter import SharedLimiter
from lm_deluge.dispatch.scheduling.shared.link import LimiterLink
from lm_deluge.errors import ConfigurationError
from lm_deluge.usage import Usage

FAST = Limit("requests", 60_000)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    need_redis()
    started = RedisServer()
    yield started
    started.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter times than in production, so that a test of an outage takes a fraction of a second."""
    monkeypatch.setattr(link_module, "_TIMEOUT_S", 0.5)
    monkeypatch.setattr(link_module, "_RETRY_S", 0.05)


class Process:
    """One process's limiter and runner, as a client has them."""

    def __init__(self, url: str, *, limit: Limit = FAST, places: int | None = None, name: str = "one") -> None:
        configuration = SharedConfiguration(state_key(["link"]), GroupLimits((), places))
        configuration.add("m", "", GroupLimits([limit]))
        address = parse_address(url)
        self.limiter = SharedLimiter(configuration, name, processes=address.processes)
        self.lock = LimiterLock(self.limiter)
        self.link = LimiterLink(self.limiter, self.lock, address)
        self.runner = Runner(self.lock, [Route("m")])
        self.ids = iter(range(1_000_000))

    async def call(self) -> None:
        job = Job(id=next(self.ids), input_tokens=10)
        async with asyncio.timeout(20):
            admission = await self.runner.admit(job)
        await asyncio.sleep(0)
        self.runner.settle(admission.ticket, Usage())
        self.runner.forget(job)

    async def calls(self, count: int) -> None:
        await asyncio.gather(*(self.call() for _ in range(count)))


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("lm_deluge")]


def state_of(server: RedisServer) -> bytes:
    with redis.Redis(port=server.port) as client:
        return client.get(state_key(["link"])) or b""  # type: ignore[return-value]


async def test_reservations_of_one_tick_travel_together(server: RedisServer) -> None:
    process = Process(server.url)
    await process.calls(200)
    with redis.Redis(port=server.port) as client:
        statistics: Any = client.info("commandstats")
    assert statistics["cmdstat_evalsha"]["calls"] < 40
    assert statistics["cmdstat_eval"]["calls"] == 1, "the text of the script is sent once"
    await process.link.close()


async def test_a_server_that_forgot_the_script_gets_it_again(server: RedisServer) -> None:
    process = Process(server.url)
    await process.calls(2)
    with redis.Redis(port=server.port) as client:
        client.script_flush()
    await process.calls(2)
    assert process.limiter.is_reachable
    await process.link.close()


async def test_close_gives_everything_back(server: RedisServer) -> None:
    process, other = Process(server.url, name="first"), Process(server.url, name="second")
    await process.calls(3)
    await other.calls(3)
    assert other.limiter.processes == 2
    await process.link.close()
    assert b"first" not in state_of(server)
    await other.calls(3)
    assert other.limiter.processes == 1
    await process.calls(1)  # a closed client opens the connection again
    await asyncio.gather(process.link.close(), other.link.close())


async def test_a_place_that_comes_free_admits_another_process(server: RedisServer) -> None:
    one, two = (Process(server.url, places=1, name=name) for name in ("one", "two"))
    job = Job(id=10_000)
    admission = await one.runner.admit(job)
    waiting = asyncio.ensure_future(two.call())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    one.runner.settle(admission.ticket, Usage())
    await waiting
    await asyncio.gather(one.link.close(), two.link.close())


async def test_a_unix_socket(server: RedisServer) -> None:
    process = Process(f"unix://{Path(server.folder) / 'redis.sock'}?db=1")
    await process.calls(3)
    assert process.limiter.is_reachable
    await process.link.close()


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def test_down_at_start(caplog: pytest.LogCaptureFixture) -> None:
    process = Process(f"redis://user:secret@127.0.0.1:{closed_port()}/0?processes=4")
    await process.calls(20)
    await asyncio.sleep(0.2)
    await process.calls(20)
    logged = messages(caplog)
    assert len(logged) == 1
    assert "cannot be reached" in logged[0]
    assert "1/4 of the limits" in logged[0]
    assert "secret" not in logged[0]
    await process.link.close()


async def test_killed_and_started_again(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    process = Process(server.url)
    await process.calls(10)
    server.kill()
    await process.calls(10)
    await process.calls(10)
    assert not process.limiter.is_reachable
    await asyncio.to_thread(server.start)
    while not process.limiter.is_reachable:
        await asyncio.sleep(0.02)
    await process.calls(10)
    logged = messages(caplog)
    assert ["cannot be reached" in text for text in logged] == [True, False]
    assert "is back" in logged[1]
    await process.link.close()


async def test_paused(server: RedisServer) -> None:
    process = Process(server.url)
    await process.calls(10)
    server.pause()
    try:
        await process.calls(100)
        assert not process.limiter.is_reachable
    finally:
        server.resume()
    while not process.limiter.is_reachable:
        await asyncio.sleep(0.02)
    await process.calls(10)
    await process.link.close()


async def test_a_wrong_password(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    with redis.Redis(port=server.port) as client:
        client.config_set("requirepass", "hidden")
    process = Process(server.url.replace("redis://", "redis://:wrong@"))
    await process.calls(3)
    assert any("refuses" in text and "wrong" not in text for text in messages(caplog))
    await process.link.close()


async def test_a_cancelled_call_returns_its_slot(server: RedisServer) -> None:
    slow = Process(server.url, limit=Limit("requests", 60))
    await slow.call()
    waiting = asyncio.ensure_future(slow.call())
    await asyncio.sleep(0.1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await slow.link.close()
    assert b"one" not in state_of(server)


def test_loops_that_follow_each_other(server: RedisServer) -> None:
    process = Process.__new__(Process)

    async def first() -> None:
        process.__init__(server.url)  # type: ignore[misc]
        await process.calls(5)

    async def second() -> None:
        process.runner = Runner(process.lock, [Route("m")])
        await process.calls(5)
        await process.link.close()

    asyncio.run(first())
    asyncio.run(second())


async def test_the_child_of_a_fork_is_a_process_of_its_own(server: RedisServer) -> None:
    process = Process(server.url, name="parent")
    await process.calls(3)
    link_module.begin_in_child()  # what `os.fork` calls
    await process.calls(3)
    assert process.limiter.processes == 2
    await process.link.close()


async def test_clients_share(server: RedisServer) -> None:
    clients = [
        LLMClient("simulator", limiter=server.url, max_requests_per_minute=6_000, progress="none") for _ in range(2)
    ]
    responses = await asyncio.gather(*(client.stream("Hello", echo=None, max_new_tokens=4) for client in clients * 3))
    assert all(response.completion for response in responses)
    with redis.Redis(port=server.port) as connection:
        keys: Any = connection.keys("*")
        assert len(keys) == 1
        assert keys[0].startswith(b"{deluge:")
    for client in clients:
        await client.close()


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "memcached://x"])
def test_no_url_of_a_server(url: str) -> None:
    with pytest.raises(ConfigurationError, match="limiter is not the URL of a Redis server") as raised:
        ClientOptions(limiter=url)
    assert "redis://127.0.0.1:6379/0" in str(raised.value.hint)


@pytest.mark.parametrize("url", ["redis://localhost:port/0", "redis://localhost/0?processes=no", "redis://h/0?db=x"])
def test_an_invalid_url(url: str) -> None:
    with pytest.raises(ConfigurationError, match="limiter"):
        parse_address(url)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigurationError, match="needs the package redis") as raised:
        parse_address("redis://127.0.0.1:6379/0")
    assert "pip install" in str(raised.value.hint)
