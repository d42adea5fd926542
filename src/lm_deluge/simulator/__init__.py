"""A loopback server that speaks the wire APIs, with scripted answers, a configurable pace and faults on demand."""

from lm_deluge.simulator.batches.jobs import Batches
from lm_deluge.simulator.faults.catalog import FAULTS, Fault
from lm_deluge.simulator.http import Limits
from lm_deluge.simulator.pace import Pace
from lm_deluge.simulator.script import Script
from lm_deluge.simulator.server import RecordedRequest, Simulator, SimulatorStats, SimulatorThread

__all__ = [
    "FAULTS",
    "Batches",
    "Fault",
    "Limits",
    "Pace",
    "RecordedRequest",
    "Script",
    "Simulator",
    "SimulatorStats",
    "SimulatorThread",
]
