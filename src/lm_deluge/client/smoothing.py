"""`smooth="word"`: a call whose text is delivered word by word, at an even pace.

While words wait, one read is under way in a task, so that the provider is not slowed down. There is never more than one
such task, and none once the call is closed or aborted.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal, TypeAlias

from lm_deluge.client.word_pace import WordPace
from lm_deluge.dispatch.attempts.attempt import PendingRetry
from lm_deluge.dispatch.running_call import RunningCall
from lm_deluge.events import Event
from lm_deluge.option_checks import check_choice
from lm_deluge.response import APIResponse, StreamStats

__all__ = ["SmoothedCall", "Smoothing", "smoothed"]

Smoothing: TypeAlias = Literal["word"]


def smoothed(call: RunningCall, smooth: Smoothing) -> RunningCall:
    """Return the call with the pace that a user asks for.

    Raises:
        ConfigurationError: There is no such pace.
    """
    check_choice("smooth", smooth, ("word",))
    return SmoothedCall(call)


class SmoothedCall:
    """Delivers the events of a call in their order, its text word by word."""

    def __init__(self, call: RunningCall) -> None:
        self._call = call
        self._pace = WordPace()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._read: asyncio.Task[list[Event]] | None = None
        self._woken: asyncio.Future[None] | None = None  # done once the call was aborted
        self._error: BaseException | None = None  # raised after the events before it
        self._is_read = False
        self._is_aborted = False

    async def next_batch(self) -> list[Event]:
        """Return the next events; a word and what follows it at once. Raises as the call does, after its events."""
        loop = self._loop = asyncio.get_running_loop()
        try:
            while not self._is_aborted:
                if ready := self._pace.take(loop.time()):
                    return ready
                due_at = self._pace.due_at()
                if self._is_read and due_at is None:
                    return self._end()
                await self._wait(loop, due_at)
        except asyncio.CancelledError:
            self.abort()
            raise
        return []

    async def _wait(self, loop: asyncio.AbstractEventLoop, due_at: float | None) -> None:
        """Wait for the next read, or until a word is due."""
        woken = self._woken = self._woken or loop.create_future()
        waiting: set[asyncio.Future[list[Event]] | asyncio.Future[None]] = {woken}
        if not self._is_read:
            self._read = self._read or self._start(loop)
            waiting.add(self._read)
        await asyncio.wait(
            waiting,
            timeout=None if due_at is None else max(0.0, due_at - loop.time()),
            return_when=asyncio.FIRST_COMPLETED,
        )
        read = self._read
        if read is None or not read.done():
            return
        self._read = None
        error = asyncio.CancelledError() if read.cancelled() else read.exception()
        events = [] if error is not None else read.result()
        self._pace.add(events, loop.time())
        if not events:
            self._error, self._is_read = error, True
            self._pace.close()

    def _start(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[list[Event]]:
        task = loop.create_task(self._call.next_batch())
        # A call that is left may end with an error that has no reader.
        task.add_done_callback(lambda task: None if task.cancelled() else task.exception())
        return task

    def _end(self) -> list[Event]:
        error, self._error = self._error, None
        if error is not None:
            raise error
        return []

    async def close(self) -> None:
        """End the call."""
        if self._read is not None:
            self.abort()
        await self._join()
        await self._call.close()

    async def settle(self) -> None:
        """Wait until the task and what the call started have ended."""
        await self._join()
        await self._call.settle()

    async def _join(self) -> None:
        if self._read is not None:
            await asyncio.wait({self._read})
            self._read = None

    def abort(self) -> None:
        """End the call now; a pending `next_batch` returns []."""
        self._is_aborted = True
        self._call.abort()
        self._stop()

    def _stop(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)
        if self._read is not None:
            self._read.cancel()

    def abort_from_anywhere(self) -> None:
        """Abort from a finaliser, which may run in another thread or after the loop was closed."""
        self._is_aborted = True
        self._call.abort_from_anywhere()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._stop)

    def response(self) -> APIResponse:
        """Return the response so far; it may have words that are not delivered yet."""
        return self._call.response()

    def stats(self) -> StreamStats:
        """Return the timing of the stream so far."""
        return self._call.stats()

    @property
    def pending_retry(self) -> PendingRetry | None:
        """The next attempt while the call waits for it; else None."""
        return self._call.pending_retry
