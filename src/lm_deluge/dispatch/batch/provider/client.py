"""HTTP client of a provider's batch API; it opens exchanges with the same function as every other call."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TypeVar

from lm_deluge.adapters.batch_api import Exchanges
from lm_deluge.api_requests.documents import RELEASE_S, DocumentClient
from lm_deluge.wire.http import HttpRequest
from lm_deluge.wire.ndjson import NDJSONDecoder

__all__ = ["BatchClient"]

T = TypeVar("T")


class BatchClient(DocumentClient):
    """Sends requests about a batch.

    Args:
        plan: The plan of a call in the batch; its key, address, proxy and timeouts are used.
    """

    async def run(self, exchanges: Exchanges[T]) -> T:
        """Send each request that a generator yields, and return the generator's result.

        Raises:
            DelugeError: A request failed, or its answer is not of this API.
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

    async def lines(self, request: HttpRequest) -> AsyncGenerator[list[bytes], None]:
        """Send a request and yield the lines of its answer as they arrive, one list per read.

        Raises:
            DelugeError: As in `ask`. All complete lines before the error have been yielded.
        """
        decoder = NDJSONDecoder(self._plan.call.max_event_bytes)
        async with self._open(request) as exchange:
            while data := await self._read(exchange):
                if frames := decoder.feed(data):
                    yield [frame.data for frame in frames]
                if decoder.error is not None:
                    raise decoder.error
            await exchange.release(RELEASE_S)
        last = decoder.close()
        if last is not None:
            yield [last.data]
