"""From what a client is told to the plans of its calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.api_requests.credentials import find_key, find_proxy
from lm_deluge.api_requests.request import build_blank_call, with_conversation
from lm_deluge.client.call_options import CallOptions, merged
from lm_deluge.config import ClientOptions, LocalCache, Secret
from lm_deluge.errors import ConfigurationError
from lm_deluge.models.rows import ModelRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.transport.base import Transport

__all__ = ["Planner", "Plans", "make_planner"]

Planner: TypeAlias = Callable[[Conversation], CallPlan]


def make_planner(
    model: ModelRow, asked: CallOptions, options: ClientOptions, transport: Transport, local_cache: LocalCache | None
) -> Planner:
    """Return what plans a call to the model about a conversation.

    All that is the same for many conversations is settled here, once: keys, addresses and proxies are looked up.

    Raises:
        ConfigurationError: It cannot be asked so.
    """
    if model.price is None and not (asked.max_cost is None and options.max_cost is None):
        raise ConfigurationError(
            f"{model.id} has no price, so max_cost cannot be kept", hint="register() a row with a price."
        )
    blank = build_blank_call(
        model,
        params=merged(options.sampling_params, asked.params),
        tools=asked.tools,
        output=asked.output,
        base_url=options.base_url,
        cache=asked.cache,
        background=options.background,
        extra_headers=options.extra_headers,
        extra_body={**(options.extra_body or {}), **asked.extra_body},
        max_event_bytes=options.max_event_bytes,
    )
    adapter = find_adapter(blank.provider.adapter)
    key = find_key(blank.provider, model, blank.base_url, options.api_key)
    timeouts = options.timeouts.for_model(is_reasoning=bool(model.capabilities.reasoning))
    proxy = find_proxy(blank.base_url, None if options.proxy is None else Secret(options.proxy))

    def plan(conversation: Conversation) -> CallPlan:
        call = with_conversation(blank, conversation)
        return CallPlan(
            adapter=adapter,
            call=call,
            request=adapter.build_request(call),
            key=key,
            transport=transport,
            timeouts=timeouts,
            proxy=proxy,
            local_cache=local_cache,
        )

    return plan


class Plans:
    """The plans of one call, made when a model's turn comes and kept."""

    __slots__ = ("_conversation", "_planners", "_plans")

    def __init__(self, planners: Callable[[str], Planner], conversation: Conversation) -> None:
        self._planners = planners
        self._conversation = conversation
        self._plans: dict[str, CallPlan] = {}

    def __call__(self, model: str) -> CallPlan:
        """Return the plan for a model."""
        if model not in self._plans:
            self._plans[model] = self._planners(model)(self._conversation)
        return self._plans[model]
