"""Streams of users go before the calls of a batch on the same client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lm_deluge import LLMClient
from lm_deluge.errors import ConfigurationError
from loopback import END, HEAD, HELLO, NEXT, Loopback, Step, chunk

PLACES = 5


def client_of(server: Loopback, **options: Any) -> LLMClient:
    own = {"max_concurrent_requests": PLACES, "progress": "none"}
    return LLMClient("gpt-4o", **{"api_key": "sk-test", "base_url": server.url, **own, **options})


async def place_of(prompt: str, server: Loopback, *, batch: dict[str, Any], stream: dict[str, Any]) -> int:
    """Return how many requests were sent before that of a stream which starts in the middle of a batch."""
    gate = asyncio.Event()
    steps: list[Step] = [HEAD, gate, chunk(HELLO), END, NEXT]
    server.transcripts = [steps]
    async with client_of(server) as client:
        running = asyncio.create_task(client.process_prompts_async([f"Row {n}" for n in range(30)], **batch))
        while len(server.requests) < PLACES:
            await asyncio.sleep(0.001)
        call = asyncio.create_task(client.stream(prompt, echo=None, **stream)._print())
        for _ in range(3):
            await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(running, call)
    return next(place for place, (_, _, body) in enumerate(server.requests) if prompt.encode() in body)


@pytest.mark.parametrize(
    ("batch", "stream", "is_first"),
    [
        ({}, {}, True),
        ({"priority": "batch"}, {"priority": "interactive"}, True),
        ({}, {"priority": "batch"}, False),
        ({"priority": "interactive"}, {}, False),
    ],
    ids=str,
)
async def test_a_stream_goes_before_the_waiting_calls_of_a_batch(
    batch: dict[str, Any], stream: dict[str, Any], is_first: bool
) -> None:
    async with Loopback([NEXT]) as server:
        place = await place_of("A user", server, batch=batch, stream=stream)
    assert (place <= PLACES + 1) is is_first, place


def test_an_unknown_priority_is_refused() -> None:
    client = LLMClient("gpt-4o", api_key="sk-test")
    with pytest.raises(ConfigurationError, match="priority='high' is not a known value"):
        client.stream("Hi", priority="high")  # type: ignore[arg-type]
