"""One connection of a client, and how a plan is played on it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from itertools import chain
from typing import Any

from lm_deluge.simulator.http import LAST_CHUNK, encode_chunk, encode_head
from lm_deluge.simulator.plan import Close, Frame, Hang, Pause, Raw, Repeat, Reset, WirePlan

__all__ = ["ClientLeftError", "Connection", "WatchedReader"]

# So long a closing connection reads what the client still sends: closing at once would answer it with a RST, which
# takes the answer away from a client that has not read it yet.
_LINGER_S = 0.5


class ClientLeftError(Exception):
    """The client closed the connection before its answer was through."""


class _Broken(Exception):  # noqa: N818 - a way out, not an error
    """The plan itself ended the connection."""


class WatchedReader(asyncio.StreamReader):
    """A reader that says at once when the client leaves, though nobody reads."""

    on_end: Callable[[], None] | None = None

    def feed_eof(self) -> None:
        """Take the end of what the client sends."""
        super().feed_eof()
        if self.on_end is not None:
            self.on_end()

    def set_exception(self, exc: Exception) -> None:
        """Take the death of the connection."""
        super().set_exception(exc)
        if self.on_end is not None:
            self.on_end()


class Connection:
    """One connection of a client."""

    def __init__(self, number: int, reader: WatchedReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.writer = writer
        self.is_doomed = False
        self._is_gone = False
        self._waiter: asyncio.Future[None] | None = None
        self._is_chunked = False
        self._pauses: Iterator[float] = iter(())
        reader.on_end = self._leave

    def _leave(self) -> None:
        self._is_gone = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def abort(self) -> None:
        """Drop the connection with all that is unsent."""
        self.writer.transport.abort()

    async def close(self) -> None:
        """Send what is unsent, then close; what the client still sends is passed over for a moment."""
        with contextlib.suppress(OSError, TimeoutError, RuntimeError):
            async with asyncio.timeout(_LINGER_S):
                await self.writer.drain()
                if self.writer.can_write_eof():
                    self.writer.write_eof()
                while await self.reader.read(2**16):
                    pass
        self.writer.close()

    async def play(self, plan: WirePlan, pauses: Iterator[float]) -> bool:
        """Send an answer; return whether the connection can be used again.

        Raises:
            ClientLeftError: The client did not want the rest.
            OSError: The connection died.
        """
        self._pauses = pauses
        self._is_chunked = False
        try:
            for step in plan.before:
                await _PLAYERS[type(step)](self, step)
            self.writer.write(encode_head(plan.status, _headers(plan), version=plan.version))
            self._is_chunked = plan.framing == "chunked"
            for step in chain(plan.unwritten, plan.body):
                await _PLAYERS[type(step)](self, step)
        except _Broken:
            return False
        if plan.framing == "chunked":
            await self._write(LAST_CHUNK)
        await self.writer.drain()
        self.is_doomed = plan.after == "doom"
        return plan.after != "close" and plan.framing != "close"

    async def _write(self, data: bytes) -> None:
        if self._is_gone:
            raise ClientLeftError
        self.writer.write(data)
        await self.writer.drain()

    async def _send(self, data: bytes) -> None:
        await self._write(encode_chunk(data) if self._is_chunked else data)

    async def _sleep(self, seconds: float | None) -> None:
        """Wait, for ever if need be; a client that leaves ends it at once."""
        if self._is_gone:
            raise ClientLeftError
        if seconds == 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        handle = None if seconds is None else loop.call_later(seconds, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if handle is not None:
                handle.cancel()
        if self._is_gone:
            raise ClientLeftError

    async def play_frame(self, step: Frame) -> None:
        """Send a piece of the body, in the rhythm of the answer."""
        if step.is_delta:
            await self._sleep(next(self._pauses, 0.0))
        await self._send(step.data)

    async def play_pause(self, step: Pause) -> None:
        """Send nothing for a while."""
        await self.writer.drain()
        await self._sleep(step.seconds)

    async def play_repeat(self, step: Repeat) -> None:
        """Send the same piece again and again."""
        left = step.times
        while left is None or left > 0:
            await self._sleep(step.every_s)
            await self._send(step.data)
            left = None if left is None else left - 1

    async def play_hang(self, step: Hang) -> None:
        """Send nothing any more."""
        await self._sleep(None)

    async def play_raw(self, step: Raw) -> None:
        """Send bytes past the framing."""
        await self._write(step.data)

    async def play_reset(self, step: Reset) -> None:
        """Kill the connection."""
        await self.writer.drain()
        # Lingering for 0 seconds makes the kernel close with a RST: socket(7), SO_LINGER.
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()
        raise _Broken

    async def play_close(self, step: Close) -> None:
        """End the connection in order."""
        raise _Broken


def _headers(plan: WirePlan) -> list[tuple[str, str]]:
    headers = list(plan.headers)
    if plan.framing == "chunked":
        headers.append(("transfer-encoding", "chunked"))
    elif plan.framing == "length":
        length = sum(len(step.data) for step in plan.body if isinstance(step, Frame))
        headers.append(("content-length", str(length if plan.length is None else plan.length)))
    if plan.after == "close" or plan.framing == "close":
        headers.append(("connection", "close"))
    return headers


_PLAYERS: dict[type, Callable[[Connection, Any], Awaitable[None]]] = {
    Frame: Connection.play_frame,
    Pause: Connection.play_pause,
    Repeat: Connection.play_repeat,
    Hang: Connection.play_hang,
    Raw: Connection.play_raw,
    Reset: Connection.play_reset,
    Close: Connection.play_close,
}
