"""The gateway as an ASGI application: which endpoint answers which path."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable
from urllib.parse import unquote

from starlette.applications import Starlette

from lm_deluge.gateway.access import AccessControl, OpenAccess
from lm_deluge.gateway.access_log import AccessLog
from lm_deluge.gateway.catalog import ModelCatalog
from lm_deluge.gateway.cluster.peers import StreamPeers
from lm_deluge.gateway.configuration.settings import GatewaySettings
from lm_deluge.gateway.dialects import DIALECTS
from lm_deluge.gateway.endpoint import ModelEndpoint
from lm_deluge.gateway.http_body import Receive, Scope, Send, header_map
from lm_deluge.gateway.metrics import GatewayMetrics, MeasuredLog
from lm_deluge.gateway.origin import foreign_page, is_loopback, refuse_page
from lm_deluge.gateway.page.page import ChatPage
from lm_deluge.gateway.routes.counts import count_routes
from lm_deluge.gateway.routes.info_routes import ServerState, info_routes, not_allowed, not_found
from lm_deluge.gateway.routes.listings import listing_routes
from lm_deluge.gateway.routes.stream_routes import StreamFinder, peer_app, stream_routes
from lm_deluge.gateway.services import GatewayServices
from lm_deluge.telemetry.observer import Observer
from lm_deluge.telemetry.otel import OpenTelemetryObserver
from lm_deluge.ui.stream_log import StreamLogs

__all__ = ["Gateway"]

_NOT_FOUND, _NOT_ALLOWED = 404, 405  # statuses for an unknown path, and for an unknown method of a path


def _observers_of(settings: GatewaySettings, metrics: GatewayMetrics | None) -> list[Observer]:
    """Return what watches the calls to providers.

    Raises:
        MissingExtraError: The settings ask for OpenTelemetry, which is not installed.
    """
    observers: list[Observer] = [] if metrics is None else [metrics.observer]
    return [*observers, OpenTelemetryObserver()] if settings.opentelemetry else observers


class Gateway:
    """The gateway: an ASGI application for uvicorn, or for a part of the paths of another application.

    Args:
        settings: The settings.
        access: Grants calls; None: everyone may call.
        log: Where calls are logged; None: nowhere.
        metrics: Counts the calls; None: nothing does.
        peers: Finds the streams of other processes; None: there are no others.
        page: The chat page; None: there is none.
        processes: Returns how many processes serve with the same limiter, this one included.

    Raises:
        ConfigurationError: A configured model is unknown, or an option of it is wrong.

    Attributes:
        state: Whether new requests are welcome, and what the server knows about itself.

    Example:
        >>> gateway = Gateway(GatewaySettings())
        >>> uvicorn.run(gateway)
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        access: AccessControl | None = None,
        log: AccessLog | None = None,
        metrics: GatewayMetrics | None = None,
        peers: StreamPeers | None = None,
        page: ChatPage | None = None,
        processes: Callable[[], int] = lambda: 1,
    ) -> None:
        self.settings = settings
        catalog = ModelCatalog(settings, _observers_of(settings, metrics), processes)
        log = log or AccessLog(None)
        if metrics is not None:
            metrics.observer.allow(catalog.configured_ids)
            metrics.count_running(lambda: self.running)
            log = MeasuredLog(log, metrics)
        logs = StreamLogs(settings.kept_s)
        self._services = GatewayServices(settings, catalog, access or OpenAccess(), log, logs, set(), peers)
        self.state = ServerState(self._services)
        self._is_local = is_loopback(settings.host)
        self._endpoints = [
            (re.compile(endpoint.pattern), ModelEndpoint(self._services, dialect, is_streamed=endpoint.is_streamed))
            for dialect in DIALECTS.values()
            for endpoint in dialect.encoder.routes
        ]
        self._others = Starlette(
            routes=[
                *([] if page is None else page.routes(self._services)),
                *info_routes(self.state),
                *listing_routes(self._services),
                *count_routes(self._services),
                *stream_routes(self._services, StreamFinder(self._services)),
            ],
            exception_handlers={_NOT_FOUND: not_found, _NOT_ALLOWED: not_allowed},
            lifespan=self._lifespan,
        )

    @property
    def is_simulated(self) -> bool:
        """Whether the simulator answers, because there is neither a configured model nor any key."""
        return self._services.catalog.is_simulated

    def for_peers(self, secret: str) -> Starlette:
        """Return the application that gives the streams of this process to other gateways, which know a secret."""
        return peer_app(self._services, secret)

    @property
    def running(self) -> int:
        """Number of calls under way."""
        return len(self._services.running)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        await self._services.streams.drain(self.settings.drain_s)
        await self._services.catalog.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and self._is_local and (reason := foreign_page(header_map(scope))) is not None:
            await refuse_page(send, reason)
            return
        if scope["type"] == "http" and scope["method"] == "POST":
            for pattern, endpoint in self._endpoints:
                match = pattern.fullmatch(scope["path"])
                if match is not None:
                    named = {name: unquote(text) for name, text in match.groupdict().items() if text is not None}
                    await endpoint({**scope, "path_params": named}, receive, send)
                    return
        await self._others(scope, receive, send)
