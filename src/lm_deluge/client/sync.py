"""Streams for code without asyncio; they also work where an event loop runs already, as in a notebook.

One daemon thread runs one event loop for all blocking calls of the process. There is one code path: the thread drives
the same `Stream`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from lm_deluge.client.sentences import SentenceSplitter
from lm_deluge.client.stream import Stream, texts_of
from lm_deluge.client.typed_views import Pick, pick_fields, pick_items, pick_partials
from lm_deluge.errors import ConfigurationError, StreamConsumedError
from lm_deluge.events import Event
from lm_deluge.response import APIResponse, StreamStats

__all__ = ["SyncStream", "run_blocking"]

T = TypeVar("T")

_JOIN_S = 2.0  # the end of a program may wait for so long until its connections are closed
_SETTLE_S = 1.0  # of it, for tasks that close connections, write a journal, or show the end of an answer


class _Portal:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = _new_loop()
        self._calls: set[asyncio.Task[Any]] = set()
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="lm-deluge", daemon=True)
        self._thread.start()
        atexit.register(self.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._is_stopped:
            # A task that raises one of these two ends `run_forever`, too. The caller of the task gets it.
            with contextlib.suppress(KeyboardInterrupt, SystemExit):
                self._loop.run_forever()
        try:
            self._loop.run_until_complete(self._settle())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    async def _settle(self) -> None:
        """Cancel the calls, and wait a short time for the tasks that they started.

        A pool that is being closed would otherwise be closed a second time by `shutdown_asyncgens`, which is an error.
        """
        for call in self._calls:
            call.cancel()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            _, others = await asyncio.wait(others, timeout=_SETTLE_S)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in the loop and return its result.

        Args:
            make: Returns the coroutine. It is called in the loop's thread, where no Ctrl-C can come between the
                creation of a coroutine and its start.
        """
        future: Future[T] = Future()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            if future.set_running_or_notify_cancel():
                task = self._loop.create_task(make())
                tasks.append(task)
                self._calls.add(task)
                task.add_done_callback(end)

        def end(task: asyncio.Task[T]) -> None:
            self._calls.discard(task)
            if not self._is_stopped:  # after it only daemon threads wait, and Python would print what they raise
                _copy_outcome(task, future)

        def cancel() -> None:
            for task in tasks:
                task.cancel()

        try:
            self._loop.call_soon_threadsafe(start)
            return future.result()
        except BaseException:
            if not future.cancel() and not future.done():
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(cancel)
            raise

    def stop(self) -> None:
        """Stop the loop and wait for the end of its thread."""
        if self.pid == os.getpid() and not self._loop.is_closed():
            self._is_stopped = True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=_JOIN_S)


def _copy_outcome(task: asyncio.Task[T], future: Future[T]) -> None:
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    if error is None:
        future.set_result(task.result())
    else:
        future.set_exception(error)


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop: uvloop's if the extra `speed` is installed.

    Where gevent or eventlet has replaced the threads, the thread of the loop is a green one. It must wait in Python, as
    asyncio's own loop does: uvloop would wait in C, and no other green thread would run.
    """
    if _has_green_threads():
        return asyncio.new_event_loop()
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _has_green_threads() -> bool:
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    return bool(
        (gevent is not None and gevent.is_module_patched("threading"))
        or (eventlet is not None and eventlet.is_monkey_patched("thread"))
    )


_lock = threading.Lock()
_portals: list[_Portal] = []


def run_blocking(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run the coroutine that `make` returns in the background loop, and return its result.

    After a fork the child starts its own loop.
    """
    with _lock:
        if not _portals or _portals[-1].pid != os.getpid():
            _portals.append(_Portal())
        portal = _portals[-1]
    return portal.run(make)


class _SyncBatches:
    """Iterator over the items of a stream, for one loop; its finaliser ends the stream."""

    def __init__(self, stream: Stream, pick: Pick, finish: Callable[[], list[Any]] = list) -> None:
        self._stream = stream
        self._finish = finish  # returns the items that are certain only at the end
        self._items: Iterator[Any] = iter(())
        self._pick = pick

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while True:
            for item in self._items:
                return item
            events = run_blocking(self._stream.next_batch)
            items = self._pick(events) if events else self._finish()
            if not events and not items:
                raise StopIteration
            self._items = iter(items)

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
        run_blocking(lambda: self._stream.__aexit__(kind))

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

    def partials(self) -> Iterator[Any]:
        """Return an iterator over the object so far of a call with `output=`, as `Stream.partials` does.

        Raises:
            StreamConsumedError: The stream was used already.
            ConfigurationError: The call has no `output`.

        Example:
            >>> for invoice in client.stream_sync(prompt, output=Invoice).partials():
            ...     print(invoice)
        """
        return self._batches(pick_partials(self._stream.call))

    def fields(self) -> Iterator[tuple[tuple[str | int, ...], Any]]:
        """Return an iterator over the values in the object of a call with `output=`, as `Stream.fields` does.

        Raises:
            StreamConsumedError: The stream was used already.
            ConfigurationError: The call has no `output`.

        Example:
            >>> for path, value in client.stream_sync(prompt, output=Invoice).fields():
            ...     print(path, value)
        """
        return self._batches(pick_fields(self._stream.call))

    def items(self, path: str | tuple[str | int, ...] = ()) -> Iterator[Any]:
        """Return an iterator over the elements of a list of a call with `output=`, as `Stream.items` does.

        Args:
            path: Where the list is: `"lines"`, `"order.lines"`, or a tuple of keys and indexes.

        Raises:
            StreamConsumedError: The stream was used already.
            ConfigurationError: The call has no `output`, or its type has no such list.

        Example:
            >>> for line in client.stream_sync(prompt, output=Invoice).items("lines"):
            ...     print(line.name)
        """
        return self._batches(pick_items(self._stream.call, path))

    def sentences(self) -> Iterator[str]:
        """Return an iterator over the sentences of the answer, for one loop; see `Stream.sentences`.

        Raises:
            StreamConsumedError: The stream was used already.
            DelugeError: The call failed; `partial` is the response so far.

        Example:
            >>> for sentence in client.stream_sync("Tell me a story").sentences():
            ...     print(sentence)
        """
        splitter = SentenceSplitter()
        return self._batches(lambda events: splitter.feed("".join(texts_of(events))), splitter.close)

    def display(self) -> APIResponse:
        """Show the answer as Markdown in a notebook while it arrives; elsewhere print it. See `Stream.display`.

        Returns:
            The response. The cell that displays it does not show it once more as its result.

        Raises:
            StreamConsumedError: The stream was used already.
            DelugeError: The call failed; `partial` is the response so far, which stays in the cell.

        Example:
            >>> response = client.stream_sync("Compare three sorting algorithms in a table.").display()
        """
        self._take()
        ended = threading.Event()

        async def display() -> APIResponse:
            try:
                return await self._stream.display()
            finally:
                ended.set()

        try:
            return run_blocking(display)
        except KeyboardInterrupt:
            ended.wait(_SETTLE_S)  # until the cell shows that the answer is incomplete
            raise

    def result(self) -> APIResponse:
        """Read the stream, or the rest of it, to its end, and return the response.

        Returns:
            The response; after `cancel` the part that arrived.

        Raises:
            DelugeError: The call failed; `partial` is the response so far.

        Example:
            >>> response = client.stream_sync("Hello").result()
            >>> response.usage.total_tokens
        """
        self._is_taken = True
        return run_blocking(self._stream.read_to_end)

    @property
    def text(self) -> str:
        """The text of the whole answer; the stream, or the rest of it, is read to its end.

        Raises:
            DelugeError: The call failed; `partial` is the response so far.

        Example:
            >>> client.stream_sync("Hello").text
        """
        return self.result().completion

    def __await__(self) -> NoReturn:
        raise _needs_no_async()

    def __aiter__(self) -> NoReturn:
        raise _needs_no_async()

    async def __aenter__(self) -> NoReturn:
        raise _needs_no_async()

    async def __aexit__(self, *exc: object) -> None:
        """Do nothing: `async with` looks this up before it calls `__aenter__`."""

    def _batches(self, pick: Pick, finish: Callable[[], list[Any]] = list) -> _SyncBatches:
        self._take()
        return _SyncBatches(self._stream, pick, finish)

    def _take(self) -> None:
        if self._is_taken:
            raise StreamConsumedError("this stream was used already", hint="Call client.stream_sync(...) again.")
        self._is_taken = True

    def cancel(self) -> APIResponse:
        """Stop the stream, from any thread; return the response so far.

        Example:
            >>> partial = stream.cancel()
            >>> partial.completion
        """
        return run_blocking(self._stream.cancel)

    @property
    def response(self) -> APIResponse:
        """The response so far; complete after the end of the stream."""
        return self._stream.response

    @property
    def stats(self) -> StreamStats:
        """Timing of the stream so far."""
        return self._stream.stats


def _needs_no_async() -> ConfigurationError:
    return ConfigurationError(
        "a SyncStream is used without async", hint="Use `for`, `with` or `.result()`; or call client.stream(...)."
    )
