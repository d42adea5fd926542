"""The official clients for Node, and Vercel's, against the gateway, in front of providers of the same and another API.

`make node` installs them. One process of Node runs all clients of a scenario, because it takes a second to start.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import TEXT
from gateway.installed import node_clients
from gateway.test_client_tools import ANSWER, forecast, gateway_before
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.simulator import Pace, Script

SOURCE = Path(__file__).parent / "node" / "clients.mjs"
MODELS = ("gpt-4o", "claude-sonnet-5-5", "gemini-3.8-flash")
CLIENTS = ("chat", "responses", "messages", "vercel-openai", "vercel-chat", "vercel-anthropic")
PAIRS = [(client, model) for client in CLIENTS for model in MODELS]
Outcome = dict[str, Any]


def answer(request: ParsedRequest) -> Script:
    return forecast(request) if request.tools else Script(text=TEXT)


# The scenarios with the same provider share a gateway: name -> script and options of the simulator, and scenarios.
SETTINGS: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "whole": (answer, {}, ("plain", "stream", "tools")),
    "broken": (TEXT, {"faults": "clean_truncation"}, ("stream",)),
    "refused": (TEXT, {"faults": "status_401"}, ("stream", "plain")),
    # An answer takes 4 s, and a client leaves at its first token.
    "leaving": (TEXT * 10, {"pace": Pace(tokens_per_second=40)}, ("cancel",)),
}


async def run_clients(folder: Path, name: str, patch: pytest.MonkeyPatch) -> dict[tuple[str, str, str, str], Outcome]:
    script, options, scenarios = SETTINGS[name]
    async with gateway_before(script, patch, **options) as serving:
        jobs = [(client, scenario, serving.url, model) for client, model in PAIRS for scenario in scenarios]
        arguments = ("node", "--input-type=module", "-", json.dumps(jobs))
        with SOURCE.open("rb") as source:
            process = await asyncio.create_subprocess_exec(
                *arguments, cwd=folder, stdin=source, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            printed, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        lines = [json.loads(line) for line in printed.splitlines()]
        async with asyncio.timeout(10):
            while serving.gateway.running:
                await asyncio.sleep(0.005)
        if name == "leaving":
            # Google bills all of an answer, so that it is read to its end.
            whole = sum(model.startswith("gemini") for _, _, _, model in jobs)
            assert serving.simulator.stats.completed == whole
            assert serving.simulator.stats.aborted == len(jobs) - whole
            assert [call.status for call in serving.log.calls] == [499] * len(jobs)
        return {(name, line["client"], line["scenario"], line["model"]): line for line in lines}


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[str, str, str, str], Outcome]:
    folder = node_clients()

    async def play(patch: pytest.MonkeyPatch) -> dict[tuple[str, str, str, str], Outcome]:
        found: dict[tuple[str, str, str, str], Outcome] = {}
        for name in SETTINGS:
            found |= await run_clients(folder, name, patch)
        return found

    with pytest.MonkeyPatch.context() as patch:
        return asyncio.run(play(patch))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", ["plain", "stream", "tools"])
@pytest.mark.parametrize(("client", "model"), PAIRS)
def test_whole_answers(outcomes: dict[Any, Outcome], client: str, model: str, scenario: str) -> None:
    outcome = outcomes["whole", client, scenario, model]
    assert "error" not in outcome, outcome
    assert outcome["text"] == (ANSWER if scenario == "tools" else TEXT)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("client", "model"), PAIRS)
def test_a_broken_stream_is_an_error(outcomes: dict[Any, Outcome], client: str, model: str) -> None:
    outcome = outcomes["broken", client, "stream", model]
    assert "error" in outcome, outcome
    assert outcome["text"]
    assert TEXT.startswith(outcome["text"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", ["plain", "stream"])
@pytest.mark.parametrize(("client", "model"), PAIRS)
def test_a_refusal_has_the_status_of_the_provider(
    outcomes: dict[Any, Outcome], client: str, model: str, scenario: str
) -> None:
    outcome = outcomes["refused", client, scenario, model]
    assert outcome["text"] == ""
    assert outcome["status"] == 401, outcome


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("client", "model"), PAIRS)
def test_clients_can_leave(outcomes: dict[Any, Outcome], client: str, model: str) -> None:
    outcome = outcomes["leaving", client, "cancel", model]
    assert outcome.get("left") or "bort" in outcome["error"] + outcome["message"], outcome
