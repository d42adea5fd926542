"""Clients that npm installs beside the Python packages."""

import shutil
import sys
from pathlib import Path

from installed import need

CLIENTS = Path(sys.prefix) / "npm"


def node_clients() -> Path:
    """Return the folder with the clients for Node."""
    folder = CLIENTS / "node"
    is_there = shutil.which("node") is not None and (folder / ".installed").exists()
    need("node", found=is_there, how="run `make node` (it needs Node and npm)")
    return folder
