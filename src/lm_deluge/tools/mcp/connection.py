"""One connection to an MCP server, in a task of its own.

The task groups of the SDK must be entered and left by one task. So a task opens the connection, waits, and closes it,
while the tasks that call tools only send requests through it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import tempfile
from collections.abc import Callable
from typing import IO, Any

import anyio
import httpx2
from mcp import Client, MCPError
from mcp_types import Tool as ServerTool
from mcp_types import ToolListChangedNotification
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from lm_deluge.errors import ToolError
from lm_deluge.tools.mcp.address import ServerAddress
from lm_deluge.tools.mcp.transport import open_transport

__all__ = ["MCPConnection", "reason_of"]

# The SDK gives a program 2 s to exit and 2 s after SIGTERM; a server on HTTP has as long to end the session.
_CLOSE_S = 5.0
# A list of tools comes in pages; a server that never ends its list is cut off.
_MOST_PAGES = 100
# How long a call that changed the list of tools waits for the new one.
_REFRESH_S = 5.0
# A program that writes more to its standard error loses the beginning: only the last lines explain a failure.
_MOST_ERROR_OUTPUT = 2**20


class MCPConnection:
    """A connection to a server, opened and closed by a task of its own.

    Attributes:
        loop: The event loop of the connection.
        tools: The tools of the server, as it listed them last.

    Args:
        address: Where the server is.
        after: A connection that must be closed first; its tools are the list until the server has sent one.
    """

    def __init__(self, address: ServerAddress, after: MCPConnection | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.tools: tuple[ServerTool, ...] = () if after is None else after.tools
        self._has_ended = False
        self._error_output: IO[str] | None = None
        self._address = address
        self._client: Client | None = None
        self._scope = anyio.CancelScope()
        self._is_closing = False
        self._wake = asyncio.Event()
        self._fresh = asyncio.Event()
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._closed: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._task = asyncio.create_task(self._run(after), name=f"MCP server {address.name}")

    @property
    def is_ended(self) -> bool:
        """Whether the server has ended the connection, or it was closed, or its event loop was."""
        return self._has_ended or self.loop.is_closed()

    @property
    def is_open(self) -> bool:
        """Whether tools can be called."""
        return self._client is not None and not self.is_ended

    async def started(self) -> None:
        """Wait until the server has answered.

        Raises:
            ToolError: It cannot be started or reached.
        """
        started = asyncio.wrap_future(self._started)
        started.add_done_callback(lambda future: future.cancelled() or future.exception())  # read, if only here
        await asyncio.shield(started)

    async def close(self) -> None:
        """Close the connection and wait for its end, also where the calling task is cancelled meanwhile."""
        try:
            self.loop.call_soon_threadsafe(self._ask_to_close)
        except RuntimeError:  # the event loop of the connection is closed, and with it what it ran
            return
        closed = asyncio.wrap_future(self._closed)
        cancelled: asyncio.CancelledError | None = None
        while not closed.done():
            try:
                await asyncio.shield(closed)
            except asyncio.CancelledError as error:
                cancelled = error
                with contextlib.suppress(RuntimeError):
                    self.loop.call_soon_threadsafe(self._scope.cancel)
        if cancelled is not None:
            raise cancelled

    async def call(self, name: str, arguments: dict[str, Any], report: Callable[..., None]) -> Any:
        """Call a tool and return the result of the SDK; `report` gets progress, total and message.

        Raises:
            Exception: Any of the SDK.
        """
        if self._client is None:
            raise MCPError(_CONNECTION_CLOSED, "Connection closed")

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            report(progress, total, message)

        self._trim_error_output()
        result = await self._client.call_tool(name, arguments, progress_callback=on_progress)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._fresh.wait(), _REFRESH_S)
        return result

    def _ask_to_close(self) -> None:
        self._is_closing = True
        self._wake.set()
        if self._client is None:  # it is still being opened
            self._scope.cancel()
        else:
            self._scope.deadline = self.loop.time() + _CLOSE_S  # the clock of anyio on asyncio

    def _on_end(self) -> None:
        self._has_ended = True
        self._fresh.set()
        self._wake.set()

    async def _run(self, after: MCPConnection | None) -> None:
        failure: BaseException | None = None
        try:
            if after is not None:
                await after.close()
            with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as error_output:
                try:
                    with self._scope:
                        await self._serve(error_output)
                except Exception as error:  # noqa: BLE001 - of the SDK and of what it stands on; it ends the connection
                    failure = self._start_error(error, error_output)
        finally:
            self._client = self._error_output = None
            self._on_end()
            if not self._started.done():
                self._started.set_exception(failure or self._start_error(None, None))
            self._closed.set_result(None)

    async def _serve(self, error_output: IO[str]) -> None:
        address = self._address
        self._error_output = error_output
        target = address.in_process or open_transport(address, error_output, self._on_end)
        async with Client(target, message_handler=self._on_message, cache=None) as client:
            self.tools = await _listed(client)
            self._client = client
            self._fresh.set()
            self._started.set_result(None)
            async with anyio.create_task_group() as group:
                if client.protocol_version in MODERN_PROTOCOL_VERSIONS:
                    group.start_soon(self._listen, client)
                while not (self._is_closing or self.is_ended):
                    await self._wake.wait()
                    self._wake.clear()
                    if not self._fresh.is_set():
                        await self._refresh(client)
                group.cancel_scope.cancel()

    def _trim_error_output(self) -> None:
        descriptor = -1 if self._error_output is None else self._error_output.fileno()
        if descriptor >= 0 and os.fstat(descriptor).st_size > _MOST_ERROR_OUTPUT:
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)  # the program writes at the same position

    async def _refresh(self, client: Client) -> None:
        with contextlib.suppress(Exception):  # then the list stays as it is
            self.tools = await _listed(client)
        self._fresh.set()

    def _on_change(self) -> None:
        self._fresh.clear()
        self._wake.set()

    async def _on_message(self, message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._on_change()

    async def _listen(self, client: Client) -> None:
        """Wait for changes of the list of tools; since protocol 2026-07-28 a client must ask for them."""
        with contextlib.suppress(Exception):  # the server has no such stream, or ended it: the list stays as it is
            async with client.listen(tools_list_changed=True) as events:
                async for _ in events:
                    self._on_change()

    def _start_error(self, error: Exception | None, error_output: IO[str] | None) -> ToolError:
        reason = "it was closed" if error is None else reason_of(error)
        words = _last_line(error_output)
        failure = ToolError(
            f"the MCP server {self._address.name} does not start: {reason}" + (f"; it wrote: {words}" if words else ""),
            tool=self._address.name,
            reason="server",
            hint=f"Check {self._address.shown}.",
        )
        failure.__cause__ = error
        return failure


_CONNECTION_CLOSED = -32000  # the SDK's code for a connection that is gone


async def _listed(client: Client) -> tuple[ServerTool, ...]:
    found: list[ServerTool] = []
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if cursor is None:
            break
    return tuple(found)


def _last_line(error_output: IO[str] | None) -> str:
    if error_output is None:
        return ""
    error_output.seek(max(0, error_output.seek(0, 2) - 4_096))
    lines = [line.strip() for line in error_output.read().splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def reason_of(error: BaseException) -> str:
    """Return why the SDK failed, in a few words; its task groups wrap the reason in groups of exceptions."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, FileNotFoundError):
        return "there is no such program"
    if isinstance(error, httpx2.HTTPStatusError):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, MCPError) and error.code == _CONNECTION_CLOSED:
        return "it ended the connection"
    first = (str(error).strip().splitlines() or [""])[0][:300]
    return first or type(error).__name__
