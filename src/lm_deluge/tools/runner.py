"""Runs the tool calls of a model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

import msgspec

from lm_deluge.dispatch.hooks import ContainedHook, is_interruption
from lm_deluge.errors import ConfigurationError, DelugeError, ToolError
from lm_deluge.option_checks import check_range
from lm_deluge.prompt.parts import AudioPart, FilePart, ImagePart, Part, TextPart, ToolCallPart, ToolResultPart
from lm_deluge.prompt.tool import ProviderTool, Tool, ToolReturn, to_tools
from lm_deluge.tools.invocation import call_async
from lm_deluge.tools.mcp.server import MCPServer
from lm_deluge.tools.results import Content, sendable, shortened, to_content

__all__ = ["ToolOutcome", "ToolRunner", "tool_sources"]

# About 25,000 tokens: what Claude Code allows an MCP tool (2026-11),
# https://code.claude.com/docs/en/mcp#mcp-output-limits-and-warnings
MAX_RESULT_CHARACTERS = 100_000
# A model waits for all of its calls; the default of the MCP SDK for requests to a server over HTTP is 30 s, and
# searches and builds take longer.
TIMEOUT_S = 60.0
# Models call up to some ten tools at once; more calls wait for their turn.
MAX_CONCURRENT = 16
# An exception message that a model reads; a database error can quote whole tables.
_MOST_MESSAGE = 1_000
# HTTP libraries quote URLs with passwords, and headers.
_CREDENTIALS = re.compile(r"(?<=//)[^/?#@\s]*(?=@)|(?i:(?<=bearer )|(?<=basic ))\S+")


class ToolOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a tool call.

    Attributes:
        content: What the model reads: the result, or what went wrong. Text, or parts where it has media.
        value: What the tool returned; None if it failed.
        error: The exception of the tool, or the error of this library that names why it did not run; None if it
            succeeded.
        is_truncated: The result was longer than the runner allows.
        duration_s: Seconds that the tool ran, without the wait for its turn.
    """

    content: str | tuple[Part, ...]
    value: Any = None
    error: Exception | None = None
    is_truncated: bool = False
    duration_s: float = 0.0

    def to_part(self, tool_call_id: str) -> ToolResultPart:
        """Return the part of a tool message that answers a call."""
        if isinstance(self.content, str):
            return ToolResultPart(tool_call_id, self.content, is_error=self.error is not None)
        text = "\n".join(part.text for part in self.content if isinstance(part, TextPart))
        media = tuple(part for part in self.content if isinstance(part, ImagePart | FilePart | AudioPart))
        return ToolResultPart(tool_call_id, text, media, self.error is not None)


class ToolRunner:
    """Runs the calls of some tools; each call ends in an outcome, whatever the tool does.

    Args:
        tools: Functions, models, `Tool`, `MCPServer`, and tools that the provider runs.
        timeout_s: Seconds that one call may take; None: no limit. An async function is cancelled. A sync function
            runs in a thread, which cannot be stopped: its result is dropped.
        max_result_characters: A longer result is cut off and marked; None: no limit.
        max_concurrent: Calls that run at once; the others wait.

    Raises:
        ConfigurationError: A tool has nothing to run, two have the same name, or a number is out of range.

    Example:
        >>> async with ToolRunner([weather]) as runner:
        ...     outcome = await runner.run(response.tool_calls[0])
    """

    def __init__(
        self,
        tools: Any,
        *,
        timeout_s: float | None = TIMEOUT_S,
        max_result_characters: int | None = MAX_RESULT_CHARACTERS,
        max_concurrent: int = MAX_CONCURRENT,
    ) -> None:
        check_range("timeout_s", timeout_s, 0, float("inf"))
        check_range("max_result_characters", max_result_characters, 0, float("inf"))
        check_range("max_concurrent", max_concurrent, 1, float("inf"))
        self._sources = tool_sources(tools)
        self._fixed = to_tools(each for each in self._sources if not isinstance(each, MCPServer))
        self._mcp_servers = [each for each in self._sources if isinstance(each, MCPServer)]
        self._by_name = {tool.name: tool for tool in self._fixed if isinstance(tool, Tool)}
        self._connected: list[contextlib.AsyncExitStack] = []
        self._timeout_s = timeout_s
        self._max_result_characters = max_result_characters
        self._slots = asyncio.Semaphore(max_concurrent)
        for tool in self._fixed:
            if isinstance(tool, Tool) and tool.target is None:
                raise ConfigurationError(
                    f"the tool {tool.name} has no function to run", hint="Pass the function, or Tool.from_function."
                )

    @property
    def definitions(self) -> tuple[Tool | ProviderTool, ...]:
        """The tools for the model, as they are now.

        Raises:
            ConfigurationError: An MCP server is not connected; or two tools have the same name.
        """
        return to_tools(self._sources) if self._mcp_servers else self._fixed

    async def __aenter__(self) -> ToolRunner:
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.TaskGroup() as group:
                    for server in self._mcp_servers:
                        group.create_task(stack.enter_async_context(server))
            except ExceptionGroup as error:  # servers that do not start; the first stands for all
                raise error.exceptions[0]  # noqa: B904 - with its own cause
            to_tools(self._sources)  # refuses two tools of one name
            self._connected.append(stack.pop_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connected.pop().aclose()

    async def run(self, call: ToolCallPart, report: Callable[[Any], None] | None = None) -> ToolOutcome:
        """Run a tool call and return its outcome. Only an interruption is raised: Ctrl-C, or a cancellation.

        Args:
            call: The call, as the model made it.
            report: Called with each value that the tool yields before its result, and with the progress that an MCP
                server reports.
        """
        contained = None if report is None else ContainedHook(report, "the report of a tool")
        async with self._slots:
            started = time.monotonic()
            value: Any = None
            content: Content = ""
            error: Exception | None = None
            try:
                value = await self._result_of(call, contained)
                shown = value.content if isinstance(value, ToolReturn) else value
                value = value.value if isinstance(value, ToolReturn) else value
                content = to_content(shown, call.name)
            except BaseException as raised:
                if is_interruption(raised, of_hook=True):
                    raise
                error = _as_exception(raised, call.name)
                value, content = None, _message(error)
            content, is_truncated = shortened(sendable(content), self._max_result_characters)
            return ToolOutcome(
                content=content,
                value=value,
                error=error,
                is_truncated=is_truncated,
                duration_s=time.monotonic() - started,
            )

    async def _result_of(self, call: ToolCallPart, report: Callable[[Any], object] | None) -> Any:
        tools = self._by_name
        if self._mcp_servers:
            tools = {tool.name: tool for tool in self.definitions if isinstance(tool, Tool)}
        tool = tools.get(call.name)
        if tool is None or tool.target is None:
            known = ", ".join(tools) or "none"
            raise ToolError(
                f"there is no tool named {call.name[:64]!r}", tool=call.name, reason="unknown", hint=f"Known: {known}."
            )
        if call.arguments_error is not None:
            raise ToolError(
                f"the arguments are not valid JSON: {call.arguments_error}", tool=call.name, reason="arguments"
            )
        positional, keywords = tool.target.bind(_arguments(call))
        scope = asyncio.timeout(self._timeout_s)
        try:
            async with scope:
                return await call_async(tool.target.function, positional, keywords, report)
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise ToolError(
                f"the tool did not answer within {self._timeout_s:g} s", tool=call.name, reason="timeout"
            ) from error


def _arguments(call: ToolCallPart) -> Any:
    """Return the arguments of a call; a call that a program wrote may have only their text."""
    if call.arguments is not None or not call.arguments_text:
        return {} if call.arguments is None else call.arguments
    try:
        return json.loads(call.arguments_text)
    except (ValueError, RecursionError) as error:
        raise ToolError("the arguments are not valid JSON", tool=call.name, reason="arguments") from error


def tool_sources(tools: Any) -> list[Any]:
    """Return the tools one by one; a server object of the MCP SDK becomes an `MCPServer`."""
    if tools is None:
        return []
    if isinstance(tools, str | Mapping) or not isinstance(tools, Iterable):
        return [*to_tools(tools)]
    return [MCPServer(each) if _is_sdk_server(each) else each for each in tools]


def _is_sdk_server(tool: Any) -> bool:
    """Whether a tool is a server object of the MCP SDK, which is not imported for the answer."""
    return any(kind.__module__.startswith("mcp.server.") for kind in type(tool).__mro__)


def _as_exception(raised: BaseException, tool: str) -> Exception:
    if isinstance(raised, Exception):
        return raised
    error = ToolError(f"the tool ended with {type(raised).__name__}", tool=tool, reason="exit")
    error.__cause__ = raised
    return error


def _message(error: Exception) -> str:
    """Return what the model reads about a failure: what was wrong, without a traceback.

    The request marks the result as an error, in APIs without such a mark by the word "Error".
    """
    if isinstance(error, DelugeError):
        return str(error)
    text = _CREDENTIALS.sub("...", " ".join(str(error).split()))[:_MOST_MESSAGE]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
