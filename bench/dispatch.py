"""The cost of the dispatcher: thousands of short streams, as a ratio to a minimal loop that reads them.

Flowing streams arrive event by event, as models generate them. The other streams arrive in a single segment, so that
almost all of the time is overhead. Collected answers of 500 tokens are requested as streams and as plain documents;
their ratio is to a minimal client of plain documents. With the argument `collected` only these run.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.serving import serving

REQUESTS = 3_000  # a run takes seconds, so that start and end of a process do not count
TURNS = 3  # runs per peer, of which the median counts
INSTALL_S = 300  # long enough for a slow package index, short enough to go on without the old version
_OLD = "lm-deluge==0.0.168"
_PEERS_FILE = Path(__file__).with_name("dispatch_peers.py")


def dispatch(*, only_collected: bool = False) -> None:
    """Print CPU and wall time per request, in one process per peer."""
    with tempfile.TemporaryDirectory() as folder:
        old = _old_environment(folder)
        if old is None:
            print(f"  {_OLD} is left out: its installation has failed")
        before = {} if old is None else {"old-streams": old, "old-batch": old}
        for delivery in () if only_collected else ("flowing", "at-once"):
            _compare(f"short streams, {delivery}", (delivery,), _ours("bare", "deluge") | before)
        collected = _ours("bare-plain", "deluge-plain", "deluge", "bare") | before
        collected.pop("old-streams", None)
        _compare("collected answers of 500 tokens", ("long",), collected)


def _ours(*peers: str) -> dict[str, str]:
    return dict.fromkeys(peers, sys.executable)


def _compare(what: str, server: tuple[str, ...], pythons: dict[str, str]) -> None:
    base = next(iter(pythons))
    print(f"\n{REQUESTS} {what}, 100 at a time: CPU and wall time per request, and CPU as a ratio to {base}")
    taken: dict[str, list[tuple[float, float]]] = {peer: [] for peer in pythons}
    with serving("bench.short_server", *server) as (_, port):
        for _ in range(TURNS):
            for peer, python in pythons.items():
                taken[peer].append(_run(python, peer, port))
    unit = statistics.median(cpu for cpu, _ in taken[base])
    for peer, times in taken.items():
        cpu, wall = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"  {peer:14} {cpu / REQUESTS * 1e6:7.0f} us {wall / REQUESTS * 1e6:7.0f} us   {cpu / unit:5.2f}")


def _run(python: str, peer: str, port: str) -> tuple[float, float]:
    command = [python, "-W", "ignore", str(_PEERS_FILE), peer, port, str(REQUESTS)]
    # The old version must not find the sources of this one.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" or python == sys.executable}
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=_PEERS_FILE.parent.parent, env=inherited
    )
    cpu, wall, _ = done.stdout.split("\n")[-2].split()
    return float(cpu), float(wall)


def _old_environment(folder: str) -> str | None:
    """Install the old version of lm-deluge in a separate environment; return its interpreter, or None on failure."""
    python = str(Path(folder) / "bin" / "python")
    try:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-qq", _OLD], check=True, capture_output=True, timeout=INSTALL_S
        )
    except (subprocess.SubprocessError, OSError):
        return None
    return python


if __name__ == "__main__":
    dispatch(only_collected="collected" in sys.argv)
