"""The simulator behind the model named "simulator": one for the process, started on first use."""

from __future__ import annotations

import os
import threading

from lm_deluge.simulator.pace import Pace
from lm_deluge.simulator.server import Simulator
from lm_deluge.simulator.thread import SimulatorThread

__all__ = ["simulator_url"]

# As fast as a quick model: one sees that the answer comes in pieces.
_PACE = Pace(tokens_per_second=60, first_token_s=0.3, jitter=0.6)

_lock = threading.Lock()
_running: dict[int, SimulatorThread] = {}


def simulator_url() -> str:
    """Return the base URL of this process's simulator. A forked child starts one of its own."""
    with _lock:
        pid = os.getpid()
        if pid not in _running:
            _running[pid] = Simulator(pace=_PACE).start_in_thread()
        return _running[pid].simulator.base_url
