"""Threads for sync tools, kept for the next call."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable

__all__ = ["run_in_thread"]

# A thread costs 60 us to start (2026-11), and a loop of calls uses the same few again within seconds.
_IDLE_S = 10.0


class _Worker:
    """A thread that runs jobs one after another. It is a daemon: a tool that never returns does not keep a program."""

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="tool", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                job = self.jobs.get(timeout=_IDLE_S)
            except queue.Empty:
                try:
                    _IDLE.remove(self)
                except ValueError:  # a caller has just taken it: the job arrives
                    continue
                return
            job()
            del job  # it refers to arguments and results of the tool
            _IDLE.append(self)


_IDLE: list[_Worker] = []
"""Workers that wait for a job. `append`, `pop` and `remove` of a list are atomic."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_IDLE.clear)  # a child has none of the threads


def run_in_thread(job: Callable[[], None]) -> None:
    """Run a job in a thread of its own, and return at once. The job must not raise."""
    try:
        worker = _IDLE.pop()
    except IndexError:
        worker = _Worker()
    worker.jobs.put(job)
