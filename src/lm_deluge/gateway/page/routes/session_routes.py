"""The routes of sessions, models and reports."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lm_deluge.errors import AuthenticationError
from lm_deluge.gateway.http_body import header_map
from lm_deluge.gateway.page.bodies import SignIn, parse_body
from lm_deluge.gateway.page.routes.guard import REPORTS_PATH, check_type
from lm_deluge.gateway.page.routes.handlers import Handlers, json_response
from lm_deluge.gateway.page.routes.model_list import list_models_for
from lm_deluge.gateway.page.store.sessions import SESSION_S, Attempts, Visitor
from lm_deluge.gateway.services import GatewayServices

__all__ = ["session_routes"]

JSON = dict[str, Any]

_MOST_REPORTS = 100  # of violated policies; the latest ones show what happens
_MOST_REPORT = 64 * 2**10  # bytes; browsers cut the samples in reports to 40 characters


def session_routes(services: GatewayServices, handlers: Handlers) -> list[Route]:
    """Return the routes of sessions, models and reports."""
    own = _SessionRoutes(services, handlers)
    return [
        Route("/page/api/session", handlers.open(own.show), methods=["GET"]),
        Route("/page/api/session", handlers.open(own.sign_in), methods=["POST"]),
        Route("/page/api/session", handlers.open(own.sign_out), methods=["DELETE"]),
        Route("/page/api/models", handlers.signed_in(own.models), methods=["GET"]),
        Route(REPORTS_PATH, handlers.open(own.report), methods=["POST"]),
        Route(REPORTS_PATH, handlers.signed_in(own.reports), methods=["GET"]),
    ]


class _SessionRoutes:
    def __init__(self, services: GatewayServices, handlers: Handlers) -> None:
        self._services = services
        self._handlers = handlers
        self._attempts = Attempts()
        self._reports: deque[Any] = deque(maxlen=_MOST_REPORTS)

    async def show(self, request: Request) -> Response:
        """Answer who uses the page."""
        needs_key = await self._services.access.needs_key()
        try:
            visitor = await self._handlers.sessions.visitor(self._handlers.cookie(request))
        except AuthenticationError:
            return json_response(self._fields(None, needs_key=needs_key))
        return json_response(self._fields(visitor.owner, needs_key=needs_key))

    def _fields(self, name: str | None, *, needs_key: bool) -> JSON:
        return {
            "needs_key": needs_key,
            "signed_in": name is not None,
            "name": name or None,
            "simulated": self._services.catalog.is_simulated,
        }

    async def sign_in(self, request: Request) -> Response:
        """Start a session, if the key is valid."""
        address = request.client.host if request.client is not None else ""
        self._attempts.check(address)
        key = parse_body(await self._handlers.json_body(request), SignIn).key.strip()
        try:
            cookie, name = await self._handlers.sessions.sign_in(key)
        except AuthenticationError:
            self._attempts.note_failure(address)
            raise
        response = json_response(self._fields(name, needs_key=True))
        response.set_cookie(
            self._handlers.cookie_name(request),
            cookie,
            max_age=int(SESSION_S),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        check_type(header_map(request.scope))
        cookie = self._handlers.cookie(request)
        if cookie is not None:
            await self._handlers.sessions.sign_out(cookie)
        response = Response(status_code=204)
        response.delete_cookie(self._handlers.cookie_name(request), httponly=True, samesite="strict")
        return response

    async def models(self, request: Request, visitor: Visitor) -> Response:
        """Answer with the models that the user may choose."""
        return json_response(await list_models_for(self._services, visitor))

    async def report(self, request: Request) -> Response:
        """Keep a browser's report that the page has violated its policy."""
        body = await self._handlers.body(request, _MOST_REPORT)
        self._reports.append(parse_body(body, msgspec.Raw))
        return Response(status_code=204)

    async def reports(self, request: Request, visitor: Visitor) -> Response:
        """Answer with the reports."""
        return json_response({"reports": [*self._reports]})
