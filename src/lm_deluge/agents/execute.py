"""Run the tool calls of an answer, for programs with a loop of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from lm_deluge.prompt.parts import ToolCallPart
from lm_deluge.tools.runner import ToolRunner

__all__ = ["execute_tool_calls"]


async def execute_tool_calls(
    tool_calls: Iterable[ToolCallPart], tools: Any, **limits: float | None
) -> list[tuple[str, Any]]:
    """Run the tool calls of an answer side by side. With `run_tools=True` a stream does that itself.

    Args:
        tool_calls: The calls, for example `response.tool_calls`.
        tools: Functions, models, `Tool` or `MCPServer`.
        limits: `timeout_s`, `max_result_characters` and `max_concurrent`, as in `ToolRunner`.

    Returns:
        The id and the result of each call, in order: text, dict or list as the tool returned it, other data as JSON
        text. Of a call that failed it is the text that states why.

    Raises:
        ConfigurationError: A tool has nothing to run, two have the same name, or a limit is out of range.

    Example:
        >>> for call_id, result in await execute_tool_calls(response.tool_calls, [weather]):
        ...     conversation.tool_result(call_id, result)
    """
    runner = ToolRunner(tools, **limits)  # type: ignore[arg-type]  # checked by the runner
    calls = list(tool_calls)
    async with runner:
        outcomes = await asyncio.gather(*map(runner.run, calls))
    results = []
    for call, outcome in zip(calls, outcomes, strict=True):
        is_plain = outcome.error is None and not outcome.is_truncated and isinstance(outcome.value, str | dict | list)
        results.append((call.id, outcome.value if is_plain else outcome.to_part(call.id).content))
    return results
