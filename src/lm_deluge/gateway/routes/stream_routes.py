"""The paths of streams that go on without their client: read one again, follow it, and stop it."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lm_deluge.errors import AuthenticationError, BadRequestError, NotFoundError
from lm_deluge.gateway.answers.incoming import token_of
from lm_deluge.gateway.answers.log_reader import send_log
from lm_deluge.gateway.answers.responder import Responder
from lm_deluge.gateway.dialects import DIALECTS
from lm_deluge.gateway.http_body import ABORT, Receive, Scope, Send, header_map
from lm_deluge.gateway.routes.info_routes import error_response
from lm_deluge.gateway.services import GatewayServices
from lm_deluge.ui.stream_log import StreamLog

__all__ = ["stream_routes"]


def stream_routes(services: GatewayServices) -> list[Route]:
    """Return the routes."""
    streams = _Streams(services)
    return [
        Route("/v1/streams/{id}", _Follow(services, by_number=False), methods=["GET"]),
        Route("/v1/streams/{id}/stop", streams.stop, methods=["POST"]),
        Route("/v1/responses/{id}", _Follow(services, by_number=True), methods=["GET"]),
        Route("/v1/responses/{id}/cancel", streams.cancel, methods=["POST"]),
    ]


async def _find(services: GatewayServices, request: Request) -> StreamLog | Response:
    """Return the log that a request names, or the response that refuses the request."""
    try:
        owner = await services.access.check(token_of(header_map(request.scope)))
    except AuthenticationError as error:
        return error_response(request, error)
    log = services.streams.find(request.path_params["id"], owner)
    if log is None:
        return error_response(request, NotFoundError("there is no such stream, or it is too old", status_code=404))
    return log


class _Streams:
    def __init__(self, services: GatewayServices) -> None:
        self._services = services

    async def stop(self, request: Request) -> Response:
        """Stop a stream; answer with the receipt."""
        log = await _find(self._services, request)
        if isinstance(log, Response):
            return log
        return JSONResponse({"id": log.id, **({} if log.stop is None else await log.stop())})

    async def cancel(self, request: Request) -> Response:
        """Stop a response; answer with the response object so far."""
        log = await _find(self._services, request)
        if isinstance(log, Response):
            return log
        if log.stop is not None:
            await log.stop()
        return JSONResponse({**log.response_object(), "status": "cancelled"})


class _Follow:
    """An ASGI application that sends a stream again, and then goes on with it."""

    def __init__(self, services: GatewayServices, *, by_number: bool) -> None:
        self._services = services
        self._by_number = by_number

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        log = await _find(self._services, request)
        if isinstance(log, Response):
            await log(scope, receive, send)
            return
        if self._by_number and request.query_params.get("stream") != "true":
            await JSONResponse(log.response_object())(scope, receive, send)
            return
        try:
            start = self._start_of(request, log)
        except BadRequestError as error:
            await error_response(request, error)(scope, receive, send)
            return
        settings = self._services.settings
        abort = scope.get("extensions", {}).get(ABORT)
        responder = Responder(send, receive, stalled_s=settings.stalled_client_s, abort=abort)
        heartbeat = DIALECTS["openai-chat"].heartbeat
        await send_log(log, responder, start=start, heartbeat=heartbeat, heartbeat_s=settings.heartbeat_s)

    def _start_of(self, request: Request, log: StreamLog) -> int:
        """Return the position of the first frame to send.

        Raises:
            BadRequestError: The request names a frame of another stream, or no frame.
        """
        if self._by_number:
            number = request.query_params.get("starting_after", "-1")
            if re.fullmatch(r"-?\d{1,12}", number) is None:
                raise BadRequestError("starting_after is not a number", status_code=400)
            return log.position_after(int(number))
        last = request.headers.get("last-event-id") or request.query_params.get("after")
        if not last:
            return 0
        stream, _, position = last.rpartition(":")
        if stream not in ("", log.id) or re.fullmatch(r"\d{1,12}", position) is None:
            raise BadRequestError("the id of the last event is not of this stream", status_code=400)
        return int(position) + 1
