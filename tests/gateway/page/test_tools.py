"""Tools of MCP servers in answers of the page: run, shown, stored, and sent with the next turn."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.page.chat_page import chat_page, chunks
from lm_deluge import MCPServer
from lm_deluge.errors import ConfigurationError
from lm_deluge.gateway.page.page import open_page
from lm_deluge.simulator import Script

mcp = pytest.importorskip("mcp.server.mcpserver")


def calculator() -> Any:
    app = mcp.MCPServer("calculator", log_level="CRITICAL")

    @app.tool()
    def add(first: int, second: int) -> int:
        """Add two numbers."""
        return first + second

    @app.tool()
    async def hang() -> int:
        """Never answer."""
        await asyncio.Event().wait()
        return 0

    return app


ADDS = Script(text="I add.", tool_calls=[("add", {"first": 2, "second": 3})])


async def test_calls_and_results_are_streamed_stored_and_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chat_page(tmp_path, monkeypatch, [ADDS, "It is 5.", "Yes."], tools=(MCPServer(calculator()),)) as page:
        conversation = await page.conversation()
        (started,) = (await page.ask(conversation, "2 + 3?"))["answers"]
        frames = chunks(await page.events(started["id"]))
        answer = await page.message(conversation, started["id"])
        call = next(part for part in answer["parts"] if part["type"] == "tool")
        assert answer["parts"] == [{"type": "text", "text": "I add."}, call, {"type": "text", "text": "It is 5."}]
        assert call == {**call, "name": "add", "arguments": {"first": 2, "second": 3}, "result": "5", "error": None}
        kinds = [chunk["type"] for chunk in frames]
        for kind in ("tool-input-start", "tool-input-delta", "tool-input-available", "tool-output-available"):
            assert kind in kinds
        assert kinds[-1] == "finish"
        assert answer["usage"]["output_tokens"] == page.serving.log.calls[0].output_tokens
        await page.answered(conversation, "Sure?", parent=answer["id"])
        roles = [each["role"] for each in page.simulator.requests[2].json["messages"]]
        assert roles == ["user", "assistant", "tool", "assistant", "user"]
        assert page.simulator.requests[2].json["messages"][2]["content"] == "5"


async def test_an_answer_that_waits_for_a_tool_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = [Script(text="Wait.", tool_calls=[("hang", {})]), "Done."]
    async with chat_page(tmp_path, monkeypatch, script, tools=(MCPServer(calculator()),)) as page:
        conversation = await page.conversation()
        (started,) = (await page.ask(conversation))["answers"]
        async with page.http.stream("GET", f"/page/api/answers/{started['id']}/events") as events:
            async for line in events.aiter_lines():
                if "tool-input-available" in line:
                    break
        receipt = await page.json("POST", f"answers/{started['id']}/stop", {})
        assert receipt["text"] == "Wait."
        answer = await page.message(conversation, started["id"])
        assert answer["status"] == "stopped"
        assert answer["parts"][1] == {**answer["parts"][1], "name": "hang", "result": None}
        await page.answered(conversation, "Go on", parent=answer["id"])
        sent = page.simulator.requests[1].json["messages"]
        assert [each["role"] for each in sent] == ["user", "assistant", "tool", "user"]


async def test_tools_can_be_turned_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with chat_page(tmp_path, monkeypatch, "No.", tools=(MCPServer(calculator()),)) as page:
        conversation = await page.conversation(settings={"tools": False})
        await page.answered(conversation)
        assert "tools" not in page.simulator.requests[0].json
        await page.answered(conversation, settings={})
        assert [tool["function"]["name"] for tool in page.simulator.requests[1].json["tools"]] == ["add", "hang"]


async def test_a_program_is_started_by_its_command(tmp_path: Path) -> None:
    demo = Path(__file__).parents[2] / "tools" / "mcp" / "demo_server.py"
    command = f"{sys.executable} '{demo}' stdio"
    async with open_page(f"sqlite:///{tmp_path / 'page.db'}", [command]) as page:
        (server,) = page._tools
        assert isinstance(server, MCPServer)
        assert "add" in [tool.name for tool in server.tools]


async def test_tools_of_several_servers_have_names_of_their_own(tmp_path: Path) -> None:
    demo = Path(__file__).parents[2] / "tools" / "mcp" / "demo_server.py"
    command = f"{sys.executable} '{demo}' stdio"
    async with open_page(f"sqlite:///{tmp_path / 'page.db'}", [command, command]) as page:
        names = [tool.name for server in page._tools if isinstance(server, MCPServer) for tool in server.tools]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(("command", "text"), [("", "is empty"), ("python 'open", "cannot be read")])
async def test_wrong_commands_are_refused(tmp_path: Path, command: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        async with open_page(f"sqlite:///{tmp_path / 'page.db'}", [command]):
            pass
