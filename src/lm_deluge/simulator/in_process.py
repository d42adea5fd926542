"""The simulator that serves the model named "simulator": one per process, started on first use."""

from __future__ import annotations

import os
import threading

from lm_deluge.simulator.pace import Pace
from lm_deluge.simulator.server import Simulator, SimulatorThread

__all__ = ["simulator_url"]

# As fast as a quick model, and slow enough that a reader sees the answer arrive in pieces.
_PACE = Pace(tokens_per_second=60, first_token_s=0.3, jitter=0.6)

_lock = threading.Lock()
_running: dict[int, SimulatorThread] = {}  # by process id: a fork copies this table, but not the thread


def simulator_url() -> str:
    """Return the base URL of the simulator of this process. A forked child process starts its own simulator."""
    with _lock:
        pid = os.getpid()
        if pid not in _running:
            _running[pid] = Simulator(pace=_PACE).start_in_thread()
        return _running[pid].simulator.base_url
