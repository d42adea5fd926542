"""Streams for code without asyncio; they also work where an event loop runs already, as in a notebook.

One daemon thread runs one event loop for all blocking calls of the process. There is one code path: the thread drives
the same `Stream`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, TypeVar

from lm_deluge.client.stream import Stream, texts_of
from lm_deluge.errors import StreamConsumedError
from lm_deluge.events import Event
from lm_deluge.response import APIResponse, StreamStats

__all__ = ["SyncStream", "run_blocking"]

T = TypeVar("T")


class _Portal:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._run, name="lm-deluge", daemon=True)
        self._thread.start()
        atexit.register(self.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        if self.pid == os.getpid() and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=2)


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop: uvloop's if the extra `speed` is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


_lock = threading.Lock()
_portals: list[_Portal] = []


def run_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the background loop and return its result. After a fork the child starts its own loop."""
    with _lock:
        if not _portals or _portals[-1].pid != os.getpid():
            _portals.append(_Portal())
        portal = _portals[-1]
    return portal.run(coroutine)


class _SyncBatches:
    """Iterator over the items of a stream, for one loop; its finaliser ends the stream."""

    def __init__(self, stream: Stream, pick: Callable[[list[Event]], list[Any]]) -> None:
        self._stream = stream
        self._items: Iterator[Any] = iter(())
        self._pick = pick

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while True:
            for item in self._items:
                return item
            events = run_blocking(self._stream.next_batch())
            if not events:
                raise StopIteration
            self._items = iter(self._pick(events))

    def __del__(self) -> None:
        self._stream.abandon()


class SyncStream:
    """A `Stream` for code without asyncio. Used once: iterate over it for text, or over `events()`, in a `with` block.

    Example:
        >>> with client.stream_sync("Hello") as stream:
        ...     for token in stream:
        ...         print(token, end="", flush=True)
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._is_taken = False

    def __enter__(self) -> SyncStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        run_blocking(self._stream.__aexit__(kind))

    def __iter__(self) -> Iterator[str]:
        return self._batches(texts_of)

    def events(self) -> Iterator[Event]:
        """Return an iterator over all events, for one loop.

        Raises:
            StreamConsumedError: The stream was used already.

        Example:
            >>> for event in stream.events():
            ...     print(event)
        """
        return self._batches(list)

    def _batches(self, pick: Callable[[list[Event]], list[Any]]) -> _SyncBatches:
        if self._is_taken:
            raise StreamConsumedError("this stream was used already", hint="Call client.stream_sync(...) again.")
        self._is_taken = True
        return _SyncBatches(self._stream, pick)

    def cancel(self) -> APIResponse:
        """Stop the stream, from any thread; return the response so far.

        Example:
            >>> partial = stream.cancel()
            >>> partial.completion
        """
        return run_blocking(self._stream.cancel())

    @property
    def response(self) -> APIResponse:
        """The response so far; complete after the end of the stream."""
        return self._stream.response

    @property
    def stats(self) -> StreamStats:
        """Timing of the stream so far."""
        return self._stream.stats
