"""`LLMClient`: the methods that users call. The work is done by `Dispatcher`, `StreamCall` and the batch functions."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Self, Unpack

from lm_deluge.api_requests.accounts import url_of_unknown_models
from lm_deluge.client.call_options import NO_OPTIONS, CallOptions, Tools
from lm_deluge.client.counting import CountMethods
from lm_deluge.client.dispatcher import Dispatcher
from lm_deluge.client.end_warnings import warn_of_ends
from lm_deluge.client.keywords import (
    LibraryKeywords,
    StreamKeywords,
)
from lm_deluge.client.lazy_coroutine import LazyCoroutine
from lm_deluge.client.loops.agent_methods import AgentMethods
from lm_deluge.client.older_names import REPLACED_METHODS, translate_options
from lm_deluge.client.smoothing import Smoothing, smoothed
from lm_deluge.client.stream import Echo, Stream
from lm_deluge.client.sync import SyncStream, run_blocking
from lm_deluge.config import ClientOptions, Priority, PromptCache, SamplingParams
from lm_deluge.dispatch.attempts.call_stream import StreamCall
from lm_deluge.dispatch.cache.call import CachedCall
from lm_deluge.dispatch.running_call import RunningCall
from lm_deluge.dispatch.warm_up import warm_up
from lm_deluge.errors import ConfigurationError, DelugeError
from lm_deluge.models.registry import find_served_model
from lm_deluge.models.rows import ModelRow
from lm_deluge.prompt.conversation import Prompt

__all__ = ["LLMClient"]

_STREAM_KEYWORDS = ("echo", "smooth")


class LLMClient(AgentMethods, CountMethods):
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

    def __init__(self, model: str | Sequence[str] | None = None, **options: Unpack[LibraryKeywords]) -> None:
        model, translated = translate_options(model, options)
        self.options = ClientOptions.from_keywords(translated)
        if not isinstance(model, str | Sequence):
            raise ConfigurationError(f"a model is named by text, not by {type(model).__name__}")
        names = [model] if isinstance(model, str) else list(model)
        if not names:
            raise ConfigurationError("the client needs a model", hint='Write LLMClient("gpt-6-sol"), for example.')
        url, fallback = url_of_unknown_models(self.options.base_url), self.options.fallback
        self.models: tuple[ModelRow, ...] = tuple(find_served_model(name, url) for name in names)
        others = [fallback] if isinstance(fallback, str) else fallback
        backups = tuple(find_served_model(name, url) for name in others)
        super().__init__(Dispatcher(self.models, backups, self.options))
        self._stream_planner = self.dispatcher.planner()  # of streams without options of their own
        warn_of_ends((*self.models, *backups))

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
        smooth: Smoothing | None = None,
        **sampling: Unpack[StreamKeywords],
    ) -> Stream:
        """Return a stream of the answer. Nothing is sent until it is used.

        Args:
            prompt: Text, or a conversation.
            tools: The tools that the model may call: functions, classes with fields, `Tool`, `MCPServer` or plain JSON.
                With `run_tools=True` they run, and their results go back to the model until it calls none.
            sampling_params: Its fields replace the client's, one by one.
            output: Type of the answer: a Pydantic model, dataclass, TypedDict, `list[...]`, or a JSON schema. Then
                `response.output` is the object, and `partials`, `fields` and `items` show it while it arrives.
            cache: Which part of the prompt the provider keeps for later calls: `tools_only`, `system_and_tools`,
                `last_user_message`, `last_2_user_messages` or `last_3_user_messages`.
            prefer_model: Id of the client's model that answers as long as it is available.
            max_cost: US dollars after which the stream is stopped with a `BudgetError`.
            priority: `"interactive"`: before the waiting calls of batches; `"batch"`: in the order of arrival. Batches
                keep what is left, and at least a fifth.
            echo: Where an awaited stream prints: `"stdout"`, any text file, or None.
            smooth: `"word"` delivers the text word by word at an even pace, 0.3 s late at most; None: as it arrives.
            sampling: Fields of `SamplingParams` (temperature, max_new_tokens, ...), which replace those of
                `sampling_params` and of the client, and of `LoopOptions` (run_tools, max_rounds, approve, ...);
                `filters`, a list of filters of the answer (see `lm_deluge.filters`); for an `output`, also
                `max_output_retries` (0), `stop_on_invalid` (True) and `check_partial`.

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
        options = options.with_keywords(sampling, also=_STREAM_KEYWORDS) if sampling else options
        call = self._call(prompt, options)
        return Stream(call if smooth is None else smoothed(call, smooth), echo)

    def stream_sync(  # noqa: PLR0913 - the options of a call, all keyword-only
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
        smooth: Smoothing | None = None,
        **sampling: Unpack[StreamKeywords],
    ) -> SyncStream:
        """Return a stream for code without asyncio; it also works in a notebook whose event loop runs.

        Args:
            prompt: Text, or a conversation.
            tools: The tools that the model may call: functions, classes with fields, `Tool`, `MCPServer` or plain JSON.
                With `run_tools=True` they run, and their results go back to the model until it calls none.
            sampling_params: Its fields replace the client's, one by one.
            output: Type of the answer: a Pydantic model, dataclass, TypedDict, `list[...]`, or a JSON schema. Then
                `response.output` is the object, and `partials`, `fields` and `items` show it while it arrives.
            cache: Which part of the prompt the provider keeps for later calls: `tools_only`, `system_and_tools`,
                `last_user_message`, `last_2_user_messages` or `last_3_user_messages`.
            prefer_model: Id of the client's model that answers as long as it is available.
            max_cost: US dollars after which the stream is stopped with a `BudgetError`.
            priority: `"interactive"`: before the waiting calls of batches; `"batch"`: in the order of arrival. Batches
                keep what is left, and at least a fifth.
            smooth: `"word"` delivers the text word by word at an even pace, 0.3 s late at most; None: as it arrives.
            sampling: As in `stream`.

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
        options = options.with_keywords(sampling, also=_STREAM_KEYWORDS[1:]) if sampling else options
        call = self._call(prompt, options)
        return SyncStream(Stream(call if smooth is None else smoothed(call, smooth), None))

    def _call(self, prompt: Prompt, options: CallOptions) -> RunningCall:
        """Return the call of a single stream. A call that cannot be sent raises here, before it is used."""
        dispatcher = self.dispatcher
        is_blank = options == NO_OPTIONS
        planner = self._stream_planner if is_blank else dispatcher.planner(options.checked().of_stream())
        spec = planner.checked(prompt, prefer=dispatcher.next_model().id)
        open_with = spec.open_with or (CachedCall if spec.is_cached else StreamCall)
        running: RunningCall = open_with(spec, dispatcher.runner)
        return running

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            hint = REPLACED_METHODS.get(name, "")
            raise AttributeError(f"a client has no attribute {name!r}. {hint}".rstrip(), name=name, obj=self)

    def open(self, total: int | None = None, *, show_progress: bool | None = None) -> Self:
        """Return the client, as the older lm-deluge has it: connections are opened when they are needed.

        Args:
            total: Not used.
            show_progress: Not used: calls of `start_nowait` have no display, batches have.
        """
        return self

    async def warm(self) -> dict[str, DelugeError | None]:
        """Prepare the first call ahead of time: imports, credentials, and a connection to the host of each model.

        No request is sent, so it costs nothing. A connection is kept for half a minute, if the server keeps it as long:
        call it at the start of a program, or shortly before calls that must answer fast.

        Returns:
            What stands in the way of each model, by its id; None: nothing. Nothing is raised for a host that is down
            or a key that is missing: the calls raise it, unless another model answers.

        Example:
            >>> problems = await client.warm()
            >>> print([model for model, error in problems.items() if error is not None])
        """
        dispatcher = self.dispatcher
        dispatcher.runner()
        models = [row.id for row in dispatcher.all_models]
        return await warm_up(dispatcher.planner(), models, dispatcher.shared_transport())

    def warm_sync(self) -> dict[str, DelugeError | None]:
        """Prepare the first call from code without asyncio, as `warm` does.

        Returns:
            What stands in the way of each model, by its id; None: nothing.

        Example:
            >>> client.warm_sync()
        """
        return run_blocking(self.warm)

    def close(self) -> Coroutine[Any, Any, None]:
        """Close the connections of the running event loop. Without it they are closed with the loop.

        It is to be awaited: `await client.close()`. A call without `await` does nothing.

        Calls under way go on to their end, streams, batches and background answers alike, as they are paid already;
        each of their connections is closed when its answer is complete. `Stream.cancel` ends a stream.

        Example:
            >>> async with LLMClient("gpt-6-sol") as client:  # closes at the end of the block
            ...     await client.stream("Hello")
        """
        return LazyCoroutine(self.dispatcher.close)

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
