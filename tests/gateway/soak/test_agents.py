"""Coding agents against the gateway: a whole task with tools, offline. Only `make soak` runs them.

Each runs in a network namespace of its own, with the loopback alone. npm and pip install them at first: a quarter to
half a gigabyte each.
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

PACKAGES = {
    "claude": "@anthropic-ai/claude-code@2.1.197",
    "codex": "@openai/codex@0.171.0",
    "opencode": "opencode-ai@1.18.33",
}
PIP_PACKAGES = {"aider": "aider-chat==0.86.2"}
RUNNER = Path(__file__).parent / "agents.py"
MODELS = ("gpt-4o", "claude-sonnet-5-5", "gemini-3.8-flash")
DONE = "The file is written."
DIALECTS = {
    "aider": "openai-chat",
    "claude": "anthropic-messages",
    "codex": "openai-responses",
    "opencode": "openai-chat",
    "opencode-anthropic": "anthropic-messages",
}


def isolated() -> list[str]:
    """Return the command that runs another in a network namespace of its own."""
    command = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    can_isolate = shutil.which("unshare") is not None and not subprocess.call(  # noqa: S603 - a constant
        [*command, "true"], stderr=subprocess.DEVNULL
    )
    need("unshare", found=can_isolate, how="network namespaces need Linux, and root or user namespaces")
    return command


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - of the tables above


def install(name: str) -> Path:
    """Return the program of an agent, which npm or pip installs if it is missing."""
    return by_pip(name) if name in PIP_PACKAGES else by_npm(name)


def by_npm(name: str) -> Path:
    folder = CLIENTS / name
    found = folder / "node_modules" / ".bin" / name
    need("npm", found=found.exists() or shutil.which("npm") is not None, how="npm installs the agents")
    if not found.exists():
        folder.mkdir(parents=True, exist_ok=True)
        installed = run("npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", PACKAGES[name])
        need(name, found=installed.returncode == 0, how=f"npm install {PACKAGES[name]}: {installed.stderr[-500:]}")
        script = folder / "node_modules" / "@anthropic-ai" / "claude-code" / "install.cjs"
        if script.exists():  # newer npm runs no scripts of packages; this one links the program
            run("node", str(script))
    return found


def by_pip(name: str) -> Path:
    """Return the program of a package in an environment of its own: aider pins the versions of a hundred packages."""
    folder = CLIENTS / name
    found = folder / "bin" / name
    if not found.exists():
        run(sys.executable, "-m", "venv", str(folder))
        installed = run(str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", PIP_PACKAGES[name])
        need(name, found=installed.returncode == 0, how=f"pip install {PIP_PACKAGES[name]}: {installed.stderr[-500:]}")
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
    assert (outcome["proof"] or "").strip() == "works", outcome
    assert DONE in outcome["printed"]
    assert {tuple(each) for each in outcome["requests"]} == {(DIALECTS[agent], 200)}
    # Codex executes the call of a tool in a namespace only if it gets the name and the namespace back.
    assert not [text for text in outcome["results"] if "unsupported call" in text]
    is_flat = agent == "codex" and model != "gpt-4o"  # OpenAI itself gets the namespace, where the script calls nothing
    assert len(outcome["results"]) == (2 if is_flat else 0 if agent == "aider" else 1)
