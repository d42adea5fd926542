"""Clients that leave, read nothing, or send too much or too slowly: each ends alone, and is billed for what it got."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import msgspec
import pytest

from gateway.conftest import TEXT, point_providers_at
from gateway.ledger.ledgers import open_ledger
from gateway.serving import Serving, serve
from lm_deluge.gateway.configuration.settings import GatewaySettings, ServedModel
from lm_deluge.gateway.key_access import KeyAccess
from lm_deluge.gateway.ledger.keys import KeyRules
from lm_deluge.gateway.serve import BoundedProtocol
from lm_deluge.simulator import Fault, Pace, Simulator

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
MESSAGES = {"model": "gpt-4o", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}], "stream": True}


async def until(is_true: Callable[[], bool], *, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def gateway_to(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, **settings: object
) -> AsyncIterator[Serving]:
    async with simulator:
        point_providers_at(simulator, monkeypatch)
        async with serve(msgspec.structs.replace(GatewaySettings(), **settings), simulator) as serving:
            yield serving


async def open_and_leave(
    serving: Serving,
    body: object,
    *,
    reads: int | None,
    path: str = "/v1/chat/completions",
    key: str = "any",
    waits_for_provider: bool = False,
) -> None:
    """Send a request, read so many bytes of the response (None: all), and close the connection."""
    before = serving.simulator.stats.requests
    reader, writer = await asyncio.open_connection("127.0.0.1", int(serving.url.rpartition(":")[2]))
    data = msgspec.json.encode(body)
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: {key}\r\ncontent-length: {len(data)}\r\n"
    writer.write(f"{head}{'connection: close' if reads is None else 'x-leaves: yes'}\r\n\r\n".encode() + data)
    await writer.drain()
    if reads is None:
        await reader.read()
    elif reads:
        await reader.readexactly(reads)
    elif waits_for_provider:
        await until(lambda: serving.simulator.stats.requests > before)
    else:
        await until(lambda: serving.gateway.running > 0)
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("fault", ["slow_first_byte", "slow_first_token"])
async def test_a_client_that_leaves_before_the_first_token(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    simulator = Simulator(TEXT, faults=Fault(fault, seconds=60))
    async with gateway_to(simulator, monkeypatch) as serving:
        await open_and_leave(serving, CHAT, reads=0)
        await until(lambda: serving.gateway.running == 0)
        assert [call.status for call in serving.log.calls] == [499]


async def test_a_client_that_leaves_in_the_middle_is_billed_for_what_was_generated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulator = Simulator(TEXT * 50, pace=Pace(tokens_per_second=100))
    async with gateway_to(simulator, monkeypatch) as serving:
        await open_and_leave(serving, CHAT, reads=2_000)
        await until(lambda: bool(serving.log.calls))
        await until(lambda: simulator.stats.aborted == 1)
        (call,) = serving.log.calls
    assert call.status == 499
    assert 0 < call.output_tokens < 200
    assert call.cost > 0


# Providers that bill all of an answer, also if its reader closes the connection


GEMINI = {**CHAT, "model": "gemini-3.8-flash"}
OWN_GEMINI = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
OWN_PATH = "/v1beta/models/gemini-3.8-flash:streamGenerateContent?alt=sse"


@pytest.mark.parametrize(
    ("body", "path", "reads"),
    [
        (GEMINI, "/v1/chat/completions", 0),
        (GEMINI, "/v1/chat/completions", 700),
        ({**GEMINI, "stream": False}, "/v1/chat/completions", 0),
        (OWN_GEMINI, OWN_PATH, 0),
        (OWN_GEMINI, OWN_PATH, 700),
    ],
)
async def test_an_answer_that_is_billed_whole_is_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: object, path: str, reads: int
) -> None:
    simulator = Simulator(TEXT * 3, pace=Pace(tokens_per_second=200))
    async with open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger, simulator:
        new = await ledger.create_key("team", KeyRules(budget=1.0))
        point_providers_at(simulator, monkeypatch)
        async with serve(GatewaySettings(), simulator, access=KeyAccess(ledger)) as serving:
            await open_and_leave(serving, body, reads=reads, path=path, key=new.token, waits_for_provider=True)
            await until(lambda: bool(serving.log.calls))
            await open_and_leave(serving, body, reads=None, path=path, key=new.token)
            await until(lambda: len(serving.log.calls) == 2)
        assert (simulator.stats.completed, simulator.stats.aborted) == (2, 0)
        left, stayed = serving.log.calls
        assert (left.status, stayed.status) == (499, 200)
        assert left.cost == stayed.cost > 0
        assert left.output_tokens == stayed.output_tokens
        assert await ledger.spent(new.key, now=time.time()) == (pytest.approx(2 * stayed.cost), 0.0)


async def test_no_further_attempt_is_sent_for_a_client_that_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = Simulator(TEXT, pace=Pace(tokens_per_second=20), faults=[Fault("reset", after=6)])
    options = {"on_break": "continue", "progress": "none"}
    models = (ServedModel(name="gemini-3.8-flash", models=("gemini-3.8-flash",), options=options),)
    async with gateway_to(simulator, monkeypatch, models=models) as serving:
        await open_and_leave(serving, GEMINI, reads=700)
        await until(lambda: serving.gateway.running == 0)
        assert [call.status for call in serving.log.calls] == [499]
        assert simulator.stats.requests == 1
        await open_and_leave(serving, GEMINI, reads=None)
        assert serving.log.calls[1].status == 200


async def test_a_client_that_reads_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = Simulator("word " * 400_000)
    async with gateway_to(simulator, monkeypatch, stalled_client_s=0.3) as serving:
        port = int(serving.url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        data = msgspec.json.encode(CHAT)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n%b" % (len(data), data)
        )
        await until(lambda: bool(serving.log.calls), seconds=30)
        assert serving.log.calls[0].status == 499
        assert simulator.stats.completed == 0  # the answer was not read to its end meanwhile
        writer.close()


@pytest.mark.parametrize(
    ("path", "body", "heartbeat"),
    [
        ("/v1/chat/completions", CHAT, ": ping\n\n"),
        ("/v1/messages", MESSAGES, 'event: ping\ndata: {"type": "ping"}\n\n'),
    ],
)
async def test_a_silent_stream_sends_heartbeats(
    monkeypatch: pytest.MonkeyPatch, path: str, body: object, heartbeat: str
) -> None:
    simulator = Simulator(TEXT, faults=[Fault("slow_first_token", seconds=0.5), Fault("status_500")])
    async with (
        gateway_to(simulator, monkeypatch, heartbeat_s=0.1) as serving,
        httpx.AsyncClient(base_url=serving.url) as client,
    ):
        answer = await client.post(path, json=body)
    assert answer.text.startswith(heartbeat)
    assert "whole" in answer.text


async def test_an_error_after_a_heartbeat_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Simulator(TEXT, faults=[Fault("retry_after_seconds", seconds=1), Fault("status_400")])
    async with (
        gateway_to(slow, monkeypatch, heartbeat_s=0.1) as serving,
        httpx.AsyncClient(base_url=serving.url) as client,
    ):
        answer = await client.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 200
    last = answer.text.strip().rpartition("\n\n")[2]
    assert "invalid_request_error" in last
    assert "[DONE]" not in answer.text


async def test_bodies_that_are_too_large_too_slow_or_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"max_body_bytes": 2_000, "body_timeout_s": 0.2}
    async with gateway_to(Simulator(TEXT), monkeypatch, **settings) as serving:

        async def endless() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.sleep(1)

        async def growing() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b" " * 100

        async with httpx.AsyncClient(base_url=serving.url) as client:
            large = await client.post("/v1/chat/completions", content=b" " * 3_000)
            grown = await client.post("/v1/chat/completions", content=growing())
            slow = await client.post("/v1/chat/completions", content=endless())
            packed = await client.post("/v1/chat/completions", content=b"x", headers={"content-encoding": "gzip"})
            broken = await client.post("/v1/chat/completions", content=b"{")
        assert [each.status_code for each in (large, grown, slow, packed, broken)] == [413, 413, 408, 415, 400]
        assert all("error" in each.json() for each in (large, grown, slow, packed, broken))
        assert serving.simulator.stats.requests == 0


async def test_headers_that_are_too_large_or_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hasty(BoundedProtocol):
        header_s = 0.2

    async with Simulator(TEXT) as simulator:
        point_providers_at(simulator, monkeypatch)
        async with serve(GatewaySettings(), simulator, protocol=Hasty) as serving:
            port = int(serving.url.rpartition(":")[2])
            for sent, expected in ((b"GET /health/live HTTP/1.1\r\nhost: x\r\nx-slow: ", b""), (b"", b"")):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(sent)
                assert await asyncio.wait_for(reader.read(), 10) == expected
                writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            many = (b"x-many: %b\r\n" % (b"a" * 1_000)) * 100
            writer.write(b"GET /health/live HTTP/1.1\r\nhost: x\r\n%b\r\n" % many)
            assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 431 ")
            writer.close()
            async with httpx.AsyncClient(base_url=serving.url) as client:
                assert (await client.get("/health/live")).status_code == 200


async def test_many_clients_that_leave_leave_nothing_over(monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = Simulator(TEXT * 20, pace=Pace(tokens_per_second=200))
    async with gateway_to(simulator, monkeypatch) as serving:
        await asyncio.gather(*(open_and_leave(serving, CHAT, reads=number % 3 * 400) for number in range(60)))
        await until(lambda: serving.gateway.running == 0)
        assert len(serving.log.calls) == 60
        await until(lambda: simulator.stats.aborted + simulator.stats.completed >= simulator.stats.requests)
        names = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}
        assert not [name for name in names if name.startswith("GatewayCall")]
        async with httpx.AsyncClient(base_url=serving.url, timeout=30) as client:
            assert (await client.post("/v1/chat/completions", json=CHAT)).text.endswith("data: [DONE]\n\n")
