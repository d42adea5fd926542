"""Runs the gateway: sockets, limits of connections, and a stop that lets running streams end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lm_deluge.errors import ConfigurationError, DelugeError, MissingExtraError
from lm_deluge.gateway.access_log import AccessLog
from lm_deluge.gateway.app import Gateway
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

__all__ = ["BoundedProtocol", "check_address", "serve"]

_MOST_HEADER_BYTES = 64 * 2**10
"""Of all headers of a request. Codex sends up to 8 KiB of metadata (0.171); the limit of nginx is 32 KiB."""
_HEADER_S = 10.0
"""Seconds in which the headers of a request must arrive, so that slow senders do not use up the connections."""
_KEEP_ALIVE_S = 75  # of idle connections; nginx's default
_BACKLOG = 2048  # connections that the system accepts before the server does; uvicorn's default


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


async def serve(
    settings: GatewaySettings,
    *,
    database: str,
    master_key: str | None = None,
    log: AccessLog | None = None,
    on_start: Callable[[Gateway, str], None] | None = None,
) -> None:
    """Run the gateway until a signal stops it.

    Args:
        settings: The settings.
        database: URL of the database.
        master_key: The key of the administrator; None: there is no admin API, and the admin port has `/metrics` only.
        log: Where calls are logged; None: nowhere.
        on_start: Called with the gateway and its URL once the server listens.

    Raises:
        ConfigurationError: A setting or file cannot be used, the port is taken, or the database cannot be opened.
    """
    check_tls(settings)
    store = Database(database)
    await store.open()
    ledger = Ledger(store)
    access = KeyAccess(ledger, master_key=master_key)
    try:
        check_address(settings, has_keys=await access.needs_key())
        await ledger.sign_on()
        await ledger.settle_lost()
        metrics = _metrics_of(settings)
        async with contextlib.AsyncExitStack() as stack:
            page = None
            if settings.page.enabled:
                own = settings.page.database or database_beside(database)
                page = await stack.enter_async_context(open_page(own, settings.page.mcp))
            gateway = Gateway(settings, access=access, log=log, metrics=metrics, page=page)
            tasks = [_keep_ledger(ledger, settings)]
            admin = _bind_admin(settings.admin_port, must=master_key is not None)
            if admin is not None:
                tasks.append(_serve_admin(admin_app(ledger, access, metrics), stack.enter_context(admin)))
            for task in [asyncio.get_running_loop().create_task(each) for each in tasks]:
                stack.callback(task.cancel)
            await _run(gateway, on_start)
    finally:
        await store.close()


async def _keep_ledger(ledger: Ledger, settings: GatewaySettings) -> None:
    """Sign on again and again, and remove old calls."""
    while True:
        with contextlib.suppress(DelugeError):  # the database may come back
            await ledger.sign_on()
            await ledger.settle_lost()
            await ledger.remove_old(settings.retention_days)
        await asyncio.sleep(SIGN_ON_S)


def _metrics_of(settings: GatewaySettings) -> GatewayMetrics | None:
    """Return the metrics; None if their package is not installed."""
    try:
        return GatewayMetrics(by_key=settings.metrics_by_key)
    except MissingExtraError:
        return None


def _bind_admin(port: int | None, *, must: bool) -> socket.socket | None:
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


async def _serve_admin(app: Starlette, sock: socket.socket) -> None:
    config = uvicorn.Config(app, ws="none", access_log=False, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]  # the gateway's server has them
    await server.serve(sockets=[sock])


async def _run(gateway: Gateway, on_start: Callable[[Gateway, str], None] | None) -> None:
    settings = gateway.settings
    config = uvicorn.Config(
        gateway,
        host=settings.host,
        port=settings.port,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        limit_concurrency=settings.max_connections,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_s)),
        server_header=False,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
    server = _Server(config, gateway)
    task = asyncio.get_running_loop().create_task(server.serve())
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    if server.started and on_start is not None:
        scheme = "https" if settings.tls_certificate else "http"
        port = server.servers[0].sockets[0].getsockname()[1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        on_start(gateway, f"{scheme}://{host}:{port}")
    try:
        await task
    except SystemExit as error:  # uvicorn's way to report a port that is taken
        raise ConfigurationError(f"port {settings.port} at {settings.host} cannot be used") from error
