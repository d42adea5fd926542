"""`LLMClient`: options in, delegation out."""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import msgspec

from lm_deluge.client.call_options import CallOptions, Tools, merged
from lm_deluge.config import ClientOptions, LocalCache, PromptCache, SamplingParams, check_range
from lm_deluge.dispatch.budget import Budget
from lm_deluge.errors import ConfigurationError
from lm_deluge.models.registry import find_served_model
from lm_deluge.models.rows import ModelRow
from lm_deluge.prompt.conversation import Conversation, Prompt

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task

    from lm_deluge.adapters.batch_api import BatchState

    # asyncio, the adapters and aiohttp are imported with the first call: importing the library stays cheap.
    from lm_deluge.api_requests.call_plan import CallPlan
    from lm_deluge.client.batch.journaled import JournalledRows
    from lm_deluge.client.batch.progress_display import ProgressKind
    from lm_deluge.client.batch.prompts import EventMerger
    from lm_deluge.client.plans import Planner
    from lm_deluge.client.stream import Echo, Stream
    from lm_deluge.client.sync import SyncStream
    from lm_deluge.dispatch.attempts.call_stream import StreamCall
    from lm_deluge.dispatch.batch.input import BatchRow
    from lm_deluge.dispatch.cache.sqlite import SQLiteCache
    from lm_deluge.dispatch.call import CallSpec
    from lm_deluge.dispatch.journal.journal import Journal
    from lm_deluge.dispatch.scheduling.runner import LimiterLock, Runner
    from lm_deluge.response import APIResponse
    from lm_deluge.transport.base import Transport

__all__ = ["LLMClient"]

_MOST_MAKERS = 64  # of a batch: of rows that each say something else few are kept


class LLMClient:
    """Asks language models. Make one and keep it: it holds the connections.

    Args:
        model: A name of the registry, `provider:name` for any other model, or with `base_url` any name at an
            OpenAI-compatible host. Several names share the calls; each stands in for one that fails.
        options: The fields of `ClientOptions` and of `SamplingParams`.

    Raises:
        UnknownModelError: No such model; the nearest names are in the error.
        ConfigurationError: An option is unknown or out of its range.
    """

    def __init__(self, model: str | Sequence[str], **options: Any) -> None:
        self.options = ClientOptions.from_keywords(options)
        if not isinstance(model, str | Sequence):
            raise ConfigurationError(f"a model is named by text, not by {type(model).__name__}")
        names = [model] if isinstance(model, str) else list(model)
        if not names:
            raise ConfigurationError("the client needs a model", hint='Write LLMClient("gpt-4o"), say.')
        url, fallback = self.options.base_url, self.options.fallback
        self.models: tuple[ModelRow, ...] = tuple(find_served_model(name, url) for name in names)
        others = [fallback] if isinstance(fallback, str) else fallback
        self._fallback = tuple(find_served_model(name, url) for name in others)
        self._rows = {row.id: row for row in (*self._fallback, *self.models)}
        self.options.check_models(self._rows)
        self._budget = None if self.options.max_cost is None else Budget(self.options.max_cost, "the client")
        self._turns = [0.0] * len(self.models)
        self._limiter: LimiterLock | None = None
        self._runners: WeakKeyDictionary[AbstractEventLoop, Runner] = WeakKeyDictionary()
        self._tasks: dict[int, Task[APIResponse]] = {}
        self._last_task = 0
        self._transport: Transport | None = None
        self._own_cache: SQLiteCache | None = None

    def __repr__(self) -> str:
        return f"LLMClient({', '.join(repr(model.id) for model in self.models)})"

    def stream(
        self,
        prompt: Prompt,
        *,
        tools: Tools | None = None,
        sampling_params: SamplingParams | None = None,
        output: Any = None,
        cache: PromptCache | None = None,
        prefer_model: str | None = None,
        max_cost: float | None = None,
        echo: Echo = "stdout",
    ) -> Stream:
        """Return a stream of the answer. Nothing is sent until it is used.

        Args:
            prompt: Text, or a conversation.
            tools: What the model may call: `Tool` or plain JSON schema.
            sampling_params: Win over the client's, field by field.
            output: JSON schema, or pydantic model, that the answer is to follow.
            cache: What of the prompt the provider is to keep for later calls, where it wants to be told:
                `tools_only`, `system_and_tools`, `last_user_message`, `last_2_user_messages`, `last_3_user_messages`.
            prefer_model: The one of the client's models that is to answer, as long as it can.
            max_cost: US dollars; the stream is stopped when they are spent, with a `BudgetError`.
            echo: Where an awaited stream prints.

        Raises:
            ConfigurationError: It cannot be sent as asked; the message says what to do.
        """
        from lm_deluge.client.stream import Stream

        asked = CallOptions(tools, sampling_params, output, cache, prefer_model, max_cost)
        return Stream(self._call(prompt, asked), echo)

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
    ) -> SyncStream:
        """Return the same for code without asyncio; works in a running notebook too. Arguments as in `stream`."""
        from lm_deluge.client.stream import Stream
        from lm_deluge.client.sync import SyncStream

        asked = CallOptions(tools, sampling_params, output, cache, prefer_model, max_cost)
        return SyncStream(Stream(self._call(prompt, asked), None))

    async def process_prompts_async(  # noqa: PLR0913 - what may be said of a batch, all of it optional
        self,
        prompts: Iterable[Prompt],
        *,
        tools: Tools | None = None,
        sampling_params: SamplingParams | None = None,
        output: Any = None,
        cache: PromptCache | None = None,
        prefer_model: str | None = None,
        max_cost: float | None = None,
        progress: ProgressKind | None = None,
        ask_duplicates_once: bool = False,
    ) -> list[APIResponse]:
        """Answer many prompts, as many at a time as the limits allow; return one answer for each, in order.

        Nothing is raised for a prompt that fails: its answer has the error on it, and what came before. Until an answer
        is complete an attempt that breaks is tried again, at another model of the client where that may help.

        Args:
            prompts: Read as they are needed; few are held.
            tools: As in `stream`, for all of them; so `sampling_params`, `output` and `cache`.
            sampling_params: Win over the client's, field by field.
            output: JSON schema, or pydantic model.
            cache: What of each prompt the provider is to keep.
            prefer_model: The one of the client's models that is to answer, as long as it can.
            max_cost: US dollars for each prompt, beside what the client has for all.
            progress: In place of the client's.
            ask_duplicates_once: Of prompts that are the same, ask the first; its answer is that of the others, too,
                without usage and cost.
        """
        from lm_deluge.client.batch.progress_display import make_progress
        from lm_deluge.client.batch.prompts import run_in_order

        make = self._spec_factory(
            CallOptions(tools, sampling_params, output, cache, prefer_model, max_cost), is_collected=True
        )
        shown = make_progress(progress or self.options.progress)
        most = self.options.max_concurrent_requests
        return await run_in_order(
            self._runner(), make, prompts, most_at_once=most, progress=shown, is_once=ask_duplicates_once
        )

    def process_prompts_sync(self, prompts: Iterable[Prompt], **options: Any) -> list[APIResponse]:
        """Return the same for code without asyncio; works in a running notebook too."""
        from lm_deluge.client.sync import run_blocking

        return run_blocking(self.process_prompts_async(prompts, **options))

    def stream_many(
        self,
        prompts: Iterable[Prompt],
        *,
        tools: Tools | None = None,
        sampling_params: SamplingParams | None = None,
        output: Any = None,
        cache: PromptCache | None = None,
        prefer_model: str | None = None,
        max_cost: float | None = None,
    ) -> EventMerger:
        """Return the live streams of many prompts as one, of `(index, event)` in the order of arrival.

        Arguments as in `process_prompts_async`. A stream is tried again as long as nothing of it was handed over.
        """
        from lm_deluge.client.batch.prompts import EventMerger

        make = self._spec_factory(CallOptions(tools, sampling_params, output, cache, prefer_model, max_cost))
        most = self.options.max_concurrent_requests
        return EventMerger(lambda: (self._runner(), make), prompts, most_at_once=most)

    def provider_batch(
        self,
        prompts: Iterable[Prompt],
        *,
        journal: str | PathLike[str],
        tools: Tools | None = None,
        sampling_params: SamplingParams | None = None,
        output: Any = None,
        cache: PromptCache | None = None,
        on_state: Callable[[str, BatchState], None] | None = None,
    ) -> AsyncIterator[tuple[int, APIResponse]]:
        """Answer many prompts by the provider's own batch API, at half the price; yield number and answer as they come.

        Arguments as in `process_prompts_async`. Begun again with the same prompts and the same file `journal`, it goes
        on: nothing is sent twice. `on_state` is told what each poll finds. Several models take the prompts in turn.

        Raises:
            ConfigurationError: A provider has no batch API, the message says which have; or there is a `max_cost`.
        """
        from lm_deluge.client.batch.provider_prompts import start_provider_batch

        asked = CallOptions(tools, sampling_params, output, cache)
        return start_provider_batch(self, prompts, asked, self._planners(asked), str(journal), on_state)

    def journalled(self, journal: Journal, *, retry_failed: bool = False) -> JournalledRows:
        """Return what answers the rows of a batch file, each written into a journal before and after it is asked.

        Args:
            journal: Of this batch; what it says is done is not asked.
            retry_failed: Ask rows again that failed for good.
        """
        from lm_deluge.client.batch.journaled import JournalledRows

        return JournalledRows(
            lambda: (self._runner(), self._row_maker()),
            journal,
            most_at_once=self.options.max_concurrent_requests,
            max_attempts=self.options.max_attempts,
            retry_failed=retry_failed,
        )

    def start_nowait(
        self,
        prompt: Prompt,
        *,
        tools: Tools | None = None,
        sampling_params: SamplingParams | None = None,
        output: Any = None,
        cache: PromptCache | None = None,
        prefer_model: str | None = None,
        max_cost: float | None = None,
    ) -> int:
        """Start a call in the running event loop, under the same limits; return the id by which to wait for it."""
        import asyncio

        from lm_deluge.client.batch.prompts import run_one

        make = self._spec_factory(
            CallOptions(tools, sampling_params, output, cache, prefer_model, max_cost), is_collected=True
        )
        self._last_task += 1
        task = asyncio.get_running_loop().create_task(run_one(self._runner, make, prompt))
        self._tasks[self._last_task] = task
        return self._last_task

    async def wait_for(self, task_id: int) -> APIResponse:
        """Return the answer of a call that `start_nowait` started; it can be asked for once.

        Raises:
            ConfigurationError: There is no such call, or its answer was handed out.
        """
        if task_id not in self._tasks:
            raise ConfigurationError(f"there is no call {task_id} to wait for", hint="start_nowait returns the ids.")
        response = await self._tasks[task_id]
        del self._tasks[task_id]
        response.id = task_id
        return response

    async def wait_for_all(self, task_ids: Iterable[int] | None = None) -> list[APIResponse]:
        """Return the answers of these calls, in order; of all that were started by default."""
        return [await self.wait_for(task_id) for task_id in (list(self._tasks) if task_ids is None else task_ids)]

    async def as_completed(self, task_ids: Iterable[int] | None = None) -> AsyncIterator[tuple[int, APIResponse]]:
        """Yield id and answer of these calls as they end; of all that were started by default."""
        import asyncio

        waiting = {self._tasks[each]: each for each in (list(self._tasks) if task_ids is None else task_ids)}
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task_id = waiting.pop(task)
                yield task_id, await self.wait_for(task_id)

    def _call(self, prompt: Prompt, asked: CallOptions) -> StreamCall:
        """Return the call of a single stream; what cannot be asked is told now, before it is used."""
        from lm_deluge.dispatch.cache.call import begin_call

        if asked.prefer_model is None:
            asked = asked._replace(prefer_model=self._next_model().id)
        spec = self._spec_factory(asked)(prompt)
        spec.plan_for(asked.prefer_model or "")
        return begin_call(spec, self._runner)

    def _spec_factory(self, asked: CallOptions, *, is_collected: bool = False) -> Callable[[Prompt], CallSpec]:
        """Return what makes a call of a prompt. Nobody sees the events of one that `is_collected` before its end."""
        from lm_deluge.client.plans import Plans
        from lm_deluge.dispatch.call import CallSpec
        from lm_deluge.prompt.conversation import to_conversation

        if asked.prefer_model is not None and asked.prefer_model not in self._rows:
            raise ConfigurationError(
                f"prefer_model={asked.prefer_model!r} is none of the client's models",
                hint=f"It has {', '.join(self._rows)}.",
            )
        check_range("max_cost", asked.max_cost, 0, math.inf)
        options = self.options
        params = merged(options.sampling_params, asked.params)

        planners = self._planners(asked)

        def plan_rest(model: str, so_far: Conversation, max_new_tokens: int | None) -> CallPlan:
            own = msgspec.structs.replace(asked.params or SamplingParams(), max_new_tokens=max_new_tokens)
            return self._planners(asked._replace(params=own))(model)(so_far)

        def make(prompt: Prompt) -> CallSpec:
            conversation = to_conversation(prompt)
            own = None if asked.max_cost is None else Budget(asked.max_cost, "the call")
            return CallSpec(
                plan_for=Plans(planners, conversation),
                plan_rest=plan_rest,
                text_length=conversation.text_length(),
                max_output_tokens=params.max_new_tokens,
                prefer=asked.prefer_model,
                is_cached=options.local_cache not in (None, False),
                on_break=options.on_break or ("restart" if is_collected else "raise"),
                budgets=tuple(budget for budget in (own, self._budget) if budget is not None),
                min_tokens_per_second=options.min_tokens_per_second,
                is_collected=is_collected,
                postprocess=options.postprocess,
            )

        return make

    def _row_maker(self) -> Callable[[BatchRow], CallSpec]:
        """Return what makes the calls of a batch's rows: what a row says itself, on top of what the client does."""
        from lm_deluge.client.batch.journaled import named_model

        makers: dict[bytes, Callable[[Prompt], CallSpec]] = {}  # most rows of a file say the same

        def make(row: BatchRow) -> CallSpec:
            if row.error is not None:
                raise row.error
            asked = CallOptions(row.tools or None, row.params, row.output, extra_body=row.extra_body)
            said = msgspec.json.encode(asked)  # as JSON: to Python, 1 and True are the same
            if said not in makers:
                if len(makers) >= _MOST_MAKERS:
                    makers.clear()
                makers[said] = self._spec_factory(asked, is_collected=True)
            spec = makers[said](row.conversation or [])
            if row.model is None:
                return spec
            own = named_model(row.model, self.models)
            allowed = frozenset((own, *(model.id for model in self._fallback)))
            return msgspec.structs.replace(spec, models=allowed, prefer=own)

        return make

    def row_planner(self) -> Callable[[BatchRow], CallPlan]:
        """Return what says what a row of a batch file asks. Several models take the rows in turn."""
        make = self._row_maker()

        def plan(row: BatchRow) -> CallPlan:
            spec = make(row)
            return spec.plan_for(spec.prefer or self.models[row.number % len(self.models)].id)

        return plan

    def _runner(self) -> Runner:
        """Return the runner of the running event loop; all of them share one limiter."""
        import asyncio

        from lm_deluge.client.scheduling import build_limiter, build_runner
        from lm_deluge.dispatch.scheduling.runner import LimiterLock

        loop = asyncio.get_running_loop()
        if self._limiter is None:
            self._limiter = LimiterLock(build_limiter(self.options, self._rows.values()))
        found = self._runners.get(loop)
        if found is None:
            found = self._runners[loop] = build_runner(self._limiter, self.options, self.models, self._fallback)
        return found

    def _planners(self, asked: CallOptions) -> Callable[[str], Planner]:
        """Return the planner for each model, made once: of many prompts all but the first find it there."""
        from lm_deluge.client.plans import make_planner

        transport, local_cache = self._shared_transport(), self._shared_cache()
        return functools.cache(lambda name: make_planner(self._rows[name], asked, self.options, transport, local_cache))

    def _next_model(self) -> ModelRow:
        """Return the model whose turn it is, by the weights."""
        if len(self.models) == 1:
            return self.models[0]
        weights = self.options.model_weights or [1.0] * len(self.models)
        turns = [turn + weight for turn, weight in zip(self._turns, weights, strict=True)]
        chosen = turns.index(max(turns))
        turns[chosen] -= sum(weights)
        self._turns = turns
        return self.models[chosen]

    def _shared_transport(self) -> Transport:
        if self._transport is None:
            from lm_deluge.transport.http import AiohttpTransport

            self._transport = AiohttpTransport()
        return self._transport

    def _shared_cache(self) -> LocalCache | None:
        option = self.options.local_cache
        if option is None or option is False:
            return None
        if option is not True and not isinstance(option, str | PathLike):
            return option
        if self._own_cache is None:
            from lm_deluge.dispatch.cache.sqlite import open_cache

            self._own_cache = open_cache(None if option is True else option)
        return self._own_cache

    async def close(self) -> None:
        """Close the idle connections of the running event loop. Without it they are closed with the loop."""
        if self._transport is not None:
            await self._transport.close()
        if self._own_cache is not None:
            await self._own_cache.close()

    def close_sync(self) -> None:
        """Close the idle connections of blocking calls."""
        if self._transport is not None:
            from lm_deluge.client.sync import run_blocking

            run_blocking(self.close())

    async def __aenter__(self) -> LLMClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
