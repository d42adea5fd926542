"""The endpoints of the models."""

from __future__ import annotations

from lm_deluge.gateway.answers.call import GatewayCall
from lm_deluge.gateway.answers.responder import Responder
from lm_deluge.gateway.dialects import Dialect
from lm_deluge.gateway.http_body import ABORT, Receive, Scope, Send, header_map
from lm_deluge.gateway.services import GatewayServices, IncomingRequest

__all__ = ["ModelEndpoint"]


class ModelEndpoint:
    """An ASGI application for one path of a dialect.

    Args:
        services: What the endpoints share.
        dialect: The API of the clients.
        is_streamed: Whether requests to this path are streamed; None: the body has that.
    """

    def __init__(self, services: GatewayServices, dialect: Dialect, *, is_streamed: bool | None) -> None:
        self._services = services
        self._dialect = dialect
        self._is_streamed = is_streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        settings = self._services.settings
        abort = scope.get("extensions", {}).get(ABORT)
        responder = Responder(send, receive, stalled_s=settings.stalled_client_s, abort=abort)
        model = scope.get("path_params", {}).get("model")
        request = IncomingRequest(header_map(scope), receive, model, self._is_streamed)
        call = GatewayCall(self._services, self._dialect, responder, request)
        self._services.running.add(call)
        try:
            await call.run()
        finally:
            self._services.running.discard(call)
