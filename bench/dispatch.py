"""What the dispatcher costs: thousands of short streams, against the shortest loop that could read them."""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.serving import serving

REQUESTS = 3_000
TURNS = 3
_OLD = "lm-deluge==0.0.168"
_PEERS_FILE = Path(__file__).with_name("dispatch_peers.py")


def dispatch() -> None:
    """CPU and wall time per request, one process per peer, peers in turn."""
    print(f"\n{REQUESTS} short streams, 100 at a time: CPU and wall time per request, and CPU against the bare loop")
    with tempfile.TemporaryDirectory() as folder, serving("bench.short_server") as (_, port):
        pythons = {"bare": sys.executable, "deluge": sys.executable}
        old = _old_environment(folder)
        if old is None:
            print(f"  {_OLD} left out: it could not be installed")
        else:
            pythons |= {"old-streams": old, "old-batch": old}
        taken: dict[str, list[tuple[float, float]]] = {peer: [] for peer in pythons}
        for _ in range(TURNS):
            for peer, python in pythons.items():
                taken[peer].append(_run(python, peer, port))
    base = statistics.median(cpu for cpu, _ in taken["bare"])
    for peer, times in taken.items():
        cpu, wall = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"  {peer:14} {cpu / REQUESTS * 1e6:7.0f} us {wall / REQUESTS * 1e6:7.0f} us   {cpu / base:5.2f}")


def _run(python: str, peer: str, port: str) -> tuple[float, float]:
    command = [python, "-W", "ignore", str(_PEERS_FILE), peer, port, str(REQUESTS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=_PEERS_FILE.parent.parent)
    cpu, wall, _ = done.stdout.split("\n")[-2].split()
    return float(cpu), float(wall)


def _old_environment(folder: str) -> str | None:
    """Install lm-deluge's older self beside everything else; return its interpreter."""
    python = str(Path(folder) / "bin" / "python")
    try:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", _OLD], check=True, capture_output=True, timeout=300)
    except (subprocess.SubprocessError, OSError):
        return None
    return python


if __name__ == "__main__":
    dispatch()
