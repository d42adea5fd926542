"""Runs the gateway: sockets, limits of connections, and a stop that lets running streams end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lm_deluge.dispatch.scheduling.shared.connection import parse_address
from lm_deluge.errors import ConfigurationError, DelugeError, MissingExtraError
from lm_deluge.gateway.access_log import AccessLog
from lm_deluge.gateway.app import Gateway
from lm_deluge.gateway.cluster.peers import StreamPeers
from lm_deluge.gateway.cluster.shared_rates import SharedRates
from lm_deluge.gateway.configuration.settings import GatewaySettings
from lm_deluge.gateway.http_body import ABORT
from lm_deluge.gateway.key_access import KeyAccess
from lm_deluge.gateway.ledger.database import Database
from lm_deluge.gateway.ledger.ledger import SIGN_ON_S, Ledger
from lm_deluge.gateway.metrics import GatewayMetrics
from lm_deluge.gateway.origin import is_loopback
from lm_deluge.gateway.page.page import open_page
from lm_deluge.gateway.page.store.database import database_beside
from lm_deluge.gateway.routes.admin import admin_app
from lm_deluge.telemetry.logs import logger

__all__ = [
    "BACKLOG",
    "BoundedProtocol",
    "Listening",
    "OnStart",
    "bind_admin",
    "bind_socket",
    "check_address",
    "check_tls",
    "metrics_of",
    "open_database",
    "open_gateway",
    "run_beside",
    "run_server",
    "serve",
    "serve_app",
    "url_of",
]

Watch = Callable[[Callable[[], None]], Coroutine[Any, Any, None]]

_MOST_HEADER_BYTES = 64 * 2**10
"""Of all headers of a request. Codex sends up to 8 KiB of metadata (0.171); the limit of nginx is 32 KiB."""
_HEADER_S = 10.0
"""Seconds in which the headers of a request must arrive, so that slow senders do not use up the connections."""
_KEEP_ALIVE_S = 75  # of idle connections; nginx's default
BACKLOG = 2048  # connections that the system accepts before the server does; uvicorn's default


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with limits for the headers of a request: it has none.

    Attributes:
        header_s: Seconds in which the headers of a request must arrive.
    """

    header_s = _HEADER_S
    _header_bytes = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first request."""
        super().connection_made(transport)
        self._await_headers()

    def on_message_begin(self) -> None:
        """Start the clock of a request."""
        self._header_bytes = 0
        self._await_headers()
        super().on_message_begin()
        # A connection whose client reads nothing cannot be closed in order: its buffer never gets empty.
        self.scope["extensions"] = {ABORT: self.transport.abort}  # type: ignore[dict-item]

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count the bytes of the headers."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > _MOST_HEADER_BYTES:
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
            self.transport.close()
            return
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop the clock."""
        self._stop_clock()
        if self.transport.is_closing():
            return
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        self._stop_clock()
        self._deadline = self.loop.call_later(self.header_s, self._close_slow)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close_slow(self) -> None:
        self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn's server, which stops in two steps: no new requests, then the end of those under way."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    def handle_exit(self, sig: int, frame: object) -> None:
        """Begin to stop; a second signal stops at once."""
        self._gateway.state.is_ready = False
        super().handle_exit(sig, frame)  # type: ignore[arg-type]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; a stop in order is a success for whatever supervises the process."""
        await super().shutdown(sockets)
        self._captured_signals.clear()


def check_address(settings: GatewaySettings, *, has_keys: bool) -> None:
    """Check that a server without keys can only be reached from this machine.

    Raises:
        ConfigurationError: The address is not a loopback address, and there are no keys.
    """
    if has_keys or is_loopback(settings.host):
        return
    raise ConfigurationError(
        f"{settings.host} can be reached from other machines, and there is no key",
        hint="Create one first: deluge keys create NAME. Or listen at 127.0.0.1.",
    )


def check_tls(settings: GatewaySettings) -> None:
    """Check the files for HTTPS, so that a wrong one is an error before anything else starts.

    Raises:
        ConfigurationError: One of the two is not set, cannot be read, needs a password, or they do not belong together.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        missing = "tls_certificate" if certificate is None else "tls_key"
        raise ConfigurationError(f"{missing} is not set", hint="HTTPS needs both tls_certificate and tls_key.")
    for path in map(Path, (certificate, key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    try:
        # Without a password of its own, OpenSSL asks for one at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=b"")
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(
            f"{certificate} and {key} cannot be used for HTTPS",
            hint="Both have to be in PEM format, the key without a password, and the key of this certificate.",
        ) from error


class Listening(NamedTuple):
    """A server that listens.

    Attributes:
        url: Its URL.
        is_simulated: Whether the simulator answers, because no key of a provider is set.
    """

    url: str
    is_simulated: bool


OnStart = Callable[[Listening], None]
"""Called once the server listens."""


class OpenGateway(NamedTuple):
    """A gateway whose database is open, which may serve."""

    gateway: Gateway
    ledger: Ledger
    access: KeyAccess


@contextlib.asynccontextmanager
async def open_gateway(
    settings: GatewaySettings,
    *,
    database: str,
    master_key: str | None,
    log: AccessLog | None,
    metrics: GatewayMetrics | None,
) -> AsyncIterator[OpenGateway]:
    """Open the database and what else a gateway needs, until the end of the block.

    Raises:
        ConfigurationError: A setting cannot be used, or the database cannot be opened.
    """
    async with contextlib.AsyncExitStack() as stack:
        ledger = Ledger(await stack.enter_async_context(open_database(database)))
        rates = peers = listener = None

        def processes() -> int:  # other workers of this machine may not have signed on yet
            return max(settings.workers, ledger.servers)

        if settings.limiter is not None:
            address = parse_address(settings.limiter)
            rates = SharedRates(address, processes)
            stack.push_async_callback(rates.close)
            listener = stack.enter_context(bind_socket(settings.peer_host, 0, setting="peer_host"))
            peers = StreamPeers(address, f"http://{url_host(settings.peer_host)}:{listener.getsockname()[1]}")
            stack.push_async_callback(peers.close)
        access = KeyAccess(ledger, master_key=master_key, rates=rates)
        check_address(settings, has_keys=await access.needs_key())
        await ledger.sign_on()
        await ledger.settle_lost()
        page = None
        if settings.page.enabled:
            own = settings.page.database or database_beside(database)
            page = await stack.enter_async_context(open_page(own, settings.page.mcp))
        gateway = Gateway(
            settings, access=access, log=log, metrics=metrics, peers=peers, page=page, processes=processes
        )
        run_beside(stack, _keep_ledger(ledger, settings))
        if listener is not None and peers is not None:
            run_beside(stack, serve_app(gateway.for_peers(peers.secret), listener))
        yield OpenGateway(gateway, ledger, access)


async def serve(
    settings: GatewaySettings,
    *,
    database: str,
    master_key: str | None = None,
    log: AccessLog | None = None,
    on_start: OnStart | None = None,
) -> None:
    """Run the gateway in this process until a signal stops it.

    Args:
        settings: The settings.
        database: URL of the database.
        master_key: The key of the administrator; None: there is no admin API, and the admin port has `/metrics` only.
        log: Where calls are logged; None: nowhere.
        on_start: Called once the server listens.

    Raises:
        ConfigurationError: A setting or file cannot be used, the port is taken, or the database cannot be opened.
    """
    check_tls(settings)
    metrics = metrics_of(settings)
    async with contextlib.AsyncExitStack() as stack:
        opened = await stack.enter_async_context(
            open_gateway(settings, database=database, master_key=master_key, log=log, metrics=metrics)
        )
        admin = bind_admin(settings.admin_port, must=master_key is not None)
        if admin is not None:
            run_beside(stack, serve_app(admin_app(opened.ledger, opened.access, metrics), stack.enter_context(admin)))
        with bind_socket(settings.host, settings.port, setting="host and port") as sock:
            sock.listen(BACKLOG)
            if on_start is not None:
                on_start(Listening(url_of(settings, sock), opened.gateway.is_simulated))
            await run_server(opened.gateway, sock)


@contextlib.asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    """Open the database until the end of the block.

    Raises:
        ConfigurationError: It cannot be opened.
    """
    database = Database(url)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


def run_beside(stack: contextlib.AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    """Run something until the end of a block."""
    stack.callback(asyncio.get_running_loop().create_task(work).cancel)


async def _keep_ledger(ledger: Ledger, settings: GatewaySettings) -> None:
    """Sign on again and again, and remove old calls."""
    while True:
        with contextlib.suppress(DelugeError):  # the database may come back
            await ledger.sign_on()
            await ledger.settle_lost()
            await ledger.remove_old(settings.retention_days)
        await asyncio.sleep(SIGN_ON_S)


def metrics_of(settings: GatewaySettings) -> GatewayMetrics | None:
    """Return the metrics; None if their package is not installed."""
    try:
        return GatewayMetrics(by_key=settings.metrics_by_key)
    except MissingExtraError:
        return None


def bind_admin(port: int | None, *, must: bool) -> socket.socket | None:
    """Return the socket of the admin port; None: there is none.

    Raises:
        ConfigurationError: The port is taken, and it must be served.
    """
    if port is None:
        return None
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(("127.0.0.1", port))
    except OSError as error:
        found.close()
        problem = f"the admin port {port} cannot be used: {error.strerror}"
        if must:
            raise ConfigurationError(problem, hint="Set another admin_port in [server].") from error
        logger.warning("%s; there is no /metrics", problem)
        return None
    return found


async def serve_app(app: Starlette, sock: socket.socket) -> None:
    """Serve an application at a socket beside the gateway, whose server has the signals."""
    config = uvicorn.Config(app, ws="none", access_log=False, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    await server.serve(sockets=[sock])


def bind_socket(host: str, port: int, *, setting: str) -> socket.socket:
    """Return a socket with an address of this machine; it does not listen yet.

    Raises:
        ConfigurationError: The address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)  # with the protocol: else asyncio does not set TCP_NODELAY
    except OSError as error:
        raise ConfigurationError(f"{host} cannot be used: {error.strerror}", hint=f"Set another {setting}.") from error
    try:
        if sys.platform != "win32":  # there it lets several servers share a port
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        found.close()
        raise ConfigurationError(
            f"port {port} at {host} cannot be used: {error.strerror}", hint=f"Set another {setting}."
        ) from error
    return found


def url_host(host: str) -> str:
    """Return a host as URLs have it."""
    return f"[{host}]" if ":" in host else host


def url_of(settings: GatewaySettings, sock: socket.socket) -> str:
    """Return the URL of the server that listens at a socket."""
    scheme = "https" if settings.tls_certificate else "http"
    return f"{scheme}://{url_host(settings.host)}:{sock.getsockname()[1]}"


async def run_server(gateway: Gateway, sock: socket.socket, *, watch: Watch | None = None) -> None:
    """Serve at a socket until a signal stops it.

    Args:
        gateway: The gateway.
        sock: The socket.
        watch: Runs beside the server, and gets a function that stops it; None: nothing does.
    """
    settings = gateway.settings
    config = uvicorn.Config(
        gateway,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        limit_concurrency=settings.max_connections,
        backlog=BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_s)),
        server_header=False,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
    server = _Server(config, gateway)
    async with contextlib.AsyncExitStack() as stack:
        if watch is not None:
            run_beside(stack, watch(lambda: server.handle_exit(signal.SIGTERM, None)))
        await server.serve(sockets=[sock])
