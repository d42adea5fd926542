"""Run every benchmark and print a table for each. Compare the ratios; absolute times depend on the machine."""

import statistics
import subprocess
import sys
import time

from bench.agents import agents
from bench.crowd import crowd
from bench.decoders import decoders
from bench.dispatch import dispatch
from bench.filters import filters
from bench.opening import opening
from bench.partial_json import partial_json
from bench.server import EVENTS
from bench.serving import serving
from bench.typed_answers import typed_answers

TURNS = 3  # runs per peer: the median of three drops one outlier, and a run takes seconds
IMPORT_RUNS = 9  # the best of nine is close to the import time without interference


def decode() -> None:
    """Print the CPU time of a client that reads 20,000 events over loopback, in one process per peer."""
    with serving("bench.server") as (_, port):
        for per_chunk in ("1", "20"):
            print(f"\nreading {EVENTS} events, {per_chunk} per HTTP chunk: CPU per event, and ratio to the bare loop")
            report(decode_turns(port, per_chunk))


def decode_turns(port: str, per_chunk: str) -> dict[str, list[float]]:
    peers = ("bare", "deluge", "deluge-events", "openai")
    times: dict[str, list[float]] = {peer: [] for peer in peers}
    hashes = set()
    for turn in range(TURNS):
        for peer in peers:
            if peer == "openai" and turn:
                continue
            command = [sys.executable, "-m", "bench.peers", peer, port, per_chunk]
            seconds, digest = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            times[peer].append(float(seconds))
            hashes.add(digest)
    assert len(hashes) == 1, "the peers have read different texts"
    return times


def report(times: dict[str, list[float]]) -> None:
    base = statistics.median(times["bare"])
    for peer, taken in times.items():
        median = statistics.median(taken)
        print(f"  {peer:14} {median / EVENTS * 1e6:7.2f} us   {median / base:5.2f}")


def imports() -> None:
    """Print the wall time of an import in a fresh interpreter, minus the time of an interpreter without imports."""
    print(f"\nimport time, best of {IMPORT_RUNS}, and ratio to `import openai`")
    taken = {name: import_seconds(f"import {name}") for name in ("lm_deluge", "aiohttp", "openai")}
    for name, seconds in taken.items():
        print(f"  {name:14} {seconds * 1e3:7.1f} ms   {seconds / taken['openai']:5.3f}")


def registry() -> None:
    """Print the CPU time of the first look-up of a model in a fresh interpreter."""
    module = "lm_deluge.models.registry"
    code = f"import time, {module} as r; t = time.process_time(); r.list_models(); print(time.process_time() - t)"
    runs = (subprocess.run([sys.executable, "-c", code], check=True, capture_output=True) for _ in range(IMPORT_RUNS))
    best = min(float(run.stdout) for run in runs)
    print(f"\nloading the registry of models, best of {IMPORT_RUNS}: {best * 1e3:.1f} ms of CPU time")


def import_seconds(statement: str) -> float:
    def best(code: str) -> float:
        runs = []
        for _ in range(IMPORT_RUNS):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            runs.append(time.perf_counter() - started)
        return min(runs)

    return best(statement) - best("pass")


if __name__ == "__main__":
    if "limits" in sys.argv:
        from bench.limits import limits

        limits()
    else:
        imports()
        registry()
        decode()
        decoders()
        partial_json()
        typed_answers()
        filters()
        dispatch()
        opening()
        agents()
        crowd()
