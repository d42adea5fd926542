"""Calls of every kind against a provider of which three answers in ten go wrong: each ends once, and nothing grows.

Seconds in `make test`; ten minutes in `make soak`, or as many as DELUGE_SOAK_MINUTES says.
"""

import asyncio
import contextlib
import ctypes
import gc
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from client.test_abandoned import held_by, open_sockets
from lm_deluge import LLMClient, Timeouts
from lm_deluge import errors as e
from lm_deluge.errors import DelugeError
from lm_deluge.response import APIResponse

IS_LONG = bool(os.environ.get("DELUGE_SOAK"))
SECONDS = 60.0 * float(os.environ.get("DELUGE_SOAK_MINUTES", "10")) if IS_LONG else 5.0
AT_ONCE = 500 if IS_LONG else 80
SAMPLES = 60
MOST_ATTEMPTS = 4
# A machine that stops for a moment trips these where nothing is wrong: that is one more fault to be got over.
CLOCKS = Timeouts(connect=20, first_token=3, idle=3, progress=4)
EXPECTED = {
    *(e.StreamInterruptedError, e.ContentTypeError, e.ProtocolError, e.TruncatedError, e.TimeoutError, e.ServerError),
    *(e.RedirectRefusedError, e.BadRequestError, e.AuthenticationError, e.OverloadedError, e.RateLimitError),
}


@dataclass
class Sample:
    second: float
    ended: int
    sockets: int
    tasks: int
    rss_kib: int


@dataclass
class Soak:
    """The calls of one run, and what came of them."""

    until: float
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    numbers: "count[int]" = field(default_factory=lambda: count(1))
    asked: int = 0
    left: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    wrong: list[str] = field(default_factory=list)

    def prompts(self, how_many: int) -> list[str]:
        self.asked += how_many
        return [f"q{next(self.numbers)}" for _ in range(how_many)]

    def end(self, prompt: str, response: APIResponse, text: str | None = None) -> None:
        """Note the one outcome of a prompt."""
        error = response.error
        self.ended["whole" if error is None else type(error).__name__] += 1
        self.attempts += response.stats.attempts if response.stats else 0
        if error is not None and type(error) not in EXPECTED:
            self.wrong.append(repr(error))
        if error is None and response.finish_reason != "stop":
            self.wrong.append(f"{prompt} ended by {response.finish_reason}")
        # What is whole names its own prompt, once; a spoiled character does not count.
        if error is None and response.completion.count(f"[{prompt}]") != 1 and "\ufffd" not in response.completion:
            self.wrong.append(f"{prompt} was answered with {response.completion!r}")
        if text is not None and text != response.completion:
            self.wrong.append(f"{prompt} was shown {text!r}, and answered with {response.completion!r}")

    async def batch(self, client: LLMClient) -> None:
        prompts = self.prompts(4)
        responses = await client.process_prompts_async(prompts)
        assert len(responses) == len(prompts)
        for prompt, response in zip(prompts, responses, strict=True):
            self.end(prompt, response)

    async def merged(self, client: LLMClient) -> None:
        prompts = self.prompts(4)
        merged = client.stream_many(prompts)
        async for _ in merged:
            pass
        assert sorted(merged.responses) == list(range(4))
        for index, response in merged.responses.items():
            self.end(prompts[index], response)

    async def single(self, client: LLMClient) -> None:
        (prompt,) = self.prompts(1)
        stream, text = client.stream(prompt), ""
        try:
            async for token in stream:
                text += token
            self.end(prompt, stream.response, text)
        except DelugeError as error:
            self.end(prompt, APIResponse(error=error, stats=stream.stats))

    async def started(self, client: LLMClient) -> None:
        (prompt,) = self.prompts(1)
        self.end(prompt, await client.wait_for(client.start_nowait(prompt)))

    async def abandoned(self, client: LLMClient) -> None:
        """Left at some moment; it has no outcome."""
        self.left += 1
        try:
            async with asyncio.timeout(self.chance.random() * 2):
                await client.stream("left", echo=None)
        except (TimeoutError, DelugeError):
            pass

    async def spec(self, client: LLMClient) -> None:
        ways: list[Callable[[LLMClient], Awaitable[None]]] = [self.batch, self.merged, self.single, self.started]
        while time.monotonic() < self.until:
            way = self.abandoned if self.chance.random() < 0.05 else self.chance.choice(ways)
            await way(client)


@asynccontextmanager
async def provider() -> AsyncIterator[tuple[list[str], asyncio.subprocess.Process]]:
    requests, pace = (int(SECONDS * 1_000), 3) if IS_LONG else (20_000, 10)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("soak_server.py")), "7", str(requests), str(pace)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield (await child.stdout.readline()).decode().split(), child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


def rss_kib() -> int:
    # What the C library keeps of memory that was freed (decompression leaves much of it) is no growth.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


async def sample(soak: Soak, samples: list[Sample]) -> None:
    begun = time.monotonic()
    while True:
        await asyncio.sleep(SECONDS / SAMPLES)
        second = time.monotonic() - begun
        samples.append(Sample(second, soak.ended.total(), open_sockets(), len(asyncio.all_tasks()), rss_kib()))


@pytest.mark.timeout(SECONDS + 240)
async def test_every_call_ends_once_and_nothing_grows() -> None:
    async with provider() as (urls, child):
        sockets, tasks = open_sockets(), len(asyncio.all_tasks())
        options = {"api_key": "sk-test", "timeouts": CLOCKS, "max_attempts": MOST_ATTEMPTS, "progress": "none"}
        clients = [LLMClient("gpt-4o", base_url=url, max_concurrent_requests=AT_ONCE, **options) for url in urls]
        soak, samples = Soak(time.monotonic() + SECONDS), list[Sample]()
        sampling = asyncio.create_task(sample(soak, samples))
        async with asyncio.TaskGroup() as workers:
            for number in range(AT_ONCE):
                workers.create_task(soak.spec(clients[number % 10 == 0]))
        sampling.cancel()
        await asyncio.wait([sampling])
        await asyncio.sleep(0.25)
        held = [held_by(client) for client in clients]
        for client in clients:
            await client.close()
        await asyncio.sleep(0.05)
        left = (open_sockets(), len(asyncio.all_tasks()))
        out, _ = await child.communicate(b"")
        requests, kinds = map(int, out.split())
    report(soak, samples, requests, kinds)
    assert soak.wrong == []
    assert soak.ended.total() == soak.asked
    assert soak.ended["whole"] > 0.8 * soak.asked
    assert soak.attempts <= requests <= soak.attempts + soak.left * MOST_ATTEMPTS
    assert kinds >= 20
    # Idle connections wait to be used again, and hold nothing else.
    assert [{name: value for name, value in each.items() if name != "connections"} for each in held] == [{}, {}]
    assert left == (sockets, tasks)
    if IS_LONG:
        assert_flat(samples)


def report(soak: Soak, samples: list[Sample], requests: int, kinds: int) -> None:
    print(f"\n{soak.asked} calls, {soak.left} left, {requests} requests, {kinds} kinds of faults: {dict(soak.ended)}")
    for each in samples[:: max(1, len(samples) // 20)]:
        print(
            f"  {each.second:6.1f} s {each.ended:8} ended {each.sockets:5} sockets {each.tasks:5} tasks "
            f"{each.rss_kib / 1024:7.1f} MiB"
        )


def assert_flat(samples: list[Sample]) -> None:
    """Compare the last third with the one before it: caches and pools are filled by then."""
    third = len(samples) // 3
    for name, most in (("sockets", 40), ("tasks", 60), ("rss_kib", 2_048)):
        middle, last = (
            statistics.median(getattr(each, name) for each in part)
            for part in (samples[third : 2 * third], samples[2 * third :])
        )
        assert last - middle <= most, f"{name} grew from {middle} to {last}"
    assert not gc.garbage
