"""Connections are reused, counted, paced, and closed at the end of the block."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import threading
import urllib.error
import urllib.request

import pytest

from lm_deluge.simulator import FAULTS, Pace, Simulator
from lm_deluge.testing import decode_body
from simulator.raw_client import TEXT, ask, chat, exchange, http, parse_reply


async def open_stream(
    sim: Simulator, fault: str = "silence;after=1"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection on which an answer has started and then stalls."""
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    writer.write(http(chat(), x_simulator_fault=fault))
    await reader.readuntil(b"Gr\xc3\xbc\xc3\x9fe,")
    return reader, writer


async def until(condition: object) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_no_task_or_connection_remains() -> None:
    before = asyncio.all_tasks()
    async with Simulator(TEXT) as sim:
        streams = [await open_stream(sim) for _ in range(20)]
        idle = await asyncio.open_connection("127.0.0.1", sim.port)
        waiting = await asyncio.open_connection("127.0.0.1", sim.port)
        waiting[1].write(http(chat(), x_simulator_fault="no_answer"))
        await until(lambda: sim.open_connections == 22 and sim.stats.requests == 21)
    assert sim.open_connections == 0
    assert asyncio.all_tasks() == before
    assert sim.stats.aborted == 21
    for reader, writer in [*streams, idle, waiting]:
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(10_000)
        writer.close()


async def test_a_client_that_does_not_read_does_not_hold_up_the_end() -> None:
    async with Simulator("word " * 400_000) as sim:
        _, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        writer.write(http(chat()))
        await until(lambda: sim.stats.requests == 1)
    writer.close()
    assert sim.open_connections == 0


async def test_a_client_that_leaves_is_noticed_in_silence() -> None:
    async with Simulator(TEXT) as sim:
        _, writer = await open_stream(sim)
        writer.close()
        await until(lambda: sim.open_connections == 0)
        assert (sim.stats.aborted, sim.stats.completed) == (1, 0)


async def test_a_client_that_resets_is_noticed() -> None:
    async with Simulator(TEXT) as sim:
        _, writer = await open_stream(sim)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
        await until(lambda: sim.open_connections == 0)
        assert sim.stats.aborted == 1


async def test_the_end_of_the_loop_is_no_failure() -> None:
    failures: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
    async with Simulator(TEXT) as sim:
        _, writer = await open_stream(sim)
        for task in sim._tasks:
            task.cancel()
        await until(lambda: sim.open_connections == 0)
        writer.close()
    assert failures == []


async def test_a_client_that_leaves_is_noticed_in_a_slow_stream() -> None:
    async with Simulator(TEXT, pace=Pace(tokens_per_second=0.01)) as sim:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        writer.write(http(chat()))
        await reader.readuntil(b"assistant")
        writer.close()
        await until(lambda: sim.open_connections == 0)
        assert sim.stats.aborted == 1


async def test_the_race_for_an_idle_connection() -> None:
    async with Simulator("Hi") as sim:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        writer.write(http(chat(stream=False), x_simulator_fault="keepalive_race"))
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(value) for name, value in parse_reply(head, "open").headers if name == "content-length")
        await reader.readexactly(length)
        assert sim.open_connections == 1
        writer.write(http(chat(stream=False)))
        assert await reader.read() == b""
        writer.close()
        assert (await ask(sim)).status == 200


async def test_connections_are_counted() -> None:
    async with Simulator("Hi") as sim:
        await asyncio.gather(*(ask(sim) for _ in range(30)))
        assert (sim.stats.connections, sim.stats.requests, sim.stats.completed) == (30, 30, 30)
        assert 1 <= sim.stats.most_open <= 30
        assert sorted(request.connection for request in sim.requests) == list(range(1, 31))


async def test_requests_are_recorded() -> None:
    async with Simulator("Hi") as sim:
        await exchange(sim, http(method="GET", path="/v1/models", connection="close"))
        await ask(sim, text="Hello")
        listed, called = sim.requests
    assert (listed.method, listed.path, listed.json) == ("GET", "/v1/models", None)
    assert called.json["messages"] == [{"role": "user", "content": "Hello"}]
    assert called.headers["host"] == "simulator"
    assert 0 <= listed.at_s <= called.at_s


async def test_every_fault_is_a_model() -> None:
    async with Simulator() as sim:
        reply = await exchange(sim, http(method="GET", path="/v1/models", connection="close"))
        names = [row["id"] for row in json.loads(reply.body)["data"]]
        assert names == ["simulator", *(f"simulator/{name}" for name in FAULTS)]
        one = await exchange(sim, http(method="GET", path="/v1/models/simulator/reset", connection="close"))
        assert json.loads(one.body)["id"] == "simulator/reset"
        assert (await exchange(sim, http(method="GET", path="/models/gpt-9", connection="close"))).status == 404


async def test_a_redirect_can_be_followed_and_is_seen() -> None:
    async with Simulator("Hi") as sim:
        for fault in ("redirect_same_origin", "redirect_other_origin"):
            location = (await ask(sim, fault)).header("location").removeprefix(f"http://localhost:{sim.port}")
            reply = await exchange(sim, http(chat(), path=location, connection="close"))
            assert decode_body("openai-chat", reply.body).completion == "Hi"
        again = await exchange(sim, http(chat(), path="/v1/chat/completions?fault=redirect_loop", connection="close"))
        assert again.status == 307


async def test_pace() -> None:
    async with Simulator("one two three four five", pace=Pace(tokens_per_second=100, first_token_s=0.05)) as sim:
        reply = await ask(sim)
    assert 0.05 + 4 * 0.01 <= reply.seconds < 2


def test_pauses_are_repeatable() -> None:
    pace = Pace(tokens_per_second=10, first_token_s=1, jitter=0.5)

    def first(seed: int) -> list[float]:
        pauses = pace.pauses(random.Random(seed))
        return [next(pauses) for _ in range(100)]

    assert first(1) == first(1) != first(2)
    assert 0.5 <= first(1)[0] <= 1.5
    assert all(0.05 <= pause <= 0.15 for pause in first(1)[1:])
    assert len(set(first(1))) > 90


@pytest.mark.parametrize("options", [{"tokens_per_second": 0}, {"first_token_s": -1}, {"jitter": 2}])
def test_a_pace_that_cannot_be_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Pace(**options)


def test_without_a_loop() -> None:
    before = set(threading.enumerate())
    with Simulator("Hi").start_in_thread() as sim:
        url = f"{sim.base_url}/chat/completions"
        with urllib.request.urlopen(url, chat(stream=None), timeout=5) as reply:  # noqa: S310 - loopback
            assert decode_body("openai-chat", reply.read()).completion == "Hi"
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{sim.base_url}/nowhere", timeout=5)  # noqa: S310 - loopback
        assert caught.value.code == 404
        caught.value.close()
    assert sim.open_connections == 0
    assert set(threading.enumerate()) <= before


def test_a_thread_can_be_stopped_by_hand() -> None:
    thread = Simulator().start_in_thread()
    assert thread.simulator.base_url.endswith("/v1")
    thread.stop()
    thread.stop()


async def test_a_port_can_be_chosen_and_may_be_taken() -> None:
    async with Simulator() as sim:
        with pytest.raises(OSError, match="in use"):
            Simulator(port=sim.port).start_in_thread()


async def test_a_simulator_that_is_not_running_has_no_address() -> None:
    with pytest.raises(RuntimeError, match="is not running"):
        _ = Simulator().base_url


@pytest.mark.parametrize("is_started", [False, True])
async def test_serving_for_ever(is_started: bool) -> None:
    sim = Simulator("Hi")
    if is_started:
        await sim.__aenter__()
    task = asyncio.create_task(sim.serve_forever())
    await until(lambda: sim._server is not None)
    assert (await ask(sim)).status == 200
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await sim.__aexit__(None, None, None)
    assert sim._server is None


async def test_it_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "http://example.invalid")
    async with Simulator("Hi") as sim:
        assert (await ask(sim)).status == 200


async def test_many_streams_at_once() -> None:
    async with Simulator(TEXT, pace=Pace(tokens_per_second=200, jitter=0.5)) as sim:
        replies = await asyncio.gather(*(ask(sim) for _ in range(200)))
    assert {decode_body("openai-chat", reply.body).completion for reply in replies} == {TEXT}
