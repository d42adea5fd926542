"""`useChat`'s `Chat` and AG-UI's `HttpAgent` under Node, against an application in front of a simulated provider.

`make node` installs them. Both validate each frame with their own schemas. One process of Node runs all scenarios.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from gateway.installed import node_clients
from lm_deluge import LLMClient
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.simulator import Fault, Pace, Script, Simulator
from lm_deluge.ui import ChatRequestError, ChatStreams, StreamResponse, approvals_from, conversation_from
from ui.serving import serve

SOURCE = Path(__file__).parent / "clients.mjs"
TEXT = "It is sunny in Rome today, and it stays so until Sunday."
ANSWER = "It is 21 degrees."


def weather(city: str) -> dict[str, int]:
    """Return the weather of a city.

    Args:
        city: Its name.
    """
    return {"degrees": 21}


def forecast(request: ParsedRequest) -> Script:
    if request.conversation.messages[-1].role == "tool":
        return Script(text=ANSWER)
    return Script(text="Let me see. ", tool_calls=[("weather", {"city": "Rome"})])


removed: dict[str, list[str]] = {}


def tidy(request: ParsedRequest) -> Script:
    if request.conversation.messages[-1].role == "tool":
        return Script(text=request.conversation.messages[-1].tool_results[0].content)
    return Script(text="I remove it. ", tool_calls=[("remove", {"path": "a.txt"})])


def removal(scenario: str) -> Any:
    """Return a tool that has to be approved."""

    def remove(path: str) -> str:
        """Remove a file."""
        removed.setdefault(scenario, []).append(path)
        return "removed"

    return remove


def approved(scenario: str) -> tuple[Any, dict[str, Any], dict[str, Any], dict[str, Any]]:
    return tidy, {}, {}, {"tools": [removal(scenario)], "run_tools": True, "approve": lambda _: "pause"}


# name -> script and options of the simulator, options of the client, of the stream
SLOW = Pace(tokens_per_second=5)  # the answer takes longer than the test
SCENARIOS: dict[str, tuple[Any, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "text": (TEXT, {}, {}, {}),
    "tools": (forecast, {}, {}, {"tools": [weather], "run_tools": True}),
    "error": (TEXT, {"faults": "status_401"}, {}, {}),
    "truncated": (TEXT, {"faults": "clean_truncation"}, {}, {}),
    "restart": (TEXT, {"faults": [Fault("reset", after=2)]}, {"on_break": "restart", "max_attempts": 3}, {}),
    "refused": (TEXT, {}, {}, {}),
    "stop": (TEXT * 10, {"pace": SLOW}, {}, {}),
    "server-stop": (TEXT * 10, {"pace": SLOW}, {}, {}),
    "resume": (TEXT, {"pace": Pace(tokens_per_second=100)}, {}, {}),
    "approved": approved("approved"),
    "denied": approved("denied"),
    "forged": approved("forged"),
    "kept": approved("kept"),  # the server keeps the conversation
}
KEY = "of this application only"
OF_AGENT = [name for name in SCENARIOS if name not in ("refused", "server-stop", "resume")]
RUNS = [("chat", name) for name in SCENARIOS] + [("agent", name) for name in OF_AGENT]
OF_LOGS = ("resume", "server-stop")
OF_APPROVAL = ("approved", "denied", "forged", "kept")


class Served:
    """The responses of the answers of a scenario."""

    def __init__(self) -> None:
        self.ended: list[Any] = []
        self.simulator: Any = None


class Approvals:
    """An application that follows the decisions of its users: it keeps the conversations, or signs the calls."""

    def __init__(self, name: str, client: LLMClient) -> None:
        self._keeps = name == "kept"
        self._client = client
        self._options = SCENARIOS[name][3]
        self._paused: dict[str, Any] = {}

    def respond(self, body: dict[str, Any], protocol: Any) -> StreamResponse:
        options: dict[str, Any] = {}
        if self._keeps:
            chat_id = body.get("id", body.get("threadId"))
            decisions = approvals_from(body)
            conversation = self._paused.pop(chat_id) if decisions else conversation_from(body)
            options["on_end"] = lambda response: self._paused.update({chat_id: response.conversation})
        else:
            decisions = approvals_from(body, approval_key=KEY)
            conversation, options["approval_key"] = conversation_from(body, approval_key=KEY), KEY
        stream = self._client.stream(conversation, **self._options, decisions=decisions)
        return StreamResponse(stream, protocol, request=body, **options)


@contextlib.asynccontextmanager
async def application(name: str, served: Served) -> AsyncIterator[str]:
    script, simulated, options, asked = SCENARIOS[name]
    async with Simulator(script, **simulated) as simulator:
        served.simulator = simulator
        client = LLMClient("gpt-5.4", base_url=simulator.url, api_key="k", **{"max_attempts": 1, **options})
        app, streams, approvals = FastAPI(), ChatStreams(), Approvals(name, client)

        @app.exception_handler(ChatRequestError)
        async def refuse(request: Request, error: ChatRequestError) -> JSONResponse:
            return JSONResponse({"error": error.message}, status_code=400)

        @app.post("/api/chat")
        async def chat(body: dict[str, Any]) -> Any:
            if name in OF_APPROVAL:
                return approvals.respond(body, "vercel-ui")
            stream = client.stream(conversation_from(body), **asked)
            if name in OF_LOGS:
                return streams.respond(body["id"], "ada", stream, request=body, on_end=served.ended.append)
            return StreamResponse(stream, request=body, on_end=served.ended.append)

        @app.get("/api/chat/{chat_id}/stream")
        async def resume(chat_id: str) -> Any:
            return streams.resume(chat_id, "ada")

        @app.post("/api/chat/{chat_id}/stop")
        async def stop(chat_id: str) -> Any:
            return await streams.stop(chat_id, "ada")

        @app.post("/agent")
        async def agent(body: dict[str, Any]) -> StreamResponse:
            if name in OF_APPROVAL:
                return approvals.respond(body, "ag-ui")
            stream = client.stream(conversation_from(body), **asked)
            return StreamResponse(stream, "ag-ui", request=body, on_end=served.ended.append)

        async with serve(app) as url, client:
            yield url
        await streams.close()


async def run_all(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    async with contextlib.AsyncExitStack() as stack:
        served = {name: Served() for name in SCENARIOS}
        urls = {name: await stack.enter_async_context(application(name, served[name])) for name in SCENARIOS}
        jobs = json.dumps([(client, name, urls[name]) for client, name in RUNS])
        with SOURCE.open("rb") as source:
            process = await asyncio.create_subprocess_exec(
                *("node", "--input-type=module", "-", jobs),
                cwd=folder,
                stdin=source,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(90):
                printed, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        for line in map(json.loads, printed.splitlines()):
            found[line["client"], line["scenario"]] = line
        async with asyncio.timeout(10):
            while any(len(served[name].ended) < sum(run[1] == name for run in RUNS) for name in ("stop", "resume")):
                await asyncio.sleep(0.005)
        for name in SCENARIOS:
            found["served", name] = {
                "ended": [response.to_dict() for response in served[name].ended],
                "aborted": served[name].simulator.stats.aborted,
                "requests": served[name].simulator.stats.requests,
            }
    return found


@pytest.fixture(scope="module")
def pages() -> dict[tuple[str, str], dict[str, Any]]:
    return asyncio.run(run_all(node_clients()))


pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(("client", "scenario"), RUNS)
def test_no_client_crashes(pages: Any, client: str, scenario: str) -> None:
    assert "crashed" not in pages[client, scenario], pages[client, scenario]["crashed"]


def test_a_chat_shows_the_answer_its_usage_and_its_cost(pages: Any) -> None:
    page = pages["chat", "text"]
    assert (page["text"], page["status"], page["finishReason"]) == (TEXT, "ready", "stop")
    assert page["metadata"]["usage"]["totalTokens"] > 0
    assert page["metadata"]["cost"] > 0
    assert page["parts"] == ["step-start", "text"]


def test_a_chat_shows_the_calls_and_the_rounds_of_a_loop(pages: Any) -> None:
    page = pages["chat", "tools"]
    assert page["parts"] == ["step-start", "text", "dynamic-tool", "step-start", "text"]
    assert page["text"] == "Let me see. " + ANSWER
    [tool] = page["tools"]
    assert (tool["state"], tool["input"], tool["output"]) == ("output-available", {"city": "Rome"}, {"degrees": 21})


@pytest.mark.parametrize("scenario", ["error", "truncated"])
def test_a_chat_shows_that_an_answer_failed(pages: Any, scenario: str) -> None:
    page = pages["chat", scenario]
    assert page["status"] == "error"
    assert page["isError"]
    assert page["error"]
    assert TEXT.startswith(page["text"])
    assert bool(page["text"]) == (scenario == "truncated")
    [failure] = [part["data"] for part in page["data"] if part["type"] == "data-error"]
    assert failure["type"] == {"error": "AuthenticationError", "truncated": "TruncatedError"}[scenario]


def test_a_chat_drops_the_text_of_an_attempt_that_is_not_kept(pages: Any) -> None:
    page = pages["chat", "restart"]
    assert (page["text"], page["status"]) == (TEXT, "ready")
    assert [part["data"]["number"] for part in page["data"] if part["type"] == "data-attempt"] == [2]


def test_a_chat_gets_a_status_for_what_a_browser_may_not_send(pages: Any) -> None:
    page = pages["chat", "refused"]
    assert page["status"] == "error"
    assert "system messages are not allowed here" in page["error"]


def test_leaving_a_chat_cancels_the_call_and_reports_its_cost(pages: Any) -> None:
    page, served = pages["chat", "stop"], pages["served", "stop"]
    assert page["isAbort"]
    assert (TEXT * 10).startswith(page["text"])
    assert served["aborted"] == 2
    assert [response["finish_reason"] for response in served["ended"]] == [None, None]
    assert all(response["cost"] > 0 and response["usage"]["estimated"] for response in served["ended"])


def test_stopping_on_the_server_ends_the_chat(pages: Any) -> None:
    page = pages["chat", "server-stop"]
    assert page["status"] == "ready"
    assert page["receipt"]["text"] == page["text"]
    assert page["receipt"]["cost"] > 0
    assert "finishReason" not in page
    assert pages["served", "server-stop"]["aborted"] == 1


def test_a_chat_resumes_an_answer_that_is_billed_once(pages: Any) -> None:
    page, served = pages["chat", "resume"], pages["served", "resume"]
    assert (page["text"], page["status"], page["count"], page["idle"]) == (TEXT, "ready", 2, True)
    assert served["requests"] == len(served["ended"]) == 1
    assert served["aborted"] == 0


OUTCOMES = {"approved": ("output-available", "removed"), "kept": ("output-available", "removed")}
OUTCOMES["denied"] = ("output-denied", "Error: The user denied this call. It was not run.")


@pytest.mark.parametrize("scenario", OUTCOMES)
def test_a_chat_goes_on_with_the_decision_of_its_user(pages: Any, scenario: str) -> None:
    page, (state, text) = pages["chat", scenario], OUTCOMES[scenario]
    assert page["asked"]["state"] == "approval-requested"
    [tool] = page["tools"]
    assert (page["status"], tool["state"], tool["input"]) == ("ready", state, {"path": "a.txt"})
    assert page["parts"] == ["step-start", "text", "dynamic-tool", "step-start", "text"]
    assert page["text"] == "I remove it. " + text
    assert page["count"] == 2


@pytest.mark.parametrize("scenario", OUTCOMES)
def test_an_agent_goes_on_with_the_decision_of_its_user(pages: Any, scenario: str) -> None:
    page, (_, text) = pages["agent", scenario], OUTCOMES[scenario]
    [interrupt] = page["asked"]
    assert interrupt["responseSchema"]["required"] == ["approved"]
    assert (page["outcome"], page.get("failed")) == ({"type": "success"}, None)
    assert page["roles"] == ["user", "assistant", "tool", "assistant"]
    assert len(page["tools"]) == 1
    assert page["text"] == "I remove it. " + text


def test_a_decision_runs_the_call_once_and_no_other(pages: Any) -> None:
    assert removed == {"approved": ["a.txt"] * 2, "kept": ["a.txt"] * 2}  # of both clients
    assert pages["chat", "forged"]["status"] == "error"
    assert "has not asked about" in pages["chat", "forged"]["error"]
    assert "has not asked about" in pages["agent", "forged"]["failed"]


def test_an_agent_shows_the_answer_and_its_usage(pages: Any) -> None:
    page = pages["agent", "text"]
    assert (page["text"], page["outcome"], page["run"]) == (TEXT, {"type": "success"}, "run-text")
    assert page["usage"][0]["totalTokens"] > 0
    assert page["roles"] == ["user", "assistant"]


def test_an_agent_shows_the_calls_of_a_loop(pages: Any) -> None:
    page = pages["agent", "tools"]
    assert page["roles"] == ["user", "assistant", "tool", "assistant"]
    assert [call["function"] for call in page["tools"]] == [{"name": "weather", "arguments": '{"city":"Rome"}'}]
    assert [json.loads(result) for result in page["results"]] == [{"degrees": 21}]
    assert page["text"] == "Let me see. " + ANSWER


@pytest.mark.parametrize("scenario", ["error", "truncated"])
def test_an_agent_shows_that_an_answer_failed(pages: Any, scenario: str) -> None:
    page = pages["agent", scenario]
    assert page["error"]
    assert page["events"][-1] == "RUN_ERROR"
    assert "outcome" not in page


def test_an_agent_drops_the_text_of_an_attempt_that_is_not_kept(pages: Any) -> None:
    page = pages["agent", "restart"]
    assert (page["text"], page["roles"]) == (TEXT, ["user", "assistant"])


def test_leaving_an_agent_cancels_the_call(pages: Any) -> None:
    page = pages["agent", "stop"]
    assert "outcome" not in page
    assert (TEXT * 10).startswith(page["text"])
