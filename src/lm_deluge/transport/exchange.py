"""One response over aiohttp, from its head to the end of its body."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import time
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, Protocol

import aiohttp

from lm_deluge.errors import DelugeError, StreamInterruptedError
from lm_deluge.transport.base import ConnectionSlot, Read
from lm_deluge.transport.content_coding import ACCEPTED_CODINGS, ContentDecoder, content_decoder
from lm_deluge.transport.http_errors import in_body, redacted
from lm_deluge.wire.http import HttpHead, HttpRequest

__all__ = ["AiohttpExchange", "SessionConnection"]

_NO_HEADERS: Mapping[str, str] = {}


@lru_cache(maxsize=1)
def _date_at(second: int) -> str:
    from email.utils import formatdate  # rarely needed, slow to import

    return formatdate(second, usegmt=True)


def _date_now() -> str:
    """Return the time of the local clock, which stands in for a missing `Date` header (RFC 9110, 6.6.1)."""
    return _date_at(int(time.time()))


def _accepted_codings(request: HttpRequest) -> str:
    asked = [value for name, value in request.headers.items() if name.lower() == "accept-encoding"]
    return ",".join(asked) if asked else ACCEPTED_CODINGS


class _Connection(Protocol):
    """The connection of an exchange: aiohttp's own, or that of a response of its session."""

    @property
    def transport(self) -> asyncio.Transport | None: ...
    def release(self) -> object: ...
    def close(self) -> object: ...


class SessionConnection:
    """The connection of a response of aiohttp's session, which ends with the response."""

    __slots__ = ("_response",)

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport, None once the response has ended."""
        connection = self._response.connection
        return None if connection is None else connection.transport

    def release(self) -> None:
        """Keep the connection for other requests, once the request was sent and the body received."""
        self._response.release()

    def close(self) -> None:
        """Close the connection."""
        self._response.close()


_NO_OPERATION: Any = staticmethod(bool)


class _Body(aiohttp.StreamReader):
    """The body of a response. Bytes that a reader waits for skip the buffer, where each read takes a dozen calls."""

    __slots__ = ()

    def feed_data(self, data: bytes, size: int = 0) -> bool:
        """Take the bytes of the next read; `size` means nothing, in aiohttp neither (3.14, 2026-11)."""
        waiter: asyncio.Future[Any] | None = self._waiter
        if waiter is None or not data or waiter.done():
            return bool(super().feed_data(data))
        self._waiter = None
        self.total_bytes += len(data)
        waiter.set_result(data)
        return False

    # HTTP's chunks mean nothing here. `bool` returns at once, without a frame of Python for each chunk.
    begin_http_chunk_receiving = end_http_chunk_receiving = _NO_OPERATION

    async def receive(self) -> bytes:
        """Return the next bytes; empty at the end. After a cancelled call the body is incomplete.

        Raises:
            TransportError: The connection broke.
            ProtocolError: The bytes are not valid HTTP.
        """
        try:
            while not self._buffer and not self._eof:
                if self._exception is not None:
                    raise self._exception
                # Not `create_future`, which is a method in Python around this call.
                waiter: asyncio.Future[Any] = asyncio.Future(loop=self._loop)
                self._waiter = waiter
                try:
                    data: bytes | None = await waiter
                finally:
                    self._waiter = None
                if data:
                    return data + self._take() if self._buffer else data
        except (aiohttp.ClientError, OSError, builtins.TimeoutError) as error:
            raise in_body(error) from redacted(error)
        return self._take()

    def _take(self) -> bytes:
        """Return the buffered bytes; aiohttp's method makes five calls for each chunk of HTTP (3.14, 2026-11)."""
        buffer = self._buffer
        data = buffer[0] if len(buffer) == 1 else b"".join(buffer)
        buffer.clear()
        self._size = 0
        self._protocol.resume_reading()
        return data


class _NoBody(aiohttp.streams.EmptyStreamReader):
    """The body of a response without one."""

    __slots__ = ()

    async def receive(self) -> bytes:
        """Return nothing: the end."""
        return b""


def _body_of(content: aiohttp.StreamReader) -> _Body | _NoBody:
    """Return the body that aiohttp's parser has made, with our methods: the class cannot be passed to the parser."""
    if type(content) is not aiohttp.StreamReader:
        return _NoBody()
    made: Any = content
    made.__class__ = _Body
    body: _Body = made
    return body


class AiohttpExchange:
    """An `Exchange` over aiohttp.

    Args:
        status: The status of the response.
        headers: Its headers.
        content: Its body.
        connection: What it arrives on.
        authority: Host and port of the server.
    """

    __slots__ = (
        "_body", "_connection", "_decoder", "_headers", "_slot", "_status", "authority", "head", "read"
    )  # fmt: skip

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        content: aiohttp.StreamReader,
        connection: _Connection,
        authority: str,
    ) -> None:
        self.authority = authority
        self.read: Read
        self._status = status
        self._headers = headers
        self._body = _body_of(content)
        self._connection: _Connection | None = connection
        self._decoder: ContentDecoder | None = None
        self._slot: ConnectionSlot | None = None

    def start(self, delay_s: float | None, request: HttpRequest) -> None:
        """Set `head`, and `read`, which returns the next bytes of the body, decompressed; empty at its end.

        Raises:
            DelugeError: The body is compressed in a way that was not asked for.
        """
        headers = {name.lower(): value for name, value in self._headers.items()}
        if not headers.get("date", "").endswith("GMT"):
            headers["date"] = _date_now()
        self.head = HttpHead(self._status, headers, delay_s)
        self._headers = _NO_HEADERS  # of aiohttp, and larger than `head`: a stream may last for minutes
        if "content-encoding" in headers:
            self._decoder = content_decoder(headers, _accepted_codings(request))
        self.read = self._body.receive if self._decoder is None else partial(self._decompressed, self._decoder)

    def keep(self, slot: ConnectionSlot) -> None:
        """Store the connection slot; it is released when the exchange ends."""
        self._slot = slot

    @property
    def is_at_end(self) -> bool:
        """Whether the end of the body has arrived, and all of it was read."""
        return self._decoder is None and self._body.at_eof() and self._body.exception() is None

    def _release_slot(self) -> None:
        if self._slot is not None:
            self._slot.give_back()

    @property
    def bytes_received(self) -> int:
        """Bytes of the body that have arrived."""
        return self._body.total_bytes

    async def _decompressed(self, decoder: ContentDecoder) -> bytes:
        while True:
            data = await self._body.receive()
            if not data:
                if not decoder.is_whole:
                    raise StreamInterruptedError("the compressed body ended in the middle")
                return data
            data = decoder.decode(data)
            if data:
                return data

    def _end(self, connection: _Connection) -> None:
        if connection.transport is not None:
            connection.transport.abort()
        connection.close()
        if self._body.exception() is None:  # wakes a pending read
            self._body.set_exception(aiohttp.ClientConnectionError("the connection was closed"))

    async def release(self, wait_s: float) -> int:
        """Wait at most `wait_s` for the end of the body, so that the connection can be reused; else close it."""
        surplus = 0
        try:
            if not self._body.at_eof():
                async with asyncio.timeout(wait_s):
                    while not surplus and not self._body.at_eof():
                        surplus += len(await self._body.receive())
        except (DelugeError, builtins.TimeoutError):
            self.abort()
        finally:
            self._release_slot()
        self._let_go(is_reusable=not surplus)
        return surplus

    def abort(self) -> None:
        """Close the connection at once, without sending buffered bytes or a TLS close message.

        A connection whose response has been read to its end is kept for other requests.
        """
        self._let_go(is_reusable=self.is_at_end)
        self._release_slot()

    def _let_go(self, *, is_reusable: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        transport = connection.transport
        # A server may answer before it has read the request; the rest of it must not precede another request.
        is_unsent = transport is not None and transport.get_write_buffer_size() > 0
        if is_reusable and not is_unsent:
            connection.release()
        else:
            self._end(connection)

    def __del__(self) -> None:
        # Garbage of a loop that ended before its streams: aiohttp would warn of the connection, and close it, too.
        connection = getattr(self, "_connection", None)
        if connection is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and its sockets with it
                connection.close()
