"""Clients that npm installs beside the Python packages, and what happens where they are missing."""

import os
import shutil
import sys
from pathlib import Path

import pytest

CLIENTS = Path(sys.prefix) / "npm"


def need(name: str, *, found: bool, how: str) -> None:
    """Skip the test if something is missing; fail if DELUGE_REQUIRE, a list of names, has it."""
    if found:
        return
    reason = f"{name} is not installed: {how}"
    if name in os.environ.get("DELUGE_REQUIRE", "").split(","):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def node_clients() -> Path:
    """Return the folder with the clients for Node."""
    folder = CLIENTS / "node"
    is_there = shutil.which("node") is not None and (folder / ".installed").exists()
    need("node", found=is_there, how="run `make node` (it needs Node and npm)")
    return folder
