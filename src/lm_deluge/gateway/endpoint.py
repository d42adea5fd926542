"""The endpoints of the models: one request of a client, from its body to the last frame."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Coroutine, Mapping
from typing import Any

import msgspec

from lm_deluge.dispatch.hooks import is_interruption
from lm_deluge.encoders.encoder import ParsedRequest, StreamWriter
from lm_deluge.errors import APIError, BadRequestError, DelugeError
from lm_deluge.events import Event, ResponseFinished, ResponseStarted
from lm_deluge.gateway.access import Access, Grant
from lm_deluge.gateway.access_log import AccessLog, LoggedCall
from lm_deluge.gateway.catalog import ModelCatalog
from lm_deluge.gateway.dialects import Dialect, as_api_error, open_writer, status_of
from lm_deluge.gateway.http_body import ABORT, ClientLeftError, Receive, Scope, Send, header_map, read_body
from lm_deluge.gateway.incoming import IncomingCall, parse_incoming, token_of
from lm_deluge.gateway.relay import RELAY_ENDS, Relay
from lm_deluge.gateway.responder import Responder
from lm_deluge.gateway.settings import GatewaySettings
from lm_deluge.gateway.upstream import UpstreamCall, open_upstream
from lm_deluge.response import APIResponse

__all__ = ["GatewayServices", "ModelEndpoint"]

_EXTENDED_FROM = 0.5  # share of a reservation that is spent when the next one is asked for: time for the database
_NOTED_EACH_S = 1.0  # how much of an answer the ledger may miss if the process is killed
_OK, _BAD_GATEWAY = 200, 502
_CLIENT_LEFT = 499  # nginx's status for a client that closed the connection before the answer


class GatewayServices(msgspec.Struct, frozen=True):
    """What the endpoints of a gateway share."""

    settings: GatewaySettings
    catalog: ModelCatalog
    access: Access
    log: AccessLog
    running: set[Any]


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
        services = self._services
        abort = scope.get("extensions", {}).get(ABORT)
        responder = Responder(send, receive, stalled_s=services.settings.stalled_client_s, abort=abort)
        call = GatewayCall(services, self._dialect, responder, header_map(scope))
        services.running.add(call)
        try:
            model = scope.get("path_params", {}).get("model")
            await call.run(receive, model=model, is_streamed=self._is_streamed)
        finally:
            services.running.discard(call)


class GatewayCall:
    """One request of a client.

    Args:
        services: What the endpoints share.
        dialect: The API of the client.
        responder: Sends the response.
        headers: The headers of the request, names in lower case.
    """

    def __init__(
        self, services: GatewayServices, dialect: Dialect, responder: Responder, headers: Mapping[str, str]
    ) -> None:
        self._services = services
        self._dialect = dialect
        self._responder = responder
        self._headers = dict(headers)
        self._id = f"req_{uuid.uuid4().hex}"
        self._logged = LoggedCall(request_id=self._id, dialect=dialect.name, started_at=time.time())
        self._created = int(self._logged.started_at)
        self._grant: Grant | None = None
        self._open_grant: Grant | None = None  # until it is settled
        self._noted_at = 0.0
        self._is_refused = False  # whether the budget of the key has no more for this call
        self._upstream: UpstreamCall | None = None

    async def run(self, receive: Receive, *, model: str | None, is_streamed: bool | None) -> None:
        """Read the request, and answer it; no error of a call gets out of here."""
        settings = self._services.settings
        response: APIResponse | None = None
        try:
            token = token_of(self._headers)
            self._logged.key_name = await self._services.access.check(token)
            body = await read_body(
                receive, self._headers, most_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s
            )
            incoming = parse_incoming(self._dialect, body, self._services.catalog, model=model, is_streamed=is_streamed)
            self._logged.model = incoming.request.model
            self._grant = self._open_grant = await self._services.access.grant(
                token,
                incoming.request.model,
                tokens=incoming.most_tokens(),
                cost=incoming.most_cost(),
                least=incoming.least_cost(),
            )
            response = await self._answer(incoming)
        except ClientLeftError:
            self._logged.status = _CLIENT_LEFT
        except BaseException as error:
            if is_interruption(error):
                raise
            await self._refuse(error)
        finally:
            await self._settle(response)
            self._logged.note(response)
            self._services.log.write(self._logged)

    async def _settle(self, response: APIResponse | None) -> None:
        """Book what the call cost, once."""
        grant, self._open_grant = self._open_grant, None
        if grant is not None:
            with contextlib.suppress(DelugeError):  # of the database: the reservation stays until the next start
                await grant.settle(response, status=self._logged.status)

    async def _watch_money(self, events: list[Event], upstream: UpstreamCall) -> None:
        """Reserve more while the answer grows, and book the cost before the client gets the end of the answer.

        A server that dies afterwards has the call in its ledger.
        """
        grant, budget = self._open_grant, upstream.budget
        if grant is None:
            return
        last = events[-1]
        if type(last) is ResponseFinished:
            self._logged.status = _BAD_GATEWAY if last.finish_reason == "error" else _OK
            await self._settle(upstream.running.response())
        elif budget is not None and budget.spent > budget.max_cost * _EXTENDED_FROM and not self._is_refused:
            self._is_refused = not await grant.extend(budget.max_cost)
            if not self._is_refused:
                budget.max_cost *= 2
        now = time.monotonic()
        if now - self._noted_at >= _NOTED_EACH_S:
            self._noted_at = now
            grant.note_cost(upstream.running.response().cost or 0.0)

    async def _answer(self, incoming: IncomingCall) -> APIResponse:
        """Send the answer of the model; return the response, complete or not."""
        max_cost = None if self._grant is None else self._grant.max_cost
        self._upstream = upstream = open_upstream(
            incoming.client,
            self._dialect,
            incoming.request,
            self._headers,
            max_cost=max_cost,
            unreadable=incoming.unreadable,
        )
        send = self._stream if incoming.request.is_streamed else self._send_document
        watches: list[Coroutine[Any, Any, None]] = [self._stop_when_left()]
        if incoming.request.is_streamed and self._dialect.heartbeat:
            watches.append(self._send_heartbeats())
        tasks = [asyncio.get_running_loop().create_task(watch) for watch in watches]
        try:
            await send(incoming.request, upstream)
        finally:
            for task in tasks:
                task.cancel()
            upstream.running.abort()
        if self._responder.has_left:
            self._logged.status = _CLIENT_LEFT
        return upstream.running.response()

    async def _stop_when_left(self) -> None:
        await self._responder.wait_until_left()
        if self._upstream is not None:
            self._upstream.running.abort()

    async def _send_heartbeats(self) -> None:
        while True:
            await self._responder.wait_until_silent(self._services.settings.heartbeat_s)
            await self._start_stream()
            await self._responder.write(self._dialect.heartbeat)

    # Streams

    async def _stream(self, request: ParsedRequest, upstream: UpstreamCall) -> None:
        """Send the answer as it arrives. The last frame is a successful one only if the provider's was."""
        running = upstream.running
        writer = open_writer(self._dialect, created=self._created, include_usage=request.wants_usage)
        drops_usage = self._dialect.name == "openai-chat" and not request.wants_usage
        end = RELAY_ENDS.get(self._dialect.name)
        relay = Relay(end, is_sse=self._dialect.encoder.is_sse, keeps_usage=not drops_usage)
        started: Event | None = None
        failure: BaseException | None = None
        is_relayed = False
        try:
            while events := await running.next_batch():
                started = started or events[0]
                data = upstream.take_bytes()
                is_relayed = data is not None
                failure = _failure_in(events, running.response) if not is_relayed else None
                if failure is not None:
                    events = events[:-1]
                await self._watch_money(events, upstream)
                if data is None:
                    frames = writer.write(self._translated(events))
                else:
                    frames = relay.feed(data, is_complete=type(events[-1]) is ResponseFinished)
                await self._start_stream()
                if frames:
                    await self._responder.write(frames)
                if self._responder.has_left:
                    return
                self._logged.note_first()
            await running.close()
        except DelugeError as error:
            failure = error
        if self._responder.has_left:
            return
        if failure is not None:
            await self._fail_stream(failure, writer, started if is_relayed else None)
            return
        last = relay.feed(_rest_of(upstream), is_complete=True) + relay.close() if is_relayed else b""
        await self._responder.write(last, is_last=True)

    def _translated(self, events: list[Event]) -> list[Event]:
        """Return the events without another API's words for the end, and with an id for the response if it has none."""
        first, last = events[0], events[-1]
        if type(first) is ResponseStarted and not first.response_id:
            named = self._dialect.encoder.id_prefix + self._id.removeprefix("req_")
            events = [msgspec.structs.replace(first, response_id=named), *events[1:]]
        if type(last) is ResponseFinished and last.raw_finish_reason is not None:
            events = [*events[:-1], msgspec.structs.replace(last, raw_finish_reason=None, finish_details=None)]
        return events

    async def _fail_stream(self, failure: BaseException, writer: StreamWriter, relayed_start: Event | None) -> None:
        """End the stream with the error of the dialect; before its start, with an HTTP error."""
        if not self._responder.has_started:
            raise failure
        error = as_api_error(failure)
        self._logged.fail(status_of(self._dialect, error), failure)
        if relayed_start is not None:
            writer.write([relayed_start])  # the client has it already: what follows is the end of that response
        await self._responder.write(writer.fail(error), is_last=True)

    async def _start_stream(self) -> None:
        if not self._responder.has_started:
            self._logged.status = _OK
            headers = {"content-type": self._dialect.encoder.stream_type, **self._usual_headers()}
            await self._responder.start(_OK, headers, is_stream=True)

    # Documents

    async def _send_document(self, request: ParsedRequest, upstream: UpstreamCall) -> None:
        running = upstream.running
        events: list[Event] = []
        data: list[bytes] = []
        while batch := await running.next_batch():
            self._logged.note_first()
            part = upstream.take_bytes()
            await self._watch_money(batch, upstream)
            events += batch
            data += [] if part is None else [part]
        data.append(_rest_of(upstream))
        await running.close()
        if self._responder.has_left:
            return
        relayed = b"".join(data)
        if not relayed and (failure := _failure_in(events, running.response)) is not None:
            raise failure
        body = relayed or self._dialect.encoder.encode_response(self._translated(events), created=self._created)
        response = running.response()
        headers = {"content-type": "application/json", **self._usual_headers()}
        if response.cost is not None:
            headers["x-deluge-cost"] = f"{response.cost:.8f}"
        await self._send_whole(_OK, headers, body)

    async def _send_whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self._logged.status = status
        await self._responder.start(status, {**headers, "content-length": str(len(body))})
        await self._responder.write(body, is_last=True)

    async def _refuse(self, failure: BaseException) -> None:
        """Answer with an HTTP error; after the start of a stream, end it with an error."""
        error = as_api_error(failure)
        status = status_of(self._dialect, error)
        self._logged.fail(status, failure)
        if self._responder.has_started:  # a heartbeat came first
            await self._responder.write(
                open_writer(self._dialect, created=self._created, include_usage=False).fail(error), is_last=True
            )
            return
        headers = {"content-type": "application/json", **self._usual_headers()}
        if error.retry_after_s is not None:
            headers["retry-after"] = str(max(1, round(error.retry_after_s)))
        with contextlib.suppress(OSError):
            await self._send_whole(status, headers, self._error_body(error))

    def _error_body(self, error: APIError) -> bytes:
        """Return the body of an error; that of a provider of the same API is passed on as it is."""
        if error.body and self._upstream is not None and self._upstream.planner.is_relayed:
            with contextlib.suppress(msgspec.DecodeError):
                inner = msgspec.json.decode(error.body)
                return msgspec.json.encode(self._dialect.wrap_error(inner, error.request_id))
        return self._dialect.encoder.encode_error(error)

    def _usual_headers(self) -> dict[str, str]:
        headers = {"x-request-id": self._id}
        if self._grant is not None and self._grant.limits:
            headers |= self._dialect.rate_limit_headers(self._grant.limits)
        if self._upstream is None:
            return headers
        response = self._upstream.running.response()
        if response.model_internal:
            headers["x-deluge-model"] = response.model_internal
        if response.stats is not None:
            headers["x-deluge-attempts"] = str(response.stats.attempts)
        if self._upstream.planner.dropped:
            headers["x-deluge-warning"] = f"not passed on: {', '.join(self._upstream.planner.dropped)}"
        return headers


def _failure_in(events: list[Event], response: Any) -> DelugeError | None:
    """Return the error of an answer that ended with one."""
    last = events[-1] if events else None
    if type(last) is not ResponseFinished or last.finish_reason != "error":
        return None
    error = response().error
    return error if isinstance(error, DelugeError) else BadRequestError("the answer ended with an error")


def _rest_of(upstream: UpstreamCall) -> bytes:
    return upstream.take_bytes() or b""
