"""The simulator for code that has no event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lm_deluge.simulator.server import Simulator

__all__ = ["SimulatorThread"]


class SimulatorThread:
    """A simulator that runs in a thread, from construction until `stop` or the end of the `with` block.

    Raises:
        OSError: It cannot listen on its port.
    """

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="lm-deluge-simulator", daemon=True)
        self._ending: asyncio.Event
        self._is_ready = threading.Event()
        self._failures: list[OSError] = []
        self._thread.start()
        self._is_ready.wait()
        if self._failures:
            self._thread.join()
            raise self._failures[0]

    def stop(self) -> None:
        """End every stream and the thread; once is enough, twice is no error."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()

    def __enter__(self) -> Simulator:
        return self.simulator

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
        self._ending = asyncio.Event()
        async with self.simulator:
            self._is_ready.set()
            await self._ending.wait()
