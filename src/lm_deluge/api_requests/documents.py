"""Requests whose answer is a small document, such as a count of tokens or the state of a batch."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from lm_deluge.adapters.batch_api import HttpAnswer
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.api_requests.clocks import StreamClocks
from lm_deluge.api_requests.credentials import hide
from lm_deluge.api_requests.response_stream import open_exchange, timeout_error
from lm_deluge.errors import DelugeError, RedirectRefusedError, ResponseLimitError
from lm_deluge.transport.base import Exchange
from lm_deluge.wire.http import HttpRequest, origin_of

__all__ = ["RELEASE_S", "DocumentClient"]

_MAX_DOCUMENT_BYTES = 16 * 2**20  # far above a batch's state or a page of a list, and still small in memory
_ANSWER_S = 60.0  # beside the time of the upload: far above a normal answer, short enough to notice a lost one
_SLOWEST_UPLOAD = 32 * 2**10  # bytes per second; a slower upload of a large file would take hours, so it has stalled
RELEASE_S = 0.1
"""Seconds to wait for the end of a body; if it takes longer, a new connection costs less than the wait."""


class DocumentClient:
    """Sends requests to the endpoints of a provider that answer with a small document.

    Args:
        plan: The plan of a call to the provider; its key, address, proxy and timeouts are used.
    """

    def __init__(self, plan: CallPlan) -> None:
        self._plan = plan

    async def ask(self, request: HttpRequest) -> HttpAnswer:
        """Send a request and return its answer.

        Raises:
            DelugeError: The provider refused, did not answer, or sent a document that is too large.
        """
        body = bytearray()
        async with self._open(request) as exchange:
            while data := await self._read(exchange):
                body += data
                if len(body) > _MAX_DOCUMENT_BYTES:
                    raise ResponseLimitError(f"the answer is larger than {_MAX_DOCUMENT_BYTES} bytes", reason="limit")
            await exchange.release(RELEASE_S)
            return HttpAnswer(exchange.head.headers, bytes(body))

    @asynccontextmanager
    async def _open(self, request: HttpRequest) -> AsyncIterator[Exchange]:
        plan = self._plan
        if origin_of(request.url) != origin_of(plan.call.base_url):
            raise RedirectRefusedError("the provider refers to another origin for a part of its answer")
        answer_s = _ANSWER_S + request.size / _SLOWEST_UPLOAD
        timeouts = msgspec.structs.replace(plan.timeouts, first_token=answer_s, total=None)
        request_plan = msgspec.structs.replace(plan, request=request, timeouts=timeouts)
        exchange, secrets, _ = await open_exchange(request_plan, StreamClocks(timeouts, None))
        try:
            yield exchange
        except DelugeError as error:
            error.provider, error.model = plan.call.provider.id, plan.call.model.id
            hide(error, secrets)
            raise
        finally:
            exchange.abort()  # no effect after a release

    async def _read(self, exchange: Exchange) -> bytes:
        limit = self._plan.timeouts.idle
        try:
            async with asyncio.timeout(limit):
                return await exchange.read()
        except builtins.TimeoutError as error:
            if isinstance(error, DelugeError):
                raise
            raise timeout_error("idle", limit or 0.0) from None
