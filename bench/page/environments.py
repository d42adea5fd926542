"""The environments of the peers: one virtual environment for each library, so that their requirements do not meet."""

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(os.environ.get("DELUGE_BENCH_ENVIRONMENTS", ".venv/bench"))
INSTALL_S = 600  # long enough for LiteLLM's proxy over a slow connection


class Peer(NamedTuple):
    """A library to compare with.

    Attributes:
        name: Its name in tables and plots.
        requirement: What pip installs for it; None: it runs in the project's own environment.
    """

    name: str
    requirement: str | None = None


BARE, DELUGE = Peer("aiohttp"), Peer("lm_deluge")
OPENAI = Peer("openai", "openai==3.54.0")
PYDANTIC_AI = Peer("pydantic-ai", "pydantic-ai-slim[openai]==2.68.0")
LITELLM = Peer("litellm", "litellm[proxy]==1.108.7")
OLDER = Peer("lm-deluge 0.0.168", "lm-deluge==0.0.168")
PEERS = (BARE, DELUGE, OPENAI, PYDANTIC_AI, LITELLM, OLDER)


def python_of(peer: Peer) -> str | None:
    """Return the interpreter of a peer's environment, which is made on first use; None if it cannot be installed."""
    if peer.requirement is None:
        return sys.executable
    folder = FOLDER / peer.requirement.replace("==", "-").replace("[", "-").replace("]", "")
    python, mark = folder / "bin" / "python", folder / ".ready"
    if not mark.exists():
        print(f"installing {peer.requirement}", file=sys.stderr, flush=True)
        venv.create(folder, clear=True, with_pip=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", peer.requirement]
        try:
            subprocess.run(command, check=True, timeout=INSTALL_S, stdout=subprocess.DEVNULL)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return None
        mark.touch()
    return str(python.absolute())


def version_of(peer: Peer, python: str) -> str:
    """Return the version of a peer's library."""
    if peer is DELUGE:
        import lm_deluge

        return lm_deluge.__version__
    name = "aiohttp" if peer is BARE else str(peer.requirement).partition("==")[0].partition("[")[0]
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
