"""`CallPlan`: everything that a request needs, as one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from lm_deluge.adapters.adapter import Adapter, Call
from lm_deluge.api_requests.plain_answers import PlainAnswers
from lm_deluge.config import LocalCache, Secret, Timeouts
from lm_deluge.filters.compiled import CompiledFilters
from lm_deluge.hidden import HidingStruct
from lm_deluge.models.costs import endpoint_region, request_cost
from lm_deluge.response import APIResponse
from lm_deluge.transport.base import Transport
from lm_deluge.usage import Usage, estimate_tokens
from lm_deluge.wire.http import HttpRequest

__all__ = ["CallPlan"]


class CallPlan(HidingStruct, frozen=True, kw_only=True):
    """Everything that the requests of a call to one model need, complete before anything is sent.

    Attributes:
        key: The key, or the first of several.
        keys: Several keys of the provider by their names, empty if there is one.
        keeps_bytes: Whether the response keeps its bytes, to be passed on as they are.
    """

    adapter: Adapter
    call: Call
    request: HttpRequest
    key: Secret | None
    transport: Transport
    timeouts: Timeouts
    proxy: Secret | None = None
    local_cache: LocalCache | None = None
    keys: Mapping[str, Secret | None] = {}
    keeps_bytes: bool = False
    judge: Callable[[APIResponse], APIResponse] | None = None
    """Adds its object to a complete answer that no stream has validated; None: the answers are texts."""
    filters: CompiledFilters | None = None
    plain_answers: PlainAnswers | None = None
    """Learns how long the answers take; None: nothing depends on it."""

    def with_key(self, name: str) -> CallPlan:
        """Return the plan of the same request with another one of its keys."""
        return msgspec.structs.replace(self, key=self.keys[name]) if name in self.keys else self

    def least_usage(self) -> Usage:
        """Return the tokens of the prompt, estimated from the length of its texts."""
        return Usage(input_tokens=estimate_tokens(self.call.conversation.text_length()), estimated=True)

    def cost(self, usage: Usage) -> float | None:
        """Return the cost of a usage in US dollars; None if the model has no price."""
        call = self.call
        region = endpoint_region(call.base_url or "")
        return request_cost(call.model, call.provider, usage, tier=call.params.service_tier, region=region)

    def budget_cost(self, usage: Usage) -> float | None:
        """Return what a usage costs a budget: at the row's prices or as the provider states it, whichever is more.

        A host that states a cost of 0, as OpenRouter does for requests with a key of the user's own, must not make the
        limit of a budget void.
        """
        cost = self.cost(usage)
        if usage.reported_cost is None:
            return cost
        own = self.cost(msgspec.structs.replace(usage, reported_cost=None))
        return cost if own is None or cost is None else max(cost, own)

    def least_cost(self) -> float:
        """Return the estimated cost of the prompt in US dollars; 0 if the model has no price."""
        return self.cost(self.least_usage()) or 0.0

    def __repr__(self) -> str:
        return f"CallPlan({self.call!r})"  # the other fields contain the key and the prompt
