"""MCP servers as sources of tools."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from lm_deluge.api_requests.credentials import hide, secrets_of
from lm_deluge.errors import ConfigurationError, DelugeError, MissingExtraError, ToolError
from lm_deluge.extras import install_hint
from lm_deluge.option_checks import check_range
from lm_deluge.prompt.tool import Tool, ToolReturn, ToolSource
from lm_deluge.schemas.problems import invalid_value
from lm_deluge.tools.mcp.address import ServerAddress
from lm_deluge.tools.mcp.config import read_config

if TYPE_CHECKING:
    from lm_deluge.tools.mcp.connection import MCPConnection

__all__ = ["MCPServer", "ServerProgress"]

# `npx` and `uvx` download a server before they start it.
START_TIMEOUT_S = 60.0
# MCP allows dots and 128 characters in names of tools, `Tool` only what all providers accept.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
_MOST_OF_NAME = 64  # as in `Tool`

Report = Callable[[Any], object]


class ServerProgress(msgspec.Struct, frozen=True):
    """Progress that an MCP server reports: how much of `total` (None: unknown) is done, and a message."""

    progress: float
    total: float | None = None
    message: str | None = None


class MCPServer(ToolSource):
    """An MCP server, whose tools a model may call. Needs the package `mcp`.

    `async with` connects to the server and ends the connection; a program that was started is stopped. A runner of
    tools does that itself for servers that are not connected. A server that ended is started again by the next call.

    Args:
        server: The program to start, which speaks MCP on its standard input and output; or a server object of the SDK.
        *args: The arguments of the program.
        url: The address of a server that speaks streamable HTTP, in place of a program.
        headers: HTTP headers for it.
        env: Environment variables of the program, beside `PATH`, `HOME` and a few more: it does not get the others.
        cwd: Working directory of the program.
        name: Name for messages.
        prefix: Written before the names of the tools, for servers whose tools have equal names.
        start_timeout_s: Seconds that the server has to start, a download by `npx` included.

    Raises:
        ConfigurationError: None or several of a program, a URL and a server object are given.
        MissingExtraError: The package `mcp` is not installed. Raised when the server is first used.

    Example:
        >>> async with MCPServer("npx", "-y", "@modelcontextprotocol/server-everything") as server:
        ...     response = await client.stream("Add 2 and 3.", tools=[server])
    """

    def __init__(
        self,
        server: Any = None,
        *args: str,
        url: str | None = None,
        headers: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        name: str | None = None,
        prefix: str = "",
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        if (server is None) == (url is None):
            raise ConfigurationError("an MCP server is either a program or a URL", hint='MCPServer("npx", ...).')
        if url is not None and not url.startswith(("http://", "https://")):
            raise ConfigurationError("the URL of an MCP server begins with neither http:// nor https://")
        if not all(isinstance(each, str) for each in args):
            raise ConfigurationError("the arguments of an MCP server must be texts")
        check_range("start_timeout_s", start_timeout_s, 0, float("inf"))
        is_program = isinstance(server, str | Path)
        self._address = ServerAddress(
            command=str(server) if is_program else None,
            arguments=args,
            env=dict(env or {}),
            cwd=None if cwd is None else str(cwd),
            url=url,
            headers=dict(headers or {}),
            in_process=None if is_program else server,
        )
        self.name = name or self._address.name
        self._prefix = prefix
        self._start_timeout_s = start_timeout_s
        self._secrets = secrets_of(None, {**self._address.headers, **self._address.env}, None)
        self._connection: MCPConnection | None = None
        self._listed: tuple[Any, ...] | None = None  # what `_tools` was made of
        self._tools: tuple[Tool, ...] = ()
        self._users = 0
        self._lock = threading.Lock()  # one server may be used by several event loops

    @classmethod
    def from_config(
        cls, config: str | Path | Mapping[str, Any], *, prefix: bool = False, start_timeout_s: float = START_TIMEOUT_S
    ) -> list[MCPServer]:
        """Return the servers of a configuration in the format of Claude: `{"mcpServers": {name: {...}}}`.

        Nothing is started. `${NAME}` and `${NAME:-default}` are replaced by variables of the environment, and servers
        with `"disabled": true` are left out.

        Args:
            config: The path of a file, or its content.
            prefix: Write the name of the server and `_` before the names of its tools.
            start_timeout_s: Seconds that each server has to start.

        Raises:
            ConfigurationError: The file cannot be read, is no such configuration, or names a variable that is not set.

        Example:
            >>> client.stream("Which files are there?", tools=MCPServer.from_config("mcp.json"), run_tools=True)
        """
        return [
            cls(
                fields.pop("command", None),
                *fields.pop("args", ()),
                **fields,
                name=name,
                prefix=f"{_NOT_IN_NAMES.sub('_', name)}_" if prefix else "",
                start_timeout_s=start_timeout_s,
            )
            for name, fields in read_config(config).items()
        ]

    def __repr__(self) -> str:
        return f"MCPServer({self.name!r})"

    async def __aenter__(self) -> Self:
        with self._lock:
            self._users += 1
        try:
            await self._connected()
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    @property
    def is_connected(self) -> bool:
        """Whether the server answers: it was started, and has not ended."""
        connection = self._connection
        return connection is not None and connection.is_open

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools, as the server listed them last. They change where the server notifies of a change.

        Raises:
            ConfigurationError: The server is not connected.
        """
        connection = self._connection
        if connection is None:
            raise ConfigurationError(
                f"the MCP server {self.name} is not connected", hint=f"Write async with {self!r} as server: ..."
            )
        if connection.tools is not self._listed:
            self._listed = connection.tools
            self._tools = tuple(self._tool(each) for each in self._listed)
        return self._tools

    async def call_tool(
        self, name: str, arguments: Mapping[str, Any] | None = None, report: Report | None = None
    ) -> ToolReturn:
        """Call a tool by the name that the server gave it, and return its result.

        The connection is opened for the call if the server is not connected.

        Args:
            name: The name of the tool, without prefix.
            arguments: The arguments, which the server validates.
            report: Called with each `ServerProgress` that the server reports.

        Raises:
            ToolError: The tool reports an error, or the server cannot be reached or ended.
        """
        loop = asyncio.get_running_loop()

        def on_progress(progress: float, total: float | None, message: str | None) -> None:
            if report is not None:
                loop.call_soon_threadsafe(report, ServerProgress(progress, total, message))

        async with self:
            connection = await self._connected()
            call = connection.call(name, dict(arguments or {}), on_progress)
            try:
                if connection.loop is loop:
                    result = await call
                else:
                    result = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, connection.loop))
            except Exception as error:
                raise self._failure(error, connection) from error
        return self._to_return(result, name)

    def _to_return(self, result: Any, name: str) -> ToolReturn:
        from lm_deluge.tools.mcp.results import to_tool_return

        try:
            return to_tool_return(result, name)
        except DelugeError as error:
            hide(error, self._secrets)
            raise

    async def _connected(self) -> MCPConnection:
        """Return the connection; it is opened, or opened again after the server ended it."""
        make = _connection_class()
        with self._lock:
            connection = self._connection
            if connection is None or connection.is_ended:
                connection = self._connection = make(self._address, after=connection)
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await connection.started()
        except TimeoutError as error:
            raise ToolError(
                f"the MCP server {self.name} did not start within {self._start_timeout_s:g} s",
                tool=self.name,
                reason="server",
                hint="Set start_timeout_s=, or install the server beforehand.",
            ) from error
        except ToolError as error:
            hide(error, self._secrets)
            raise error.again() from error.__cause__
        return connection

    async def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            connection = None
            if self._users == 0:
                connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def _tool(self, listed: Any) -> Tool:
        name = _NOT_IN_NAMES.sub("_", self._prefix + listed.name)[:_MOST_OF_NAME]
        schema = {key: value for key, value in listed.input_schema.items() if key != "$schema"}
        tool = Tool(name=name, description=listed.description or listed.title or "", parameters=schema)
        return tool.with_target(_ServerFunction(self, listed.name))

    def _failure(self, error: Exception, connection: MCPConnection) -> ToolError:
        from lm_deluge.tools.mcp.connection import reason_of

        if connection.is_ended:
            failure = ToolError(
                f"the MCP server {self.name} ended during the call", tool=self.name, reason="server",
                hint="The next call starts it again.",
            )  # fmt: skip
        else:
            failure = ToolError(f"the MCP server {self.name} refused the call: {reason_of(error)}", tool=self.name)
        failure.__cause__ = error
        hide(failure, self._secrets)
        return failure


class _ServerFunction:
    """A tool of a server as a function and as the target of a `Tool`."""

    takes_report = True
    is_bound_to_loop = True

    def __init__(self, server: MCPServer, name: str) -> None:
        self._server = server
        self.__name__ = name

    async def __call__(self, arguments: Mapping[str, Any], report: Report | None = None) -> ToolReturn:
        return await self._server.call_tool(self.__name__, arguments, report)

    @property
    def function(self) -> Callable[..., Any]:
        return self

    def bind(self, arguments: Any) -> tuple[list[Any], dict[str, Any]]:
        if not isinstance(arguments, Mapping):
            raise invalid_value([((), "the arguments must be a JSON object")], f"call of {self.__name__}")
        return [arguments], {}


def _connection_class() -> type[MCPConnection]:
    try:
        from lm_deluge.tools.mcp.connection import MCPConnection
    except ImportError as error:
        raise MissingExtraError("MCP servers need the package mcp", hint=install_hint("mcp")) from error
    return MCPConnection
