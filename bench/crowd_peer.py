"""A client process with thousands of concurrent streams; it prints its measurements as JSON."""

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.slow_server import EVENT_CHARACTERS
from lm_deluge import LLMClient
from lm_deluge.events import TextDelta
from lm_deluge.response import APIResponse

RSS_INTERVAL_S = 0.25  # often enough to catch the peak of memory, seldom enough to cost no CPU time
LAG_EVERY = 50  # reads per sample of the delay: tens of thousands of samples at a negligible cost


class Crowd:
    """The streams of a client, and the delay between sending and reading of their events."""

    def __init__(self, client: LLMClient, count: int) -> None:
        self.client = client
        self.prompts = ["Write two dozen words about the weather in spring."] * count
        self.lags: list[float] = []
        self.reads = 0

    def read(self, text: str) -> None:
        self.reads += 1
        if self.reads % LAG_EVERY == 0:
            self.lags.append(time.monotonic() - float(text[-EVENT_CHARACTERS:]))

    async def streams(self) -> list[APIResponse]:
        async def one(prompt: str) -> APIResponse:
            stream = self.client.stream(prompt)
            async for token in stream:
                self.read(token)
            return stream.response

        return await asyncio.gather(*(one(prompt) for prompt in self.prompts))

    async def merged(self) -> list[APIResponse]:
        merged = self.client.stream_many(self.prompts)
        async for _, event in merged:
            if type(event) is TextDelta:
                self.read(event.text)
        return list(merged.responses.values())

    async def batch(self) -> list[APIResponse]:
        return await self.client.process_prompts_async(self.prompts, progress="none")


def rss_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


async def sample_rss(samples: list[int]) -> None:
    while True:
        samples.append(rss_kib())
        await asyncio.sleep(RSS_INTERVAL_S)


async def main(mode: str, port: str, count: int, warm_port: str) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    options = {"api_key": "none", "max_concurrent_requests": count}
    async with LLMClient("gpt-4o-mini", base_url=f"http://127.0.0.1:{warm_port}/v1", **options) as warm:
        await warm.process_prompts_async(["hi"] * 100, progress="none")  # imports, and allocations that happen once
    async with LLMClient("gpt-4o-mini", base_url=f"http://127.0.0.1:{port}/v1", **options) as client:
        crowd = Crowd(client, count)
        modes: dict[str, Callable[[], Awaitable[list[APIResponse]]]] = {
            "streams": crowd.streams,
            "merged": crowd.merged,
            "batch": crowd.batch,
        }
        before, rss = rss_kib(), list[int]()
        sampling = asyncio.create_task(sample_rss(rss))
        cpu, wall = time.process_time(), time.perf_counter()
        responses = await modes[mode]()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        sampling.cancel()
    characters = sum(len(each.completion) for each in responses)
    lags = sorted(crowd.lags) or [0.0]
    found = {
        "answers": len(responses),
        "errors": sum(each.error is not None for each in responses),
        "kinds": sorted({f"{each.error}"[:200] for each in responses if each.error is not None}),
        "attempts": sum(each.stats.attempts for each in responses if each.stats),
        "events": characters // EVENT_CHARACTERS,
        "kib_per_stream": (max(rss) - before) / count,
        "kib_of_text": characters / count / 1024,
        "cpu_s": cpu,
        "wall_s": wall,
        "lag_p50_s": lags[len(lags) // 2],
        "lag_p99_s": lags[len(lags) * 99 // 100],
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
