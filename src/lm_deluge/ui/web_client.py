"""The client of one ASGI response: whether it is there, whether it reads, and heartbeats while nothing is sent."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from types import TracebackType
from typing import Any, TypeAlias

from lm_deluge.api_requests.timeouts import Deadline

__all__ = ["Receive", "Scope", "Send", "WebClient"]

# The types of ASGI; https://asgi.readthedocs.io/en/latest/specs/main.html
Scope: TypeAlias = MutableMapping[str, Any]
ASGIMessage: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[ASGIMessage]]
Send: TypeAlias = Callable[[ASGIMessage], Awaitable[None]]

_STALLED_S = 30.0  # a client that reads nothing for so long has left; the gateway's default, too


class WebClient:
    """A client that a response is sent to, in `async with`.

    Sending waits while the client does not read. Its going costs nothing per frame: one task waits for the message of
    the server that the client has left, and one timer sends heartbeats and notices a client that no longer reads.

    Args:
        receive, send: Of the ASGI request.
        heartbeat: A frame that clients skip; empty: no heartbeats.
        heartbeat_s: Seconds of silence before each heartbeat.
        on_left: Called once when the client has left.

    Attributes:
        has_left: Whether the client has left; nothing more is sent.
    """

    def __init__(
        self, receive: Receive, send: Send, *, heartbeat: bytes, heartbeat_s: float, on_left: Callable[[], None]
    ) -> None:
        self.has_left = False
        self.has_started = False
        self._receive = receive
        self._send = send
        self._heartbeat = heartbeat
        self._heartbeat_s = heartbeat_s
        self._on_left = on_left
        self._loop = asyncio.get_running_loop()
        self._sent_at = self._loop.time()
        self._is_sending = False
        self._has_ended = False
        self._scope = Deadline()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> WebClient:
        self._scope.__enter__()
        self._run(self._watch())
        self._timer = self._loop.call_later(min(self._heartbeat_s, _STALLED_S), self._check)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        try:
            self._scope.__exit__(kind, error, traceback)
        except builtins.TimeoutError:  # the client stopped reading
            return True
        return False

    async def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Send status and headers."""
        self.has_started = True
        await self._message({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def write(self, data: bytes, *, is_last: bool = False) -> None:
        """Send a part of the body."""
        self._has_ended = is_last
        await self._message({"type": "http.response.body", "body": data, "more_body": not is_last})

    async def _message(self, message: ASGIMessage) -> None:
        if self.has_left:
            return
        self._sent_at = self._loop.time()
        self._is_sending = True
        try:
            await self._send(message)
        except OSError:  # how servers report a client that has left
            self._leave()
        finally:
            self._is_sending = False

    def _leave(self) -> None:
        if not self.has_left:
            self.has_left = True
            self._on_left()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._has_ended:
            self._leave()

    def _check(self) -> None:
        """Run by the timer."""
        silence = self._loop.time() - self._sent_at
        if self._is_sending and silence >= _STALLED_S:
            self._leave()
            self._scope.pass_now()
            return
        due = _STALLED_S if self._is_sending else self._heartbeat_s
        if silence >= due and self._heartbeat and self.has_started and not (self._has_ended or self.has_left):
            self._run(self.write(self._heartbeat))
            silence = 0.0
        self._timer = self._loop.call_later(max(due - silence, _LEAST_WAIT_S), self._check)

    def _run(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        with contextlib.suppress(asyncio.CancelledError):
            task.exception()  # noted as seen: a receive that fails is a client that the server will report


_LEAST_WAIT_S = 0.01  # keeps the timer from firing in a busy loop if the clock has not moved on
