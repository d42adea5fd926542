"""The connections of one event loop, kept for later requests."""

from __future__ import annotations

import asyncio
import builtins
import os
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from functools import lru_cache, partial
from ssl import CertificateError, SSLError
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage

from lm_deluge.transport.connection_slots import ConnectionSlots, most_connections
from lm_deluge.transport.targets import Target, maybe_target, write_request
from lm_deluge.wire.http import HttpRequest

__all__ = ["ConnectionTrace", "Pool", "ProcessId", "close_idle", "current_trace", "timeout_of"]

_READ_BUFFER = 64 * 2**10  # aiohttp pauses the socket at twice this
# asyncio allocates a buffer of this size for each read, 256 KiB by default. From 128 KiB on, glibc may map and unmap it
# each time, for 12 us and more (https://man7.org/linux/man-pages/man3/mallopt.3.html, 2026-11). With 16 KiB a stream
# that arrives as fast as possible takes a third more CPU time.
_MOST_PER_READ = 64 * 2**10
_TLS_BUFFER = 16 * 2**10  # kept by each connection; a record of TLS has no more (RFC 8446, 5.1)
_LONGEST_HEADER = 64 * 2**10  # aiohttp's default of 8 KiB is too small for some proxies; 64 KiB is harmless to memory
_DNS_TTL_S = 60  # a look-up per minute costs little, and changed addresses are noticed soon
_KEEPALIVE_S = 30  # long enough for the next call of a chat or batch, shorter than the idle timeouts of most servers
_INFORMATIONAL, _SWITCHING, _FINAL = 100, 101, 200  # statuses: others of the first class precede the response
_MOST_TARGETS = 64  # URLs of the models in use; some APIs have the model in the URL


class ProcessId:
    """The id of this process, without a system call per request."""

    pid = os.getpid()

    @classmethod
    def refresh(cls) -> None:
        """Update the id, in the child of a fork."""
        cls.pid = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ProcessId.refresh)


_closing: set[asyncio.Task[None]] = set()


class ConnectionTrace:
    """Whether a request reused a connection, and the times of connecting and sending."""

    __slots__ = ("connected_in_s", "is_reused", "sent_at")

    def __init__(self, started_at: float) -> None:
        self.is_reused = True  # until a new connection is opened for the request
        self.sent_at = started_at
        self.connected_in_s: float | None = None


current_trace: ContextVar[ConnectionTrace] = ContextVar("_trace")


class _Handler(ResponseHandler):
    """Resumes only if reading is paused: aiohttp resumes, and parses, at every chunk read (3.14.5, 2026-11)."""

    def resume_reading(self, *arguments: Any, **named: Any) -> None:
        if self._reading_paused:
            super().resume_reading(*arguments, **named)


class _TLSProtocol(SSLProtocol):
    """asyncio's, which allocates its buffer for a connection at once: 256 KiB for each of thousands (3.11, 2026-11)."""

    max_size = _TLS_BUFFER


class _TracingConnector(aiohttp.TCPConnector):
    """Records a `ConnectionTrace`: aiohttp's own tracing costs a fifth of a request's time (3.14, 2026-11)."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        handler: Any = _Handler  # mypy rejects a `partial` of a subclass as a `partial` of its base class
        self._factory = partial(handler, loop=self._loop)

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
        trace = current_trace.get()
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

    async def _wrap_create_connection(
        self, *arguments: Any, req: aiohttp.ClientRequest, ssl: Any = None, server_hostname: Any = None, **named: Any
    ) -> Any:
        """Connect as aiohttp does, with TLS by `_TLSProtocol`."""
        connect = super()._wrap_create_connection
        factory, *args = arguments
        if ssl is None or not isinstance(self._loop, asyncio.BaseEventLoop):  # uvloop has small buffers by itself
            return await connect(factory, *args, req=req, ssl=ssl, server_hostname=server_hostname, **named)
        protocol, handshake = factory(), self._loop.create_future()
        tls = _TLSProtocol(self._loop, protocol, ssl, handshake, server_hostname=server_hostname)
        transport, _ = await connect(lambda: tls, *args, req=req, ssl=None, server_hostname=None, **named)
        try:
            await handshake
        except BaseException as error:
            transport.close()
            if isinstance(error, CertificateError):
                raise aiohttp.ClientConnectorCertificateError(req.connection_key, error) from error
            if isinstance(error, SSLError):
                raise aiohttp.ClientConnectorSSLError(req.connection_key, error) from error
            if isinstance(error, OSError) and not isinstance(error, builtins.TimeoutError):
                raise aiohttp.ClientConnectorError(req.connection_key, error) from error
            raise
        return protocol.transport, protocol


class Pool:
    """The connections of one event loop.

    They are closed by an asynchronous generator: `asyncio.run` and similar functions close all generators of a loop
    before the loop itself, so the connections are closed properly even if the user does not close the client.
    """

    def __init__(self, on_close: Callable[[], object]) -> None:
        self.pid = ProcessId.pid
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
        self._targets: dict[tuple[str, str], Target | None] = {}
        self._closer = _close_with_loop(self.session, on_close)

    async def start(self) -> None:
        """Have the connections closed with the loop."""
        await anext(self._closer)

    async def close(self) -> None:
        """Close the connections."""
        await self._closer.aclose()

    def target(self, method: str, url: str) -> Target | None:
        """Return where requests for a URL go; None if aiohttp's session has to send them."""
        key = (method, url)
        if key not in self._targets:
            if len(self._targets) >= _MOST_TARGETS:
                self._targets.clear()
            self._targets[key] = maybe_target(self.session, method, url)
        return self._targets[key]

    async def connect(self, target: Target, connect_timeout_s: float | None) -> aiohttp.connector.Connection:
        """Return an idle connection, or a new one.

        Raises:
            ClientError: There is none; aiohttp's own errors.
        """
        connector = self.session.connector
        assert connector is not None  # noqa: S101 - only a closed session has none
        try:
            return await connector.connect(target.request, [], timeout_of(connect_timeout_s))
        except builtins.TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"no connection to {target.authority}") from error

    async def send(
        self, target: Target, request: HttpRequest, connect_timeout_s: float | None
    ) -> tuple[RawResponseMessage, aiohttp.StreamReader, aiohttp.connector.Connection]:
        """Send a request; return the head of the response, its body, and the connection, once the head has arrived.

        It does what `ClientSession.request` does without redirects, cookies, middlewares, and a task for the body,
        which take more than half of that method's time (3.14, 2026-11).
        """
        connection = await self.connect(target, connect_timeout_s)
        protocol = connection.protocol
        assert protocol is not None  # noqa: S101 - a new connection has one
        try:
            protocol.set_response_params(
                read_until_eof=True,
                auto_decompress=False,
                read_bufsize=_READ_BUFFER,
                max_line_size=_LONGEST_HEADER,
                max_field_size=_LONGEST_HEADER,
            )
            write_request(connection.transport, target, request)
            while True:
                message, body = await protocol.read()
                if not _INFORMATIONAL <= message.code < _FINAL or message.code == _SWITCHING:
                    return message, body, connection
        except BaseException as error:
            connection.close()
            if isinstance(error, HttpProcessingError):
                info = target.request.request_info
                raise aiohttp.ClientResponseError(info, (), status=error.code, message=error.message) from error
            raise

    def close_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close the connections in a task of their own."""
        task = loop.create_task(self.close())
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    async def retire(self) -> None:
        """Close the idle connections now, and each connection in use when its exchange ends."""
        connector = self.session.connector
        if not self.slots.used or connector is None:
            await self.close()
            return
        connector._force_close = True  # noqa: SLF001 - no public API for it after the construction (3.14, 2026-11)
        close_idle(self.session)
        loop = asyncio.get_running_loop()

        self.slots.on_unused = partial(self.close_soon, loop)


async def _close_with_loop(
    session: aiohttp.ClientSession, on_close: Callable[[], object]
) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        on_close()
        await session.close()


def close_idle(session: aiohttp.ClientSession) -> None:
    """Close the idle connections, as their descriptors are needed for new ones."""
    connector = session.connector
    assert connector is not None  # noqa: S101 - only a closed session has none
    idle, connector._conns = connector._conns, type(connector._conns)(connector._conns.default_factory)  # noqa: SLF001 - no public API for it (3.14, 2026-11)
    for connections in idle.values():
        for protocol, _ in connections:
            protocol.close()


@lru_cache(maxsize=16)
def timeout_of(connect_s: float | None) -> aiohttp.ClientTimeout:
    """Return aiohttp's form of a connect timeout in seconds."""
    return aiohttp.ClientTimeout(total=None, connect=connect_s)
