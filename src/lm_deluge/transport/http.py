"""HTTP/1.1 over aiohttp: the only file that imports the HTTP library."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import os
import ssl
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import BadHttpMessage, ContentLengthError, TransferEncodingError
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from lm_deluge.config import Secret
from lm_deluge.errors import (
    CertificateError,
    ConfigurationError,
    ConnectError,
    DelugeError,
    ProtocolError,
    StreamInterruptedError,
    TimeoutError,
    TransportError,
)
from lm_deluge.transport.base import ConnectionSlot, DescriptorsUsedUpError
from lm_deluge.transport.connection_slots import (
    ConnectionSlots,
    are_descriptors_used_up,
    most_connections,
)
from lm_deluge.transport.content_coding import ACCEPTED_CODINGS, ContentDecoder, content_decoder
from lm_deluge.wire.http import HttpHead, HttpRequest, Pieces

__all__ = ["AiohttpExchange", "AiohttpTransport"]

_READ_BUFFER = 64 * 2**10  # aiohttp pauses the socket at twice this
# asyncio allocates a buffer of this size for each read, 256 KiB by default. From 128 KiB on, glibc may map and unmap it
# each time, for 12 us and more (https://man7.org/linux/man-pages/man3/mallopt.3.html, 2026-11).
_MOST_PER_READ = 64 * 2**10
_LONGEST_HEADER = 64 * 2**10  # aiohttp's default of 8 KiB is too small for some proxies; 64 KiB is harmless to memory
_DNS_TTL_S = 60  # a look-up per minute costs little, and changed addresses are noticed soon
_KEEPALIVE_S = 30  # long enough for the next call of a chat or batch, shorter than the idle timeouts of most servers
_MOST_STALE = 1  # immediate repeats after a stale idle connection; further ones are retries, with their pauses


class _Process:
    """The id of this process, without a system call per request."""

    pid = os.getpid()

    @classmethod
    def refresh(cls) -> None:
        """Update the id, in the child of a fork."""
        cls.pid = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Process.refresh)


class _ConnectionTrace:
    """Whether a request reused a connection, and the times of connecting and sending."""

    __slots__ = ("connected_in_s", "is_reused", "sent_at")

    def __init__(self, started_at: float) -> None:
        self.is_reused = True  # until a new connection is opened for the request
        self.sent_at = started_at
        self.connected_in_s: float | None = None


_trace: ContextVar[_ConnectionTrace] = ContextVar("_trace")


class _Handler(ResponseHandler):
    """Resumes only if reading is paused: aiohttp resumes, and parses, at every chunk read (3.14.5, 2026-11)."""

    def resume_reading(self, *arguments: Any, **named: Any) -> None:
        if self._reading_paused:
            super().resume_reading(*arguments, **named)


class _TracingConnector(aiohttp.TCPConnector):
    """Records a `_ConnectionTrace`: aiohttp's own tracing costs a fifth of a request's time (3.14, 2026-11)."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        handler: Any = _Handler  # mypy rejects a `partial` of a subclass as a `partial` of its base class
        self._factory = partial(handler, loop=self._loop)

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
        trace = _trace.get()
        trace.is_reused = False
        clock = asyncio.get_running_loop().time
        started_at = clock()
        protocol = await super()._create_connection(req, traces, timeout)
        trace.sent_at = clock()  # the headers are sent next
        trace.connected_in_s = trace.sent_at - started_at
        transport: Any = protocol.transport
        if hasattr(transport, "max_size"):
            transport.max_size = _MOST_PER_READ
        return protocol


class _Pool:
    """The connections of one event loop.

    They are closed by an asynchronous generator: `asyncio.run` and similar functions close all generators of a loop
    before the loop itself, so the connections are closed properly even if the user does not close the client.
    """

    def __init__(self, on_close: Callable[[], object]) -> None:
        self.pid = _Process.pid
        self.slots = ConnectionSlots(most_connections())
        self.session = aiohttp.ClientSession(
            connector=_TracingConnector(limit=0, ttl_dns_cache=_DNS_TTL_S, keepalive_timeout=_KEEPALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_READ_BUFFER,
            max_line_size=_LONGEST_HEADER,
            max_field_size=_LONGEST_HEADER,
        )
        self._closer = _close_with_loop(self.session, on_close)

    async def start(self) -> None:
        await anext(self._closer)

    async def close(self) -> None:
        await self._closer.aclose()

    async def retire(self) -> None:
        """Close the idle connections now, and each connection in use when its exchange ends."""
        connector = self.session.connector
        if not self.slots.used or connector is None:
            await self.close()
            return
        connector._force_close = True  # noqa: SLF001 - no public API for it after the construction (3.14, 2026-11)
        _close_idle(self.session)
        loop = asyncio.get_running_loop()

        def close_soon() -> None:
            task = loop.create_task(self.close())
            _closing.add(task)
            task.add_done_callback(_closing.discard)

        self.slots.on_unused = close_soon


async def _close_with_loop(
    session: aiohttp.ClientSession, on_close: Callable[[], object]
) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        on_close()
        await session.close()


_Pools = dict[asyncio.AbstractEventLoop, _Pool]
_closing: set[asyncio.Task[None]] = set()


def _close_all(pools: _Pools) -> None:
    """Close the pools of a transport that was garbage-collected, each pool in its own loop."""

    def close(pool: _Pool, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(pool.close())
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    for loop, pool in list(pools.items()):
        if pool.pid == _Process.pid and not loop.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop was closed after the check
                loop.call_soon_threadsafe(close, pool, loop)


class AiohttpTransport:
    """A `Transport` with one pool of connections per event loop and process.

    After a fork the child process creates its own pools and does not use its parent's sockets.
    """

    def __init__(self) -> None:
        self._pools: _Pools = {}
        # The finalizer keeps a reference to the pools, so that sessions are not collected before they are closed.
        weakref.finalize(self, _close_all, self._pools).atexit = False
        self._inherited: list[_Pool] = []
        self._connected_in_s: dict[str, float] = {}

    async def connection_slot(self) -> ConnectionSlot:
        """Wait until the process may open one more connection."""
        slots = (self._own_pool() or await self._new_pool()).slots
        return slots.maybe_take() or await slots.take()

    async def open(
        self, request: HttpRequest, *, connect_timeout_s: float | None, proxy: Secret | None
    ) -> AiohttpExchange:
        """Send the request; return when status and headers have arrived."""
        session = (self._own_pool() or await self._new_pool()).session
        stale = 0
        while True:
            started_at = asyncio.get_running_loop().time()
            trace = _ConnectionTrace(started_at)
            _trace.set(trace)
            try:
                response = await session.request(
                    request.method,
                    _unchanged_url(request.url),
                    data=request.body if request.pieces is None else _iterate(request.pieces),
                    headers={"accept-encoding": ACCEPTED_CODINGS, **_length_header(request), **request.headers},
                    allow_redirects=False,
                    proxy=None if proxy is None else proxy.reveal(),
                    timeout=_timeout(connect_timeout_s),
                )
            except (aiohttp.ClientError, OSError, ValueError, builtins.TimeoutError) as error:
                stale += 1
                # The server had closed the idle connection and did not process the request, so it is sent again.
                if trace.is_reused and stale <= _MOST_STALE and _is_disconnect(error) and not _has_partial_head(error):
                    continue
                found = _before_headers(error, connect_timeout_s)
                if isinstance(found, DescriptorsUsedUpError):
                    _close_idle(session)
                raise found from _redacted(error)
            try:
                delay_s = self._delay_s(response.url.raw_authority, trace, started_at)
                return AiohttpExchange(response, delay_s, _accepted_codings(request))
            except DelugeError:
                response.close()
                raise

    def _delay_s(self, host: str, trace: _ConnectionTrace, started_at: float) -> float | None:
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

    def _own_pool(self) -> _Pool | None:
        """Return the open pool of this loop and process, None where there is none."""
        pool = self._pools.get(asyncio.get_running_loop())
        return None if pool is None or pool.pid != _Process.pid or pool.session.closed else pool

    async def _new_pool(self) -> _Pool:
        loop = asyncio.get_running_loop()
        before = self._pools.get(loop)
        if before is not None and before.pid != _Process.pid:
            self._inherited.append(before)  # collecting it would close sockets of the parent
        for other in [each for each in self._pools if each.is_closed()]:
            del self._pools[other]
        pools = self._pools

        def forget() -> None:
            if pools.get(loop) is pool:
                del pools[loop]

        pool = pools[loop] = _Pool(forget)
        await pool.start()
        return pool


def _close_idle(session: aiohttp.ClientSession) -> None:
    """Close the idle connections, as their descriptors are needed for new ones."""
    connector = session.connector
    assert connector is not None  # noqa: S101 - only a closed session has none
    idle, connector._conns = connector._conns, type(connector._conns)(connector._conns.default_factory)  # noqa: SLF001 - no public API for it (3.14, 2026-11)
    for connections in idle.values():
        for protocol, _ in connections:
            protocol.close()


async def _iterate(pieces: Pieces) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@lru_cache(maxsize=16)
def _timeout(connect_s: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect_s)


def _date_now() -> str:
    """Return the time of the local clock, which stands in for a missing `Date` header (RFC 9110, 6.6.1)."""
    from email.utils import formatdate  # rarely needed, slow to import

    return formatdate(usegmt=True)


def _length_header(request: HttpRequest) -> dict[str, str]:
    # Without a length aiohttp sends the body in chunks, which storage services reject.
    return {} if request.pieces is None else {"content-length": str(request.size)}


def _unchanged_url(url: str) -> URL:
    """Return the URL with path and query unchanged, as signatures cover their bytes.

    By default yarl decodes percent escapes that it considers redundant: `%3A` in a path (1.20, 2026-11).

    Raises:
        ValueError: The text is not a URL.
    """
    parsed = URL(url)
    if "%" not in url or not url.isascii() or not url.isprintable() or " " in url:
        return parsed
    parts = urlsplit(url)
    return URL.build(
        scheme=parsed.scheme,
        authority=parsed.raw_authority,
        path=parts.path or "/",
        query_string=parts.query,
        encoded=True,
    )


def _accepted_codings(request: HttpRequest) -> str:
    asked = [value for name, value in request.headers.items() if name.lower() == "accept-encoding"]
    return ",".join(asked) if asked else ACCEPTED_CODINGS


class AiohttpExchange:
    """An `Exchange` over aiohttp."""

    def __init__(self, response: aiohttp.ClientResponse, delay_s: float | None, accepted_codings: str) -> None:
        headers = {name.lower(): value for name, value in response.headers.items()}
        if not headers.get("date", "").endswith("GMT"):
            headers["date"] = _date_now()
        self.head = HttpHead(response.status, headers, delay_s)
        self.bytes_received = 0
        self._response = response
        self._content = response.content
        is_coded = "content-encoding" in self.head.headers
        self._decoder: ContentDecoder | None = (
            content_decoder(self.head.headers, accepted_codings) if is_coded else None
        )
        self._slot: ConnectionSlot | None = None

    def keep(self, slot: ConnectionSlot) -> None:
        """Store the connection slot; it is released when the exchange ends."""
        self._slot = slot

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
                    raise _in_body(error) from _redacted(error)
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
        if surplus:
            self.abort()
        self._response.release()
        return surplus

    def abort(self) -> None:
        """Close the connection at once, without sending buffered bytes or a TLS close message."""
        connection = self._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        self._response.close()
        self._release_slot()


def _redacted(error: Exception) -> Exception:
    """Return the error without headers, passwords, and the traceback, whose frames refer to them."""
    if isinstance(error, aiohttp.ClientResponseError):
        url, method, _, real_url = error.request_info
        nothing = CIMultiDictProxy(CIMultiDict[str]())
        error.request_info = aiohttp.RequestInfo(url.with_user(None), method, nothing, real_url.with_user(None))
        error.args = ()
    return error.with_traceback(None)


def _unread_bytes(content: aiohttp.StreamReader) -> bytes:
    """Return received bytes that were not read before the connection broke: aiohttp raises before it returns them."""
    return content._read_nowait(-1) if content._buffer else b""  # noqa: SLF001 - no public API for it (3.14, 2026-11)


def _is_disconnect(error: BaseException) -> bool:
    return isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError)


def _has_partial_head(error: BaseException) -> bool:
    """Whether a part of the response's head arrived, so that the server has seen the request."""
    return isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str)


def _before_headers(error: Exception, connect_timeout_s: float | None) -> DelugeError:
    """Return our error for a request without a response."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return CertificateError(
            "the server's certificate cannot be verified",
            where="connect",
            hint="Check the host name and the installed certificate authorities.",
        )
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        limit = connect_timeout_s or 0.0
        return TimeoutError(f"no connection within {limit:g} s", phase="connect", limit_s=limit, where="connect")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientProxyConnectionError):
        if are_descriptors_used_up(error.os_error, is_of_resolver=isinstance(error, aiohttp.ClientConnectorDNSError)):
            return DescriptorsUsedUpError("this process has reached its limit of open files", where="connect")
        through = "the proxy " if isinstance(error, aiohttp.ClientProxyConnectionError) else ""
        return ConnectError(f"no connection to {through}{error.host}:{error.port}: {_reason(error)}", where="connect")
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return ConfigurationError("the base URL is invalid", hint="Write it as https://host/v1.")
    return _after_connect(error)


def _after_connect(error: Exception) -> DelugeError:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return ConnectError(f"the proxy rejected the connection with status {error.status}", where="connect")
    if isinstance(error, aiohttp.ClientResponseError):
        return ProtocolError(
            f"the response is not valid HTTP: {_first_line(error.message)}", reason="framing", billed="maybe"
        )
    if isinstance(error, ssl.SSLError):
        return ConnectError("the TLS handshake failed", where="connect")
    if _is_disconnect(error):
        return StreamInterruptedError(
            "the server closed the connection without a response", where="headers", billed="maybe"
        )
    return TransportError(f"the request failed: {type(error).__name__}", where="headers", billed="maybe")


def _in_body(error: Exception) -> DelugeError:
    """Return our error for a body that ended early."""
    cause = error.__cause__
    # The two excluded classes are bodies that were cut short.
    if isinstance(cause, BadHttpMessage) and not isinstance(cause, TransferEncodingError | ContentLengthError):
        return ProtocolError(
            f"the body is not valid HTTP: {_first_line(cause.message)}", reason="framing", billed="maybe"
        )
    return StreamInterruptedError("the connection broke before the answer was complete", billed="maybe")


def _reason(error: aiohttp.ClientConnectorError | aiohttp.ClientProxyConnectionError) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the name does not resolve"
    inner = error.os_error
    return (inner.strerror if inner is not None else None) or type(inner).__name__


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:120] if text.strip() else "unreadable"
