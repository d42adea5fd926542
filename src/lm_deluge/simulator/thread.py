"""A thread with its own event loop, for servers that are started by code without one."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

__all__ = ["ServerThread"]

ServerT = TypeVar("ServerT", bound=AbstractAsyncContextManager[Any])


class ServerThread(Generic[ServerT]):
    """A thread that enters an async context manager; it runs from construction to `stop` or the end of `with`.

    Raises:
        OSError: The server cannot listen on its port.
    """

    def __init__(self, server: ServerT) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="lm-deluge-simulator", daemon=True)
        self._stopping: asyncio.Event
        self._is_ready = threading.Event()
        self._failures: list[OSError] = []
        self._thread.start()
        self._is_ready.wait()
        if self._failures:
            self._thread.join()
            raise self._failures[0]

    def stop(self) -> None:
        """End every stream, then the thread. Further calls do nothing."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def __enter__(self) -> ServerT:
        return self._server

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except OSError as error:
            self._failures.append(error)
        finally:
            self._loop.close()
            self._is_ready.set()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        async with self._server:
            self._is_ready.set()
            await self._stopping.wait()
