"""Servers of others, from npm: only in `make soak`, as npx downloads them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from lm_deluge import MCPServer
from lm_deluge.errors import ToolError
from lm_deluge.prompt.parts import ImagePart, ToolCallPart
from lm_deluge.tools import ServerProgress, ToolRunner

pytestmark = [
    pytest.mark.skipif(not os.environ.get("DELUGE_SOAK"), reason="downloads from npm"),
    pytest.mark.skipif(shutil.which("npx") is None, reason="needs npx"),
    pytest.mark.timeout(300),
]


def call(name: str, /, **arguments: Any) -> ToolCallPart:
    return ToolCallPart("id", name, "", arguments)


async def test_the_server_of_everything() -> None:
    reported: list[Any] = []
    server = MCPServer("npx", "-y", "@modelcontextprotocol/server-everything", start_timeout_s=240)
    async with ToolRunner([server], timeout_s=20) as runner:
        names = {tool.name for tool in runner.definitions}
        assert {"echo", "get-sum", "get-tiny-image", "get-structured-content"} <= names
        assert "hi" in str((await runner.run(call("echo", message="hi"))).content)
        assert "5" in str((await runner.run(call("get-sum", a=2, b=3))).content)
        image = await runner.run(call("get-tiny-image"))
        assert isinstance(image.content, tuple)
        assert any(isinstance(part, ImagePart) and part.media.data for part in image.content)
        structured = await runner.run(call("get-structured-content", location="New York"))
        assert isinstance(structured.value, dict)
        assert structured.error is None
        slow = call("trigger-long-running-operation", duration=1, steps=4)
        outcome = await runner.run(slow, reported.append)
        assert outcome.error is None
        assert [each.progress for each in reported] == [1, 2, 3, 4]
        assert all(isinstance(each, ServerProgress) and each.total == 4 for each in reported)
        wrong = await runner.run(call("get-sum", a="x"))
        assert isinstance(wrong.error, ToolError)
        unknown = await runner.run(call("no-such-tool"))
        assert isinstance(unknown.error, ToolError)


async def test_the_server_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    config = {
        "mcpServers": {
            "files": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-filesystem", str(tmp_path)]}
        }
    }
    servers = MCPServer.from_config(config, prefix=True, start_timeout_s=240)
    async with ToolRunner(servers, timeout_s=20) as runner:
        outcome = await runner.run(call("files_read_text_file", path=str(tmp_path / "a.txt")))
        assert "hello" in str(outcome.content)
        await runner.run(call("files_write_file", path=str(tmp_path / "b.txt"), content="new"))
        assert (tmp_path / "b.txt").read_text() == "new"
        outside = await runner.run(call("files_read_text_file", path="/etc/hostname"))
        assert isinstance(outside.error, ToolError)
        assert "denied" in str(outside.content).lower()
