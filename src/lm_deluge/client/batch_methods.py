"""The methods of `LLMClient` that answer many prompts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Unpack, overload

from lm_deluge.adapters.batch_api import BatchState
from lm_deluge.client.batch.answers import AnswerId, AnswerOptions, start_answers
from lm_deluge.client.batch.fed_iterator import FedIterator
from lm_deluge.client.batch.progress_display import make_progress
from lm_deluge.client.batch.prompts import EventMerger
from lm_deluge.client.batch.provider_prompts import start_provider_batch
from lm_deluge.client.call_options import CallOptions, Tools
from lm_deluge.client.dispatcher import Dispatcher
from lm_deluge.client.keywords import AnswerKeywords, BatchKeywords, CallKeywords, ProviderBatchKeywords
from lm_deluge.client.sync import run_blocking
from lm_deluge.config import SAMPLING_NAMES, ClientOptions
from lm_deluge.errors import ConfigurationError
from lm_deluge.prompt.conversation import Prompt
from lm_deluge.response import APIResponse

__all__ = ["BatchMethods"]

_BATCH_KEYWORDS = ("progress", "ask_duplicates_once")
_ANSWER_KEYWORDS = (*_BATCH_KEYWORDS, "ids", "journal", "retry_failed")


class BatchMethods:
    """The methods of a client that answer many prompts.

    Attributes:
        options: The client's options.
        dispatcher: What all calls share.
    """

    options: ClientOptions
    dispatcher: Dispatcher

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
            output: Type of the answers, as in `stream`: `response.output` is the object, or `response.error` an
                `OutputError`. A recorded answer is read again with this type.
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

    @overload
    async def process_prompts_async(
        self,
        prompts: Iterable[Prompt],
        *,
        return_completions_only: Literal[False] = False,
        show_progress: bool | None = None,
        **options: Unpack[BatchKeywords],
    ) -> list[APIResponse]: ...
    @overload
    async def process_prompts_async(
        self,
        prompts: Iterable[Prompt],
        *,
        return_completions_only: Literal[True],
        show_progress: bool | None = None,
        **options: Unpack[BatchKeywords],
    ) -> list[str | None]: ...
    async def process_prompts_async(
        self,
        prompts: Iterable[Prompt],
        *,
        return_completions_only: bool = False,
        show_progress: bool | None = None,
        **options: Unpack[BatchKeywords],
    ) -> list[APIResponse] | list[str | None]:
        """Answer many prompts, as many at a time as the limits allow.

        Args:
            prompts: Text or conversations. An iterator is read as its prompts are needed.
            return_completions_only: Return the texts of the answers in place of the responses, None for a prompt that
                failed.
            show_progress: Whether the batch has a display; None: as `progress` has it.
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
        if show_progress is False:
            options["progress"] = "none"
        elif show_progress and (options.get("progress") or self.options.progress) in (None, "none"):
            options["progress"] = "rich"
        async with self.answers(prompts, **options) as answers:
            found = {index: response async for index, response in answers}
        responses = [found[index] for index in range(len(found))]
        if return_completions_only:
            return [None if response.is_error else response.completion for response in responses]
        return responses

    @overload
    def process_prompts_sync(
        self,
        prompts: Iterable[Prompt],
        *,
        return_completions_only: Literal[False] = False,
        show_progress: bool | None = None,
        **options: Unpack[BatchKeywords],
    ) -> list[APIResponse]: ...
    @overload
    def process_prompts_sync(
        self,
        prompts: Iterable[Prompt],
        *,
        return_completions_only: Literal[True],
        show_progress: bool | None = None,
        **options: Unpack[BatchKeywords],
    ) -> list[str | None]: ...
    def process_prompts_sync(
        self,
        prompts: Iterable[Prompt],
        *,
        return_completions_only: bool = False,
        show_progress: bool | None = None,
        **options: Unpack[BatchKeywords],
    ) -> list[APIResponse] | list[str | None]:
        """Answer many prompts from code without asyncio; also works in a notebook whose event loop runs.

        Args:
            prompts: Text or conversations.
            return_completions_only: Return the texts of the answers in place of the responses, None for a prompt that
                failed.
            show_progress: Whether the batch has a display; None: as `progress` has it.
            options: As in `process_prompts_async`.

        Returns:
            One response for each prompt, in order; a response whose prompt failed has `error` set.

        Raises:
            ConfigurationError: An option is unknown or out of range.

        Example:
            >>> responses = client.process_prompts_sync(["One?", "Two?"])
            >>> [response.completion for response in responses]
        """
        if return_completions_only:
            return run_blocking(
                lambda: self.process_prompts_async(
                    prompts, return_completions_only=True, show_progress=show_progress, **options
                )
            )
        return run_blocking(lambda: self.process_prompts_async(prompts, show_progress=show_progress, **options))

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
        make = self.dispatcher.planner(CallOptions.from_keywords(options).of_stream()).spec
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
        call = CallOptions.from_keywords(options)
        if call.loop.run_tools:
            raise ConfigurationError(
                "a provider's batch cannot run tools", hint="Use client.answers(..., run_tools=True) instead."
            )
        return start_provider_batch(self.dispatcher, prompts, call, str(journal), on_state)
