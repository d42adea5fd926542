"""One request, one answer or one error: the only place where decoder and socket meet."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Awaitable, Mapping
from functools import cached_property
from typing import NoReturn
from urllib.parse import urljoin, urlsplit

import msgspec

from lm_deluge.adapters.adapter import Adapter, Call, ResumableDecoder
from lm_deluge.api_requests.authorize import authorize
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.api_requests.clocks import StreamClocks
from lm_deluge.api_requests.credentials import authorization, hide, secrets_of
from lm_deluge.api_requests.deadline import Deadline
from lm_deluge.api_requests.read_timeout import ReadTimeout, TimeoutMonitor
from lm_deluge.config import Secret
from lm_deluge.errors import (
    APIError,
    Clock,
    DelugeError,
    RedirectRefusedError,
    TimeoutError,
)
from lm_deluge.events import Event, ResponseFinished, ResponseStarted, UsageReported
from lm_deluge.response import ResponseBuilder
from lm_deluge.transport.base import ConnectionSlot, DescriptorsUsedUpError, Exchange, Transport
from lm_deluge.usage import estimate_tokens
from lm_deluge.wire.http import HttpRequest, origin_of
from lm_deluge.wire.rate_limit_headers import parse_rate_limits

__all__ = [
    "ResponseStream",
    "Timing",
    "open_exchange",
    "open_response_stream",
    "resume_response_stream",
    "timeout_error",
]

USER_AGENT = "lm-deluge"
_MOST_REDIRECTS = 3
_REDIRECT, _REFUSAL = 300, 400  # statuses from which on an answer is one
_MOST_ERROR_BODY = 64 * 2**10
_ERROR_BODY_S = 10.0
_RELEASE_S = 0.1
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-generation-id", "x-amzn-requestid", "cf-ray")
_QUIET = (ResponseStarted, UsageReported, ResponseFinished)


class Timing(msgspec.Struct, gc=False):
    """What `StreamStats` is made of; one note per read, none per token."""

    headers_s: float | None = None
    first_token_at: float | None = None
    last_at: float | None = None
    reads: int = 0
    gaps: int = 0
    gap_sum: float = 0.0
    gap_max: float = 0.0

    def note(self, now: float) -> None:
        """A read brought deltas."""
        if self.last_at is None:
            self.first_token_at = now
        else:
            gap = now - self.last_at
            self.gaps += 1
            self.gap_sum += gap
            self.gap_max = max(self.gap_max, gap)
        self.last_at = now

    def extend(self, later: Timing) -> None:
        """Take another attempt's for the same stream, behind this one."""
        if later.first_token_at is not None:
            self.note(later.first_token_at)
        self.gaps += later.gaps
        self.gap_sum += later.gap_sum
        self.gap_max = max(self.gap_max, later.gap_max)
        self.last_at = later.last_at or self.last_at
        self.reads += later.reads


class ResponseStream:
    """An answer that is coming. `next_batch` until it returns nothing, then `close`; or `abort`."""

    def __init__(
        self,
        exchange: Exchange,
        adapter: Adapter,
        call: Call,
        clocks: StreamClocks,
        read_timeout: ReadTimeout,
        secrets: tuple[Secret, ...] = (),
    ) -> None:
        self.head = exchange.head
        self.request_id = _request_id(exchange)
        self.builder = ResponseBuilder()
        self.timing = Timing()
        self._exchange = exchange
        self._decoder = adapter.decoder(call)
        self._decoder.expect(self.head.headers.get("content-type", ""))
        self._call = call
        self.clocks = clocks
        self._secrets = secrets
        self._loop = asyncio.get_running_loop()
        self._read_timeout = read_timeout
        read_timeout.on_timeout = exchange.abort
        self._is_over = False
        self._is_at_end = False
        self._surplus = 0
        self._bytes_before = 0
        self._ignored_before = 0

    @property
    def bytes_received(self) -> int:
        """Bytes of the body, as they came; of all its connections, where it was taken up again."""
        return self._bytes_before + self._exchange.bytes_received

    @property
    def resume_point(self) -> tuple[str, int] | None:
        """Where the answer can be taken up again: its id, and the number of the last event that was read."""
        decoder = self._decoder
        if self._call.background and isinstance(decoder, ResumableDecoder) and not decoder.is_finished:
            return decoder.resume_point
        return None

    @cached_property
    def input_estimate(self) -> int:
        """Tokens of the prompt, from the length of its texts."""
        return estimate_tokens(self._call.conversation.text_length())

    def opened_after(self, begun: float) -> float:
        """Note that status and headers came just now, to a request sent at `begun`; return how long that took."""
        waited = self._loop.time() - begun
        self.clocks.waited(waited, is_progress=False)
        return waited

    def go_on(self, exchange: Exchange) -> None:
        """Take the rest of the answer from another exchange."""
        self._bytes_before = self.bytes_received
        self._exchange = exchange
        if isinstance(self._decoder, ResumableDecoder):
            self._decoder.reopen()
        self._decoder.expect(exchange.head.headers.get("content-type", ""))
        self._read_timeout = ReadTimeout(self._read_timeout.timeout_monitor, self.clocks, exchange.abort)
        self._is_over = self._is_at_end = False

    @property
    def ignored(self) -> int:
        """Frames, or bytes after the end, that were passed over."""
        return self._decoder.ignored + self._surplus + self._ignored_before

    def follow(self, before: ResponseStream) -> None:
        """Count another attempt, which this one continues, as the same stream."""
        before.timing.extend(self.timing)
        self.timing = before.timing
        self._bytes_before += before.bytes_received
        self._ignored_before += before.ignored

    async def next_batch(self, *, to_end: bool = False) -> list[Event]:
        """Return the events of the next read that brings any; empty at the end.

        For whom only the answer counts it reads on `to_end`: `builder` has all events, and none are returned.

        Raises:
            DelugeError: The answer is broken, or an error; every event before it is in `builder`.
        """
        decoder, read_timeout = self._decoder, self._read_timeout
        begun = self._loop.time()
        while not self._is_over:
            if decoder.error is not None:
                self._fail(decoder.error)
            if decoder.is_finished or self._is_at_end:
                await self.close()
                break
            read_timeout.begin(begun)
            try:
                data = await self._exchange.read()
            except DelugeError as error:
                data = self._end_of(error)
            except BaseException:
                self.abort()
                raise
            read_timeout.since = None
            self._is_at_end = not data
            events = decoder.feed(data) if data else decoder.close()
            begun = self._note(begun, events)
            if events:
                self.builder.add_all(events)
                if not to_end:
                    return events
        return []

    def _end_of(self, error: DelugeError) -> bytes:
        """Return the end of a body that died: empty as any other, once the answer is complete; else raise."""
        self.abort()
        if not self._decoder.is_complete:
            timeout = self._timeout()
            self._fail(timeout or error, cause=error if timeout else error.__cause__)
        return b""

    def _note(self, begun: float, events: list[Event]) -> float:
        """Note what a read brought that began to wait at `begun`; return what time it is."""
        now, clocks = self._loop.time(), self.clocks
        # The last one nearly always is; looking at each would cost more than decoding them.
        is_progress = bool(events) and (
            type(events[-1]) not in _QUIET or any(type(event) not in _QUIET for event in events)
        )
        self.timing.reads += 1
        if is_progress:
            self.timing.note(now)
        is_complete = self._decoder.is_complete
        # Where deltas follow deltas nothing changes for any clock.
        if is_complete or not (is_progress and clocks.is_flowing):
            if clocks.waited(now - begun, is_progress=is_progress, is_complete=is_complete):
                self._read_timeout.watch(now)
        return now

    def _timeout(self) -> TimeoutError | None:
        clock = self._read_timeout.expired
        return None if clock is None else timeout_error(clock, self.clocks.setting(clock))

    def _fail(self, error: DelugeError, cause: BaseException | None = None) -> NoReturn:
        self.abort()
        has_deltas = self.builder.has_deltas
        error.where = "mid_stream" if has_deltas else "before_first_event"
        error.billed = "yes" if has_deltas else "maybe"
        error.provider, error.model = self._call.provider.id, self._call.model.id
        error.request_id = self.request_id
        error.__cause__ = cause
        hide(error, self._secrets)
        raise error

    async def close(self) -> None:
        """End the attempt: keep the connection for the next one if the answer was read to its end, else abort."""
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
    return next((headers[name] for name in _REQUEST_ID_HEADERS if name in headers), None)


def timeout_error(clock: Clock, limit_s: float) -> TimeoutError:
    """Return the error of a clock that ran out."""
    what = {
        "first_token": "nothing of the answer came",
        "idle": "not a byte came",
        "progress": "nothing of the answer came, only keep-alives,",
        "total": "the call was not over",
    }.get(clock, "nothing happened")
    return TimeoutError(
        f"{what} within {limit_s:g} s", phase=clock, limit_s=limit_s, hint=f"Timeouts({clock}=...) sets this clock."
    )


async def open_response_stream(
    plan: CallPlan, *, deadline: float | None = None, timeout_monitor: TimeoutMonitor | None = None
) -> ResponseStream:
    """Send the plan's request; return once the provider has said that an answer is coming.

    `deadline` is when the whole call must be over, in the running loop's time; `timeout_monitor` watches all
    streams of that loop.

    Raises:
        ConfigurationError: There is nothing by which the provider would know its customer.
        APIError: The provider refuses.
        TransportError: No answer came.
        ProtocolError: What came is no HTTP.
    """
    clocks = StreamClocks(plan.timeouts, deadline)
    read_timeout = ReadTimeout(timeout_monitor or TimeoutMonitor(asyncio.get_running_loop()), clocks, _nothing)
    exchange, secrets, sent_at = await open_exchange(plan, clocks, read_timeout)
    attempt = ResponseStream(exchange, plan.adapter, plan.call, clocks, read_timeout, secrets)
    attempt.timing.headers_s = attempt.opened_after(sent_at)
    return attempt


async def resume_response_stream(attempt: ResponseStream, plan: CallPlan) -> None:
    """Have the attempt go on with the answer to the plan's request, which asks for its rest.

    Raises:
        DelugeError: As `open_response_stream` does; the attempt is as it was.
    """
    attempt.clocks.restart()
    exchange, _, sent_at = await open_exchange(plan, attempt.clocks)
    attempt.go_on(exchange)
    attempt.opened_after(sent_at)


async def open_exchange(
    plan: CallPlan, clocks: StreamClocks, read_timeout: ReadTimeout | None = None
) -> tuple[Exchange, tuple[Secret, ...], float]:
    """Send the plan's request; return once the provider has said that an answer is coming.

    Behind the exchange stands what must show up in no message, and when the request left: while it waits for its
    place among the connections of the process, only the clock of the whole call runs. `read_timeout` also
    limits the reads that follow.

    Raises:
        DelugeError: The provider refuses, or no answer came. As `open_response_stream`.
    """
    call, transport = plan.call, plan.transport
    secrets = secrets_of(plan.key, call.extra_headers, plan.proxy)
    guard = read_timeout or ReadTimeout(TimeoutMonitor(asyncio.get_running_loop()), clocks, _nothing)
    place: ConnectionSlot | None = None
    sent_at: float | None = None
    try:
        deadline = clocks.deadline
        place = await (transport.place() if deadline is None else _find_place(transport, deadline))
        while True:
            sent_at = asyncio.get_running_loop().time()
            guard.begin(sent_at)
            try:
                with Deadline() as scope:
                    guard.on_timeout = scope.pass_now
                    # Only what hides its headers holds them: tracebacks with locals would show the key.
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
                    await place.again()
            else:
                exchange.keep(place)
                place = None
                guard.since = None
                guard.expired = None  # in the moment in which the answer came after all
                return exchange, secrets, sent_at
    except DelugeError as error:
        error.provider, error.model = call.provider.id, call.model.id
        hide(error, secrets)
        raise
    except builtins.TimeoutError as error:
        clock = guard.expired or "total"
        late = timeout_error(clock, clocks.setting(clock))
        error.__cause__ = error.__context__ = None  # the cancellation in it has frames that hold the headers
        late.provider, late.model = call.provider.id, call.model.id
        late.where, late.billed = ("connect", "no") if sent_at is None else ("headers", "maybe")
        raise late from error
    finally:
        if place is not None:
            place.give_back()
        if place is not None or read_timeout is None:
            guard.stop()


def _nothing() -> None:
    """Be bitten where nothing waits."""


async def _find_place(transport: Transport, deadline: float) -> ConnectionSlot:
    with Deadline(deadline):
        return await transport.place()


def _ready(plan: CallPlan, given: Mapping[str, str]) -> HttpRequest:
    """Return the plan's request as it is sent, with the headers by which the provider knows its customer."""
    request = plan.request
    return msgspec.structs.replace(request, headers={"user-agent": USER_AGENT, **given, **request.headers})


async def _authorized(plan: CallPlan, secrets: tuple[Secret, ...]) -> tuple[HttpRequest, tuple[Secret, ...]]:
    """Return the same for one without a key, and what of it must show up in no message."""
    given = await authorize(plan.request, plan.call)
    return _ready(plan, given), (*secrets, *secrets_of(None, given, None))


def _sent(plan: CallPlan, request: HttpRequest) -> Awaitable[Exchange]:
    return plan.transport.open(request, connect_timeout_s=plan.timeouts.connect, proxy=plan.proxy)


async def _followed(exchange: Exchange, plan: CallPlan, request: HttpRequest) -> Exchange:
    """Follow what leads to the same origin with the same method, and nothing else.

    Raises:
        DelugeError: What the provider says of its refusal, or why a redirect is not followed.
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
    """Return where a redirect leads."""
    try:
        target = urljoin(url, location)
        host = urlsplit(target).hostname or "nowhere"
    except ValueError as error:
        raise RedirectRefusedError("the provider redirects to what is no URL") from error
    if origin_of(target) != origin_of(url):
        raise RedirectRefusedError(
            f"the provider redirects to another origin, on the host {host}",
            hint="If that is right, make it the base URL.",
        )
    if status not in (307, 308):
        raise RedirectRefusedError(
            f"the provider redirects with status {status}, which would drop the request's body",
            hint="Check the base URL: http for https, or a missing /v1?",
        )
    return target


async def _error_of(exchange: Exchange, adapter: Adapter) -> APIError:
    """Read what the provider says of its refusal, as far as it comes."""
    body = bytearray()
    try:
        async with asyncio.timeout(_ERROR_BODY_S):
            while len(body) < _MOST_ERROR_BODY and (data := await exchange.read()):
                body += data
            await exchange.release(_RELEASE_S)
    except (DelugeError, builtins.TimeoutError):
        pass  # what came until then is what the error is made of
    finally:
        exchange.abort()  # what was released has no connection any more
    error = adapter.classify_error(exchange.head.status, exchange.head.headers, bytes(body[:_MOST_ERROR_BODY]))
    error.request_id = _request_id(exchange)
    error.rate_limits = parse_rate_limits(exchange.head.headers)
    error.where = "headers"
    return error
