"""A server that follows the scripts of a test: bytes, waits and ways to end a connection."""

import asyncio
import contextlib
import json
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Any

FIN = "fin"
"""Close the connection normally."""
RST = "rst"
"""Reset the connection."""
HANG = "hang"
"""Send nothing more until the client closes the connection."""
NEXT = "next"
"""Wait for the next request on the same connection, which gets the next transcript."""
RACE = "race"
"""Read the next request and close the connection without a response, as a server at its keep-alive timeout."""

Step = bytes | float | str | asyncio.Event
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nx-request-id: req_7\r\n\r\n"
)
END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def data(payload: Any) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def text(content: str) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    return data({"id": "chatcmpl-1", "model": "gpt-4o-2024-08-06", "choices": [choice]})


def finish(reason: str = "stop") -> bytes:
    choice = {"index": 0, "delta": {}, "finish_reason": reason}
    return data({"id": "chatcmpl-1", "model": "gpt-4o-2024-08-06", "choices": [choice]})


USAGE = data(
    {"id": "chatcmpl-1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
)
HELLO = text("Hello") + text(" world") + finish() + USAGE + DONE


def chunk(*pieces: bytes) -> bytes:
    joined = b"".join(pieces)
    return b"%x\r\n%b\r\n" % (len(joined), joined)


def answer(*pieces: bytes) -> list[Step]:
    """Return the steps of a complete response."""
    return [HEAD, *(chunk(piece) for piece in pieces), END, NEXT]


def plain(status: str, body: bytes, *headers: str, content_type: str = "application/json") -> list[Step]:
    lines = [f"HTTP/1.1 {status}", f"content-type: {content_type}", f"content-length: {len(body)}", *headers]
    return ["\r\n".join(lines).encode() + b"\r\n\r\n" + body, NEXT]


class Loopback:
    """Responds to each request with the next transcript, and repeats the last."""

    def __init__(self, *transcripts: Sequence[Step]) -> None:
        self.transcripts = [list(steps) for steps in transcripts]
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        self.open = 0
        self._server: asyncio.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> "Loopback":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        await self.settle()

    async def settle(self) -> None:
        """Wait until no connection is open. Times out if the client leaks a connection."""
        async with asyncio.timeout(5):
            while self.open:
                await asyncio.sleep(0.005)

    def __enter__(self) -> "Loopback":
        started = threading.Event()
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop

        async def serve() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            await self._stop.wait()
            server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        self._thread.start()
        assert started.wait(5)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while await self._answer(reader, writer):
                continue
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await self._read_request(reader)
        for step in self._next_transcript():
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif isinstance(step, float):
                await asyncio.sleep(step)
            elif isinstance(step, asyncio.Event):
                await step.wait()
            elif step in (NEXT, RACE):
                if step == RACE:
                    await self._read_request(reader)
                return step == NEXT
            else:
                await self._end(step, reader, writer)
                return False
        return False

    def _next_transcript(self) -> list[Step]:
        return self.transcripts.pop(0) if len(self.transcripts) > 1 else self.transcripts[0]

    async def _read_request(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append((first, headers, body))

    async def _end(self, step: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if step == HANG:
            with contextlib.suppress(ConnectionError):
                await reader.read()
        if step == RST:
            raw = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):  # the client has already closed the connection
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
