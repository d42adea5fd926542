"""The bytes of a body, however it is framed and whenever its parts arrive."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable

import pytest

from lm_deluge import errors as e
from lm_deluge.transport.exchange import AiohttpExchange
from lm_deluge.transport.http import AiohttpTransport
from lm_deluge.wire.http import HttpRequest
from loopback import END, FIN, HANG, HEAD, NEXT, Loopback, Step, chunk

PIECES = [b"a" * 5, b"b", b"c" * 70_000, b"d"]  # the third is larger than a read
BODY = b"".join(PIECES)
LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"
PAUSE = 0.01  # the reader waits for the next piece

CHUNKED = [HEAD, *(chunk(piece) for piece in PIECES), END]
FRAMINGS: dict[str, list[bytes | str]] = {
    "chunked": [*CHUNKED, NEXT],
    "chunks in one write": [b"".join(CHUNKED), NEXT],
    "a chunk over two writes": [HEAD, b"5\r\nh", b"ello\r\n" + END, NEXT],
    "length": [LENGTH % len(BODY), *PIECES, NEXT],
    "until the connection closes": [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", *PIECES, FIN],
    "empty by its length": [LENGTH % 0, NEXT],
    "empty by its status": [b"HTTP/1.1 204 No Content\r\n\r\n", NEXT],
    "empty chunks": [HEAD, END, NEXT],
}


def paused(steps: list[bytes | str]) -> list[Step]:
    """Return the steps with a pause after each, so that each write is a read."""
    return [each for step in steps for each in (step, PAUSE)]


async def opened(server: Loopback, transport: AiohttpTransport) -> AiohttpExchange:
    return await transport.open(HttpRequest(server.url, {}, b""), connect_timeout_s=5, proxy=None)


async def whole(exchange: AiohttpExchange) -> bytes:
    body = b""
    while data := await exchange.read():
        body += data
    assert await exchange.read() == b""
    assert exchange.is_at_end
    return body


@pytest.mark.parametrize("divide", [list, paused], ids=["at once", "piece by piece"])
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_the_body_is_read_to_its_end_and_the_connection_kept(
    framing: str, divide: Callable[[list[bytes | str]], list[Step]]
) -> None:
    expected = {"a chunk over two writes": b"hello"}.get(framing, b"" if "empty" in framing else BODY)
    async with Loopback(divide(FRAMINGS[framing])) as server:
        transport = AiohttpTransport()
        for _ in range(2):
            exchange = await opened(server, transport)
            assert await whole(exchange) == expected
            assert exchange.bytes_received == len(expected)
            assert await exchange.release(1.0) == 0
        assert server.connections == (2 if framing == "until the connection closes" else 1)
        await transport.close()


async def test_bytes_after_the_end_of_the_answer_are_counted_and_the_connection_closed() -> None:
    steps: list[Step] = [HEAD, chunk(b"answer"), PAUSE, chunk(b"more"), END, NEXT]
    async with Loopback(steps) as server:
        transport = AiohttpTransport()
        for number in (1, 2):
            exchange = await opened(server, transport)
            assert await exchange.read() == b"answer"
            assert await exchange.release(1.0) == 4
            assert server.connections == number
        await transport.close()


async def test_bytes_before_the_connection_broke_come_first() -> None:
    async with Loopback([HEAD, chunk(b"one") + chunk(b"two"), FIN]) as server:
        transport = AiohttpTransport()
        exchange = await opened(server, transport)
        await asyncio.sleep(5 * PAUSE)  # the end is there before the first read
        assert await exchange.read() == b"onetwo"
        with pytest.raises(e.StreamInterruptedError):
            await exchange.read()
        await transport.close()


async def second_read(server: Loopback, transport: AiohttpTransport) -> tuple[AiohttpExchange, asyncio.Task[bytes]]:
    """Return an exchange of which "one" was read, and a read that waits."""
    exchange = await opened(server, transport)
    assert await exchange.read() == b"one"
    waiting = asyncio.create_task(exchange.read())
    await asyncio.sleep(PAUSE)
    return exchange, waiting


async def test_a_read_ends_when_its_exchange_is_aborted() -> None:
    async with Loopback([HEAD, chunk(b"one"), HANG]) as server:
        transport = AiohttpTransport()
        exchange, waiting = await second_read(server, transport)
        exchange.abort()
        with pytest.raises(e.StreamInterruptedError):
            await waiting
        await transport.close()


async def test_a_cancelled_read_leaves_the_bytes_to_the_next() -> None:
    go_on = asyncio.Event()
    async with Loopback([HEAD, chunk(b"one"), go_on, chunk(b"two"), END, NEXT]) as server:
        transport = AiohttpTransport()
        exchange, waiting = await second_read(server, transport)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        go_on.set()
        assert await whole(exchange) == b"two"
        exchange.abort()
        await transport.close()


async def test_compressed_pieces_are_decompressed_as_they_arrive() -> None:
    packed = gzip.compress(BODY)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"
    half = len(packed) // 2
    async with Loopback([head, chunk(packed[:half]), PAUSE, chunk(packed[half:]), END, NEXT]) as server:
        transport = AiohttpTransport()
        exchange = await opened(server, transport)
        body = b""
        while data := await exchange.read():
            body += data
        assert body == BODY
        assert exchange.bytes_received == len(packed)
        exchange.abort()
        await transport.close()
