"""HTTP/1.1 over aiohttp. Only files of this folder import that library."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import time
import weakref
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from typing import Protocol

import aiohttp

from lm_deluge.config import Secret
from lm_deluge.errors import DelugeError, StreamInterruptedError
from lm_deluge.transport.base import ConnectionSlot, DescriptorsUsedUpError
from lm_deluge.transport.content_coding import ACCEPTED_CODINGS, ContentDecoder, content_decoder
from lm_deluge.transport.http_errors import before_headers, has_partial_head, in_body, is_disconnect, redacted
from lm_deluge.transport.pool import ConnectionTrace, Pool, ProcessId, close_idle, current_trace, timeout_of
from lm_deluge.transport.targets import is_usual, new_target, unchanged_url
from lm_deluge.wire.http import HttpHead, HttpRequest, Pieces

__all__ = ["AiohttpExchange", "AiohttpTransport"]

_NO_HEADERS: Mapping[str, str] = {}
_MOST_STALE = 1  # immediate repeats after a stale idle connection; further ones are retries, with their pauses


_Pools = dict[asyncio.AbstractEventLoop, Pool]


def _close_all(pools: _Pools) -> None:
    """Close the pools of a transport that was garbage-collected, each pool in its own loop."""
    for loop, pool in list(pools.items()):
        if pool.pid == ProcessId.pid and not loop.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop was closed after the check
                loop.call_soon_threadsafe(pool.close_soon, loop)


class AiohttpTransport:
    """A `Transport` with one pool of connections per event loop and process.

    After a fork the child process creates its own pools and does not use its parent's sockets.
    """

    def __init__(self) -> None:
        self._pools: _Pools = {}
        # The finalizer keeps a reference to the pools, so that sessions are not collected before they are closed.
        weakref.finalize(self, _close_all, self._pools).atexit = False
        self._inherited: list[Pool] = []
        self._connected_in_s: dict[str, float] = {}

    async def connection_slot(self) -> ConnectionSlot:
        """Wait until the process may open one more connection."""
        slots = (self._own_pool() or await self._new_pool()).slots
        return slots.maybe_take() or await slots.take()

    async def open(
        self, request: HttpRequest, *, connect_timeout_s: float | None, proxy: Secret | None
    ) -> AiohttpExchange:
        """Send the request; return when status and headers have arrived."""
        pool = self._own_pool() or await self._new_pool()
        stale = 0
        while True:
            started_at = asyncio.get_running_loop().time()
            trace = ConnectionTrace(started_at)
            current_trace.set(trace)
            try:
                exchange = await self._sent(pool, request, connect_timeout_s, proxy)
            except (aiohttp.ClientError, OSError, ValueError, builtins.TimeoutError) as error:
                stale += 1
                # The server had closed the idle connection and did not process the request, so it is sent again.
                if trace.is_reused and stale <= _MOST_STALE and is_disconnect(error) and not has_partial_head(error):
                    continue
                found = before_headers(error, connect_timeout_s)
                if isinstance(found, DescriptorsUsedUpError):
                    close_idle(pool.session)
                raise found from redacted(error)
            delay_s = self._delay_s(exchange.authority, trace, started_at)
            try:
                exchange.start(delay_s, _accepted_codings(request))
            except DelugeError:
                exchange.abort()
                raise
            return exchange

    async def connect(self, url: str, *, connect_timeout_s: float | None, proxy: Secret | None) -> None:
        """Open a connection to the host of a URL, which a later request uses if it comes within half a minute."""
        pool = self._own_pool() or await self._new_pool()
        current_trace.set(ConnectionTrace(asyncio.get_running_loop().time()))
        try:
            target = new_target(pool.session, "POST", url, None if proxy is None else proxy.reveal())
            connection = await pool.connect(target, connect_timeout_s)
        except (aiohttp.ClientError, OSError, ValueError, builtins.TimeoutError) as error:
            raise before_headers(error, connect_timeout_s) from redacted(error)
        connection.release()

    async def _sent(
        self, pool: Pool, request: HttpRequest, connect_timeout_s: float | None, proxy: Secret | None
    ) -> AiohttpExchange:
        """Send a request, by aiohttp's session where that does more than to write it to a connection."""
        target = None
        if proxy is None and request.pieces is None and is_usual(request.headers):
            target = pool.target(request.method, request.url)
        if target is not None:
            message, body, connection = await pool.send(target, request, connect_timeout_s)
            return AiohttpExchange(message.code, message.headers, body, connection, target.authority)
        response = await pool.session.request(
            request.method,
            unchanged_url(request.url),
            data=request.body if request.pieces is None else _iterate(request.pieces),
            headers={"accept-encoding": ACCEPTED_CODINGS, **_length_header(request), **request.headers},
            allow_redirects=False,
            proxy=None if proxy is None else proxy.reveal(),
            timeout=timeout_of(connect_timeout_s),
        )
        held = _SessionConnection(response)
        return AiohttpExchange(
            response.status, response.headers, response.content, held, response.url.raw_authority or ""
        )

    def _delay_s(self, host: str, trace: ConnectionTrace, started_at: float) -> float | None:
        """Return `HttpHead.delay_s`: the time until the request was sent, plus the time to connect as the round trip.

        For a reused connection, the time to connect is that of the last new connection to the host.
        """
        connected_in_s = trace.connected_in_s
        if connected_in_s is not None:
            self._connected_in_s[host] = connected_in_s
        else:
            connected_in_s = self._connected_in_s.get(host)
        return None if connected_in_s is None else trace.sent_at - started_at + connected_in_s

    async def close(self) -> None:
        """Close the connections of the running event loop: those in use when their exchange ends.

        Exchanges that begin afterwards have new connections.
        """
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.retire()

    def _own_pool(self) -> Pool | None:
        """Return the pool of this loop and process, None where there is none. A pool that is closed is forgotten."""
        pool = self._pools.get(asyncio.get_running_loop())
        return None if pool is None or pool.pid != ProcessId.pid else pool

    async def _new_pool(self) -> Pool:
        loop = asyncio.get_running_loop()
        before = self._pools.get(loop)
        if before is not None and before.pid != ProcessId.pid:
            self._inherited.append(before)  # collecting it would close sockets of the parent
        for other in [each for each in self._pools if each.is_closed()]:
            del self._pools[other]
        pools = self._pools

        def forget() -> None:
            if pools.get(loop) is pool:
                del pools[loop]

        pool = pools[loop] = Pool(forget)
        await pool.start()
        return pool


async def _iterate(pieces: Pieces) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@lru_cache(maxsize=1)
def _date_at(second: int) -> str:
    from email.utils import formatdate  # rarely needed, slow to import

    return formatdate(second, usegmt=True)


def _date_now() -> str:
    """Return the time of the local clock, which stands in for a missing `Date` header (RFC 9110, 6.6.1)."""
    return _date_at(int(time.time()))


def _length_header(request: HttpRequest) -> dict[str, str]:
    # Without a length aiohttp sends the body in chunks, which storage services reject.
    return {} if request.pieces is None else {"content-length": str(request.size)}


def _accepted_codings(request: HttpRequest) -> str:
    asked = [value for name, value in request.headers.items() if name.lower() == "accept-encoding"]
    return ",".join(asked) if asked else ACCEPTED_CODINGS


class _Connection(Protocol):
    """The connection of an exchange: aiohttp's own, or that of a response of its session."""

    @property
    def transport(self) -> asyncio.Transport | None: ...
    def release(self) -> object: ...
    def close(self) -> object: ...


class _SessionConnection:
    """The connection of a response of aiohttp's session, which ends with the response."""

    __slots__ = ("_response",)

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    @property
    def transport(self) -> asyncio.Transport | None:
        connection = self._response.connection
        return None if connection is None else connection.transport

    def release(self) -> None:
        """Keep the connection for other requests, once the request was sent and the body received."""
        self._response.release()

    def close(self) -> None:
        """Close the connection."""
        self._response.close()


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
        "_connection", "_content", "_decoder", "_headers", "_slot", "_status", "authority", "bytes_received", "head"
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
        self.bytes_received = 0
        self._status = status
        self._headers = headers
        self._content = content
        self._connection: _Connection | None = connection
        self._decoder: ContentDecoder | None = None
        self._slot: ConnectionSlot | None = None

    def start(self, delay_s: float | None, accepted_codings: str) -> None:
        """Set `head`, and how the body is decompressed.

        Raises:
            DelugeError: The body is compressed in a way that was not asked for.
        """
        headers = {name.lower(): value for name, value in self._headers.items()}
        if not headers.get("date", "").endswith("GMT"):
            headers["date"] = _date_now()
        self.head = HttpHead(self._status, headers, delay_s)
        self._headers = _NO_HEADERS  # of aiohttp, and larger than `head`: a stream may last for minutes
        if "content-encoding" in headers:
            self._decoder = content_decoder(headers, accepted_codings)

    def keep(self, slot: ConnectionSlot) -> None:
        """Store the connection slot; it is released when the exchange ends."""
        self._slot = slot

    @property
    def is_at_end(self) -> bool:
        """Whether the end of the body has arrived, and all of it was read."""
        return self._decoder is None and self._content.at_eof() and self._content.exception() is None

    def _release_slot(self) -> None:
        if self._slot is not None:
            self._slot.give_back()

    async def read(self) -> bytes:
        """Return the next bytes of the body, decompressed; empty at its end."""
        while True:
            try:
                data = await self._content.readany()
            except (aiohttp.ClientError, OSError, builtins.TimeoutError) as error:
                data = _unread_bytes(self._content)
                if not data:
                    raise in_body(error) from redacted(error)
            self.bytes_received += len(data)
            if self._decoder is None:
                return data
            if not data:
                if not self._decoder.is_whole:
                    raise StreamInterruptedError("the compressed body ended in the middle")
                return data
            data = self._decoder.decode(data)
            if data:
                return data

    def _end(self, connection: _Connection) -> None:
        if connection.transport is not None:
            connection.transport.abort()
        connection.close()
        if self._content.exception() is None:  # wakes a pending read
            self._content.set_exception(aiohttp.ClientConnectionError("the connection was closed"))

    async def release(self, wait_s: float) -> int:
        """Wait at most `wait_s` for the end of the body, so that the connection can be reused; else close it."""
        surplus = 0
        try:
            if not self._content.at_eof():
                async with asyncio.timeout(wait_s):
                    while not surplus and not self._content.at_eof():
                        surplus += len(await self._content.readany())
        except (aiohttp.ClientError, OSError, builtins.TimeoutError):
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


def _unread_bytes(content: aiohttp.StreamReader) -> bytes:
    """Return received bytes that were not read before the connection broke: aiohttp raises before it returns them."""
    return content._read_nowait(-1) if content._buffer else b""  # noqa: SLF001 - no public API for it (3.14, 2026-11)
