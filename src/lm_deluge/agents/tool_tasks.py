"""The tool calls of one round while they run, a task each."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from lm_deluge.agents.agent_watch import AgentWatch
from lm_deluge.agents.approval import Decided
from lm_deluge.events import Event, ToolProgress, ToolResult
from lm_deluge.prompt.parts import ToolCallPart, ToolResultPart
from lm_deluge.schemas.json_values import to_json_value
from lm_deluge.tools.runner import ToolOutcome, ToolRunner

__all__ = ["ToolTasks"]

# An async tool that is cancelled may have to close connections. Longer than a round trip around the world, and short
# enough for the user who pressed Ctrl-C.
_SETTLE_S = 2.0


class ToolTasks:
    """Runs the calls of a round side by side. Read `next_events` until it returns nothing, or `cancel`.

    Args:
        runner: Runs a call.
        decided: The calls to run, and those that are declined.
        on_result: Called with each result as soon as there is one.
        watch: What the runs are reported to; None: to nothing.
    """

    def __init__(
        self,
        runner: ToolRunner,
        decided: Decided,
        on_result: Callable[[ToolResultPart], None],
        watch: AgentWatch | None = None,
    ) -> None:
        self._runner = runner
        self._watch = watch
        self._on_result = on_result
        self._ready: list[Event] = []
        self._changed = asyncio.Event()
        for call, message, error in decided.refused:
            on_result(ToolResultPart(call.id, message, is_error=True))
            self._ready.append(ToolResult(call.id, call.name, message, error))
        loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Task[None]] = set()
        for call in decided.runs:
            task = loop.create_task(self._run(call))
            task.add_done_callback(functools.partial(self._end, call))
            self._waiting.add(task)

    async def next_events(self) -> list[Event]:
        """Return progress and results as they come, at least one; empty after the last result."""
        while not self._ready and self._waiting:
            self._changed.clear()
            await self._changed.wait()
        events, self._ready = self._ready, []
        return events

    async def _run(self, call: ToolCallPart) -> None:
        outcome = await self._outcome_of(call)
        part, error = outcome.to_part(call.id), _error_of(outcome)
        self._on_result(part)
        took_s, is_truncated = outcome.duration_s, outcome.is_truncated
        self._add(ToolResult(call.id, call.name, part.content, error, took_s, is_truncated, part.media))

    async def _outcome_of(self, call: ToolCallPart) -> ToolOutcome:
        report = functools.partial(self._report, call)
        if self._watch is None:
            return await self._runner.run(call, report)
        # A name that is no tool is text of the model.
        is_known = any(tool.name == call.name for tool in self._runner.definitions)
        watch = self._watch.tool_started(call.name if is_known else "unknown", call.id)
        error: BaseException | None = None
        try:
            outcome = await self._runner.run(call, report)
            error = outcome.error
        except BaseException as interruption:
            error = interruption
            raise
        finally:
            watch.ended(error)
        return outcome

    def _report(self, call: ToolCallPart, value: Any) -> None:
        try:
            value = to_json_value(value)
        except (TypeError, ValueError):
            value = repr(value)
        self._add(ToolProgress(call.id, call.name, value))

    def _add(self, event: Event) -> None:
        self._ready.append(event)
        self._changed.set()

    def _end(self, call: ToolCallPart, task: asyncio.Task[None]) -> None:
        self._waiting.discard(task)
        self._changed.set()
        if task.cancelled() or task.exception() is not None:  # only an interruption is raised
            message = "The call was cancelled before it had a result."
            self._on_result(ToolResultPart(call.id, message, is_error=True))
            self._add(ToolResult(call.id, call.name, message, "the call was cancelled"))

    def cancel(self) -> None:
        """Cancel the calls that run; a pending `next_events` returns what there is."""
        for task in self._waiting:
            task.cancel()

    async def settle(self) -> None:
        """Wait, for two seconds at most, until all calls have ended."""
        if self._waiting:
            await asyncio.wait(set(self._waiting), timeout=_SETTLE_S)


def _error_of(outcome: ToolOutcome) -> str | None:
    error = outcome.error
    if error is None:
        return None
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
