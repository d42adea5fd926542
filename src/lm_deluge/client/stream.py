"""One stream, taken in one of several ways; an object with an owner, never a bare generator.

Every way out closes the connection at once: the end of the block, `break`, an exception, the cancellation of the task,
a dropped reference. A `break` needs no collector: what a loop iterates over is an object of its own that nothing else
holds, and it closes the stream when it goes.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, Literal, TextIO

from lm_deluge.dispatch.attempts.call_stream import StreamCall
from lm_deluge.errors import ConfigurationError, StreamConsumedError
from lm_deluge.events import Event, RefusalDelta, TextDelta
from lm_deluge.response import APIResponse, StreamStats

__all__ = ["Echo", "Stream"]

Echo = TextIO | Literal["stdout"] | None
"""Where an awaited stream prints: standard output as it is then, any text file, or nowhere."""


_PRINTED = (TextDelta, RefusalDelta)


def texts_of(events: list[Event]) -> list[str]:
    """Return the answer's text in a batch of events."""
    return [event.text for event in events if type(event) is TextDelta and event.text]


class _Batches:
    """The items of a stream, one by one, for one loop. Dropping it ends the stream."""

    __slots__ = ("_call", "_items", "_pick", "_position")

    def __init__(self, call: StreamCall, pick: Callable[[list[Event]], list[Any]]) -> None:
        self._call = call
        self._pick = pick
        self._items: list[Any] = []
        self._position = 0

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        position = self._position
        if position == len(self._items):
            await self._fill()
            position = 0
        self._position = position + 1
        return self._items[position]

    async def _fill(self) -> None:
        self._items = []
        self._position = 0
        while not self._items:
            events = await self._call.next_batch()
            if not events:
                await self._call.close()
                raise StopAsyncIteration
            self._items = self._pick(events)

    async def aclose(self) -> None:
        """End the stream, as closing a generator would."""
        self._call.abort()

    def __del__(self) -> None:
        self._call.abort_from_anywhere()


class Stream:
    """An answer as it is generated. Nothing is sent until it is used, and it is used once.

    Four ways: `await` it (prints, returns the response); `async for` text; `async with` and `events()`;
    `LLMClient.stream_sync` without asyncio.
    """

    def __init__(self, call: StreamCall, echo: Echo = "stdout") -> None:
        if echo not in (None, "stdout") and not hasattr(echo, "write"):
            raise ConfigurationError("echo is no text file", hint="Pass sys.stderr, say, or None to print nothing.")
        self._call = call
        self._echo = echo
        self._is_entered = False
        self._use: Literal["loop", "batches"] | None = None

    def _take(self) -> StreamCall:
        if self._use is not None:
            raise _consumed()
        self._use = "loop"
        return self._call

    def __await__(self) -> Generator[Any, None, APIResponse]:
        return self._print().__await__()

    async def _print(self) -> APIResponse:
        call = self._take()
        file = sys.stdout if isinstance(self._echo, str) else self._echo
        try:
            while events := await call.next_batch():
                text = "".join([event.text for event in events if isinstance(event, _PRINTED)])
                if text and file is not None:
                    file.write(text)
                    file.flush()
            await call.close()
        finally:
            call.abort()
        return call.response()

    def __aiter__(self) -> AsyncIterator[str]:
        return _Batches(self._take(), texts_of)

    async def __aenter__(self) -> Stream:
        if self._is_entered or self._use is not None:
            raise _consumed()
        self._is_entered = True
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is None:
            await self._call.close()
        self._call.abort()
        if kind is None or issubclass(kind, Exception):
            await self._call.settle()
        self._use = self._use or "loop"

    def events(self) -> AsyncIterator[Event]:
        """Return all events, typed, for one loop.

        Raises:
            StreamConsumedError: The stream was used already.
        """
        return _Batches(self._take(), list)

    async def next_batch(self) -> list[Event]:
        """Return the events of the next read, empty at the end: what is left to say once per read is said once.

        Raises:
            StreamConsumedError: The stream is used in another way already.
            DelugeError: The call failed.
        """
        if self._use == "loop":
            raise _consumed()
        self._use = "batches"
        return await self._call.next_batch()

    async def cancel(self) -> APIResponse:
        """Stop the stream, close its connection, and return what was received.

        Whoever waits for its next event sees the stream end. Usage is what the provider reported, else an
        estimate, marked so: providers bill what they generated.
        """
        self._use = self._use or "loop"
        self._call.abort()
        await self._call.settle()
        return self._call.response()

    def abandon(self) -> None:
        """End the stream because nobody will ask for more; from any thread, in a finaliser too."""
        self._call.abort_from_anywhere()

    @property
    def response(self) -> APIResponse:
        """The answer so far; complete once the stream is through."""
        return self._call.response()

    @property
    def stats(self) -> StreamStats:
        """How the stream went so far."""
        return self._call.stats()


def _consumed() -> StreamConsumedError:
    return StreamConsumedError("this stream was used already", hint="Call client.stream(...) again for another answer.")
