"""Thousands of concurrent streams in one client process: memory per stream, and delay until an event is read."""

import json
import subprocess
import sys
from typing import Any

from bench.serving import serving

STREAMS = 5_000  # more than one process usually has, so that costs per stream are visible
PER_SECOND = 20  # events of each stream: the speed of a slow model
EVENTS = 600  # of each stream: 30 seconds at this speed, long enough for memory to settle
MODES = ("streams", "merged", "batch")


def crowd(streams: int = STREAMS, per_second: float = PER_SECOND, events: int = EVENTS) -> None:
    """Print one line for each way to read the streams: single, merged, or as a batch."""
    print(f"\n{streams} concurrent streams, {per_second} events/s each for {events / per_second:g} s")
    for mode in MODES:
        found = run(mode, streams, per_second, events)
        if found["kinds"]:
            print(f"  {mode:8} {found['kinds']}")
        print(
            f"  {mode:8} {found['errors']} errors, {found['events']} of {streams * events} events, "
            f"{found['kib_per_stream']:5.1f} KiB per stream ({found['kib_of_text']:.1f} of it text), "
            f"CPU {found['cpu_s'] / found['events'] * 1e6:4.1f} us per event, {found['cpu_s']:.0f} of "
            f"{found['wall_s']:.0f} s; delay {found['lag_p50_s']:.2f} s (median), {found['lag_p99_s']:.2f} s (p99)"
        )


def run(mode: str, streams: int, per_second: float, events: int) -> dict[str, Any]:
    """Run a client process and return its measurements."""
    slow_server = serving("bench.slow_server", str(per_second), str(events))
    with slow_server as (_, port), serving("bench.short_server") as (_, warm_port):
        command = [sys.executable, "-m", "bench.crowd_peer", mode, port, str(streams), warm_port]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    crowd(*map(int, sys.argv[1:]))
