"""Sends one response over ASGI: head, frames, heartbeats and the end, at the pace at which the client reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from lm_deluge.gateway.http_body import Receive, Send

__all__ = ["Responder"]

_STREAM_HEADERS = (
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


class Responder:
    """One response. It is over as soon as the client has left, or reads nothing for too long.

    Args:
        send: Sends a message of ASGI.
        receive: Receives the messages of the client after its request: that it has left.
        stalled_s: Seconds after which a client that reads nothing has left.
        abort: Closes the connection at once; None: the server closes it in order.

    Attributes:
        has_started: Whether status and headers were sent.
        has_left: Whether the client has left.
    """

    def __init__(
        self, send: Send, receive: Receive, *, stalled_s: float, abort: Callable[[], None] | None = None
    ) -> None:
        self._abort = abort
        self._send = send
        self._receive = receive
        self._stalled_s = stalled_s
        self._sent_at = asyncio.get_running_loop().time()
        self.has_started = False
        self.has_left = False

    def name(self, response_id: str | None) -> None:
        """Do nothing: the client has the id of the response in its frames."""

    async def start(self, status: int, headers: Mapping[str, str], *, is_stream: bool = False) -> None:
        """Send status and headers."""
        self.has_started = True
        encoded = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
        message = {"type": "http.response.start", "status": status, "headers": encoded}
        if is_stream:
            encoded += _STREAM_HEADERS
        await self._send(message)

    async def write(self, data: bytes, *, is_last: bool = False) -> None:
        """Send a part of the body; wait while the client does not read."""
        if self.has_left:
            return
        loop = asyncio.get_running_loop()
        self._sent_at = loop.time()
        try:
            async with asyncio.timeout_at(self._sent_at + self._stalled_s):
                await self._send({"type": "http.response.body", "body": data, "more_body": not is_last})
        except (TimeoutError, OSError):
            self.has_left = True
            if self._abort is not None:
                self._abort()

    async def wait_until_left(self) -> None:
        """Return once the client has left."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.has_left = True

    async def wait_until_silent(self, seconds: float) -> None:
        """Return once nothing was sent for so long."""
        loop = asyncio.get_running_loop()
        left = seconds
        while left > 0:
            await asyncio.sleep(left)
            left = self._sent_at + seconds - loop.time()
