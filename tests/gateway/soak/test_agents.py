"""Codex and opencode against the gateway: a whole task with tools, offline. Only `make soak` runs them.

Each runs in a network namespace of its own, with the loopback alone. npm installs them at first: half a gigabyte each.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.installed import CLIENTS
from installed import need

pytestmark = pytest.mark.skipif(not os.environ.get("DELUGE_SOAK"), reason="long: make soak runs it")

PACKAGES = {"codex": "@openai/codex@0.171.0", "opencode": "opencode-ai@1.18.33"}
RUNNER = Path(__file__).parent / "agents.py"
MODELS = ("gpt-4o", "claude-sonnet-5-5", "gemini-3.8-flash")
DONE = "The file is written."
DIALECTS = {"codex": "openai-responses", "opencode": "openai-chat", "opencode-anthropic": "anthropic-messages"}


def isolated() -> list[str]:
    """Return the command that runs another in a network namespace of its own."""
    command = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    can_isolate = shutil.which("unshare") is not None and not subprocess.call(  # noqa: S603 - a constant
        [*command, "true"], stderr=subprocess.DEVNULL
    )
    need("unshare", found=can_isolate, how="network namespaces need Linux, and root or user namespaces")
    return command


def install(name: str) -> Path:
    """Return the program of an agent, which npm installs if it is missing."""
    folder = CLIENTS / name
    found = folder / "node_modules" / ".bin" / name
    need("npm", found=found.exists() or shutil.which("npm") is not None, how="npm installs Codex and opencode")
    if not found.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", PACKAGES[name]]
        installed = subprocess.run(  # noqa: S603 - of the table above
            command, check=False, capture_output=True, text=True
        )
        need(
            name, found=installed.returncode == 0, how=f"npm install {PACKAGES[name]} failed: {installed.stderr[-500:]}"
        )
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("agent", DIALECTS)
def test_a_whole_task(agent: str, model: str) -> None:
    program = install(agent.partition("-")[0])
    command = [*isolated(), sys.executable, str(RUNNER), agent, str(program), model]
    ran = subprocess.run(  # noqa: S603 - our own script
        command, check=False, capture_output=True, text=True, timeout=600
    )
    assert ran.returncode == 0, ran.stderr
    outcome = json.loads(ran.stdout)
    assert outcome["status"] == 0, outcome
    assert outcome["proof"] == "works", outcome
    assert DONE in outcome["printed"]
    assert {tuple(each) for each in outcome["requests"]} == {(DIALECTS[agent], 200)}
    # Codex executes the call of a tool in a namespace only if it gets the name and the namespace back.
    assert not [text for text in outcome["results"] if "unsupported call" in text]
    is_flat = agent == "codex" and model != "gpt-4o"  # OpenAI itself gets the namespace, where the script calls nothing
    assert len(outcome["results"]) == (2 if is_flat else 1)
