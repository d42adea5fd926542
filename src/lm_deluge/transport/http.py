"""HTTP/1.1 over aiohttp. Only files of this folder import that library."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import weakref
from collections.abc import AsyncIterator

import aiohttp

from lm_deluge.config import Secret
from lm_deluge.errors import DelugeError
from lm_deluge.transport.base import ConnectionSlot, DescriptorsUsedUpError
from lm_deluge.transport.content_coding import ACCEPTED_CODINGS
from lm_deluge.transport.exchange import AiohttpExchange, SessionConnection
from lm_deluge.transport.http_errors import before_headers, has_partial_head, is_disconnect, redacted
from lm_deluge.transport.pool import ConnectionTrace, Pool, ProcessId, close_idle, current_trace, timeout_of
from lm_deluge.transport.targets import is_usual, new_target, unchanged_url
from lm_deluge.wire.http import HttpRequest, Pieces

__all__ = ["AiohttpTransport"]

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
                exchange.start(delay_s, request)
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
        held = SessionConnection(response)
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


def _length_header(request: HttpRequest) -> dict[str, str]:
    # Without a length aiohttp sends the body in chunks, which storage services reject.
    return {} if request.pieces is None else {"content-length": str(request.size)}
