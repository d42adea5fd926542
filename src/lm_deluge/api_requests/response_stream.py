"""One request and its response: the only place where a decoder and a connection meet."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Awaitable, Mapping
from typing import NoReturn
from urllib.parse import urljoin, urlsplit

import msgspec

from lm_deluge.adapters.adapter import Adapter, Call, ResumableDecoder
from lm_deluge.adapters.errors import add_headers
from lm_deluge.api_requests.authorize import authorize
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.api_requests.clocks import StreamClocks
from lm_deluge.api_requests.credentials import authorization, hide, secrets_of, without_secrets
from lm_deluge.api_requests.timeouts import Deadline, ReadTimeout, TimeoutMonitor, clock_of
from lm_deluge.api_requests.timing import Timing
from lm_deluge.config import Secret
from lm_deluge.errors import (
    APIError,
    Clock,
    DelugeError,
    RedirectRefusedError,
    TimeoutError,
)
from lm_deluge.events import Event, ResponseFinished, ResponseStarted, UsageReported
from lm_deluge.filters.answer_filter import AnswerFilter
from lm_deluge.filters.compiled import CompiledFilters
from lm_deluge.response import ResponseBuilder
from lm_deluge.transport.base import ConnectionSlot, DescriptorsUsedUpError, Exchange, Transport
from lm_deluge.usage import Usage, estimate_tokens
from lm_deluge.wire.http import HttpRequest, origin_of
from lm_deluge.wire.rate_limit_headers import parse_rate_limits

__all__ = [
    "ResponseStream",
    "open_exchange",
    "open_response_stream",
    "resume_response_stream",
    "timeout_error",
]

USER_AGENT = "lm-deluge"
_MOST_REDIRECTS = 3  # enough for a load balancer and a changed path; more is a loop
_REDIRECT, _REFUSAL = 300, 400  # the first status of each class
_MOST_ERROR_BODY = 64 * 2**10  # providers' errors have less than 4 KiB; the HTML pages of proxies may be larger
_ERROR_BODY_S = 10.0  # the status is known already, so an incomplete body is better than a long wait
# Most providers send the end of the body with the last event. Waiting longer would delay the caller for a connection
# that costs less to make again.
_RELEASE_S = 0.1
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-generation-id", "x-amzn-requestid", "cf-ray")
_QUIET = frozenset((ResponseStarted, UsageReported, ResponseFinished))


class ResponseStream:
    """A response that is being received. `next_batch` until it returns nothing, then `close`; or `abort`."""

    def __init__(
        self,
        exchange: Exchange,
        adapter: Adapter,
        call: Call,
        clocks: StreamClocks,
        read_timeout: ReadTimeout,
        secrets: tuple[Secret, ...] = (),
        filters: CompiledFilters | None = None,
    ) -> None:
        self.head = exchange.head
        self.request_id: str | None = without_secrets(_request_id(exchange), secrets)  # some proxies echo the key
        self.builder = ResponseBuilder()
        self.timing = Timing()
        self._exchange = exchange
        self._decoder = adapter.decoder(call)
        self._decoder.expect(self.head.headers.get("content-type", ""))
        self._filter = None if filters is None else AnswerFilter(filters)
        self._call = call
        self.clocks = clocks
        self._secrets = secrets
        self._time = clock_of(asyncio.get_running_loop())
        self._read_timeout = read_timeout
        read_timeout.on_timeout = exchange.abort
        self._is_streamed = call.is_streamed
        self._is_over = False
        self._is_at_end = False
        self._surplus = 0
        self._input_estimate: int | None = None
        self._bytes_before = 0
        self._ignored_before = 0
        self.final_usage: Usage | None = None  # once the answer is finished
        self.kept: list[bytes] | None = None
        """The bytes of the body that were not taken yet, if they are kept."""

    @property
    def bytes_received(self) -> int:
        """Bytes of the body as received, over all connections if the response was resumed."""
        return self._bytes_before + self._exchange.bytes_received

    @property
    def resume_point(self) -> tuple[str, int] | None:
        """Id of the response and number of the last event read, for resuming it; None if it cannot be."""
        decoder = self._decoder
        if self._call.background and isinstance(decoder, ResumableDecoder) and not decoder.is_finished:
            return decoder.resume_point
        return None

    @property
    def input_estimate(self) -> int:
        """Tokens of the prompt, estimated from the length of its texts."""
        if self._input_estimate is None:
            self._input_estimate = estimate_tokens(self._call.conversation.text_length())
        return self._input_estimate

    def opened_after(self, started_at: float) -> float:
        """Note that status and headers arrived now, for a request sent at `started_at`; return how long that took."""
        waited = self._time() - started_at
        self.clocks.waited(waited, is_progress=False)
        return waited

    def go_on(self, exchange: Exchange) -> None:
        """Read the rest of the response from another exchange."""
        self._bytes_before = self.bytes_received
        self._exchange = exchange
        if isinstance(self._decoder, ResumableDecoder):
            self._decoder.reopen()
        self._decoder.expect(exchange.head.headers.get("content-type", ""))
        self._read_timeout = ReadTimeout(self._read_timeout.monitor, self.clocks, exchange.abort)
        self._is_over = self._is_at_end = False

    @property
    def ignored(self) -> int:
        """Number of frames, or of bytes after the end, that were ignored."""
        return self._decoder.ignored + self._surplus + self._ignored_before

    def follow(self, before: ResponseStream) -> None:
        """Add the measurements of an attempt that this one continues."""
        before.timing.extend(self.timing)
        self.timing = before.timing
        self._bytes_before += before.bytes_received
        self._ignored_before += before.ignored

    async def next_batch(self, *, to_end: bool = False) -> list[Event]:
        """Return the events of the next read that brings any; empty at the end.

        With `to_end=True`, read the whole stream and return []; all events are in `builder`.

        Raises:
            DelugeError: The response is broken, or an error; the events before it are in `builder`.
        """
        decoder, read_timeout = self._decoder, self._read_timeout
        started_at = self._time()
        while not self._is_over:
            if (self._filter is not None or not decoder.is_flowing) and self._is_finished():
                await self.close()
                break
            read_timeout.since = started_at
            if not read_timeout.is_watched:
                read_timeout.watch(started_at)
            try:
                data = await self._exchange.read()
            except DelugeError as error:
                data = self._end_of(error)
            except BaseException:
                self.abort()
                raise
            read_timeout.since = None
            if self.kept is not None:
                self.kept.append(data)
            events = decoder.feed(data) if data and self._is_streamed else self._decode_whole(data)
            started_at = self._note(started_at, events)
            if self._filter is not None:
                events = self._filtered(self._filter, events)
            if events:
                self.builder.add_all(events)
                if not to_end:
                    return events
        return []

    def _decode_whole(self, data: bytes) -> list[Event]:
        """Return the events of a read at the end of the body, or of a plain answer, mostly one read in all."""
        events = self._decoder.feed(data) if data else []
        if not data or self._exchange.is_at_end:
            self._is_at_end = True
            events += self._decoder.close()
        return events

    def _is_finished(self) -> bool:
        """Return whether nothing more has to be read; raise what ended the response."""
        decoder, answer_filter = self._decoder, self._filter
        if answer_filter is not None and answer_filter.is_over:
            if answer_filter.error is not None:
                self._fail(answer_filter.error, cause=answer_filter.error.__cause__)
            return True
        if decoder.error is not None:
            self._fail(decoder.error)
        return decoder.is_finished or self._is_at_end

    def _filtered(self, answer_filter: AnswerFilter, events: list[Event]) -> list[Event]:
        """Return what the filters let pass, and note what they hold back."""
        passed, builder = answer_filter.feed(events), self.builder
        builder.withheld = answer_filter.withheld
        builder.is_holding = answer_filter.is_holding
        builder.is_cut = answer_filter.is_over and not self._decoder.is_finished
        if builder.is_cut:  # the provider stops generating once its connection is closed
            self._read_timeout.stop()
            self._exchange.abort()
        return passed

    def _end_of(self, error: DelugeError) -> bytes:
        """Return b"" for a body whose connection died after the answer was complete; else raise."""
        self.abort()
        if not self._decoder.is_complete:
            timeout = self._timeout()
            failure = self._decoder.failure or timeout
            self._fail(failure or error, cause=error if failure else error.__cause__)
        return b""

    def _note(self, started_at: float, events: list[Event]) -> float:
        """Note the events of a read that started at `started_at`; return the present time."""
        now, clocks, timing = self._time(), self.clocks, self.timing
        timing.reads += 1
        # The usual case: deltas follow deltas, so that no clock's limit changes.
        if self._decoder.is_flowing and clocks.is_flowing and events and type(events[-1]) not in _QUIET:
            timing.note(now)
            return now
        is_progress = not _QUIET.issuperset(map(type, events))
        if is_progress and self._is_streamed:  # a plain answer arrives at its end, which is no first token
            timing.note(now)
        # After a failure only its reason may follow, so the wait is as short as after the end.
        is_complete = self._decoder.is_complete or self._decoder.failure is not None
        is_another = clocks.waited(now - started_at, is_progress=is_progress, is_complete=is_complete)
        if is_another and not self._decoder.is_finished:  # else no read follows
            self._read_timeout.watch(now)
        return now

    def _timeout(self) -> TimeoutError | None:
        clock = self._read_timeout.expired
        return None if clock is None else timeout_error(clock, self.clocks.setting(clock))

    def _fail(self, error: DelugeError, cause: BaseException | None = None) -> NoReturn:
        self.abort()
        has_deltas = self.builder.has_deltas
        if isinstance(error, APIError) and not has_deltas:
            # A gateway that has sent status 200 already has no other place for the wait.
            add_headers(error, self.head.headers)
            error.rate_limits = parse_rate_limits(self.head.headers)
        error.where = "mid_stream" if has_deltas else "before_first_event"
        error.billed = "yes" if has_deltas else "maybe"
        error.provider, error.model = self._call.provider.id, self._call.model.id
        error.request_id = self.request_id
        error.__cause__ = cause
        hide(error, self._secrets)
        raise error

    async def close(self) -> None:
        """End it: keep the connection for the next request if the response was read to its end, else close it."""
        if self._is_over:
            return
        self._is_over = True
        self._read_timeout.stop()
        if self._decoder.is_finished:
            self._surplus = await self._exchange.release(_RELEASE_S)
        else:
            self._exchange.abort()

    def abort(self) -> None:
        """Close the connection now."""
        self._is_over = True
        self._read_timeout.stop()
        self._exchange.abort()


def _request_id(exchange: Exchange) -> str | None:
    headers = exchange.head.headers
    for name in _REQUEST_ID_HEADERS:
        if name in headers:
            return headers[name]
    return None


def timeout_error(clock: Clock, limit_s: float) -> TimeoutError:
    """Return the error for a clock that ran out."""
    what = {
        "first_token": "nothing of the answer arrived",
        "idle": "not a byte arrived",
        "progress": "nothing of the answer arrived, only keep-alives,",
        "total": "the call was not over",
    }.get(clock, "nothing happened")
    return TimeoutError(
        f"{what} within {limit_s:g} s", phase=clock, limit_s=limit_s, hint=f"Timeouts({clock}=...) sets this clock."
    )


async def open_response_stream(
    plan: CallPlan, *, deadline: float | None = None, timeout_monitor: TimeoutMonitor | None = None
) -> ResponseStream:
    """Send the plan's request; return once status and headers of a response arrived.

    Args:
        plan: The request.
        deadline: When the whole call must be over, in the running loop's time.
        timeout_monitor: Checks the timeouts of all streams of the loop; None: one for this stream alone.

    Raises:
        ConfigurationError: There are no credentials.
        APIError: The provider refused the request.
        TransportError: No response arrived.
        ProtocolError: The response is not HTTP.
    """
    clocks = StreamClocks(plan.timeouts, deadline)
    read_timeout = ReadTimeout(timeout_monitor or TimeoutMonitor(asyncio.get_running_loop()), clocks, _nothing)
    exchange, secrets, sent_at = await open_exchange(plan, clocks, read_timeout)
    attempt = ResponseStream(exchange, plan.adapter, plan.call, clocks, read_timeout, secrets, plan.filters)
    attempt.kept = [] if plan.keeps_bytes else None
    attempt.timing.headers_s = attempt.opened_after(sent_at)
    return attempt


async def resume_response_stream(attempt: ResponseStream, plan: CallPlan) -> None:
    """Continue a stream with the response to the plan's request, which asks for the rest.

    Raises:
        DelugeError: As `open_response_stream` does; the stream is unchanged.
    """
    attempt.clocks.restart()
    exchange, _, sent_at = await open_exchange(plan, attempt.clocks)
    attempt.go_on(exchange)
    attempt.opened_after(sent_at)


async def open_exchange(
    plan: CallPlan, clocks: StreamClocks, read_timeout: ReadTimeout | None = None
) -> tuple[Exchange, tuple[Secret, ...], float]:
    """Send the plan's request; return once status and headers of a response arrived.

    While it waits for a connection slot, only the deadline of the call runs. `read_timeout` limits the reads that
    follow, too. Returns the exchange, the secrets that no message may contain, and when the request was sent.

    Raises:
        DelugeError: The provider refused, or no response arrived; as `open_response_stream`.
    """
    call, transport = plan.call, plan.transport
    secrets = secrets_of(plan.key, call.extra_headers, plan.proxy)
    guard = read_timeout or ReadTimeout(TimeoutMonitor(asyncio.get_running_loop()), clocks, _nothing)
    slot: ConnectionSlot | None = None
    sent_at: float | None = None
    try:
        deadline = clocks.deadline
        slot = await (transport.connection_slot() if deadline is None else _find_slot(transport, deadline))
        while True:
            sent_at = asyncio.get_running_loop().time()
            guard.begin(sent_at)
            try:
                with Deadline() as scope:
                    guard.on_timeout = scope.pass_now
                    # Headers are kept only in objects that hide them: tracebacks with locals would show the key.
                    if plan.key is not None:
                        ready = _ready(plan, authorization(call.provider, plan.key))
                    else:
                        ready, secrets = await _authorized(plan, secrets)
                    exchange = await _sent(plan, ready)
                    if exchange.head.status >= _REDIRECT:
                        exchange = await _followed(exchange, plan, ready)
            except DescriptorsUsedUpError:
                guard.since = None
                with Deadline(deadline):
                    await slot.wait_again()
            else:
                exchange.keep(slot)
                slot = None
                guard.since = None
                guard.expired = None  # the response arrived in the same moment
                return exchange, secrets, sent_at
    except DelugeError as error:
        error.provider, error.model = call.provider.id, call.model.id
        hide(error, secrets)
        raise
    except builtins.TimeoutError as error:
        clock = guard.expired or "total"
        late = timeout_error(clock, clocks.setting(clock))
        error.__cause__ = error.__context__ = None  # frames of the cancellation contain the headers
        late.provider, late.model = call.provider.id, call.model.id
        late.where, late.billed = ("connect", "no") if sent_at is None else ("headers", "maybe")
        raise late from error
    finally:
        if slot is not None:
            slot.give_back()
        if slot is not None or read_timeout is None:
            guard.stop()


def _nothing() -> None:
    """No-op timeout callback, used before a request is in flight."""


async def _find_slot(transport: Transport, deadline: float) -> ConnectionSlot:
    with Deadline(deadline):
        return await transport.connection_slot()


def _ready(plan: CallPlan, given: Mapping[str, str]) -> HttpRequest:
    """Return the plan's request as it is sent, with the headers that authenticate it."""
    request = plan.request
    return msgspec.structs.replace(request, headers={"user-agent": USER_AGENT, **given, **request.headers})


async def _authorized(plan: CallPlan, secrets: tuple[Secret, ...]) -> tuple[HttpRequest, tuple[Secret, ...]]:
    """Return the request as it is sent without an API key, and the secrets in it."""
    given = await authorize(plan.request, plan.call)
    return _ready(plan, given), (*secrets, *secrets_of(None, given, None))


def _sent(plan: CallPlan, request: HttpRequest) -> Awaitable[Exchange]:
    return plan.transport.open(request, connect_timeout_s=plan.timeouts.connect, proxy=plan.proxy)


async def _followed(exchange: Exchange, plan: CallPlan, request: HttpRequest) -> Exchange:
    """Follow redirects to the same origin with the same method, and no others.

    Raises:
        DelugeError: The provider refused, or a redirect is not followed.
    """
    for left in reversed(range(_MOST_REDIRECTS + 1)):
        status, location = exchange.head.status, exchange.head.headers.get("location")
        if status >= _REFUSAL or (status >= _REDIRECT and location is None):
            raise await _error_of(exchange, plan.adapter)
        if status < _REDIRECT or location is None:
            return exchange
        exchange.abort()
        request = msgspec.structs.replace(request, url=_target_of(request.url, location, status))
        if left:
            exchange = await _sent(plan, request)
    raise RedirectRefusedError(f"the provider redirects more than {_MOST_REDIRECTS} times")


def _target_of(url: str, location: str, status: int) -> str:
    """Return the URL that a redirect leads to."""
    try:
        target = urljoin(url, location)
        parts = urlsplit(target)
    except ValueError as error:
        raise RedirectRefusedError("the provider redirects to an invalid URL") from error
    if origin_of(target) != origin_of(url):
        raise RedirectRefusedError(
            f"the provider redirects to another origin, on the host {parts.hostname or 'nowhere'}",
            hint="If that is right, make it the base URL.",
        )
    if parts.username is not None or parts.password is not None:
        raise RedirectRefusedError("the provider redirects to a URL with a user name or a password")
    if status not in (307, 308):
        raise RedirectRefusedError(
            f"the provider redirects with status {status}, which would drop the request's body",
            hint="Check the base URL: http for https, or a missing /v1?",
        )
    return target


async def _error_of(exchange: Exchange, adapter: Adapter) -> APIError:
    """Read the body of an error response, as far as it arrives, and return the error."""
    body = bytearray()
    try:
        async with asyncio.timeout(_ERROR_BODY_S):
            while len(body) < _MOST_ERROR_BODY and (data := await exchange.read()):
                body += data
            await exchange.release(_RELEASE_S)
    except (DelugeError, builtins.TimeoutError):
        pass  # the error is made from the bytes so far
    finally:
        exchange.abort()  # what was released has no connection any more
    error = adapter.classify_error(exchange.head.status, exchange.head.headers, bytes(body[:_MOST_ERROR_BODY]))
    error.request_id = _request_id(exchange)
    error.rate_limits = parse_rate_limits(exchange.head.headers)
    error.where = "headers"
    return error
