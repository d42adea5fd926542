"""Transports of the MCP SDK that notice the end of the connection."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import IO, Any

import httpx2
from mcp import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from lm_deluge.tools.mcp.address import ServerAddress

__all__ = ["open_transport"]

_CONNECT_S = 30.0  # the SDK's own default
_READ_S = 300.0  # the SDK's own default: a server may hold a response open while a tool runs


@contextlib.asynccontextmanager
async def open_transport(
    address: ServerAddress, error_output: IO[str], on_end: Callable[[], None]
) -> AsyncIterator[tuple[Any, Any]]:
    """Open the streams to a server.

    Args:
        address: A command or a URL.
        error_output: The file that a command writes its standard error to.
        on_end: Called when the server ends the connection.
    """
    async with contextlib.AsyncExitStack() as stack:
        if address.url is not None:
            timeout = httpx2.Timeout(_CONNECT_S, read=_READ_S)
            client = await stack.enter_async_context(httpx2.AsyncClient(headers=address.headers, timeout=timeout))
            opened = streamable_http_client(address.url, http_client=client)
        else:
            parameters = StdioServerParameters(
                command=str(address.command), args=list(address.arguments), env=dict(address.env), cwd=address.cwd
            )
            opened = stdio_client(parameters, errlog=error_output)  # type: ignore[arg-type]  # a text file
        read, write = await stack.enter_async_context(opened)
        yield _WatchedStream(read, on_end), write


class _WatchedStream:
    """A stream of messages from a server; its end is reported, which the SDK does only to waiting calls."""

    def __init__(self, inner: Any, on_end: Callable[[], None]) -> None:
        self._inner = inner
        self._on_end = on_end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def receive(self) -> Any:
        try:
            return await self._inner.receive()
        except Exception:
            self._on_end()
            raise

    def __aiter__(self) -> _WatchedStream:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._inner.__anext__()
        except Exception:  # StopAsyncIteration, or the stream was closed
            self._on_end()
            raise

    async def __aenter__(self) -> _WatchedStream:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        return await self._inner.__aexit__(kind, error, trace)
