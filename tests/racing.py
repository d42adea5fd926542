"""Calls with two parallel attempts over real sockets; the second attempt starts when the test rings the bell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from grammar import check_grammar
from lm_deluge import LLMClient
from lm_deluge.client.stream import Stream
from lm_deluge.events import Attempt, Event, TextDelta
from lm_deluge.response import APIResponse
from lm_deluge.usage import Usage
from loopback import HANG, HEAD, Loopback, Step, chunk, plain, text
from patience import Bell, with_bell

BOTH = ["gpt-4o", "gpt-4o-mini"]
SILENT: list[Step] = [HEAD, HANG]
MUTE: list[Step] = [HANG]  # no response head either
TALKING: list[Step] = [HEAD, chunk(text("Hel")), HANG]
BROKEN = plain("500 X", b"{}")
PROMPT = "word " * 16  # 80 characters: 20 tokens


def after(go: asyncio.Event, steps: list[Step]) -> list[Step]:
    """Return steps that send the head at once and the rest after `go` is set."""
    return [steps[0], go, *steps[1:]]


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_true():
            await asyncio.sleep(0.001)


def serving() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if "Loopback" in repr(task.get_coro())}


def places(client: LLMClient) -> int:
    return client.dispatcher.limiter().limiter._concurrency.used


def check_nothing_is_left(client: LLMClient) -> None:
    runner = client.dispatcher.runner()
    assert places(client) == 0
    assert (runner.waiting, len(runner._scheduler), runner._scheduler._orders) == (0, 0, {})


class Race:
    """A client whose second attempts start when the bell rings, and a stream of the client."""

    stream: Stream
    reading: asyncio.Task[list[Event]]

    def __init__(self, server: Loopback, client: LLMClient) -> None:
        self.server = server
        self.client = client
        self.bell: Bell = with_bell(client)

    async def begin(self, prompt: str = "Hi", **asked: Any) -> None:
        """Start reading a stream; return after the server has received its first request."""
        asked_before = len(self.server.requests)
        self.stream = self.client.stream(prompt, **asked)
        self.reading = asyncio.create_task(self._read())
        await self.asked(asked_before + 1)

    async def _read(self) -> list[Event]:
        async with self.stream:
            return [event async for event in self.stream.events()]

    async def asked(self, count: int) -> None:
        await until(lambda: len(self.server.requests) >= count)

    async def ring(self) -> None:
        """Start the second attempt; return after the server has received its request."""
        count = len(self.server.requests)
        assert self.bell.ring() == 1
        await self.asked(count + 1)

    async def one_is_out(self) -> None:
        await until(lambda: places(self.client) == 1)

    async def end(self) -> list[Event]:
        events = await self.reading
        check_grammar(events)
        return events

    @property
    def response(self) -> APIResponse:
        return self.stream.response

    @property
    def models(self) -> list[str]:
        return [msgspec.json.decode(body)["model"] for _, _, body in self.server.requests]

    def cost(self, model: str, usage: Usage) -> float:
        price = self.client.dispatcher.rows[model].price
        assert price is not None
        return price.cost(usage)


PROVIDERS = ("openai", "anthropic", "openai-responses")


@asynccontextmanager
async def racing(*steps: list[Step], model: Any = BOTH, **options: Any) -> AsyncIterator[Race]:
    """Run a race; assert that no task, connection slot or connection is left at the end."""
    before, loop_errors = asyncio.all_tasks(), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))
    async with Loopback(*steps) as server:
        own = {
            "api_key": dict.fromkeys(PROVIDERS, "test-key"),
            "base_url": dict.fromkeys(PROVIDERS, server.url),
            "progress": "none",
            "hedge_after": 2.0,
        }
        options = {**own, **options}
        async with LLMClient(model, **options) as client:
            yield Race(server, client)
            await until(lambda: asyncio.all_tasks() - before <= serving())
            check_nothing_is_left(client)
        await server.settle()
    assert loop_errors == []


def notes_of(events: list[Event]) -> list[tuple[int, str]]:
    return [(event.number, event.error) for event in events if isinstance(event, Attempt)]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))
