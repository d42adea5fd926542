"""Files that list MCP servers, in the format of Claude: `{"mcpServers": {name: {...}}}`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lm_deluge.api_requests.credentials import environment_variable
from lm_deluge.errors import ConfigurationError

__all__ = ["read_config"]

# `${NAME}` and `${NAME:-default}`, https://code.claude.com/docs/en/mcp#environment-variable-expansion-in-mcp-json
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_HTTP = ("http", "streamable-http", "streamable_http", "streamableHttp")


def read_config(source: str | Path | Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the arguments of `MCPServer` for each server of a configuration that is not disabled, by name.

    Variables of the environment are expanded in commands, arguments, `env`, URLs and headers.

    Args:
        source: The path of a file, or its content.

    Raises:
        ConfigurationError: The file cannot be read, is no such configuration, or names a variable that is not set and
            has no default.
    """
    content = source if isinstance(source, Mapping) else _read(Path(source))
    servers = content.get("mcpServers")
    if not isinstance(servers, Mapping):
        raise ConfigurationError(
            "the configuration of MCP servers has no object `mcpServers`", hint='Write {"mcpServers": {"name": {...}}}.'
        )
    return {
        str(name): _arguments(str(name), entry)
        for name, entry in servers.items()
        if not (isinstance(entry, Mapping) and entry.get("disabled") is True)
    }


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path.name}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path.name} is not JSON: {error}") from error
    return content if isinstance(content, Mapping) else {}


def _arguments(name: str, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, Mapping) or not ("command" in entry) ^ ("url" in entry):
        raise ConfigurationError(f"the MCP server {name} has neither or both of `command` and `url`")
    kind = entry.get("type", "stdio" if "command" in entry else "http")
    if kind != "stdio" and kind not in _HTTP:
        raise ConfigurationError(
            f"the MCP server {name} has the type {str(kind)[:40]!r}", hint="Known: stdio and http (streamable HTTP)."
        )
    fields = {key: entry[key] for key in ("command", "args", "env", "cwd", "url", "headers") if entry.get(key)}
    return {key: _expanded(value, name) for key, value in fields.items()}


def _expanded(value: Any, server: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _expanded(each, server) for key, each in value.items()}
    if isinstance(value, list):
        return [_expanded(each, server) for each in value]
    return "".join(_pieces(str(value), server))


def _pieces(text: str, server: str) -> Iterator[str]:
    end = 0
    for found in _VARIABLE.finditer(text):
        name, default = found.groups()
        value = environment_variable(name) or default
        if value is None:
            raise ConfigurationError(
                f"the MCP server {server} needs the environment variable {name}, which is not set",
                hint=f"Set it, or write ${{{name}:-default}}.",
            )
        yield text[end : found.start()] + value
        end = found.end()
    yield text[end:]
