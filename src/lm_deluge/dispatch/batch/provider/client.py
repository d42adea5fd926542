"""The way to a provider's batch API: what the API builds is sent through the same door as every call."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec

from lm_deluge.adapters.batch_api import Exchanges, HttpAnswer
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.api_requests.clocks import StreamClocks
from lm_deluge.api_requests.credentials import hide
from lm_deluge.api_requests.response_stream import open_exchange, timeout_error
from lm_deluge.errors import DelugeError, RedirectRefusedError, ResponseLimitError
from lm_deluge.transport.base import Exchange
from lm_deluge.wire.http import HttpRequest, origin_of
from lm_deluge.wire.ndjson import NDJSONDecoder

__all__ = ["BatchClient"]

_MOST_DOCUMENT = 16 * 2**20
_ANSWER_S = 60.0
_SLOWEST_UPLOAD = 32 * 2**10  # bytes a second; what goes slower has stalled
_RELEASE_S = 0.1

T = TypeVar("T")


class BatchClient:
    """Sends requests on behalf of a plan, whose key, address, proxy and timeouts are those of its batch."""

    def __init__(self, plan: CallPlan) -> None:
        self._plan = plan

    async def run(self, exchanges: Exchanges[T]) -> T:
        """Play a generator of requests to its end; return what it found.

        Raises:
            DelugeError: A request failed, or what came back is not of this API.
        """
        try:
            request = next(exchanges)
            while True:
                request = exchanges.send(await self.ask(request))
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            exchanges.close()

    async def ask(self, request: HttpRequest) -> HttpAnswer:
        """Send a request; return its whole answer, a small document.

        Raises:
            DelugeError: The provider refuses, no answer came, or one that is too large.
        """
        body = bytearray()
        async with self._opened(request) as exchange:
            while data := await self._read(exchange):
                body += data
                if len(body) > _MOST_DOCUMENT:
                    raise ResponseLimitError(f"the answer is larger than {_MOST_DOCUMENT} bytes", reason="limit")
            await exchange.release(_RELEASE_S)
            return HttpAnswer(exchange.head.headers, bytes(body))

    async def lines(self, request: HttpRequest) -> AsyncGenerator[list[bytes], None]:
        """Send a request; yield the lines of its answer as they come, each list those of one read.

        Raises:
            DelugeError: As `ask` does; every line before it was yielded.
        """
        decoder = NDJSONDecoder(self._plan.call.max_event_bytes)
        async with self._opened(request) as exchange:
            while data := await self._read(exchange):
                if frames := decoder.feed(data):
                    yield [frame.data for frame in frames]
                if decoder.error is not None:
                    raise decoder.error
            await exchange.release(_RELEASE_S)
        last = decoder.close()
        if last is not None:
            yield [last.data]

    @asynccontextmanager
    async def _opened(self, request: HttpRequest) -> AsyncIterator[Exchange]:
        plan = self._plan
        if origin_of(request.url) != origin_of(plan.call.base_url):
            raise RedirectRefusedError("the provider sends a part of the batch to another origin")
        answer_s = _ANSWER_S + request.size / _SLOWEST_UPLOAD
        timeouts = msgspec.structs.replace(plan.timeouts, first_token=answer_s, total=None)
        asks = msgspec.structs.replace(plan, request=request, timeouts=timeouts)
        exchange, secrets, _ = await open_exchange(asks, StreamClocks(timeouts, None))
        try:
            yield exchange
        except DelugeError as error:
            error.provider, error.model = plan.call.provider.id, plan.call.model.id
            hide(error, secrets)
            raise
        finally:
            exchange.abort()  # what was released has no connection any more

    async def _read(self, exchange: Exchange) -> bytes:
        limit = self._plan.timeouts.idle
        try:
            async with asyncio.timeout(limit):
                return await exchange.read()
        except builtins.TimeoutError as error:
            if isinstance(error, DelugeError):
                raise
            raise timeout_error("idle", limit or 0.0) from None
