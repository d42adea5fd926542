"""Thousands of streams at once in one process, the server in another: memory for each, how late they are read."""

import json
import subprocess
import sys
from typing import Any

from bench.serving import serving

STREAMS = 5_000
PER_SECOND = 20
EVENTS = 600
WAYS = ("streams", "merged", "batch")


def crowd(streams: int = STREAMS, per_second: float = PER_SECOND, events: int = EVENTS) -> None:
    """Print one line for each way to have them."""
    print(f"\n{streams} streams at once, {per_second} events/s each for {events / per_second:g} s")
    for way in WAYS:
        found = run(way, streams, per_second, events)
        if found["kinds"]:
            print(f"  {way:8} {found['kinds']}")
        print(
            f"  {way:8} {found['errors']} errors, {found['events']} of {streams * events} events, "
            f"{found['kib_per_stream']:5.1f} KiB each ({found['kib_of_text']:.1f} of it text), "
            f"CPU {found['cpu_s'] / found['events'] * 1e6:4.1f} us an event, {found['cpu_s']:.0f} of "
            f"{found['wall_s']:.0f} s; late by {found['lag_p50_s']:.2f} s (median), {found['lag_p99_s']:.2f} s (p99)"
        )


def run(way: str, streams: int, per_second: float, events: int) -> dict[str, Any]:
    """Run one client process; return what it says."""
    flowing = serving("bench.slow_server", str(per_second), str(events))
    with flowing as (_, port), serving("bench.short_server") as (_, warm_port):
        command = [sys.executable, "-m", "bench.crowd_peer", way, port, str(streams), warm_port]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    crowd(*map(int, sys.argv[1:]))
