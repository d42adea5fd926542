"""`FedIterator`: the results of a task, one by one. Giving up a wait for the next result ends the wait alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, NoReturn, TypeVar

from lm_deluge.errors import ConfigurationError

__all__ = ["AsyncOnly", "Channel", "FedIterator"]

T = TypeVar("T")


class AsyncOnly:
    """A base for what needs `async`: a `for` or `with` without it raises an error that names the right form."""

    _SYNC_FORM = "Use `async for`."

    def __iter__(self) -> NoReturn:
        raise ConfigurationError(f"{type(self).__name__} needs `async for`", hint=self._SYNC_FORM)

    def __enter__(self) -> NoReturn:
        raise ConfigurationError(f"{type(self).__name__} needs `async with`", hint=self._SYNC_FORM)

    def __exit__(self, *exc: object) -> None:
        """Do nothing: `with` looks this up before it calls `__enter__`."""


class Channel(Generic[T]):
    """Passes lists of items from a task to its consumer. A slow consumer slows the task down.

    Args:
        most: How many lists may wait.

    Attributes:
        error: What ended the task; None if it has not ended, or returned normally.
    """

    def __init__(self, most: int) -> None:
        self.error: BaseException | None = None
        self._most = most
        self._items: list[T] = []  # of all lists that wait
        self._lists = 0
        self._is_over = False
        self._has_changed = asyncio.Event()  # for the consumer: there are items, or there is an end
        self._has_space = asyncio.Event()

    async def put(self, items: list[T]) -> None:
        """Pass items on, once there is space."""
        while self._lists >= self._most:
            self._has_space.clear()
            await self._has_space.wait()
        self._lists += 1
        self._items += items
        self._has_changed.set()

    def end(self, error: BaseException | None) -> None:
        """Note that no more items follow."""
        self.error = error
        self._is_over = True
        self._has_changed.set()

    async def get(self) -> list[T] | None:
        """Return all items that wait, and wait for some if there are none; None after the last ones.

        A cancellation loses none.
        """
        while not self._items:
            if self._is_over:
                return None
            self._has_changed.clear()
            self._lists = 0  # empty lists
            self._has_space.set()
            await self._has_changed.wait()
        items, self._items, self._lists = self._items, [], 0
        self._has_space.set()
        return items


Feed = Callable[[Callable[[list[T]], Awaitable[None]]], Coroutine[Any, Any, None]]


async def _fed(feed: Feed[T], channel: Channel[T]) -> None:
    try:
        await feed(channel.put)
    except BaseException as error:
        channel.end(error)
        if not isinstance(error, Exception):
            raise
    else:
        channel.end(None)


class FedIterator(AsyncOnly, Generic[T]):
    """An asynchronous iterator over the items of a task, which starts with the first wait.

    Leaving it, by `aclose`, the end of an `async with` block or its last reference, cancels the task.

    Args:
        feed: Produces the items: it is called with an asynchronous function that takes lists of them. It must not
            refer to the iterator, which could otherwise not be collected.
        most: How many lists of items may wait for the consumer.
    """

    def __init__(self, feed: Feed[T], most: int) -> None:
        self._feed: Feed[T] | None = feed
        self._most = most
        self._items: list[T] = []
        self._position = 0
        self._channel: Channel[T] | None = None
        self._task: asyncio.Task[None] | None = None

    def __aiter__(self) -> FedIterator[T]:
        return self

    async def __anext__(self) -> T:
        position = self._position
        if position == len(self._items):
            await self._fill()
            position = 0
        self._position = position + 1
        return self._items[position]

    async def _fill(self) -> None:
        feed, self._feed = self._feed, None
        if feed is not None:
            self._channel = Channel(self._most)
            self._task = asyncio.get_running_loop().create_task(_fed(feed, self._channel))
        channel = self._channel
        while channel is not None:
            items = await channel.get()
            if items is None:
                self._channel = None
                if channel.error is not None:
                    raise channel.error
                break
            if items:
                self._items, self._position = items, 0
                return
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the task, and wait until it has ended."""
        self._feed = self._channel = None
        self._items, self._position = [], 0
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def __aenter__(self) -> FedIterator[T]:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        task = self._task
        if task is not None and not task.done():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                task.get_loop().call_soon_threadsafe(task.cancel)
