"""Configurations in the format of Claude."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lm_deluge import MCPServer
from lm_deluge.errors import ConfigurationError

CONFIG = {
    "mcpServers": {
        "files": {"command": "${RUN:-npx}", "args": ["-y", "server", "${HOME_OF_FILES}"], "env": {"TOKEN": "${TOKEN}"}},
        "far": {"type": "http", "url": "https://${HOST}/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"}},
        "off": {"command": "never", "disabled": True},
    },
    "other": 1,
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TOKEN": "secret-token", "HOST": "example.com", "HOME_OF_FILES": "/files"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("form", ["mapping", "path", "text"])
def test_servers_of_a_configuration(form: str, tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps(CONFIG), "utf-8")
    config: Any = {"mapping": CONFIG, "path": path, "text": str(path)}[form]
    files, far = MCPServer.from_config(config, prefix=True)
    assert (files.name, far.name, repr(far)) == ("files", "far", "MCPServer('far')")
    address = files._address
    assert (address.command, address.arguments) == ("npx", ("-y", "server", "/files"))
    assert address.env == {"TOKEN": "secret-token"}
    assert far._address.url == "https://example.com/mcp"
    assert far._address.headers == {"Authorization": "Bearer secret-token"}
    assert (files._prefix, far._prefix) == ("files_", "far_")
    assert "secret-token" not in repr(far._address)
    assert [server._prefix for server in MCPServer.from_config(config)] == ["", ""]


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, "no object `mcpServers`"),
        ({"mcpServers": []}, "no object `mcpServers`"),
        ({"mcpServers": {"a": {}}}, "the MCP server a has neither or both"),
        ({"mcpServers": {"a": {"command": "x", "url": "http://x"}}}, "neither or both"),
        ({"mcpServers": {"a": "npx"}}, "neither or both"),
        ({"mcpServers": {"a": {"type": "sse", "url": "http://x"}}}, "the MCP server a has the type 'sse'"),
        ({"mcpServers": {"a": {"command": "${NOT_SET_4711}"}}}, "needs the environment variable NOT_SET_4711"),
        ("no-such-file.json", "cannot read no-such-file.json"),
    ],
)
def test_what_is_no_configuration_is_refused(config: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        MCPServer.from_config(config)


def test_a_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text("{", "utf-8")
    with pytest.raises(ConfigurationError, match=r"mcp\.json is not JSON"):
        MCPServer.from_config(path)
