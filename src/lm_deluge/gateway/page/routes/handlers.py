"""What the routes of the page have in common: users, checks, bodies, and errors as JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lm_deluge.dispatch.hooks import is_interruption
from lm_deluge.encoders.openai_chat.errors import usual_status
from lm_deluge.errors import DelugeError
from lm_deluge.gateway.http_body import ClientLeftError, header_map, read_body
from lm_deluge.gateway.page.routes.guard import PAGE_HEADERS, check_origin, check_type
from lm_deluge.gateway.page.store.records import error_fields
from lm_deluge.gateway.page.store.sessions import Sessions, Visitor
from lm_deluge.gateway.services import GatewayServices
from lm_deluge.telemetry.logs import logger
from lm_deluge.ui.failures import as_api_error

__all__ = ["Handlers", "json_response"]

Handler = Callable[[Request], Awaitable[Response]]
OwnHandler = Callable[[Request, Visitor], Awaitable[Response]]

_CLIENT_LEFT = 400  # of a response that no client reads
_NO_STORE = {"cache-control": "no-store"}  # conversations are not kept by browsers


def json_response(content: Any, status: int = 200) -> Response:
    """Return JSON."""
    return Response(msgspec.json.encode(content), status_code=status, media_type="application/json", headers=_NO_STORE)


class Handlers:
    """Wraps the functions that answer requests of the page.

    Args:
        services: What the endpoints of the gateway share.
        sessions: Knows the users.
    """

    def __init__(self, services: GatewayServices, sessions: Sessions) -> None:
        self._services = services
        self.sessions = sessions

    def cookie_name(self, request: Request) -> str:
        """Return the name of the cookie. Browsers share cookies between ports, so that each server has a name."""
        port = (request.scope.get("server") or ("", 0))[1]
        return f"deluge_session_{port}"

    def cookie(self, request: Request) -> str | None:
        """Return the cookie of a request."""
        return request.cookies.get(self.cookie_name(request))

    def open(self, handler: Handler) -> Handler:
        """Return a handler for every request of the page itself."""

        async def handle(request: Request) -> Response:
            try:
                check_origin(request.method, header_map(request.scope))
                response = await handler(request)
            except ClientLeftError:
                return Response(status_code=_CLIENT_LEFT)
            except Exception as error:
                if is_interruption(error):
                    raise
                response = _error_response(error)
            for name, value in PAGE_HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return handle

    def signed_in(self, handler: OwnHandler) -> Handler:
        """Return a handler for users who have signed in, if keys are needed."""

        async def handle(request: Request) -> Response:
            return await handler(request, await self.sessions.visitor(self.cookie(request)))

        return self.open(handle)

    async def json_body(self, request: Request) -> bytes:
        """Return the body of a request with JSON.

        Raises:
            APIError: It is too large or too slow, or not declared as JSON.
        """
        check_type(header_map(request.scope))
        return await self.body(request)

    async def body(self, request: Request, most_bytes: int | None = None) -> bytes:
        """Return the body of a request.

        Raises:
            APIError: It is too large, or too slow.
        """
        settings = self._services.settings
        most = settings.max_body_bytes if most_bytes is None else min(most_bytes, settings.max_body_bytes)
        headers = header_map(request.scope)
        return await read_body(request.receive, headers, most_bytes=most, timeout_s=settings.body_timeout_s)


def _error_response(error: Exception) -> Response:
    shown, fields = as_api_error(error), error_fields(error)
    if not isinstance(error, DelugeError):
        logger.error("a request of the page failed: %s", type(error).__name__)
    body = {"error": {"type": fields["type"], "message": fields["message"]}}
    response = json_response(body, shown.status_code or usual_status(shown))
    if shown.retry_after_s is not None:
        response.headers["retry-after"] = str(max(1, round(shown.retry_after_s)))
    return response
