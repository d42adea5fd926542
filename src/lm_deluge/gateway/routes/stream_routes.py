"""The paths of streams that go on without their client: read one again, follow it, and stop it."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lm_deluge.errors import BadRequestError, DelugeError, NotFoundError
from lm_deluge.gateway.answers.incoming import token_of
from lm_deluge.gateway.answers.log_reader import send_log
from lm_deluge.gateway.answers.responder import Responder
from lm_deluge.gateway.cluster.peers import PEER_HEADER, StreamHolder, StreamPeers, passed_headers
from lm_deluge.gateway.dialects import DIALECTS
from lm_deluge.gateway.http_body import ABORT, Receive, Scope, Send, header_map
from lm_deluge.gateway.routes.info_routes import error_response
from lm_deluge.gateway.services import GatewayServices
from lm_deluge.ui.stream_log import StreamLog

__all__ = ["PeerResponse", "StreamFinder", "peer_app", "stream_routes"]


Find = Callable[[Request], Awaitable[StreamLog | Response]]
"""Returns the log that a request names, or a response: a refusal, or that of the process with the log."""


def stream_routes(services: GatewayServices, find: Find) -> list[Route]:
    """Return the routes."""
    streams = _Streams(find)
    return [
        Route("/v1/streams/{id}", _Follow(services, find, by_number=False), methods=["GET"]),
        Route("/v1/streams/{id}/stop", streams.stop, methods=["POST"]),
        Route("/v1/responses/{id}", _Follow(services, find, by_number=True), methods=["GET"]),
        Route("/v1/responses/{id}/cancel", streams.cancel, methods=["POST"]),
    ]


def peer_app(services: GatewayServices, secret: str) -> Starlette:
    """Return the application for other processes of the gateway, which have checked the keys of their clients."""

    async def find(request: Request) -> StreamLog | Response:
        if not secrets.compare_digest(request.headers.get(PEER_HEADER, "").encode(), secret.encode()):
            return Response(status_code=403)
        return services.streams.find(request.path_params["id"], None) or _no_stream(request)

    return Starlette(routes=stream_routes(services, find))


def _no_stream(request: Request) -> Response:
    return error_response(request, NotFoundError("there is no such stream, or it is too old", status_code=404))


class StreamFinder:
    """Finds the stream that the request of a client names, in this process or in another one.

    Args:
        services: What the endpoints share.
    """

    def __init__(self, services: GatewayServices) -> None:
        self._services = services

    async def __call__(self, request: Request) -> StreamLog | Response:
        """Return the log, or the response in its place."""
        name, peers = request.path_params["id"], self._services.peers
        try:
            owner = await self._services.access.check(token_of(header_map(request.scope)))
            log = self._services.streams.find(name, owner)
            if log is not None or peers is None:
                return log or _no_stream(request)
            holder = await peers.find(name)
        except DelugeError as error:
            return error_response(request, error)
        if holder is None or not secrets.compare_digest(holder.owner.encode(), owner.encode()):
            return _no_stream(request)
        return PeerResponse(peers, holder, self._services)


class PeerResponse(Response):
    """The response of the process that holds a stream, passed on as it arrives.

    Args:
        peers: The other processes.
        holder: The process.
        services: What the endpoints share.
        path: The path of the request there; None: that of the client's request.
    """

    def __init__(
        self, peers: StreamPeers, holder: StreamHolder, services: GatewayServices, path: str | None = None
    ) -> None:
        super().__init__()
        self._path = path
        self._peers = peers
        self._holder = holder
        self._stalled_s = services.settings.stalled_client_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and its response back."""
        request = Request(scope, receive)
        try:
            exchange = await self._peers.open(self._holder, request, self._path)
        except DelugeError as error:
            await error_response(request, error)(scope, receive, send)
            return
        abort = scope.get("extensions", {}).get(ABORT)
        responder = Responder(send, receive, stalled_s=self._stalled_s, abort=abort)
        left = asyncio.get_running_loop().create_task(responder.wait_until_left())
        left.add_done_callback(lambda _: exchange.abort())
        try:
            await responder.start(exchange.head.status, passed_headers(exchange.head.headers))
            while data := await exchange.read():
                await responder.write(data)
            await responder.write(b"", is_last=True)
        except DelugeError:  # the holder has ended, or the client has left: the connection ends without a last part
            responder.has_left = True
        finally:
            left.cancel()
            exchange.abort()


class _Streams:
    def __init__(self, find: Find) -> None:
        self._find = find

    async def stop(self, request: Request) -> Response:
        """Stop a stream; answer with the receipt."""
        log = await self._find(request)
        if isinstance(log, Response):
            return log
        return JSONResponse({"id": log.id, **({} if log.stop is None else await log.stop())})

    async def cancel(self, request: Request) -> Response:
        """Stop a response; answer with the response object so far."""
        log = await self._find(request)
        if isinstance(log, Response):
            return log
        if log.stop is not None:
            await log.stop()
        return JSONResponse({**log.response_object(), "status": "cancelled"})


class _Follow:
    """An ASGI application that sends a stream again, and then goes on with it."""

    def __init__(self, services: GatewayServices, find: Find, *, by_number: bool) -> None:
        self._services = services
        self._find = find
        self._by_number = by_number

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        log = await self._find(request)
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
