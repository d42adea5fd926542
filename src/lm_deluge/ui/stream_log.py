"""Streams that go on without their client: what they sent is kept, and can be read again, from any frame on."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from lm_deluge.wire.server_frames import split_frames

__all__ = ["LoggedResponse", "StreamLog", "StreamLogs"]

Log = TypeVar("Log", bound="StreamLog")

_ID_BYTES = 16  # 128 random bits: an id cannot be guessed
_NUMBER = re.compile(rb'"sequence_number": ?(\d+)')
_MOST_BYTES = 32 * 2**20  # of one stream; the longest answers have less than 4 MiB
_MOST_LOGS_BYTES = 256 * 2**20  # of all streams that have ended; the oldest are removed first


class StreamLog:
    """The frames of one stream.

    Args:
        owner: Name of the key that started the stream; only this key may read it.

    Attributes:
        id: The id, 128 random bits.
        response_id: The id of the response in the frames, once it is known.
        status, headers: Of the response, None and empty until they are known.
        frames: The frames so far, as they were sent to the first client.
        is_over: Whether all frames are there.
        version: Grows with each change.
        stop: Stops the stream and returns the receipt; None before the stream has started.
    """

    def __init__(self, owner: str) -> None:
        self.id = secrets.token_hex(_ID_BYTES)
        self.owner = owner
        self.response_id: str | None = None
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.is_stream = False
        self.frames: list[bytes] = []
        self.size = 0
        self.is_over = False
        self.ended_at: float | None = None
        self.stop: Callable[[], Awaitable[dict[str, Any]]] | None = None
        self.version = 0
        self._changed = asyncio.Event()

    def start(self, status: int, headers: Mapping[str, str], *, is_stream: bool) -> None:
        """Note status and headers."""
        self.status, self.headers, self.is_stream = status, headers, is_stream
        self.wake()

    def add(self, data: bytes) -> bool:
        """Add frames; return whether there is room for more."""
        parts = split_frames(data) if self.is_stream else [data]
        self.frames += [part for part in parts if part]
        self.size += len(data)
        self.wake()
        return self.size <= _MOST_BYTES

    def end(self) -> None:
        """Note the end."""
        self.is_over = True
        self.ended_at = time.monotonic()
        self.wake()

    def wake(self) -> None:
        """Let all that wait for a change look again."""
        self.version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait(self, version: int) -> None:
        """Return once the log has changed since it had this version."""
        while self.version == version:
            await self._changed.wait()

    async def wait_for_start(self) -> None:
        """Return once the status is known, or the stream is over."""
        while self.status is None and not self.is_over:
            await self.wait(self.version)

    def numbered(self, position: int) -> bytes:
        """Return a frame with its id, for clients that ask for what follows it."""
        return b"id: %b:%d\n%b" % (self.id.encode(), position, self.frames[position])

    def position_after(self, number: int) -> int:
        """Return the position of the first frame after that with a sequence number of the Responses API."""
        for position, frame in enumerate(self.frames):
            match = _NUMBER.search(frame)
            if match is not None and int(match[1]) > number:
                return position
        return len(self.frames)

    def response_object(self) -> dict[str, Any]:
        """Return the response object of the Responses API, as the last frame that has one has it."""
        for frame in reversed(self.frames):
            if b'"response"' in frame:
                found = msgspec.json.decode(frame[frame.find(b"{") : frame.rfind(b"}") + 1]).get("response")
                if isinstance(found, dict):
                    return found
        return {"id": self.response_id, "object": "response", "status": "failed" if self.is_over else "in_progress"}


class LoggedResponse:
    """Takes the place of the client of a call: what is sent to it goes into a log.

    Args:
        log: The log.
        announce: Called with the id of the response before its first frame is in the log; None: nothing is.

    Attributes:
        has_started: Whether status and headers were sent.
        has_left: Whether the log takes no more.
    """

    def __init__(self, log: StreamLog, announce: Callable[[str], Awaitable[None]] | None = None) -> None:
        self._log = log
        self._announce = announce
        self.has_started = False
        self.has_left = False

    def name(self, response_id: str | None) -> None:
        """Note the id of the response: clients of the Responses API find the log by it."""
        self._log.response_id = response_id

    async def start(self, status: int, headers: Mapping[str, str], *, is_stream: bool = False) -> None:
        """Note status and headers."""
        self.has_started = True
        self._log.start(status, headers, is_stream=is_stream)

    async def write(self, data: bytes, *, is_last: bool = False) -> None:
        """Add a part of the body."""
        if self._announce is not None and self._log.response_id is not None:
            announce, self._announce = self._announce, None
            await announce(self._log.response_id)
        if data and not self.has_left:
            self.has_left = not self._log.add(data)
        if is_last:
            self._log.end()

    async def wait_until_left(self) -> None:
        """Wait for ever: a log does not leave."""
        await asyncio.Event().wait()

    async def wait_until_silent(self, seconds: float) -> None:
        """Wait for ever: readers of the log send heartbeats of their own."""
        await asyncio.Event().wait()


class StreamLogs:
    """The logs of a server, and the tasks that fill them.

    Args:
        kept_s: Seconds for which a stream can be read after its end.
    """

    def __init__(self, kept_s: float) -> None:
        self._kept_s = kept_s
        self._logs: OrderedDict[str, StreamLog] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, owner: str) -> StreamLog:
        """Return a new log."""
        return self.add(StreamLog(owner))

    def add(self, log: Log) -> Log:
        """Keep a log; return it."""
        self._forget()
        self._logs[log.id] = log
        return log

    def run(self, log: StreamLog, fill: Awaitable[None]) -> None:
        """Fill a log in a task of its own, which no client ends."""

        async def run() -> None:
            try:
                await fill
            finally:
                log.end()

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def find(self, name: str, owner: str | None) -> StreamLog | None:
        """Return the log with an id, its own or that of the response in it; None if this key has no such log.

        Args:
            name: The id.
            owner: Name of the key; None: any.
        """
        self._forget()
        log = self._logs.get(name) or next((each for each in self._logs.values() if each.response_id == name), None)
        if log is None or owner is None:
            return log
        return log if secrets.compare_digest(log.owner.encode(), owner.encode()) else None

    def _forget(self) -> None:
        """Remove the logs that have ended long ago, and the oldest ones if they take too much memory."""
        ended = [log for log in self._logs.values() if log.ended_at is not None]
        size = sum(log.size for log in ended)
        now = time.monotonic()
        for log in ended:
            if size > _MOST_LOGS_BYTES or (log.ended_at is not None and now - log.ended_at > self._kept_s):
                del self._logs[log.id]
                size -= log.size

    async def drain(self, seconds: float) -> None:
        """Wait until all streams have ended, for so long at most; then cancel them."""
        if self._tasks:
            _, left = await asyncio.wait([*self._tasks], timeout=seconds)
            for task in left:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*left, return_exceptions=True)
