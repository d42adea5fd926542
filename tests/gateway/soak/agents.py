"""One task of a coding agent against the gateway, with no network but the loopback: `python agents.py codex gpt-4o`.

Runs in a network namespace of its own, where nothing can leave the machine. Prints what happened as JSON.
"""

import asyncio
import fcntl
import json
import os
import socket
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from gateway.serving import serve
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.gateway.configuration.settings import GatewaySettings, ServedModel
from lm_deluge.prompt.parts import ToolResultPart
from lm_deluge.prompt.tool import Tool
from lm_deluge.simulator import Script, Simulator

PROOF = "proof.txt"
TASK = f"Write the word works into {PROOF}."
DONE = "The file is written."
MODELS = {"gpt-4o": "/v1", "claude-sonnet-5-5": "", "gemini-3.8-flash": ""}

CODEX = """
model = "{model}"
model_provider = "deluge"
approval_policy = "never"
sandbox_mode = "danger-full-access"
[model_providers.deluge]
name = "LM Deluge"
base_url = "{url}/v1"
env_key = "DELUGE_KEY"
wire_api = "responses"
"""


class AgentScript:
    """Plays the model: each tool is called once, then the answer follows.

    Args:
        without_tools: The answer to a request that offers no tools.

    Attributes:
        results: What the agent sent back.
    """

    def __init__(self, without_tools: str) -> None:
        self._without_tools = without_tools
        self.results: list[str] = []
        self.offered: set[str] = set()

    def __call__(self, request: ParsedRequest) -> Script:
        self.offered |= {tool.name for tool in request.tools}
        if not request.tools:
            return Script(text=self._without_tools)
        parts = [part for message in request.conversation.messages for part in message.parts]
        self.results = [part.content for part in parts if isinstance(part, ToolResultPart)]
        calls = _calls([tool.name for tool in request.tools if isinstance(tool, Tool)])
        if len(self.results) < len(calls):
            return Script(text="I do it.", tool_calls=[calls[len(self.results)]])
        return Script(text=DONE)


def _calls(names: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls for the tools that an agent offers."""
    calls: list[tuple[str, dict[str, Any]]] = []
    namespaced = next((name for name in names if name.endswith("__close_agent")), None)
    if namespaced is not None:
        calls.append((namespaced, {"target": "no-such-agent"}))
    if "exec_command" in names:
        calls.append(("exec_command", {"cmd": f"printf works > {PROOF}"}))
    shell = next((name for name in names if name in ("bash", "Bash")), None)  # of opencode, of Claude Code
    if shell is not None:
        calls.append((shell, {"command": f"printf works > {PROOF}", "description": "Write the file"}))
    return calls


def codex(program: Path, home: Path, url: str, model: str) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of Codex."""
    (home / ".codex").mkdir()
    (home / ".codex" / "config.toml").write_text(CODEX.format(url=url, model=model))
    return [str(program), "exec", "--skip-git-repo-check", TASK], {"DELUGE_KEY": "any"}


def opencode(program: Path, home: Path, url: str, model: str, package: str) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of opencode."""
    provider = {
        "npm": package,
        "name": "LM Deluge",
        "options": {"baseURL": f"{url}/v1", "apiKey": "any"},
        "models": {model: {"name": model}},
    }
    config = {
        "$schema": "https://opencode.ai/config.json",
        "provider": {"deluge": provider},
        "model": f"deluge/{model}",
        "small_model": f"deluge/{model}",
        "permission": "allow",
        "autoupdate": False,
        "share": "disabled",
    }
    folder = home / ".config" / "opencode"
    folder.mkdir(parents=True)
    (folder / "opencode.json").write_text(json.dumps(config))
    return [str(program), "run", TASK], {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_LSP_DOWNLOAD": "1"}


def claude(program: Path, home: Path, url: str, model: str) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of Claude Code."""
    environment = {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_AUTH_TOKEN": "any",
        "ANTHROPIC_MODEL": model,
        "ANTHROPIC_SMALL_FAST_MODEL": model,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    return [str(program), "-p", TASK, "--allowedTools", "Bash"], environment


def aider(program: Path, home: Path, url: str, model: str) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of aider."""
    settings = f"- name: openai/{model}\n  use_temperature: false\n"  # Claude Sonnet 5 takes none
    (home / ".aider.model.settings.yml").write_text(settings)
    options = ("--yes-always", "--no-git", "--no-check-update", "--no-show-model-warnings", "--analytics-disable")
    command = [str(program), "--model", f"openai/{model}", "--edit-format", "whole", *options, "--message", TASK]
    return command, {"OPENAI_API_BASE": f"{url}/v1", "OPENAI_API_KEY": "any", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


AGENTS = {
    "aider": aider,
    "claude": claude,
    "codex": codex,
    "opencode": lambda *given: opencode(*given, "@ai-sdk/openai-compatible"),
    "opencode-anthropic": lambda *given: opencode(*given, "@ai-sdk/anthropic"),
}


# opencode names its sessions with a call of its own; aider offers no tools, and reads files from the answer.
WITHOUT_TOOLS = {"aider": f"{PROOF}\n```\nworks\n```\n\n{DONE}\n"}


def set_loopback_up() -> None:
    """Do what `ip link set lo up` does: SIOCSIFFLAGS with IFF_UP and IFF_RUNNING, netdevice(7)."""
    with socket.socket() as sock:
        fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", 0x41))


async def run_agent(name: str, program: Path, model: str) -> dict[str, Any]:
    """Run the task; return what the agent printed and wrote, and what it sent."""
    script = AgentScript(WITHOUT_TOOLS.get(name, "A title"))
    with tempfile.TemporaryDirectory() as folder:
        home, work = Path(folder) / "home", Path(folder) / "work"
        home.mkdir()
        work.mkdir()
        async with Simulator(script) as simulator:
            served = tuple(
                ServedModel(
                    name=each,
                    models=(each,),
                    options={"api_key": "sk-test", "base_url": simulator.url + path, "progress": "none"},
                )
                for each, path in MODELS.items()
            )
            async with serve(GatewaySettings(models=served), simulator) as serving:
                command, environment = AGENTS[name](program, home, serving.url, model)
                process = await asyncio.create_subprocess_exec(
                    *command,
                    cwd=work,
                    env={"HOME": str(home), "PATH": os.environ["PATH"], **environment},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                )
                try:
                    async with asyncio.timeout(150):
                        printed, errors = await process.communicate()
                except TimeoutError:
                    process.kill()
                    printed, errors = await process.communicate()
        proof = work / PROOF
        return {
            "status": process.returncode,
            "printed": printed.decode(),
            "errors": errors.decode(),
            "proof": proof.read_text() if proof.exists() else None,
            "results": script.results,
            "offered": sorted(script.offered),
            "requests": [(call.dialect, call.status) for call in serving.log.calls],
        }


if __name__ == "__main__":
    set_loopback_up()
    print(json.dumps(asyncio.run(run_agent(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))))
