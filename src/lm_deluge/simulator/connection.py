"""A client connection that plays the steps of an answer plan."""

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

__all__ = ["ClientDisconnectedError", "Connection", "WatchedReader"]

# Seconds for which a closing connection still reads from the client. If it closed at once, unread bytes would cause a
# RST, and the client would lose an answer that it has not read yet. Half a second is long for a loopback connection and
# short for a test.
_LINGER_S = 0.5
_READ_BYTES = 2**16  # per read of discarded bytes: the default buffer limit of asyncio streams


class ClientDisconnectedError(Exception):
    """The client closed the connection before the end of the answer."""


class _PlanEndedConnection(Exception):  # noqa: N818 - control flow, not an error
    """A step of the plan ended the connection."""


class WatchedReader(asyncio.StreamReader):
    """A stream reader that calls `on_end` when the client disconnects, even while no task reads from it."""

    on_end: Callable[[], None] | None = None

    def feed_eof(self) -> None:
        """Handle the end of the client's data, and call `on_end`."""
        super().feed_eof()
        if self.on_end is not None:
            self.on_end()

    def set_exception(self, exc: Exception) -> None:
        """Handle the loss of the connection, and call `on_end`."""
        super().set_exception(exc)
        if self.on_end is not None:
            self.on_end()


class Connection:
    """A client connection.

    Attributes:
        number: Number of the connection, counted from 1.
        closes_on_next_request: The next request gets no answer: the connection closes instead.
    """

    def __init__(self, number: int, reader: WatchedReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.writer = writer
        self.closes_on_next_request = False
        self._is_disconnected = False
        self._waiter: asyncio.Future[None] | None = None
        self._is_chunked = False
        self._pauses: Iterator[float] = iter(())
        reader.on_end = self._on_disconnect

    def _on_disconnect(self) -> None:
        self._is_disconnected = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def abort(self) -> None:
        """Close the connection at once and discard unsent bytes."""
        self.writer.transport.abort()

    async def close(self) -> None:
        """Send unsent bytes, discard incoming bytes for at most `_LINGER_S`, then close."""
        with contextlib.suppress(OSError, TimeoutError, RuntimeError):
            async with asyncio.timeout(_LINGER_S):
                await self.writer.drain()
                if self.writer.can_write_eof():
                    self.writer.write_eof()
                while await self.reader.read(_READ_BYTES):
                    pass
        self.writer.close()

    async def play(self, plan: WirePlan, pauses: Iterator[float]) -> bool:
        """Send the answer of a plan; return whether the connection can take another request.

        Raises:
            ClientDisconnectedError: The client disconnected before the end of the answer.
            OSError: The connection is broken.
        """
        self._pauses = pauses
        self._is_chunked = False
        try:
            for step in plan.before:
                await _PLAYERS[type(step)](self, step)
            self.writer.write(encode_head(plan.status, _headers(plan), version=plan.version))
            self._is_chunked = plan.framing == "chunked"
            for step in chain(plan.lazy_frames, plan.body):
                await _PLAYERS[type(step)](self, step)
        except _PlanEndedConnection:
            return False
        if plan.framing == "chunked":
            await self._write(LAST_CHUNK)
        await self.writer.drain()
        self.closes_on_next_request = plan.after == "close_on_next_request"
        return plan.after != "close" and plan.framing != "close"

    async def _write(self, data: bytes) -> None:
        if self._is_disconnected:
            raise ClientDisconnectedError
        self.writer.write(data)
        await self.writer.drain()

    async def _send(self, data: bytes) -> None:
        await self._write(encode_chunk(data) if self._is_chunked else data)

    async def _sleep(self, seconds: float | None) -> None:
        """Wait, without end if `seconds` is None. A client that disconnects ends the wait at once."""
        if self._is_disconnected:
            raise ClientDisconnectedError
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
        if self._is_disconnected:
            raise ClientDisconnectedError

    async def play_frame(self, step: Frame) -> None:
        """Send a frame of the body; wait before it if it starts a delta."""
        if step.is_delta:
            await self._sleep(next(self._pauses, 0.0))
        await self._send(step.data)

    async def play_pause(self, step: Pause) -> None:
        """Send nothing for the seconds of the step."""
        await self.writer.drain()
        await self._sleep(step.seconds)

    async def play_repeat(self, step: Repeat) -> None:
        """Send the same bytes repeatedly."""
        remaining = step.times
        while remaining is None or remaining > 0:
            await self._sleep(step.every_s)
            await self._send(step.data)
            remaining = None if remaining is None else remaining - 1

    async def play_hang(self, step: Hang) -> None:
        """Send nothing until the client disconnects."""
        await self._sleep(None)

    async def play_raw(self, step: Raw) -> None:
        """Send bytes without the framing of the body."""
        await self._write(step.data)

    async def play_reset(self, step: Reset) -> None:
        """Reset the connection (RST)."""
        await self.writer.drain()
        # With a linger time of 0 seconds the kernel closes the socket with a RST: socket(7), SO_LINGER.
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()
        raise _PlanEndedConnection

    async def play_close(self, step: Close) -> None:
        """Close the connection in order (FIN)."""
        raise _PlanEndedConnection


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
