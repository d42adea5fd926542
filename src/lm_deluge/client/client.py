"""`LLMClient`: the methods that users call. The work is done by `Dispatcher`, `StreamCall` and the batch functions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

from lm_deluge.adapters.batch_api import BatchState
from lm_deluge.api_requests.accounts import url_of_unknown_models
from lm_deluge.client.batch.answers import AnswerId, AnswerOptions, start_answers
from lm_deluge.client.batch.fed_iterator import FedIterator
from lm_deluge.client.batch.progress_display import make_progress
from lm_deluge.client.batch.prompts import EventMerger, run_one
from lm_deluge.client.batch.provider_prompts import start_provider_batch
from lm_deluge.client.call_options import NO_OPTIONS, CallOptions, Tools
from lm_deluge.client.dispatcher import Dispatcher
from lm_deluge.client.end_warnings import warn_of_ends
from lm_deluge.client.keywords import (
    AnswerKeywords,
    BatchKeywords,
    CallKeywords,
    ClientKeywords,
    ProviderBatchKeywords,
    SamplingKeywords,
)
from lm_deluge.client.stream import Echo, Stream
from lm_deluge.client.sync import SyncStream, run_blocking
from lm_deluge.config import SAMPLING_NAMES, ClientOptions, Priority, PromptCache, SamplingParams
from lm_deluge.dispatch.attempts.call_stream import StreamCall
from lm_deluge.dispatch.cache.call import CachedCall
from lm_deluge.errors import ConfigurationError
from lm_deluge.models.registry import find_served_model
from lm_deluge.models.rows import ModelRow
from lm_deluge.prompt.conversation import Prompt
from lm_deluge.response import APIResponse

__all__ = ["LLMClient"]

_BATCH_KEYWORDS = ("progress", "ask_duplicates_once")
_ANSWER_KEYWORDS = (*_BATCH_KEYWORDS, "ids", "journal", "retry_failed")
_STREAM_KEYWORDS = ("echo",)


class LLMClient:
    """Streams answers of language models, one at a time or thousands at once.

    Make one client and keep it: it holds the connections, and its limits apply to all calls together.

    Args:
        model: A name of the registry, `provider:name` for any other model, or with `base_url` any name at an
            OpenAI-compatible host. Several names share the calls; each stands in for another that fails.
        options: The fields of `ClientOptions` (keys, limits, timeouts, retries, ...) and of `SamplingParams`
            (temperature, max_new_tokens, ...), as keyword arguments.

    Attributes:
        options: The client's options.
        models: The rows of the models, with prices and capabilities.
        dispatcher: What all calls share: limits, connections, caches. For programs that extend the client.

    Raises:
        UnknownModelError: There is no such model; the error names the nearest ones.
        ConfigurationError: An option is unknown or out of range.

    Example:
        >>> client = LLMClient("gpt-5.4", max_requests_per_minute=500, temperature=0)
        >>> response = await client.stream("Hello")
    """

    def __init__(self, model: str | Sequence[str], **options: Unpack[ClientKeywords]) -> None:
        self.options = ClientOptions.from_keywords(options)
        if not isinstance(model, str | Sequence):
            raise ConfigurationError(f"a model is named by text, not by {type(model).__name__}")
        names = [model] if isinstance(model, str) else list(model)
        if not names:
            raise ConfigurationError("the client needs a model", hint='Write LLMClient("gpt-6-sol"), for example.')
        url, fallback = url_of_unknown_models(self.options.base_url), self.options.fallback
        self.models: tuple[ModelRow, ...] = tuple(find_served_model(name, url) for name in names)
        others = [fallback] if isinstance(fallback, str) else fallback
        backups = tuple(find_served_model(name, url) for name in others)
        self.dispatcher = Dispatcher(self.models, backups, self.options)
        warn_of_ends((*self.models, *backups))
        self._tasks: dict[int, asyncio.Task[APIResponse]] = {}
        self._last_task = 0

    def __repr__(self) -> str:
        return f"LLMClient({', '.join(repr(model.id) for model in self.models)})"

    def stream(  # noqa: PLR0913 - the options of a call, all keyword-only
        self,
        prompt: Prompt,
        *,
        tools: Tools | None = None,
        sampling_params: SamplingParams | None = None,
        output: Any = None,
        cache: PromptCache | None = None,
        prefer_model: str | None = None,
        max_cost: float | None = None,
        priority: Priority = "interactive",
        echo: Echo = "stdout",
        **sampling: Unpack[SamplingKeywords],
    ) -> Stream:
        """Return a stream of the answer. Nothing is sent until it is used.

        Args:
            prompt: Text, or a conversation.
            tools: The tools that the model may call, as `Tool` or plain JSON.
            sampling_params: Its fields replace the client's, one by one.
            output: JSON schema, or Pydantic model, of the answer.
            cache: Which part of the prompt the provider keeps for later calls: `tools_only`, `system_and_tools`,
                `last_user_message`, `last_2_user_messages` or `last_3_user_messages`.
            prefer_model: Id of the client's model that answers as long as it is available.
            max_cost: US dollars after which the stream is stopped with a `BudgetError`.
            priority: `"interactive"`: before the waiting calls of batches; `"batch"`: in the order of arrival. Batches
                keep what is left, and at least a fifth.
            echo: Where an awaited stream prints: `"stdout"`, any text file, or None.
            sampling: Fields of `SamplingParams` (temperature, max_new_tokens, ...), which replace those of
                `sampling_params` and of the client.

        Returns:
            A `Stream`, to be used once: `await` it, iterate over it, or enter it with `async with`.

        Raises:
            ConfigurationError: The call cannot be sent like that; the message has what to change.

        Example:
            >>> async for token in client.stream("Hello"):
            ...     print(token, end="", flush=True)
        """
        own = None if priority == "interactive" else priority
        options = CallOptions(tools, sampling_params, output, cache, prefer_model, max_cost, own)
        options = options.with_sampling(sampling, also=_STREAM_KEYWORDS) if sampling else options
        return Stream(self._call(prompt, options), echo)

    def stream_sync(
        self,
        prompt: Prompt,
        *,
        tools: Tools | None = None,
        sampling_params: SamplingParams | None = None,
        output: Any = None,
        cache: PromptCache | None = None,
        prefer_model: str | None = None,
        max_cost: float | None = None,
        priority: Priority = "interactive",
        **sampling: Unpack[SamplingKeywords],
    ) -> SyncStream:
        """Return a stream for code without asyncio; it also works in a notebook whose event loop runs.

        Args:
            prompt: Text, or a conversation.
            tools: The tools that the model may call, as `Tool` or plain JSON.
            sampling_params: Its fields replace the client's, one by one.
            output: JSON schema, or Pydantic model, of the answer.
            cache: Which part of the prompt the provider keeps for later calls: `tools_only`, `system_and_tools`,
                `last_user_message`, `last_2_user_messages` or `last_3_user_messages`.
            prefer_model: Id of the client's model that answers as long as it is available.
            max_cost: US dollars after which the stream is stopped with a `BudgetError`.
            priority: `"interactive"`: before the waiting calls of batches; `"batch"`: in the order of arrival. Batches
                keep what is left, and at least a fifth.
            sampling: Fields of `SamplingParams` (temperature, max_new_tokens, ...), which replace those of
                `sampling_params` and of the client.

        Returns:
            A `SyncStream`, to be used once.

        Raises:
            ConfigurationError: The call cannot be sent like that; the message has what to change.

        Example:
            >>> with client.stream_sync("Hello") as stream:
            ...     print("".join(stream))
        """
        own = None if priority == "interactive" else priority
        options = CallOptions(tools, sampling_params, output, cache, prefer_model, max_cost, own)
        options = options.with_sampling(sampling) if sampling else options
        return SyncStream(Stream(self._call(prompt, options), None))

    def answers(
        self,
        prompts: Iterable[Prompt],
        *,
        ids: Iterable[AnswerId] | None = None,
        journal: str | PathLike[str] | None = None,
        output: Any = None,
        tools: Tools | None = None,
        retry_failed: bool = False,
        **options: Unpack[AnswerKeywords],
    ) -> FedIterator[tuple[AnswerId, APIResponse]]:
        """Answer many prompts, and return an iterator over the answers in the order in which they complete.

        Args:
            prompts: Text or conversations. An iterator is read as its prompts are needed.
            ids: An id for each prompt, each different as text; None: the indexes of the prompts.
            journal: File that records each answer before it is yielded. Called again with the same file, the iterator
                yields the recorded answers and sends only the rest, also after `kill -9`.
            output: JSON schema, or Pydantic model, of the answers.
            tools: The tools that the model may call.
            retry_failed: Whether prompts that failed for good in an earlier run are sent again.
            options: As in `process_prompts_async`.

        Returns:
            An asynchronous iterator of `(id, response)`, to be used once. A prompt that fails raises nothing: its
            response has `error` set. Leaving the loop ends the requests in flight; the journal keeps what was answered.

        Raises:
            ConfigurationError: An option is unknown or out of range, or the ids do not fit the prompts.
            JournalError: While iterating: the journal cannot be read or written, or is of a batch with other options.

        Example:
            >>> async for number, response in client.answers(prompts, journal="answers.journal"):
            ...     print(number, response.completion)
        """
        keywords: dict[str, Any] = {"tools": tools, "output": output, **options}
        own = {name: keywords.pop(name) for name in _BATCH_KEYWORDS if name in keywords}
        is_plain = all(value is None and name not in SAMPLING_NAMES for name, value in keywords.items())
        return start_answers(
            self.dispatcher,
            prompts,
            ids,
            AnswerOptions(
                call=None if is_plain else CallOptions.from_keywords(keywords, also=_ANSWER_KEYWORDS),
                progress=make_progress(own.get("progress") or self.options.progress),
                dedupe=own.get("ask_duplicates_once", False),
                journal=None if journal is None else Path(journal).absolute(),
                retry_failed=retry_failed,
            ),
        )

    async def process_prompts_async(
        self, prompts: Iterable[Prompt], **options: Unpack[BatchKeywords]
    ) -> list[APIResponse]:
        """Answer many prompts, as many at a time as the limits allow.

        Args:
            prompts: Text or conversations. An iterator is read as its prompts are needed.
            options: As in `stream`, for all prompts; `max_cost` applies to each of them. `progress`: how the batch is
                shown, in place of the client's. `ask_duplicates_once`: equal prompts are asked once, and the other
                responses have the same answer without usage and cost. `journal`, `retry_failed`: as in `answers`.

        Returns:
            One response for each prompt, in order. A prompt that fails raises nothing: its response has `error` set,
            and the part of the answer that arrived.

        Raises:
            ConfigurationError: An option is unknown or out of range.

        Example:
            >>> responses = await client.process_prompts_async(["One?", "Two?"])
            >>> [response.completion for response in responses]
        """
        async with self.answers(prompts, **options) as answers:
            found = {index: response async for index, response in answers}
        return [found[index] for index in range(len(found))]

    def process_prompts_sync(self, prompts: Iterable[Prompt], **options: Unpack[BatchKeywords]) -> list[APIResponse]:
        """Answer many prompts from code without asyncio; also works in a notebook whose event loop runs.

        Args:
            prompts: Text or conversations.
            options: As in `process_prompts_async`.

        Returns:
            One response for each prompt, in order; a response whose prompt failed has `error` set.

        Raises:
            ConfigurationError: An option is unknown or out of range.

        Example:
            >>> responses = client.process_prompts_sync(["One?", "Two?"])
            >>> [response.completion for response in responses]
        """
        return run_blocking(lambda: self.process_prompts_async(prompts, **options))

    def stream_many(self, prompts: Iterable[Prompt], **options: Unpack[CallKeywords]) -> EventMerger:
        """Return the live streams of many prompts as one stream of `(index, event)`, in order of arrival.

        A stream that breaks is started again as long as nothing of it was delivered.

        Args:
            prompts: Text or conversations. An iterator is read as its prompts are needed.
            options: As in `stream`, for all prompts; `max_cost` applies to each of them.

        Returns:
            An asynchronous iterator, to be used once; its `responses` has the responses that are complete.

        Raises:
            ConfigurationError: An option is unknown or out of range.

        Example:
            >>> async for index, event in client.stream_many(["One?", "Two?"]):
            ...     print(index, event)
        """
        make = self.dispatcher.planner(CallOptions.from_keywords(options)).spec
        most = self.options.max_concurrent_requests
        return EventMerger(lambda: (self.dispatcher.runner(), make), prompts, most_at_once=most)

    def provider_batch(
        self,
        prompts: Iterable[Prompt],
        *,
        journal: str | PathLike[str],
        on_state: Callable[[str, BatchState], None] | None = None,
        **options: Unpack[ProviderBatchKeywords],
    ) -> AsyncIterator[tuple[int, APIResponse]]:
        """Answer many prompts through the provider's own batch API, at half the price and within a day.

        Args:
            prompts: Text or conversations. Several models take them in turn.
            journal: File that records what was handed over. Started again with the same prompts and the same file,
                the batch is resumed: nothing is sent twice.
            on_state: Called with the batch's name and state after each poll.
            options: As in `stream`, without `prefer_model` and `max_cost`.

        Returns:
            An asynchronous iterator of `(index, response)`, in the order in which responses arrive.

        Raises:
            ConfigurationError: A provider has no batch API (the message names those that have one), or there is a
                `max_cost`, which a provider's batch cannot enforce.

        Example:
            >>> async for index, response in client.provider_batch(prompts, journal="batch.journal"):
            ...     print(index, response.completion)
        """
        return start_provider_batch(
            self.dispatcher, prompts, CallOptions.from_keywords(options), str(journal), on_state
        )

    def start_nowait(self, prompt: Prompt, **options: Unpack[CallKeywords]) -> int:
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
        make = self.dispatcher.planner(CallOptions.from_keywords(options)).collected
        self._last_task += 1
        task = asyncio.get_running_loop().create_task(run_one(self.dispatcher.runner, make, prompt))
        self._tasks[self._last_task] = task
        return self._last_task

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

    def _call(self, prompt: Prompt, options: CallOptions) -> StreamCall:
        """Return the call of a single stream. A call that cannot be sent raises here, before it is used."""
        dispatcher = self.dispatcher
        planner = dispatcher.planner(None if options == NO_OPTIONS else options.checked())
        spec = planner.checked(prompt, prefer=dispatcher.next_model().id)
        return (CachedCall if spec.is_cached else StreamCall)(spec, dispatcher.runner)

    async def close(self) -> None:
        """Close the connections of the running event loop. Without it they are closed with the loop.

        Calls under way go on to their end, streams, batches and background answers alike, as they are paid already;
        each of their connections is closed when its answer is complete. `Stream.cancel` ends a stream.

        Example:
            >>> async with LLMClient("gpt-6-sol") as client:  # closes at the end of the block
            ...     await client.stream("Hello")
        """
        await self.dispatcher.close()

    def close_sync(self) -> None:
        """Close the connections of the calls that were made from code without asyncio.

        Calls under way go on to their end, as after `close`.

        Example:
            >>> client.process_prompts_sync(["Hello"])
            >>> client.close_sync()
        """
        if self.dispatcher.transport is not None:  # without one there is no connection, and no thread to start for it
            run_blocking(self.close)

    async def __aenter__(self) -> LLMClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
