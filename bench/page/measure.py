"""Runs the peers of a scenario alternately, each run in a process of its own, and keeps the medians."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.page.environments import Peer
from bench.serving import serving

Figures = dict[str, float]
TURNS = 3  # runs of each peer: the median of three drops one outlier
_PEERS_FILE = Path(__file__).with_name("peers.py")
_RUN_S = 900  # a slow peer at thousands of streams takes minutes

PACED_STREAMS = (50, 500, 2_000, 5_000)
PACED_PER_SECOND, PACED_EVENTS = 4, 32  # eight seconds; providers put several tokens into an event when they are busy
EVENT_CHARACTERS = 18  # of an event of `bench.slow_server`
BURST_ANSWERS, BURST_EVENTS = 5, 2_000
COLLECTED = {"streamed": 200, "plain": 1_000}  # a streamed answer costs the slow peers a quarter of a second
COLLECTED_TOKENS = 500
WARM_CALLS = 200
TYPED_ANSWERS = 2


def run_peer(peer: Peer, python: str, scenario: str, url: str, *arguments: str) -> Figures | None:
    """Return what a peer measured in a process of its own; None if it failed."""
    command = [python, str(_PEERS_FILE), peer.name, scenario, url, *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    if python == sys.executable:
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    else:
        environment.pop("PYTHONPATH", None)
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_RUN_S, env=environment)
    except subprocess.CalledProcessError as error:
        print(f"{peer.name} failed: {error.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    except subprocess.TimeoutExpired:
        print(f"{peer.name} took more than {_RUN_S} s", file=sys.stderr)
        return None
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    found: Figures = json.loads(lines[-1])
    return found


def alternate(
    pythons: Mapping[Peer, str], run: Callable[[Peer, str], Figures | None], turns: int = TURNS
) -> dict[str, Figures]:
    """Run each peer in turn, several times; return the medians of its figures."""
    runs: dict[str, list[Figures]] = {}
    failed: set[Peer] = set()
    for _ in range(turns):
        for peer, python in pythons.items():
            if peer not in failed:
                found = run(peer, python)
                if found is None:
                    failed.add(peer)
                else:
                    runs.setdefault(peer.name, []).append(found)
    return {name: _medians(each) for name, each in runs.items()}


def _medians(runs: list[Figures]) -> Figures:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0] if all(name in run for run in runs)}


def measure_answers(pythons: Mapping[Peer, str], scenario: str, path: str, *arguments: str) -> dict[str, Figures]:
    """Measure a scenario against the server of finished answers."""
    with serving("bench.page.answer_server") as (_, port):
        url = f"http://127.0.0.1:{port}/{path}/v1"
        return alternate(pythons, lambda peer, python: run_peer(peer, python, scenario, url, *arguments))


def measure_cold(pythons: Mapping[Peer, str]) -> dict[str, Figures]:
    """Measure the first text of a fresh process."""
    with serving("bench.page.answer_server") as (_, port):
        url = f"http://127.0.0.1:{port}/24/1/v1"
        return alternate(
            pythons, lambda peer, python: run_peer(peer, python, "cold", url, repr(time.monotonic())), turns=5
        )


def measure_paced(pythons: Mapping[Peer, str], streams: int) -> dict[str, Figures]:
    """Measure many streams at the speed of a model."""
    with serving("bench.slow_server", str(PACED_PER_SECOND), str(PACED_EVENTS)) as (_, port):
        url = f"http://127.0.0.1:{port}/v1"
        more = str(streams), str(EVENT_CHARACTERS)
        return alternate(pythons, lambda peer, python: run_peer(peer, python, "paced", url, *more), turns=1)


def measure_imports(pythons: Mapping[Peer, str]) -> dict[str, Figures]:
    """Measure the CPU seconds of the import that a first call needs."""
    statements = {
        "aiohttp": "import aiohttp",
        "lm_deluge": "import lm_deluge",
        "openai": "import openai",
        "litellm": "import litellm",
        "pydantic-ai": "import pydantic_ai",
        "lm-deluge 0.0.168": "import lm_deluge",
    }

    def run(peer: Peer, python: str) -> Figures:
        code = f"import time; t = time.process_time(); {statements[peer.name]}; print('\\n', time.process_time() - t)"
        environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_API_KEY": "none"}
        if python != sys.executable:
            environment.pop("PYTHONPATH", None)
        done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, env=environment)
        return {"cpu_s": float(done.stdout.split()[-1])}

    return alternate(pythons, run, turns=5)
