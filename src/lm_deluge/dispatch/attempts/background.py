"""Background mode: the provider generates the answer to its end, even without a connection.

A stream that breaks is resumed after the last event that was read, with the same decoder, so that no event is doubled
or lost. A stream that the caller abandons is cancelled at the provider as well, as the rest would be billed unread.
"""

from __future__ import annotations

import asyncio
import builtins
import warnings
from collections.abc import Callable

import msgspec

from lm_deluge.adapters.adapter import Resumable
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.api_requests.clocks import StreamClocks
from lm_deluge.api_requests.response_stream import ResponseStream, open_exchange, resume_response_stream
from lm_deluge.config import Timeouts
from lm_deluge.dispatch.attempts.attempt import CallAttempt
from lm_deluge.errors import BadRequestError, DelugeError, TimeoutError, TransportError
from lm_deluge.events import Event

__all__ = ["UpstreamCancel", "UpstreamCancels", "can_resume", "resume_attempt"]

_CANCEL_S = 5.0  # a cancellation takes one round trip; a caller that closes a stream waits for it
_RELEASE_S = 0.1  # the end of the body is due at once; a new connection costs less than a longer wait
_CLOCKS = Timeouts(connect=_CANCEL_S, first_token=_CANCEL_S)

# The event loop refers to tasks weakly; this set keeps them until they end.
_running: set[asyncio.Task[None]] = set()


def can_resume(attempt: ResponseStream | None, error: DelugeError) -> bool:
    """Whether the provider goes on with the answer although its stream ended with this error."""
    is_late = isinstance(error, TimeoutError) and error.phase == "total"
    is_broken = isinstance(error, TransportError) and error.retryable and not is_late
    return is_broken and attempt is not None and attempt.resume_point is not None


async def resume_attempt(attempt: CallAttempt, broken: DelugeError, is_aborted: Callable[[], bool]) -> list[Event]:
    """Resume an answer at the provider, in as many requests as it takes; return an `Attempt` event for each of them.

    Args:
        attempt: The attempt whose stream broke; `can_resume` is true for it.
        broken: What broke the stream.
        is_aborted: Whether the call was aborted in the meantime; then nothing is returned.

    Raises:
        DelugeError: The rest cannot be fetched.
    """
    call, stream = attempt.call, attempt.stream
    if stream is None:
        raise broken
    error, notes = broken, list[Event]()
    while True:
        wait_s = call.wait_before_resume(error)
        call.note_failure(attempt, error)
        await asyncio.sleep(wait_s)
        call.attempts += 1
        attempt.note_resumed(error)
        notes.append(attempt.event_after(error, wait_s, is_continued=True))
        try:
            await _resume(attempt.plan, stream)
        except DelugeError as failure:
            if not failure.retryable:
                # The break is what happened; that the rest cannot be fetched explains why it is raised.
                broken.hint = f"It could not be resumed: {failure.message}"
                raise broken from failure
            error = failure
            continue
        if is_aborted():
            stream.abort()
            return []
        return notes


async def _resume(plan: CallPlan, attempt: ResponseStream) -> None:
    """Request the rest of a stream where it broke.

    Raises:
        DelugeError: The provider refuses, or cannot be reached; the stream is unchanged.
    """
    point = attempt.resume_point
    assert point is not None  # noqa: S101 - can_resume
    assert isinstance(plan.adapter, Resumable)  # noqa: S101 - only decoders of resumable adapters have a resume point
    rest = plan.adapter.build_resume(plan.call, *point)
    await resume_response_stream(attempt, msgspec.structs.replace(plan, request=rest))


class UpstreamCancels:
    """The cancellations of one call at its provider: one for each answer of background mode that is not wanted."""

    def __init__(self) -> None:
        self._by_response: dict[str, UpstreamCancel] = {}  # by the id of the response

    def start(self, attempt: CallAttempt) -> None:
        """Cancel the answer of an attempt, unless it is over or that was started before."""
        point = None if attempt.stream is None else attempt.stream.resume_point
        if point is not None and point[0] not in self._by_response:
            self._by_response[point[0]] = UpstreamCancel(attempt.plan, point[0], attempt.call.loop)

    async def settle(self) -> None:
        """Wait until each has succeeded or failed."""
        for cancel in [*self._by_response.values()]:
            await cancel.wait()

    @property
    def has_failed(self) -> bool:
        """Whether one of them has failed."""
        return any(cancel.failure is not None for cancel in self._by_response.values())


class UpstreamCancel:
    """Cancels an answer at the provider, in a task of its own and within seconds.

    Attributes:
        failure: Why the cancellation failed; None if it succeeded or is not over.
    """

    def __init__(self, plan: CallPlan, response_id: str, loop: asyncio.AbstractEventLoop) -> None:
        self.failure: str | None = None
        self._plan = plan
        self._response_id = response_id
        self._task = loop.create_task(self._run())
        _running.add(self._task)
        self._task.add_done_callback(_running.discard)

    async def wait(self) -> None:
        """Wait until it succeeded or failed."""
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(_CANCEL_S):
                await self._send()
        except BadRequestError:
            pass  # the answer was complete already
        except (DelugeError, builtins.TimeoutError) as error:
            self.failure = str(error) or f"no response within {_CANCEL_S:g} s"
            warnings.warn(
                f"the background answer {self._response_id} could not be cancelled and may go on: {self.failure}",
                RuntimeWarning,
                stacklevel=2,
            )

    async def _send(self) -> None:
        plan = self._plan
        assert isinstance(plan.adapter, Resumable)  # noqa: S101 - only decoders of resumable adapters have a resume point
        cancel = plan.adapter.build_cancel(plan.call, self._response_id)
        cancel_plan = msgspec.structs.replace(plan, request=cancel, timeouts=_CLOCKS)
        exchange, _, _ = await open_exchange(cancel_plan, StreamClocks(_CLOCKS, None))
        try:
            while await exchange.read():
                pass
            await exchange.release(_RELEASE_S)
        finally:
            exchange.abort()
