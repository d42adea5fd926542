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
from lm_deluge.transport.base import ConnectionSlot as PlaceLike
from lm_deluge.transport.base import DescriptorsUsedUpError
from lm_deluge.transport.connection_slots import (
    ConnectionSlot,
    ConnectionSlots,
    are_descriptors_used_up,
    most_connections,
)
from lm_deluge.transport.content_coding import ACCEPTED_CODINGS, ContentDecoder, content_decoder
from lm_deluge.wire.http import HttpHead, HttpRequest, Pieces

__all__ = ["AiohttpExchange", "AiohttpTransport"]

_READ_BUFFER = 64 * 2**10  # aiohttp pauses the socket at twice this
# asyncio allocates as much for each read, 256 KiB if left alone. From 128 KiB on glibc may fetch that from the system
# and give it back each time, for 12 us and more (https://man7.org/linux/man-pages/man3/mallopt.3.html, 2026-11).
_MOST_PER_READ = 64 * 2**10
_LONGEST_HEADER = 64 * 2**10
_DNS_TTL_S = 60
_KEEPALIVE_S = 30
_MOST_STALE = 1  # idle connections in a row that the server had closed; what comes after is the caller's to retry


class _Process:
    """Which process this is, without asking the system at each request."""

    pid = os.getpid()

    @classmethod
    def look(cls) -> None:
        """Look again, in the child of a fork."""
        cls.pid = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Process.look)


class _ConnectionTrace:
    """How a request came by its connection."""

    __slots__ = ("connected_in_s", "is_reused", "sent_at")

    def __init__(self, begun: float) -> None:
        self.is_reused = True  # unless one is made for it
        self.sent_at = begun
        self.connected_in_s: float | None = None


_way: ContextVar[_ConnectionTrace] = ContextVar("_way")


class _Handler(ResponseHandler):
    """Runs no parser where there is nothing to parse: aiohttp resumes at every chunk read (3.14.5, 2026-11)."""

    def resume_reading(self, *arguments: Any, **named: Any) -> None:
        if self._reading_paused:
            super().resume_reading(*arguments, **named)


class _NotingConnector(aiohttp.TCPConnector):
    """Notes how each request comes by its connection: aiohttp's tracing costs a fifth of a request (3.14, 2026-11)."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        handler: Any = _Handler  # a `partial` of a subclass is no `partial` of its class to mypy
        self._factory = partial(handler, loop=self._loop)

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
        way = _way.get()
        way.is_reused = False
        clock = asyncio.get_running_loop().time
        begun = clock()
        protocol = await super()._create_connection(req, traces, timeout)
        way.sent_at = clock()  # the headers follow at once
        way.connected_in_s = way.sent_at - begun
        transport: Any = protocol.transport
        if hasattr(transport, "max_size"):
            transport.max_size = _MOST_PER_READ
        return protocol


class _Pool:
    """The connections of one event loop.

    An asynchronous generator stands guard: `asyncio.run` and its kin close all generators of a loop before the
    loop itself, so the connections are closed in order although nobody closed the client.
    """

    def __init__(self, on_close: Callable[[], object]) -> None:
        self.pid = _Process.pid
        self.places = ConnectionSlots(most_connections())
        self.session = aiohttp.ClientSession(
            connector=_NotingConnector(limit=0, ttl_dns_cache=_DNS_TTL_S, keepalive_timeout=_KEEPALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_READ_BUFFER,
            max_line_size=_LONGEST_HEADER,
            max_field_size=_LONGEST_HEADER,
        )
        self._guard = _stand_guard(self.session, on_close)

    async def start(self) -> None:
        await anext(self._guard)

    async def close(self) -> None:
        await self._guard.aclose()


async def _stand_guard(session: aiohttp.ClientSession, on_close: Callable[[], object]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        on_close()
        await session.close()


_Pools = dict[asyncio.AbstractEventLoop, _Pool]
_closing: set[asyncio.Task[None]] = set()


def _close_all(pools: _Pools) -> None:
    """Close the pools of a transport that nobody holds any more, each in its own loop; the others are closed."""

    def close(pool: _Pool, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(pool.close())
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    for loop, pool in list(pools.items()):
        if pool.pid == _Process.pid and not loop.is_closed():
            with contextlib.suppress(RuntimeError):  # closed between the question and the call
                loop.call_soon_threadsafe(close, pool, loop)


class AiohttpTransport:
    """Pools of connections, one for each event loop that uses them and for each process.

    A child process after a fork starts with pools of its own and leaves its parent's sockets alone.
    """

    def __init__(self) -> None:
        self._pools: _Pools = {}
        # The registry of finalisers holds the pools, so that sessions are never collected before they are closed.
        weakref.finalize(self, _close_all, self._pools).atexit = False
        self._of_parents: list[_Pool] = []
        self._connected_in_s: dict[str, float] = {}

    async def place(self) -> ConnectionSlot:
        """Wait until the process has room for one more connection."""
        places = (self._own_pool() or await self._new_pool()).places
        return places.maybe_take() or await places.take()

    async def open(
        self, request: HttpRequest, *, connect_timeout_s: float | None, proxy: Secret | None
    ) -> AiohttpExchange:
        """Send the request; return once status and headers are here."""
        session = (self._own_pool() or await self._new_pool()).session
        stale = 0
        while True:
            begun = asyncio.get_running_loop().time()
            way = _ConnectionTrace(begun)
            _way.set(way)
            try:
                response = await session.request(
                    request.method,
                    _as_written(request.url),
                    data=request.body if request.pieces is None else _sent_piecewise(request.pieces),
                    headers={"accept-encoding": ACCEPTED_CODINGS, **_length(request), **request.headers},
                    allow_redirects=False,
                    proxy=None if proxy is None else proxy.reveal(),
                    timeout=_timeout(connect_timeout_s),
                )
            except (aiohttp.ClientError, OSError, ValueError, builtins.TimeoutError) as error:
                stale += 1
                # The server had closed the idle connection: it never saw the request, so it is sent again.
                if way.is_reused and stale <= _MOST_STALE and _is_disconnect(error) and not _has_begun(error):
                    continue
                found = _before_headers(error, connect_timeout_s)
                if isinstance(found, DescriptorsUsedUpError):
                    _close_idle(session)
                raise found from _bare(error)
            try:
                return AiohttpExchange(response, self._delay_s(response.url.raw_authority, way, begun))
            except DelugeError:
                response.close()
                raise

    def _delay_s(self, host: str, noted: _ConnectionTrace, begun: float) -> float | None:
        """Return how long the request waited to be sent, and as much as it took to connect: the way there and back.

        A connection that is used again has no such time of its own; that of the last new one to the host is taken.
        """
        connected_in_s = noted.connected_in_s
        if connected_in_s is not None:
            self._connected_in_s[host] = connected_in_s
        else:
            connected_in_s = self._connected_in_s.get(host)
        return None if connected_in_s is None else noted.sent_at - begun + connected_in_s

    async def close(self) -> None:
        """Close the connections that belong to the running event loop."""
        pool = self._pools.get(asyncio.get_running_loop())
        if pool is not None:
            await pool.close()

    def _own_pool(self) -> _Pool | None:
        """Return the open pool of this loop and process, None where there is none."""
        pool = self._pools.get(asyncio.get_running_loop())
        return None if pool is None or pool.pid != _Process.pid or pool.session.closed else pool

    async def _new_pool(self) -> _Pool:
        loop = asyncio.get_running_loop()
        before = self._pools.get(loop)
        if before is not None and before.pid != _Process.pid:
            self._of_parents.append(before)  # collecting it would touch sockets that are not ours
        for other in [each for each in self._pools if each.is_closed()]:
            del self._pools[other]
        pools = self._pools
        pool = pools[loop] = _Pool(lambda: pools.pop(loop, None))
        await pool.start()
        return pool


def _close_idle(session: aiohttp.ClientSession) -> None:
    """Close the connections that wait to be used again: their descriptors are needed more."""
    connector = session.connector
    assert connector is not None  # noqa: S101 - only a closed session has none
    idle, connector._conns = connector._conns, type(connector._conns)(connector._conns.default_factory)  # noqa: SLF001 - there is no public way (3.14, 2026-11)
    for connections in idle.values():
        for protocol, _ in connections:
            protocol.close()


async def _sent_piecewise(pieces: Pieces) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@lru_cache(maxsize=16)
def _timeout(connect_s: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect_s)


def _length(request: HttpRequest) -> dict[str, str]:
    # Where aiohttp cannot know the length it sends chunks, which storage services refuse.
    return {} if request.pieces is None else {"content-length": str(request.size)}


def _as_written(url: str) -> URL:
    """Return the URL with its path and query as they stand there: signatures are made over their bytes.

    Left to itself, yarl resolves percent signs that it takes for needless: `%3A` in a path (1.20, 2026-11).

    Raises:
        ValueError: It is no URL.
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


class AiohttpExchange:
    """One request and its answer."""

    def __init__(self, response: aiohttp.ClientResponse, delay_s: float | None = None) -> None:
        headers = {name.lower(): value for name, value in response.headers.items()}
        self.head = HttpHead(response.status, headers, delay_s)
        self.bytes_received = 0
        self._response = response
        self._content = response.content
        is_coded = "content-encoding" in self.head.headers
        self._decoder: ContentDecoder | None = content_decoder(self.head.headers) if is_coded else None
        self._place: PlaceLike | None = None

    def keep(self, place: PlaceLike) -> None:
        """Hold a place; give it back when the exchange ends."""
        self._place = place

    def _give_place_back(self) -> None:
        if self._place is not None:
            self._place.give_back()

    async def read(self) -> bytes:
        """Return the next bytes of the body, decompressed; empty at its end."""
        while True:
            try:
                data = await self._content.readany()
            except (aiohttp.ClientError, OSError, builtins.TimeoutError) as error:
                data = _left_in(self._content)
                if not data:
                    raise _in_body(error) from _bare(error)
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
        """Wait at most so long for the body's end, so that the connection can be used again; else close it."""
        surplus = 0
        try:
            if not self._content.at_eof():
                async with asyncio.timeout(wait_s):
                    while not surplus and not self._content.at_eof():
                        surplus += len(await self._content.readany())
        except (aiohttp.ClientError, OSError, builtins.TimeoutError):
            self.abort()
        finally:
            self._give_place_back()
        if surplus:
            self.abort()
        self._response.release()
        return surplus

    def abort(self) -> None:
        """Close the connection now: unsent bytes are dropped, TLS takes no leave."""
        connection = self._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        self._response.close()
        self._give_place_back()


def _bare(error: Exception) -> Exception:
    """Return the error without the headers and passwords that it holds, and without the frames that hold them too."""
    if isinstance(error, aiohttp.ClientResponseError):
        url, method, _, real_url = error.request_info
        nothing = CIMultiDictProxy(CIMultiDict[str]())
        error.request_info = aiohttp.RequestInfo(url.with_user(None), method, nothing, real_url.with_user(None))
        error.args = ()
    return error.with_traceback(None)


def _left_in(content: aiohttp.StreamReader) -> bytes:
    """Return what came before the connection died and was not read yet: aiohttp raises before it hands that out."""
    return content._read_nowait(-1) if content._buffer else b""  # noqa: SLF001 - there is no public way (3.14, 2026-11)


def _is_disconnect(error: BaseException) -> bool:
    return isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError)


def _has_begun(error: BaseException) -> bool:
    """Whether a part of the answer's head came: then the server did see the request."""
    return isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str)


def _before_headers(error: Exception, connect_timeout_s: float | None) -> DelugeError:
    """Return our error for a request that got no answer."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return CertificateError(
            "the server's certificate cannot be trusted", where="connect", hint="Check the host and the machine's CAs."
        )
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        limit = connect_timeout_s or 0.0
        return TimeoutError(f"no connection within {limit:g} s", phase="connect", limit_s=limit, where="connect")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientProxyConnectionError):
        if are_descriptors_used_up(error.os_error, is_of_resolver=isinstance(error, aiohttp.ClientConnectorDNSError)):
            return DescriptorsUsedUpError("this process has as many files open as it may", where="connect")
        return ConnectError(f"no connection to {error.host}:{error.port}: {_reason(error)}", where="connect")
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return ConfigurationError("the base URL is invalid", hint="Write it as https://host/v1.")
    return _after_connect(error)


def _after_connect(error: Exception) -> DelugeError:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return ConnectError(f"the proxy refuses with status {error.status}", where="connect")
    if isinstance(error, aiohttp.ClientResponseError):
        return ProtocolError(f"the answer is no HTTP: {_shown(error.message)}", reason="framing", billed="maybe")
    if isinstance(error, ssl.SSLError):
        return ConnectError("the TLS handshake failed", where="connect")
    if _is_disconnect(error):
        return StreamInterruptedError(
            "the server closed the connection without an answer", where="headers", billed="maybe"
        )
    return TransportError(f"the request failed: {type(error).__name__}", where="headers", billed="maybe")


def _in_body(error: Exception) -> DelugeError:
    """Return our error for a body that broke off."""
    cause = error.__cause__
    # A body cut short is such an error of aiohttp's too, of one of two kinds.
    if isinstance(cause, BadHttpMessage) and not isinstance(cause, TransferEncodingError | ContentLengthError):
        return ProtocolError(f"the body is no HTTP: {_shown(cause.message)}", reason="framing", billed="maybe")
    return StreamInterruptedError("the connection died before the answer was complete", billed="maybe")


def _reason(error: aiohttp.ClientConnectorError | aiohttp.ClientProxyConnectionError) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the name does not resolve"
    inner = error.os_error
    return (inner.strerror if inner is not None else None) or type(inner).__name__


def _shown(text: str) -> str:
    return text.strip().splitlines()[0][:120] if text.strip() else "unreadable"
