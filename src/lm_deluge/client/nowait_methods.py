"""The methods of `LLMClient` that start calls, and wait for them later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Unpack

from lm_deluge.client.batch.prompts import run_one
from lm_deluge.client.call_options import CallOptions
from lm_deluge.client.dispatcher import Dispatcher
from lm_deluge.client.keywords import CollectKeywords
from lm_deluge.errors import ConfigurationError
from lm_deluge.prompt.conversation import Prompt
from lm_deluge.response import APIResponse

__all__ = ["NowaitMethods"]


class NowaitMethods:
    """The methods of a client that start calls, and wait for them later.

    Args:
        dispatcher: What all calls of the client share.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self._tasks: dict[int, asyncio.Task[APIResponse]] = {}
        self._last_task = 0

    def start_nowait(self, prompt: Prompt, **options: Unpack[CollectKeywords]) -> int:
        """Start a call in the running event loop, under the client's limits.

        Args:
            prompt: Text, or a conversation.
            options: As in `stream`.

        Returns:
            The id to pass to `wait_for`.

        Raises:
            ConfigurationError: An option is unknown or out of range.

        Example:
            >>> task_id = client.start_nowait("Hello")
            >>> response = await client.wait_for(task_id)
        """
        return self._start(prompt, CallOptions.from_keywords(options))

    def _start(self, prompt: Prompt, options: CallOptions) -> int:
        make = self.dispatcher.planner(options).collected
        self._last_task += 1
        task = asyncio.get_running_loop().create_task(run_one(self.dispatcher.runner, make, prompt))
        self._tasks[self._last_task] = task
        return self._last_task

    async def start(self, prompt: Prompt, **options: Unpack[CollectKeywords]) -> APIResponse:
        """Answer one prompt without showing the stream, under the client's limits.

        Args:
            prompt: Text, or a conversation.
            options: As in `stream`.

        Returns:
            The response; one whose call failed has `error` set.

        Raises:
            ConfigurationError: An option is unknown or out of range.

        Example:
            >>> response = await client.start("Hello")
            >>> print(response.completion)
        """
        make = self.dispatcher.planner(CallOptions.from_keywords(options)).collected
        return await run_one(self.dispatcher.runner, make, prompt)

    async def wait_for(self, task_id: int) -> APIResponse:
        """Wait for a call that `start_nowait` started. A wait that is cancelled or times out does not end the call.

        Args:
            task_id: The id of the call. Each call can be waited for once, by several waiters at the same time.

        Returns:
            Its response; one whose call failed has `error` set.

        Raises:
            ConfigurationError: There is no such call, or its response was returned before.

        Example:
            >>> task_id = client.start_nowait("Hello")
            >>> response = await client.wait_for(task_id)
        """
        (response,) = await self.wait_for_all([task_id])
        return response

    async def wait_for_all(self, task_ids: Iterable[int] | None = None) -> list[APIResponse]:
        """Wait for several calls that `start_nowait` started. A wait that is cancelled or times out ends no call.

        Args:
            task_ids: The ids of the calls; None: all that were started and not yet waited for.

        Returns:
            Their responses, in the order of the ids.

        Raises:
            ConfigurationError: There is no such call, or its response was returned before.

        Example:
            >>> ids = [client.start_nowait(prompt) for prompt in ("One?", "Two?")]
            >>> responses = await client.wait_for_all(ids)
        """
        ids = list(self._tasks if task_ids is None else task_ids)
        tasks = self._started(ids)
        if tasks:
            await asyncio.wait(tasks.values())  # awaiting a task itself would pass a cancellation on to it
        return [self._take(task_id, tasks[task_id]) for task_id in ids]

    def _started(self, task_ids: Iterable[int] | None) -> dict[int, asyncio.Task[APIResponse]]:
        """Return the tasks of calls that were started and not yet waited for; None: of all of them."""
        tasks: dict[int, asyncio.Task[APIResponse]] = {}
        for task_id in list(self._tasks) if task_ids is None else task_ids:
            if task_id not in self._tasks:
                raise ConfigurationError(
                    f"there is no call {task_id} to wait for", hint="start_nowait returns the ids."
                )
            tasks[task_id] = self._tasks[task_id]
        return tasks

    def _take(self, task_id: int, task: asyncio.Task[APIResponse]) -> APIResponse:
        """Return the response of a call that is over, and forget the call."""
        self._tasks.pop(task_id, None)  # another waiter may have done so
        response = task.result()
        response.id = task_id
        return response

    async def as_completed(self, task_ids: Iterable[int] | None = None) -> AsyncIterator[tuple[int, APIResponse]]:
        """Yield the responses of calls that `start_nowait` started, in the order in which the calls end.

        Args:
            task_ids: The ids of the calls; None: all that were started and not yet waited for.

        Yields:
            The id of a call, and its response.

        Raises:
            ConfigurationError: There is no such call, or its response was returned before.

        Example:
            >>> async for task_id, response in client.as_completed():
            ...     print(task_id, response.completion)
        """
        waiting = {task: task_id for task_id, task in self._started(task_ids).items()}
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task_id = waiting.pop(task)
                yield task_id, self._take(task_id, task)
