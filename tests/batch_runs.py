"""Helpers that run batches of the provider batch APIs against the simulator, observe them and stop them early."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from lm_deluge import LLMClient
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.client.call_options import CallOptions
from lm_deluge.config import Secret
from lm_deluge.dispatch.batch.provider.runner import ProviderBatch
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.prompt.conversation import to_conversation
from lm_deluge.response import APIResponse
from lm_deluge.simulator import Simulator
from lm_deluge.transport.base import ConnectionSlot, Exchange
from lm_deluge.transport.http import AiohttpTransport
from lm_deluge.wire.http import HttpHead, HttpRequest

MODELS = ("gpt-4o", "openai-responses:gpt-4o", "claude-haiku-4-5", "gemini-2.5-flash")
"""A model for each combination of a batch API and a wire API."""
KEY = "sk-test-0123456789"


class Clock:
    """A clock whose `sleep` advances the time without waiting; `waits` lists the sleeps in seconds."""

    def __init__(self) -> None:
        self.time = time.time()
        self.waits: list[float] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.time += seconds


class Script:
    """Responds to every prompt with its text in capitals, and counts how often each was requested."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __call__(self, request: ParsedRequest) -> str:
        text = request.conversation[-1].completion
        self.asked[text] += 1
        return text.upper()


class Killed(BaseException):
    """Simulates the death of the process."""


class DyingTransport:
    """A transport that raises `Killed` at its `at`-th step.

    A step is the start of a request, the receipt of its head, or a read of its body; `steps` counts them.
    """

    def __init__(self, at: int | None = None) -> None:
        self.steps = 0
        self._at = at
        self._inner = AiohttpTransport()

    def step(self) -> None:
        self.steps += 1
        if self.steps == self._at:
            raise Killed

    async def connection_slot(self) -> ConnectionSlot:
        return await self._inner.connection_slot()

    async def open(self, request: HttpRequest, *, connect_timeout_s: float | None, proxy: Secret | None) -> Exchange:
        self.step()
        exchange = await self._inner.open(request, connect_timeout_s=connect_timeout_s, proxy=proxy)
        try:
            self.step()
        except Killed:
            exchange.abort()
            raise
        return DyingExchange(exchange, self)

    async def close(self) -> None:
        await self._inner.close()


class DyingExchange:
    def __init__(self, inner: Exchange, transport: DyingTransport) -> None:
        self._inner = inner
        self._transport = transport

    @property
    def head(self) -> HttpHead:
        return self._inner.head

    @property
    def bytes_received(self) -> int:
        return self._inner.bytes_received

    def keep(self, place: ConnectionSlot) -> None:
        self._inner.keep(place)

    async def read(self) -> bytes:
        self._transport.step()
        return await self._inner.read()

    async def release(self, wait_s: float) -> int:
        return await self._inner.release(wait_s)

    def abort(self) -> None:
        self._inner.abort()


def url_of(sim: Simulator, model: str) -> str:
    return sim.base_url if "gpt" in model else sim.url


@asynccontextmanager
async def client_of(
    sim: Simulator, model: str, transport: DyingTransport | None = None, **options: Any
) -> AsyncIterator[LLMClient]:
    client = LLMClient(model, base_url=url_of(sim, model), api_key=KEY, progress="none", **options)
    client.dispatcher.transport = transport
    try:
        yield client
    finally:
        await client.close()


def plans_of(client: LLMClient, prompts: Iterable[str], **asked: Any) -> Iterable[tuple[str, CallPlan]]:
    planner = client.dispatcher.planner(CallOptions(**asked))
    for number, prompt in enumerate(prompts):
        yield f"row {number}", planner.plan(client.models[0].id, to_conversation(prompt))


async def run_batch(
    client: LLMClient,
    prompts: Iterable[str],
    path: Path,
    *,
    clock: Clock | None = None,
    leave_after: int | None = None,
    **options: Any,
) -> dict[str, APIResponse]:
    """Run prompts with a journal; return the responses by row. With `leave_after`, stop after so many responses."""
    clock = clock or Clock()
    found: dict[str, APIResponse] = {}
    async with await Journal.open(path, fingerprint="f" * 64, gather_s=0) as journal:
        batch = ProviderBatch(journal, sleep=clock.sleep, now=clock.now, **options)
        async with aclosing(batch.run(plans_of(client, prompts))) as answers:
            async for row, response in answers:
                assert row not in found
                found[row] = response
                if len(found) == leave_after:
                    break
    return found
