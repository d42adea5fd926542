"""The methods of `LLMClient` that run agent loops to their end, under the names of lm-deluge 0.0.

`stream(..., run_tools=True)` is the same loop as a stream.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sized
from contextlib import aclosing
from typing import Any, Unpack

from lm_deluge.client.batch.progress_display import make_progress, shown
from lm_deluge.client.batch.prompts import run_one, run_windowed
from lm_deluge.client.batch_methods import BatchMethods
from lm_deluge.client.call_options import CallOptions
from lm_deluge.client.keywords import AgentKeywords
from lm_deluge.client.nowait_methods import NowaitMethods
from lm_deluge.client.sync import run_blocking
from lm_deluge.dispatch.batch.progress import ProgressTracker
from lm_deluge.dispatch.hooks import ContainedHook, failure_of
from lm_deluge.errors import ConfigurationError
from lm_deluge.events import Event
from lm_deluge.option_checks import check_range
from lm_deluge.prompt.conversation import Conversation, Prompt, check_prompts, to_conversation
from lm_deluge.response import APIResponse

__all__ = ["AgentMethods", "LoopResult"]

LoopResult = tuple[Conversation, APIResponse]
OnEvent = Callable[[Event], Any]

_MAX_ROUNDS = 5  # as in lm-deluge 0.0, whose callers count on it
_MAX_CONCURRENT_AGENTS = 10  # likewise
_CALLBACKS = ("on_text_delta", "on_message", "on_round_complete", "verbose")


class AgentMethods(NowaitMethods, BatchMethods):
    """The methods of a client that run agent loops to their end."""

    async def run_agent_loop(
        self,
        conversation: Prompt,
        *,
        tools: Any,
        max_rounds: int = _MAX_ROUNDS,
        on_event: OnEvent | None = None,
        **options: Unpack[AgentKeywords],
    ) -> LoopResult:
        """Run an agent loop: the model answers, the tools that it calls run, until it calls none.

        Args:
            conversation: Text, or a conversation, which is not changed.
            tools: Functions, models, `Tool` or `MCPServer`.
            max_rounds: Answers of the model at most.
            on_event: Called with each event as it arrives; may be async. If it raises, it is not called again.
            options: As in `stream`.

        Returns:
            The conversation with all answers and results, ready for the next turn, and the response. A loop that fails
            raises nothing: `response.error` is set.

        Raises:
            ConfigurationError: An option is unknown or out of range, or a tool has nothing to run.

        Example:
            >>> conversation, response = await client.run_agent_loop("Weather in Rome?", tools=[weather])
            >>> print(response.completion)
        """
        planner = self.dispatcher.planner(_loop_options(tools, max_rounds, options))
        make = planner.collected if on_event is None else planner.spec
        on_events = None if on_event is None else _Listener(on_event).hear
        response = await run_one(self.dispatcher.runner, make, conversation, on_events)
        return _result(conversation, response)

    def run_agent_loop_sync(
        self,
        conversation: Prompt,
        *,
        tools: Any,
        max_rounds: int = _MAX_ROUNDS,
        on_event: OnEvent | None = None,
        **options: Unpack[AgentKeywords],
    ) -> LoopResult:
        """Run an agent loop from code without asyncio; also works in a notebook whose event loop runs.

        Args:
            conversation: Text, or a conversation, which is not changed.
            tools: Functions, models, `Tool` or `MCPServer`.
            max_rounds: Answers of the model at most.
            on_event: Called with each event as it arrives, in the thread of the event loop.
            options: As in `stream`.

        Returns:
            As `run_agent_loop`.

        Raises:
            ConfigurationError: An option is unknown or out of range, or a tool has nothing to run.

        Example:
            >>> conversation, response = client.run_agent_loop_sync("Weather in Rome?", tools=[weather])
            >>> print(response.completion)
        """
        return run_blocking(
            lambda: self.run_agent_loop(conversation, tools=tools, max_rounds=max_rounds, on_event=on_event, **options)
        )

    def start_agent_loop_nowait(
        self,
        conversation: Prompt,
        *,
        tools: Any,
        max_rounds: int = _MAX_ROUNDS,
        **options: Unpack[AgentKeywords],
    ) -> int:
        """Start an agent loop in the running event loop, under the client's limits.

        Args:
            conversation: Text, or a conversation, which is not changed.
            tools: Functions, models, `Tool` or `MCPServer`.
            max_rounds: Answers of the model at most.
            options: As in `stream`.

        Returns:
            The id to pass to `wait_for_agent_loop`, or to `wait_for`.

        Raises:
            ConfigurationError: An option is unknown or out of range, or a tool has nothing to run.

        Example:
            >>> task_id = client.start_agent_loop_nowait("Weather in Rome?", tools=[weather])
            >>> conversation, response = await client.wait_for_agent_loop(task_id)
        """
        return self._start(conversation, _loop_options(tools, max_rounds, options))

    async def wait_for_agent_loop(self, task_id: int) -> LoopResult:
        """Wait for an agent loop. A wait that is cancelled or times out does not end the loop.

        Args:
            task_id: The id of the loop.

        Returns:
            As `run_agent_loop`.

        Raises:
            ConfigurationError: There is no such loop, or its response was returned before.

        Example:
            >>> task_id = client.start_agent_loop_nowait("Weather in Rome?", tools=[weather])
            >>> conversation, response = await client.wait_for_agent_loop(task_id)
        """
        return _result((), await self.wait_for(task_id))

    async def process_agent_loops_async(
        self,
        prompts: Iterable[Prompt],
        *,
        tools: Any,
        max_rounds: int = _MAX_ROUNDS,
        max_concurrent_agents: int = _MAX_CONCURRENT_AGENTS,
        show_progress: bool = False,
        on_event: Callable[[int, Event], Any] | None = None,
        **options: Unpack[AgentKeywords],
    ) -> list[LoopResult]:
        """Run many agent loops. `process_prompts_async(..., run_tools=True)` does so with progress and a journal.

        Args:
            prompts: Text or conversations. An iterator is read as its prompts are needed.
            tools: Functions, models, `Tool` or `MCPServer`, for all loops.
            max_rounds: Answers of the model at most, in each loop.
            max_concurrent_agents: Loops at a time; their requests also keep to the client's limits.
            show_progress: Whether the loops have a display.
            on_event: Called with the index of the prompt and each event; may be async.
            options: As in `stream`, for each loop.

        Returns:
            As `run_agent_loop`, for each prompt, in order.

        Raises:
            ConfigurationError: An option is unknown or out of range, or a tool has nothing to run.

        Example:
            >>> for conversation, response in await client.process_agent_loops_async(prompts, tools=[weather]):
            ...     print(response.completion)
        """
        check_range("max_concurrent_agents", max_concurrent_agents, 1, float("inf"))
        planner = self.dispatcher.planner(_loop_options(tools, max_rounds, options))
        make = planner.collected if on_event is None else planner.spec
        runner = self.dispatcher.runner()
        given: dict[int, Prompt] = {}

        async def run(index: int, prompt: Prompt) -> APIResponse:
            given[index] = prompt
            tracker.start(time.monotonic())
            hear = None if on_event is None else _Listener(functools.partial(on_event, index)).hear
            return await run_one(lambda: runner, make, prompt, hear)

        found: dict[int, LoopResult] = {}
        tracker = ProgressTracker(len(prompts) if isinstance(prompts, Sized) else None)
        kind = (
            (self.options.progress if self.options.progress not in (None, "none") else "rich")
            if show_progress
            else "none"
        )
        async with (
            shown(make_progress(kind), lambda: tracker.progress(time.monotonic(), waiting=runner.waiting)),
            aclosing(run_windowed(run, check_prompts(prompts), int(max_concurrent_agents))) as ended,
        ):
            async for index, response in ended:
                response.id = index
                ContainedHook(tracker.finish, None)(response, time.monotonic())  # counts may fail to add up
                found[index] = _result(given.pop(index, ()), response)
        return [found[index] for index in range(len(found))]

    def process_agent_loops_sync(
        self,
        prompts: Iterable[Prompt],
        *,
        tools: Any,
        max_rounds: int = _MAX_ROUNDS,
        max_concurrent_agents: int = _MAX_CONCURRENT_AGENTS,
        show_progress: bool = False,
        on_event: Callable[[int, Event], Any] | None = None,
        **options: Unpack[AgentKeywords],
    ) -> list[LoopResult]:
        """Run many agent loops from code without asyncio; also works in a notebook whose event loop runs.

        Args:
            prompts: Text or conversations.
            tools: Functions, models, `Tool` or `MCPServer`, for all loops.
            max_rounds: Answers of the model at most, in each loop.
            max_concurrent_agents: Loops at a time; their requests also keep to the client's limits.
            show_progress: Whether the loops have a display.
            on_event: Called with the index of the prompt and each event.
            options: As in `stream`, for each loop.

        Returns:
            As `run_agent_loop`, for each prompt, in order.

        Raises:
            ConfigurationError: An option is unknown or out of range, or a tool has nothing to run.

        Example:
            >>> for conversation, response in client.process_agent_loops_sync(prompts, tools=[weather]):
            ...     print(response.completion)
        """
        return run_blocking(
            lambda: self.process_agent_loops_async(
                prompts,
                tools=tools,
                max_rounds=max_rounds,
                max_concurrent_agents=max_concurrent_agents,
                show_progress=show_progress,
                on_event=on_event,
                **options,
            )
        )


class _Listener:
    """A function of the user that hears events. What it raises ends no loop: it is not called again."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event: OnEvent | None = on_event

    async def hear(self, events: list[Event]) -> None:
        """Pass on events, in order."""
        for event in events:
            if self._on_event is not None and await failure_of(self._on_event, event) is not None:
                self._on_event = None


def _loop_options(tools: Any, max_rounds: int, options: Any) -> CallOptions:
    given = {**options, "tools": tools, "run_tools": True, "max_rounds": max_rounds}
    callback = next((name for name in _CALLBACKS if name in given), None)
    if callback is not None:
        raise ConfigurationError(
            f"agent loops have no option {callback!r}", hint="on_event= receives each event: see lm_deluge.events."
        )
    return CallOptions.from_keywords(given, also=("on_event", "max_concurrent_agents"))


def _result(prompt: Prompt, response: APIResponse) -> LoopResult:
    """Return the conversation of a loop, and its response. A loop that could not start has the prompt alone."""
    if response.conversation is not None:
        return response.conversation, response
    try:
        return to_conversation(prompt), response
    except Exception:  # noqa: BLE001 - a prompt may be any object of the user; the response has the error
        return Conversation(), response
