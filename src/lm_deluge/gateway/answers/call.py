"""One request of a client: from its body to the last frame, and to the booking of what it cost."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import msgspec

from lm_deluge.dispatch.hooks import is_interruption
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import APIError, BadRequestError, DelugeError
from lm_deluge.events import Event, ResponseFinished
from lm_deluge.gateway.access import Grant
from lm_deluge.gateway.access_log import LoggedCall
from lm_deluge.gateway.answers.charge import CallCharge
from lm_deluge.gateway.answers.frames import AnswerFrames, translated
from lm_deluge.gateway.answers.incoming import IncomingCall, parse_incoming, token_of
from lm_deluge.gateway.answers.log_reader import send_first, send_log
from lm_deluge.gateway.answers.responder import Responder
from lm_deluge.gateway.answers.upstream import UpstreamCall, open_upstream
from lm_deluge.gateway.dialects import Dialect, open_writer, status_of
from lm_deluge.gateway.http_body import ClientLeftError, read_body
from lm_deluge.gateway.services import GatewayServices, IncomingRequest
from lm_deluge.response import APIResponse
from lm_deluge.ui.failures import as_api_error
from lm_deluge.ui.stream_log import LoggedResponse

__all__ = ["GatewayCall"]

_RESUMABLE_HEADER = "x-deluge-resumable"
_OK, _BAD_GATEWAY = 200, 502  # statuses of an answer, and of one that the provider broke off
_CLIENT_LEFT = 499  # nginx's status for a client that closed the connection before the answer


class GatewayCall:
    """One request of a client.

    Args:
        services: What the endpoints share.
        dialect: The API of the client.
        responder: Sends the response.
        request: The request, without its body.
    """

    def __init__(
        self, services: GatewayServices, dialect: Dialect, responder: Responder, request: IncomingRequest
    ) -> None:
        self._services = services
        self._dialect = dialect
        self._client = responder
        self._responder: Responder | LoggedResponse = responder
        self._request = request
        self._is_running = False
        self._is_stopped = False
        self._is_drained = False  # the stream was stopped, and its answer is read to the end, as all of it is billed
        self._frames: AnswerFrames | None = None  # of a stream
        self._id = f"req_{uuid.uuid4().hex}"
        self._logged = LoggedCall(request_id=self._id, dialect=dialect.name, started_at=time.time())
        self._created = int(self._logged.started_at)
        self._grant: Grant | None = None
        self._charge: CallCharge | None = None
        self._upstream: UpstreamCall | None = None

    async def run(self) -> None:
        """Read the request, and answer it; no error of a call gets out of here."""
        try:
            incoming = await self._admit()
        except ClientLeftError:
            self._logged.status = _CLIENT_LEFT
            await self._end(None)
        except BaseException as error:
            if is_interruption(error):
                raise
            await self._refuse(error)
            await self._end(None)
        else:
            if isinstance(incoming, bytes):
                await self._send_whole(_OK, {"content-type": "application/json", **self._usual_headers()}, incoming)
                await self._end(None)
            elif self._request.headers.get(_RESUMABLE_HEADER) == "1" or incoming.is_background:
                await self._detach(incoming)
            else:
                await self._finish(incoming)

    async def _admit(self) -> IncomingCall | bytes:
        """Read the request, and get the permission to answer it; return the answer of one that asks no model."""
        services, request = self._services, self._request
        token = token_of(request.headers)
        self._logged.key_name = await services.access.check(token)
        body = await read_body(
            request.receive,
            request.headers,
            most_bytes=services.settings.max_body_bytes,
            timeout_s=services.settings.body_timeout_s,
        )
        load = self._dialect.encoder.read_load(body, created=self._created)
        if load is not None:
            self._logged.model = load.model
            services.catalog.find(load.model)
            await services.access.check(token, load.model)
            return load.answer
        incoming = parse_incoming(
            self._dialect, body, services.catalog, model=request.model, is_streamed=request.is_streamed
        )
        self._logged.model = incoming.request.model
        usage = incoming.most_usage()
        self._grant = await services.access.grant(
            token,
            incoming.request.model,
            tokens=usage.total_tokens,
            cost=incoming.cost(usage),
            least=incoming.cost(msgspec.structs.replace(usage, output_tokens=0)) or 0.0,
        )
        self._charge = CallCharge(self._grant)
        return incoming

    async def _finish(self, incoming: IncomingCall) -> None:
        """Send the answer, and book it."""
        response: APIResponse | None = None
        try:
            response = await self._answer(incoming)
        except BaseException as error:
            if is_interruption(error):
                raise
            await self._refuse(error)
        finally:
            await self._end(response)

    async def _end(self, response: APIResponse | None) -> None:
        if response is None and self._upstream is not None:
            response = self._upstream.running.response()  # what failed attempts cost
        await self._settle(response)
        self._logged.note(response)
        self._services.log.write(self._logged)

    # Streams that go on without their client

    async def _detach(self, incoming: IncomingCall) -> None:
        """Answer into a log, which the client reads; the answer goes on when the client leaves."""
        client, log = self._client, self._services.streams.open(self._logged.key_name)
        peers = self._services.peers
        self._responder = LoggedResponse(log, None if peers is None else partial(peers.announce, owner=log.owner))
        log.stop = self.stop
        self._services.streams.run(log, self._finish(incoming.streamed()))
        if peers is not None:
            await peers.announce(log.id, owner=log.owner)
        if not incoming.request.is_streamed:
            await send_first(log, client)
            return
        await send_log(
            log, client, start=0, heartbeat=self._dialect.heartbeat, heartbeat_s=self._services.settings.heartbeat_s
        )

    async def stop(self) -> dict[str, Any]:
        """Stop the answer; return the receipt: what was generated, and what it cost."""
        running = None if self._upstream is None else self._upstream.running
        if running is None:
            return {"status": "not started"}
        was_over = not self._is_running
        if not was_over and not self._is_stopped:
            self._is_stopped = True
            self._is_drained = self._upstream is not None and self._upstream.abandon()
            if self._is_drained:
                await self._end_stopped()
            else:
                await running.settle()
        response = running.response()
        closed = "goes on, as its provider bills all of the answer" if self._is_drained else "connection closed"
        return {
            "status": "ended before" if was_over else "stopped",
            "text": response.completion,
            "usage": None if response.usage is None else msgspec.to_builtins(response.usage),
            "cost": response.cost,
            "upstream": "had ended" if was_over else closed,
        }

    async def _end_stopped(self) -> None:
        """Send the end of a stopped stream now: its answer is read on, so that what is billed is booked."""
        failure = _stopped()
        if self._frames is None or not self._responder.has_started:
            await self._refuse(failure)
        else:
            self._logged.fail(_CLIENT_LEFT, failure)
            await self._responder.write(self._frames.fail(failure), is_last=True)

    async def _settle(self, response: APIResponse | None) -> None:
        """Book what the call cost, once."""
        if self._charge is not None:
            await self._charge.settle(response, status=self._logged.status)

    async def _watch_money(self, events: list[Event], upstream: UpstreamCall) -> None:
        """Reserve more while the answer grows, and book the cost before the client gets the end of the answer.

        A server that dies afterwards has the call in its ledger.
        """
        last = events[-1]
        if type(last) is ResponseFinished:
            ended = _BAD_GATEWAY if last.finish_reason == "error" else _OK
            self._logged.status = _CLIENT_LEFT if self._has_no_reader else ended
            await self._settle(upstream.running.response())
        elif self._charge is not None:
            await self._charge.watch(upstream.running, upstream.budget)

    async def _answer(self, incoming: IncomingCall) -> APIResponse:
        """Send the answer of the model; return the response, complete or not."""
        max_cost = None if self._grant is None else self._grant.max_cost
        self._upstream = upstream = open_upstream(
            incoming.client,
            self._dialect,
            incoming.request,
            self._request.headers,
            max_cost=max_cost,
            unreadable=incoming.unreadable,
            form=incoming.form,
        )
        send = self._stream if incoming.request.is_streamed else self._send_document
        watches: list[Coroutine[Any, Any, None]] = [self._stop_when_left()]
        if incoming.request.is_streamed and self._dialect.heartbeat:
            watches.append(self._send_heartbeats())
        tasks = [asyncio.get_running_loop().create_task(watch) for watch in watches]
        self._is_running = True
        try:
            await send(incoming.request, upstream)
        finally:
            for task in tasks:
                task.cancel()
            upstream.running.abort()
            self._is_running = False
        if self._has_no_reader:
            self._logged.status = _CLIENT_LEFT
        return upstream.running.response()

    @property
    def _has_no_reader(self) -> bool:
        """Whether nothing more is sent: the client has left, or has stopped the stream."""
        return self._is_stopped or self._responder.has_left

    async def _stop_when_left(self) -> None:
        await self._responder.wait_until_left()
        if self._upstream is not None:
            self._upstream.abandon()

    async def _send_heartbeats(self) -> None:
        while True:
            await self._responder.wait_until_silent(self._services.settings.heartbeat_s)
            await self._start_stream()
            await self._responder.write(self._dialect.heartbeat)

    # Streams

    async def _stream(self, request: ParsedRequest, upstream: UpstreamCall) -> None:
        """Send the answer as it arrives. The last frame is a successful one only if the provider's was."""
        frames = AnswerFrames(self._dialect, self._id, created=self._created, wants_usage=request.wants_usage)
        self._frames = frames
        failure: BaseException | None = None
        try:
            failure = await self._send_frames(frames, upstream)
        except DelugeError as error:
            failure = error
        if self._responder.has_left or self._is_drained:
            return
        if self._is_stopped:
            failure = _stopped()
        if failure is None:
            await self._responder.write(frames.end(upstream.take_bytes()), is_last=True)
        elif self._responder.has_started:
            shown = as_api_error(failure)
            self._logged.fail(status_of(self._dialect, shown), failure)
            await self._responder.write(frames.fail(shown), is_last=True)
        else:
            raise failure

    async def _send_frames(self, frames: AnswerFrames, upstream: UpstreamCall) -> DelugeError | None:
        """Send the frames as they arrive; return the error of an answer that ends with one."""
        running = upstream.running
        while events := await running.next_batch():
            if self._is_drained:
                upstream.take_bytes()
                await self._watch_money(events, upstream)
                continue
            data = upstream.take_bytes()
            failure = None if data is not None else _failure_in(events, running.response)
            shown = events if failure is None else events[:-1]
            await self._watch_money(events, upstream)
            if data is None:
                shown = upstream.planner.restored(shown)
            written = frames.add(shown, data) if shown else b""
            self._responder.name(frames.response_id)
            await self._start_stream()
            if written:
                await self._responder.write(written)
            self._logged.note_first()
            if failure is not None or (self._responder.has_left and not upstream.abandon()):
                return failure
        await running.close()
        return None

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
        data.append(upstream.take_bytes() or b"")
        await running.close()
        if self._responder.has_left:
            return
        relayed = b"".join(data)
        if not relayed and (failure := _failure_in(events, running.response)) is not None:
            raise failure
        body = relayed or self._encoded(upstream.planner.restored(events))
        response = running.response()
        headers = {"content-type": "application/json", **self._usual_headers()}
        if response.cost is not None:
            headers["x-deluge-cost"] = f"{response.cost:.8f}"
        await self._send_whole(_OK, headers, body)

    def _encoded(self, events: list[Event]) -> bytes:
        shown = translated(events, self._dialect, self._id)
        return self._dialect.encoder.encode_response(shown, created=self._created)

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


def _stopped() -> APIError:
    return APIError("the stream was stopped", status_code=_CLIENT_LEFT, code="stopped")


def _failure_in(events: list[Event], response: Callable[[], APIResponse]) -> DelugeError | None:
    """Return the error of an answer that ended with one."""
    last = events[-1] if events else None
    if type(last) is not ResponseFinished or last.finish_reason != "error":
        return None
    error = response().error
    return error if isinstance(error, DelugeError) else BadRequestError("the answer ended with an error")
