"""Where an MCP server is: a command, a URL, or an object in this process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from lm_deluge.hidden import HidingStruct, shown_url

__all__ = ["ServerAddress"]


class ServerAddress(HidingStruct, frozen=True, kw_only=True):
    """Where an MCP server is; one of `command`, `url` and `in_process` is set.

    Attributes:
        command: The program, which is started and speaks MCP on its standard input and output.
        arguments: The arguments of the program.
        env: Environment variables of the program, beside the few that the SDK passes on: `PATH`, `HOME` and so on.
        cwd: The working directory of the program.
        url: The address of a server that speaks streamable HTTP.
        headers: HTTP headers of each request.
        in_process: A server object of the SDK.
    """

    command: str | None = None
    arguments: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    cwd: str | None = None
    url: str | None = None
    headers: Mapping[str, str] = {}
    in_process: Any = None

    def __repr__(self) -> str:
        return f"ServerAddress({self.shown!r})"

    @property
    def shown(self) -> str:
        """The address for messages: without arguments, headers and the query of a URL, which may contain secrets."""
        if self.url is not None:
            return shown_url(self.url)
        return self.command or f"{type(self.in_process).__name__} in this process"

    @property
    def name(self) -> str:
        """A name: that of the program, the host, or the server object."""
        if self.url is not None:
            return urlsplit(self.url).hostname or "server"
        if self.command is not None:
            return PurePosixPath(self.command.replace("\\", "/")).name
        return str(getattr(self.in_process, "name", "server"))
