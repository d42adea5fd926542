"""Messages over a pair of connected sockets between two processes of the same user: pickled, several in a frame."""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from collections.abc import Callable
from typing import Any

__all__ = ["WorkerChannel"]

_LENGTH = struct.Struct("!I")


class WorkerChannel(asyncio.Protocol):
    """One end of a connection.

    The sockets are a pair that one process created and the other one inherited, so no third process can write to them,
    and unpickling is safe.

    Args:
        on_messages: Called with the messages of each read, in their order.
        on_close: Called once when the other end is closed, or its process has ended.
    """

    def __init__(self, on_messages: Callable[[list[Any]], None], on_close: Callable[[], None]) -> None:
        self._on_messages = on_messages
        self._on_close = on_close
        self._received = bytearray()
        self._posted: list[Any] = []
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def connect(
        cls, end: socket.socket, on_messages: Callable[[list[Any]], None], on_close: Callable[[], None]
    ) -> WorkerChannel:
        """Return the channel over one end of a pair of sockets."""
        end.setblocking(False)
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_connection(lambda: cls(on_messages, on_close), sock=end)
        return channel

    def post(self, message: Any) -> None:
        """Send a message; those of one turn of the event loop share a frame."""
        if not self._posted:
            asyncio.get_running_loop().call_soon(self.flush)
        self._posted.append(message)

    def flush(self) -> None:
        """Send the posted messages now."""
        if not self._posted or self._transport is None or self._transport.is_closing():
            return
        data = pickle.dumps(self._posted, pickle.HIGHEST_PROTOCOL)
        self._posted = []
        self._transport.write(_LENGTH.pack(len(data)) + data)

    def close(self) -> None:
        """Close this end at once."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checkers
        self._transport = transport
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Pass on the messages of all frames that are complete."""
        self._received += data
        messages: list[Any] = []
        start = 0
        while len(self._received) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received, start)
            end = start + _LENGTH.size + length
            if len(self._received) < end:
                break
            messages += pickle.loads(self._received[start + _LENGTH.size : end])  # noqa: S301 - see the class
            start = end
        del self._received[:start]
        if messages:
            self._on_messages(messages)

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end of the connection."""
        self._on_close()
