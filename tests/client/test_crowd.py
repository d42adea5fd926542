"""Thousands of streams at once in one process of their own: each comes whole, and none costs much."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STREAMS, SECONDS = (5_000, 30) if os.environ.get("DELUGE_SOAK") else (200, 1)
PER_SECOND = 20
MOST_KIB = 60

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read in /proc")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", ["streams", "merged", "batch"])
def test_thousands_of_streams_come_whole_and_cost_little(way: str) -> None:
    events = SECONDS * PER_SECOND
    code = (
        f"from bench.crowd import run; import json; print(json.dumps(run({way!r}, {STREAMS}, {PER_SECOND}, {events})))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603
    found = json.loads(done.stdout)
    assert found["errors"] == 0
    assert found["answers"] == found["attempts"] == STREAMS
    assert found["events"] == STREAMS * events
    # What was said is kept, and is no cost of the stream.
    assert found["kib_per_stream"] - found["kib_of_text"] <= MOST_KIB
