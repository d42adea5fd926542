"""The cost of opening a stream: CPU time from `client.stream()` to its end, for an answer of one token.

The peers run in the same process in turns, so that what else the machine does meets all of them: a bare request of
aiohttp that reads the same bytes without parsing them, a stream that is iterated over, and one that is awaited.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec

from bench.serving import serving
from lm_deluge import LLMClient

ROUNDS = 15  # turns of each peer: their median drops the rounds that the machine disturbed
CALLS = 300  # in each round: a tenth of a second
PROMPT = "Write two dozen words about the weather in spring."

Peer = Callable[[], Awaitable[object]]


def opening(rounds: int = ROUNDS, calls: int = CALLS) -> dict[str, float]:
    """Print and return the CPU time per call, in microseconds; and print its ratio to the bare request."""
    with serving("bench.short_server", "tiny") as (_, port):
        taken = asyncio.run(_measure(f"http://127.0.0.1:{port}/v1", rounds, calls))
    bare = taken["bare"]
    medians = {peer: statistics.median(times) for peer, times in taken.items()}
    print(f"\nopening a stream, one at a time, {rounds} rounds of {calls}: CPU per call, and ratio to a bare request")
    for peer, times in taken.items():
        ratio = statistics.median(own / base for own, base in zip(times, bare, strict=True))
        print(f"  {peer:14} {medians[peer] * 1e6:7.0f} us   {ratio:5.2f}")
    return medians


async def _measure(url: str, rounds: int, calls: int) -> dict[str, list[float]]:
    async with aiohttp.ClientSession() as session, LLMClient("gpt-4o-mini", api_key="none", base_url=url) as client:
        peers = _peers(session, client, f"{url}/chat/completions")
        taken: dict[str, list[float]] = {name: [] for name in peers}
        for number in range(-1, rounds):  # the first one warms up: imports, connections
            for name, peer in peers.items():
                started = time.process_time()
                for _ in range(calls):
                    await peer()
                if number >= 0:
                    taken[name].append((time.process_time() - started) / calls)
    return taken


def _peers(session: aiohttp.ClientSession, client: LLMClient, url: str) -> dict[str, Peer]:
    headers = {"authorization": "Bearer none", "content-type": "application/json"}

    async def bare() -> None:
        body = {
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": PROMPT}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with session.post(url, data=msgspec.json.encode(body), headers=headers) as response:
            while await response.content.readany():
                pass

    async def iterated() -> None:
        async for _ in client.stream(PROMPT):
            pass

    async def awaited() -> None:
        await client.stream(PROMPT, echo=None)

    return {"bare": bare, "iterated": iterated, "awaited": awaited}
