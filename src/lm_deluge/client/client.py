"""`LLMClient`: options in, delegation out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import msgspec

from lm_deluge.config import ClientOptions, LocalCache, PromptCache, SamplingParams, Secret
from lm_deluge.errors import ConfigurationError
from lm_deluge.models.registry import find_served_model
from lm_deluge.models.rows import ModelRow
from lm_deluge.prompt.conversation import Prompt
from lm_deluge.prompt.tool import ProviderTool, Tool

if TYPE_CHECKING:
    # asyncio, the adapters and aiohttp are imported with the first call: importing the library stays cheap.
    from lm_deluge.client.stream import Echo, Stream
    from lm_deluge.client.sync import SyncStream
    from lm_deluge.dispatch.cache import SQLiteCache
    from lm_deluge.dispatch.call_plan import CallPlan
    from lm_deluge.transport.base import Transport

__all__ = ["LLMClient"]

Tools = Sequence[Tool | ProviderTool | Mapping[str, Any]]


class LLMClient:
    """Asks language models. Make one and keep it: it holds the connections.

    Args:
        model: A name of the registry, `provider:name` for any other model, or with `base_url` any name at an
            OpenAI-compatible host. Several names take turns.
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
        self.models: tuple[ModelRow, ...] = tuple(find_served_model(name, self.options.base_url) for name in names)
        self._turn = 0
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
            echo: Where an awaited stream prints.

        Raises:
            ConfigurationError: It cannot be sent as asked; the message says what to do.
        """
        from lm_deluge.client.stream import Stream

        return Stream(self._plan(prompt, tools, sampling_params, output, cache), echo)

    def stream_sync(
        self,
        prompt: Prompt,
        *,
        tools: Tools | None = None,
        sampling_params: SamplingParams | None = None,
        output: Any = None,
        cache: PromptCache | None = None,
    ) -> SyncStream:
        """Return the same for code without asyncio; works in a running notebook too. Arguments as in `stream`."""
        from lm_deluge.client.stream import Stream
        from lm_deluge.client.sync import SyncStream

        return SyncStream(Stream(self._plan(prompt, tools, sampling_params, output, cache), None))

    def _plan(
        self,
        prompt: Prompt,
        tools: Tools | None,
        params: SamplingParams | None,
        output: Any,
        cache: PromptCache | None = None,
    ) -> CallPlan:
        from lm_deluge.api_requests.credentials import find_key
        from lm_deluge.api_requests.request import build_call
        from lm_deluge.dispatch.call_plan import CallPlan
        from lm_deluge.providers.catalog import find_adapter

        options = self.options
        model = self._next_model()
        call = build_call(
            model,
            prompt,
            params=_merged(options.sampling_params, params),
            tools=tools,
            output=output,
            base_url=options.base_url,
            cache=cache,
            background=options.background,
            extra_headers=options.extra_headers,
            extra_body=options.extra_body,
            max_event_bytes=options.max_event_bytes,
        )
        adapter = find_adapter(call.provider.adapter)
        return CallPlan(
            adapter=adapter,
            call=call,
            request=adapter.build_request(call),
            key=find_key(call.provider, model, call.base_url, options.api_key),
            transport=self._shared_transport(),
            timeouts=options.timeouts.for_model(is_reasoning=bool(model.capabilities.reasoning)),
            max_attempts=options.max_attempts,
            max_retry_after_s=options.max_retry_after_s,
            proxy=None if options.proxy is None else Secret(options.proxy),
            local_cache=self._shared_cache(),
        )

    def _next_model(self) -> ModelRow:
        model = self.models[self._turn % len(self.models)]
        self._turn += 1
        return model

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
            from lm_deluge.dispatch.cache import open_cache

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


def _merged(defaults: SamplingParams, own: SamplingParams | None) -> SamplingParams:
    """Return the client's sampling with a call's own on top: what a call leaves alone is the client's."""
    if own is None:
        return defaults
    if not isinstance(own, SamplingParams):
        raise ConfigurationError("sampling_params is not a SamplingParams")
    blank = SamplingParams()
    said = {name: getattr(own, name) for name in own.__struct_fields__}
    return msgspec.structs.replace(
        defaults, **{name: value for name, value in said.items() if value != getattr(blank, name)}
    )
