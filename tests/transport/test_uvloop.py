"""The faults that depend most on the event loop, with uvloop."""

import asyncio
from typing import Any

import pytest

from lm_deluge import APIResponse, LLMClient, Timeouts
from lm_deluge.errors import DelugeError
from loopback import HANG, HEAD, Loopback, Step, chunk, text
from transport.test_faults import BROKEN, CLOCKS, IN_ORDER, clocks_for

uvloop = pytest.importorskip("uvloop")

WHOLE = [
    "one piece", "byte by byte [W1]", "gzip flushed per event [W14]", "reset after the finish reason [T8]",
    "never closes [T9]", "data after the end [T10]", "body until the connection closes",
]  # fmt: skip
FAILED = [
    "huge event [W13]", "gzip bomb [W14]", "not JSON [W15]", "slow first byte [T3]", "half-open silence [T4]",
    "endless pings [T4]", "cut chunk [T5]", "reset [T6]", "clean end in the middle [T7]", "no answer", "not HTTP",
    "huge header [T15]", "error after tokens [P8]", "status 429",
]  # fmt: skip


def run(spec: Any) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(spec)


async def ask(steps: list[Step], timeouts: Timeouts = CLOCKS["none"]) -> APIResponse:
    options = {"api_key": "sk-test", "max_attempts": 1, "timeouts": timeouts, "max_event_bytes": 32_768}
    async with (
        Loopback(steps) as server,
        asyncio.timeout(20),
        LLMClient("gpt-4o", base_url=server.url, **options) as client,
    ):
        return await client.stream("hi", echo=None)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_answers_are_whole(name: str) -> None:
    response = run(ask(IN_ORDER[name]))
    assert (response.completion, response.finish_reason) == ("Hello world", "stop")


@pytest.mark.parametrize("name", FAILED)
def test_each_fault_has_its_class_and_keeps_what_came(name: str) -> None:
    steps, kind, partial = BROKEN[name]
    with pytest.raises(DelugeError) as caught:
        run(ask(steps, clocks_for(name)))
    assert type(caught.value) is kind, str(caught.value)
    assert (caught.value.partial and caught.value.partial.completion) == partial


def test_what_is_left_in_the_middle_is_closed() -> None:
    async def leave() -> int:
        async with Loopback([HEAD, chunk(text("a")), HANG]) as server:
            async with LLMClient("gpt-4o", base_url=server.url, api_key="sk-test") as client:
                for _ in range(20):
                    async for _ in client.stream("hi"):
                        break
                await server.settle()
            return server.connections

    assert run(leave()) == 20
