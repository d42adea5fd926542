"""Background mode: answers that go on at the provider whoever listens.

A stream that breaks is taken up again behind the last event that was read, into the same decoder, so nothing is said
twice and nothing is lost. A stream that is left is ended at the provider too, as nobody would hear the rest.
"""

from __future__ import annotations

import asyncio
import builtins
import warnings

import msgspec

from lm_deluge.adapters.adapter import Resumable
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.api_requests.clocks import StreamClocks
from lm_deluge.api_requests.response_stream import ResponseStream, open_exchange, resume_response_stream
from lm_deluge.config import Timeouts
from lm_deluge.errors import BadRequestError, DelugeError, TimeoutError, TransportError

__all__ = ["UpstreamCancel", "can_resume", "resume"]

_CANCEL_S = 5.0
_RELEASE_S = 0.1
_CLOCKS = Timeouts(connect=_CANCEL_S, first_token=_CANCEL_S)

# The loop holds tasks weakly; these end by themselves.
_running: set[asyncio.Task[None]] = set()


def can_resume(attempt: ResponseStream | None, error: DelugeError) -> bool:
    """Whether the answer goes on at the provider although its stream ended with this error."""
    is_late = isinstance(error, TimeoutError) and error.phase == "total"
    is_broken = isinstance(error, TransportError) and error.retryable and not is_late
    return is_broken and attempt is not None and attempt.resume_point is not None


async def resume(plan: CallPlan, attempt: ResponseStream) -> None:
    """Have the attempt go on where its stream broke.

    Raises:
        DelugeError: The provider does not give the rest, or cannot be reached; the attempt is as it was.
    """
    place = attempt.resume_point
    assert place is not None  # noqa: S101 - can_resume
    assert isinstance(plan.adapter, Resumable)  # noqa: S101 - only its decoders have a place
    rest = plan.adapter.build_resume(plan.call, *place)
    await resume_response_stream(attempt, msgspec.structs.replace(plan, request=rest))


class UpstreamCancel:
    """Ends an answer at the provider, in the background and within seconds.

    Attributes:
        failure: Why that did not work, None as long as nothing is known of it.
    """

    def __init__(self, plan: CallPlan, response_id: str, loop: asyncio.AbstractEventLoop) -> None:
        self.failure: str | None = None
        self._plan = plan
        self._response_id = response_id
        self._task = loop.create_task(self._run())
        _running.add(self._task)
        self._task.add_done_callback(_running.discard)

    async def wait(self) -> None:
        """Wait until it is done, whatever comes of it."""
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(_CANCEL_S):
                await self._send()
        except BadRequestError:
            pass  # it was over already
        except (DelugeError, builtins.TimeoutError) as error:
            self.failure = str(error) or f"no answer within {_CANCEL_S:g} s"
            warnings.warn(
                f"the background answer {self._response_id} could not be cancelled and may go on: {self.failure}",
                RuntimeWarning,
                stacklevel=2,
            )

    async def _send(self) -> None:
        plan = self._plan
        assert isinstance(plan.adapter, Resumable)  # noqa: S101 - only its decoders have a place
        cancel = plan.adapter.build_cancel(plan.call, self._response_id)
        asks = msgspec.structs.replace(plan, request=cancel, timeouts=_CLOCKS)
        exchange, _, _ = await open_exchange(asks, StreamClocks(_CLOCKS, None))
        try:
            while await exchange.read():
                pass
            await exchange.release(_RELEASE_S)
        finally:
            exchange.abort()
