"""A client that sends the given bytes and keeps every byte of the answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from lm_deluge.simulator import Simulator

TEXT = "Grüße, 🌊 world: this text comes in quite a few tokens."


@dataclass
class Reply:
    """The bytes of one answer, and how the connection ended: `fin`, `reset`, or `open` if the server kept it open."""

    raw: bytes
    end: str
    head: str = ""
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    chunks: list[bytes] = field(default_factory=list)
    is_whole: bool = False
    seconds: float = 0.0

    def header(self, name: str) -> str:
        return dict(self.headers)[name]


def chat(text: str = "Hi", **fields: object) -> bytes:
    content = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], "stream": True, **fields}
    return json.dumps({name: value for name, value in content.items() if value is not None}).encode()


def http(body: bytes = b"", *, method: str = "POST", path: str = "/v1/chat/completions", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: simulator", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def exchange(sim: Simulator, data: bytes, *, timeout: float = 10.0) -> Reply:
    """Send `data` and read until the server closes, at most `timeout` seconds."""
    # A plain socket, because a StreamReader discards its buffered bytes when the connection is reset.
    loop = asyncio.get_running_loop()
    started = loop.time()
    raw, end = bytearray(), "open"
    with socket.socket() as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, ("127.0.0.1", urlsplit(sim.base_url).port))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                end = await _read_all(connection, data, raw)
    return parse_reply(bytes(raw), end, loop.time() - started)


async def _read_all(connection: socket.socket, data: bytes, raw: bytearray) -> str:
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(connection, data)
        while piece := await loop.sock_recv(connection, 2**16):
            raw += piece
    except ConnectionError:
        return "reset"
    return "fin"


async def ask(sim: Simulator, fault: str | None = None, *, timeout: float = 10.0, **fields: object) -> Reply:
    """Send one model call on a separate connection."""
    extra = {"x_simulator_fault": fault} if fault else {}
    return await exchange(sim, http(chat(**fields), connection="close", **extra), timeout=timeout)


def parse_reply(raw: bytes, end: str, seconds: float = 0.0) -> Reply:
    head, blank, rest = raw.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 1"):
        head, blank, rest = rest.partition(b"\r\n\r\n")
    if not blank or not head.startswith(b"HTTP/"):
        return Reply(raw, end, seconds=seconds)
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    reply = Reply(raw, end, first, int(first.split()[1]), headers, seconds=seconds)
    if ("transfer-encoding", "chunked") in headers:
        reply.chunks, reply.is_whole = dechunk(rest)
        reply.body = b"".join(reply.chunks)
    else:
        reply.body = rest
        reply.is_whole = dict(headers).get("content-length", str(len(rest))) == str(len(rest))
    return reply


def dechunk(data: bytes) -> tuple[list[bytes], bool]:
    """Return the chunks, including an incomplete last chunk, and whether the last-chunk mark has arrived."""
    chunks = []
    while data:
        size, _, data = data.partition(b"\r\n")
        try:
            length = int(size, 16)
        except ValueError:
            return chunks, False
        if length == 0:
            return chunks, data == b"\r\n"
        chunks.append(data[:length])
        data = data[length + 2 :]
    return chunks, False
