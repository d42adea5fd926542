"""The routes of answers: start, follow from any frame, and stop."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lm_deluge.errors import BadRequestError
from lm_deluge.gateway.answers.log_reader import send_log
from lm_deluge.gateway.answers.responder import Responder
from lm_deluge.gateway.http_body import ABORT, Receive, Scope, Send
from lm_deluge.gateway.page.answers.answer_runner import AnswerRunner
from lm_deluge.gateway.page.bodies import AnswerRequest, parse_body
from lm_deluge.gateway.page.routes.handlers import Handlers, json_response
from lm_deluge.gateway.page.store.sessions import Visitor
from lm_deluge.gateway.services import GatewayServices
from lm_deluge.ui.stream_log import StreamLog

__all__ = ["answer_routes"]

_HEARTBEAT = b": keep-alive\n\n"


def answer_routes(services: GatewayServices, handlers: Handlers, answers: AnswerRunner) -> list[Route]:
    """Return the routes."""
    own = _AnswerRoutes(services, handlers, answers)
    return [
        Route("/page/api/conversations/{id}/answers", handlers.signed_in(own.start), methods=["POST"]),
        Route("/page/api/answers/{id}/events", handlers.signed_in(own.events), methods=["GET"]),
        Route("/page/api/answers/{id}/stop", handlers.signed_in(own.stop), methods=["POST"]),
    ]


class _AnswerRoutes:
    def __init__(self, services: GatewayServices, handlers: Handlers, answers: AnswerRunner) -> None:
        self._services = services
        self._handlers = handlers
        self._answers = answers

    async def start(self, request: Request, visitor: Visitor) -> Response:
        """Start one or two answers."""
        body = parse_body(await self._handlers.json_body(request), AnswerRequest)
        message, answers = await self._answers.start(visitor, request.path_params["id"], body)
        return json_response({"message": message, "answers": answers}, 201)

    async def events(self, request: Request, visitor: Visitor) -> Response:
        """Follow an answer: the frames so far, and then those that arrive."""
        log = self._services.streams.find(request.path_params["id"], visitor.owner)
        if log is None:
            found = await self._answers.others.events(visitor.owner, request.path_params["id"])
            return found or Response(status_code=204)
        return _Events(log, _start_of(request), self._services)

    async def stop(self, request: Request, visitor: Visitor) -> Response:
        """Stop an answer; answer with the receipt."""
        await self._handlers.json_body(request)
        name = request.path_params["id"]
        running = self._answers.running(visitor.owner, name)
        if running is not None:
            return json_response(await running.stop())
        stopped = await self._answers.others.stop(visitor.owner, name)
        if stopped is not None:
            return json_response(stopped)
        return json_response(await self._answers.receipt(visitor.owner, name))


def _start_of(request: Request) -> int:
    """Return the position of the first frame to send.

    Raises:
        BadRequestError: The id of the last frame is no number.
    """
    last = request.headers.get("last-event-id") or request.query_params.get("after") or "-1"
    if re.fullmatch(r"-1|\d{1,12}", last) is None:
        raise BadRequestError("the id of the last event is not a number", status_code=400)
    return int(last) + 1


class _Events(Response):
    """Sends the log of an answer. It is an ASGI application of its own: it watches whether the client has left."""

    def __init__(self, log: StreamLog, start: int, services: GatewayServices) -> None:
        super().__init__()
        self._log = log
        self._start = start
        self._settings = services.settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the frames."""
        abort = scope.get("extensions", {}).get(ABORT)
        responder = Responder(send, receive, stalled_s=self._settings.stalled_client_s, abort=abort)
        heartbeat_s = self._settings.heartbeat_s
        await send_log(self._log, responder, start=self._start, heartbeat=_HEARTBEAT, heartbeat_s=heartbeat_s)
