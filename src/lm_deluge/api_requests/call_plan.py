"""Everything that a request needs, as one value."""

from __future__ import annotations

import msgspec

from lm_deluge.adapters.adapter import Adapter, Call
from lm_deluge.config import LocalCache, Secret, Timeouts
from lm_deluge.transport.base import Transport
from lm_deluge.usage import Usage, estimate_tokens
from lm_deluge.wire.http import HttpRequest

__all__ = ["CallPlan"]


class CallPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the requests of a call to one model need, settled before anything is sent."""

    adapter: Adapter
    call: Call
    request: HttpRequest
    key: Secret | None
    transport: Transport
    timeouts: Timeouts
    proxy: Secret | None = None
    local_cache: LocalCache | None = None

    def least_usage(self) -> Usage:
        """Return what its input takes, as the length of its texts suggests."""
        return Usage(input_tokens=estimate_tokens(self.call.conversation.text_length()), estimated=True)

    def cost(self, usage: Usage) -> float | None:
        """Return what that costs, in US dollars; None where the model has no price."""
        price = self.call.model.price
        return None if price is None else price.cost(usage, self.call.params.service_tier)

    def least_cost(self) -> float:
        """Return what its input costs at least, in US dollars; 0 where the model has no price."""
        return self.cost(self.least_usage()) or 0.0

    def __repr__(self) -> str:
        return f"CallPlan({self.call!r})"  # the rest holds the key and the prompt
