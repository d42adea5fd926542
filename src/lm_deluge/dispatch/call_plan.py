"""Everything a call needs, as one value."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import msgspec

from lm_deluge.config import LocalCache, Secret, Timeouts
from lm_deluge.providers.adapter import Adapter, Call
from lm_deluge.transport.base import Transport
from lm_deluge.wire.http import HttpHead, HttpRequest

__all__ = ["CallPlan"]


class CallPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a call needs, settled before anything is sent."""

    adapter: Adapter
    call: Call
    request: HttpRequest
    key: Secret | None
    transport: Transport
    timeouts: Timeouts
    max_attempts: int
    max_retry_after_s: float
    proxy: Secret | None = None
    local_cache: LocalCache | None = None
    on_head: Callable[[HttpHead], None] | None = None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random

    def __repr__(self) -> str:
        return f"CallPlan({self.call!r})"  # the rest holds the key and the prompt
