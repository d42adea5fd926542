"""The client of one ASGI response: whether it is there, whether it reads, and heartbeats while nothing is sent."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias

from lm_deluge.api_requests.timeouts import Deadline, clock_of

__all__ = ["Headers", "Receive", "Scope", "Send", "WebClient"]

# The types of ASGI; https://asgi.readthedocs.io/en/latest/specs/main.html
Scope: TypeAlias = MutableMapping[str, Any]
ASGIMessage: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[ASGIMessage]]
Send: TypeAlias = Callable[[ASGIMessage], Awaitable[None]]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

_STALLED_S = 30.0  # a client that reads nothing for so long has left; the gateway's default, too
_LEAST_WAIT_S = 0.01  # keeps the timer from firing in a busy loop if the clock has not moved on
_OK = 200  # the status of an answer that has started


class WebClient:
    """A client that a response is sent to. Status and headers leave with the first part of the body.

    Sending waits while the client does not read. All else costs nothing per frame: one task waits for the message that
    the client has left, and one timer sends heartbeats and notices a client that no longer reads.

    Args:
        receive, send: Of the ASGI request.
        headers: Of the response.
        heartbeat: A frame that clients skip; empty: no heartbeats.
        heartbeat_s: Seconds of silence before each heartbeat.

    Attributes:
        has_left: Whether the client has left; nothing more is sent.
        has_started: Whether status and headers were sent.
    """

    def __init__(self, receive: Receive, send: Send, headers: Headers, *, heartbeat: bytes, heartbeat_s: float) -> None:
        self.has_left = False
        self.has_started = False
        self._receive = receive
        self._send = send
        self._headers = headers
        self._heartbeat = heartbeat
        self._heartbeat_s = heartbeat_s
        self._loop = asyncio.get_running_loop()
        self._time = clock_of(self._loop)
        self._sent_at = self._time()
        self._is_sending = False
        self._beat: asyncio.Task[None] | None = None  # sends a heartbeat
        self._timer: asyncio.TimerHandle | None = None
        self._on_left: Callable[[], object] = bool
        self._scope = Deadline()

    @contextlib.asynccontextmanager
    async def watched(self, on_left: Callable[[], None]) -> AsyncIterator[None]:
        """Watch the client during a block, which ends early if the client stops reading.

        Args:
            on_left: Called once when the client has left.
        """
        self._on_left = on_left
        watch = self._loop.create_task(self._watch())
        self._timer = self._loop.call_later(min(self._heartbeat_s, _STALLED_S), self._check)
        try:
            with self._scope:
                yield
        except builtins.TimeoutError:
            if not self._scope.is_past:
                raise
        finally:
            self._timer.cancel()
            for task in (watch, self._beat):
                if task is not None:
                    task.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def start(self, status: int, headers: Headers) -> None:
        """Send status and headers."""
        self.has_started = True
        await self._message({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def write(self, data: bytes, *, is_last: bool = False) -> None:
        """Send a part of the body."""
        if self._beat is not None:
            await self._beat
        if not self.has_started:
            await self.start(_OK, self._headers)
        if self.has_left:
            return
        self._sent_at = self._time()
        self._is_sending = True
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": not is_last})
        except OSError:  # how servers report a client that has left
            self._leave()
        finally:
            self._is_sending = False

    async def _message(self, message: ASGIMessage) -> None:
        with contextlib.suppress(OSError):  # the next part of the body has it again
            await self._send(message)

    def _leave(self) -> None:
        if not self.has_left:
            self.has_left = True
            self._on_left()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _check(self) -> None:
        """Run by the timer."""
        silence = self._time() - self._sent_at
        if self._is_sending and silence >= _STALLED_S:
            self._leave()
            self._scope.pass_now()
            return
        due = _STALLED_S if self._is_sending else self._heartbeat_s
        if silence >= due and self._heartbeat and not self.has_left:
            self._beat = self._loop.create_task(self._send_beat())
            silence = 0.0
        self._timer = self._loop.call_later(max(due - silence, _LEAST_WAIT_S), self._check)

    async def _send_beat(self) -> None:
        """Send a heartbeat; the next frame waits for it, as it may have to send the headers first."""
        try:
            if not self.has_started:
                await self.start(_OK, self._headers)
            self._sent_at = self._time()
            await self._message({"type": "http.response.body", "body": self._heartbeat, "more_body": True})
        finally:
            self._beat = None
