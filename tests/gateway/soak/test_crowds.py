"""Crowds of bad clients, for `make soak`: those that leave, that send nothing, that send slowly, that read nothing."""

import asyncio
import os
import resource
import time
from pathlib import Path

import httpx
import msgspec
import pytest

from gateway.conftest import TEXT
from gateway.test_bad_clients import CHAT, gateway_to, open_and_leave, until
from lm_deluge.simulator import Pace, Simulator

pytestmark = [
    pytest.mark.skipif(not os.environ.get("DELUGE_SOAK"), reason="long: run by make soak"),
    pytest.mark.timeout(900),
]

LEAVING, IDLE, DEAF = 10_000, 1_000, 100
AT_ONCE = 50  # clients that leave, at a time: one process has all three sides of each


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def memory_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def test_ten_thousand_clients_that_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = Simulator(TEXT * 20, pace=Pace(tokens_per_second=300))
    async with gateway_to(simulator, monkeypatch) as serving:
        places = asyncio.Semaphore(AT_ONCE)

        async def leave(number: int) -> None:
            async with places:
                await open_and_leave(serving, CHAT, reads=number % 3 * 400)

        await asyncio.gather(*map(leave, range(AT_ONCE)))
        files, memory = open_files(), memory_mib()
        await asyncio.gather(*map(leave, range(LEAVING)))
        await until(lambda: serving.gateway.running == 0, seconds=60)
        assert len(serving.log.calls) == LEAVING + AT_ONCE
        assert {call.status for call in serving.log.calls} <= {200, 499}
        billed = [call for call in serving.log.calls if call.attempts and call.first_token_s is not None]
        assert all(call.cost for call in billed)
        await until(lambda: simulator.stats.aborted + simulator.stats.completed >= simulator.stats.requests, seconds=60)
        assert open_files() <= files + AT_ONCE
        print(f"\nmemory {memory:.0f} -> {memory_mib():.0f} MiB")


async def test_the_request_to_the_provider_ends_with_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = Simulator(TEXT * 50, pace=Pace(tokens_per_second=100))
    waits = []
    async with gateway_to(simulator, monkeypatch) as serving:
        for number in range(100):
            await open_and_leave(serving, CHAT, reads=2_000)
            left_at, before = time.perf_counter(), number
            await until(lambda before=before: simulator.stats.aborted > before)
            waits.append(time.perf_counter() - left_at)
    waits.sort()
    print(f"\ncancelled after {waits[50] * 1e3:.0f} ms (median), {waits[98] * 1e3:.0f} ms (99 of 100)")


async def test_idle_slow_and_deaf_clients_leave_room_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = Simulator({"gpt-4o": "word " * 200_000, "gpt-4o-mini": TEXT})
    async with gateway_to(simulator, monkeypatch, stalled_client_s=60) as serving:
        port = int(serving.url.rpartition(":")[2])
        writers = []
        for number in range(IDLE):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            if number % 2:
                writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-slow: ")
            writers.append(writer)
        data = msgspec.json.encode(CHAT)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n" % len(data)
        for _ in range(DEAF):
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(head + data)
            writers.append(writer)
        await until(lambda: serving.gateway.running == DEAF, seconds=30)
        await asyncio.sleep(5)  # until every buffer is full
        memory = memory_mib()
        async with httpx.AsyncClient(base_url=serving.url, timeout=60) as client:
            for _ in range(20):
                answer = await client.post("/v1/chat/completions", json={**CHAT, "model": "gpt-4o-mini"})
                assert answer.text.endswith("data: [DONE]\n\n")
        await asyncio.sleep(5)
        assert memory_mib() < memory + 32  # nothing of the hundred answers piles up
        for writer in writers:
            writer.transport.abort()
        await until(lambda: serving.gateway.running == 0, seconds=30)
