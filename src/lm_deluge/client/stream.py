"""`Stream`: the answer of one call, which can be awaited, iterated over, or entered with `async with`.

The connection is closed at once at the end of the block, on `break`, an exception, a cancellation of the task, or when
the last reference is dropped. `break` needs no garbage collection: a loop iterates over an object that nothing else
refers to, and its finaliser closes the stream.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, Literal, TextIO

from lm_deluge.client.notebook import CellText, is_notebook
from lm_deluge.dispatch.attempts.attempt import PendingRetry
from lm_deluge.dispatch.attempts.call_stream import StreamCall
from lm_deluge.errors import ConfigurationError, StreamConsumedError
from lm_deluge.events import Event, RefusalDelta, TextDelta
from lm_deluge.response import APIResponse, StreamStats

__all__ = ["Echo", "Stream"]

Echo = TextIO | Literal["stdout"] | None
"""Where an awaited stream prints: `sys.stdout` at the time of printing, any text file, or None."""


_PRINTED = (TextDelta, RefusalDelta)


def texts_of(events: list[Event]) -> list[str]:
    """Return the texts of the answer among the events."""
    return [event.text for event in events if type(event) is TextDelta and event.text]


class _Batches:
    """Iterator over the items of a stream, for one loop; its finaliser ends the stream."""

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
    """An answer as it is generated. Nothing is sent until the stream is used, and it is used once.

    `await` it to print the answer and get the response; iterate over it for text; enter it with `async with` for
    everything else. `LLMClient.stream_sync` is the same without asyncio.

    Args:
        call: The call; `LLMClient.stream` makes it.
        echo: Where the awaited stream prints.

    Raises:
        ConfigurationError: `echo` is neither a text file nor None.

    Example:
        >>> async with client.stream("Hello") as stream:
        ...     async for event in stream.events():
        ...         print(event)
    """

    def __init__(self, call: StreamCall, echo: Echo = "stdout") -> None:
        if echo not in (None, "stdout") and not hasattr(echo, "write"):
            raise ConfigurationError(
                "echo is not a text file", hint="Pass sys.stderr, for example, or None to print nothing."
            )
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
        cell = CellText() if isinstance(self._echo, str) and is_notebook() else None
        file = cell or (sys.stdout if isinstance(self._echo, str) else self._echo)
        try:
            while events := await call.next_batch():
                text = "".join([event.text for event in events if isinstance(event, _PRINTED)])
                if text and file is not None:
                    file.write(text)
                    file.flush()
            await call.close()
        finally:
            call.abort()
            if cell is not None:
                cell.close()
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
        """Return an iterator over all events, for one loop.

        Returns:
            The events of `lm_deluge.events`, from `ResponseStarted` to `ResponseFinished`.

        Raises:
            StreamConsumedError: The stream was used already.
            DelugeError: The call failed; `partial` is the response so far.

        Example:
            >>> async for event in stream.events():
            ...     print(event)
        """
        return _Batches(self._take(), list)

    async def next_batch(self) -> list[Event]:
        """Return the events of the next read: one list for each read costs less than one step for each event.

        Returns:
            The events, at least one; an empty list at the end.

        Raises:
            StreamConsumedError: The stream is used in another way already.
            DelugeError: The call failed; `partial` is the response so far.

        Example:
            >>> while events := await stream.next_batch():
            ...     print(events)
        """
        if self._use == "loop":
            raise _consumed()
        self._use = "batches"
        return await self._call.next_batch()

    async def cancel(self) -> APIResponse:
        """Stop the stream and close its connection. A pending read of the stream ends as at the end of the answer.

        Returns:
            The response so far. Its usage is reported by the provider or estimated (`usage.estimated`): providers bill
            what they generated.

        Example:
            >>> partial = await stream.cancel()
            >>> partial.completion
        """
        self._use = self._use or "loop"
        self._call.abort()
        await self._call.settle()
        return self._call.response()

    def abandon(self) -> None:
        """Stop the stream without waiting, from any thread or from a finaliser.

        Example:
            >>> stream.abandon()
            >>> stream.response.completion
        """
        self._call.abort_from_anywhere()

    @property
    def response(self) -> APIResponse:
        """The response so far; complete after the end of the stream."""
        return self._call.response()

    @property
    def stats(self) -> StreamStats:
        """Timing of the stream so far."""
        return self._call.stats()

    @property
    def pending_retry(self) -> PendingRetry | None:
        """The next attempt while the stream waits for it: after which error, and from when on; else None."""
        return self._call.pending_retry


def _consumed() -> StreamConsumedError:
    return StreamConsumedError("this stream was used already", hint="Call client.stream(...) again for another answer.")
