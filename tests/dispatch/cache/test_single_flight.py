"""Equal calls at once: one asks, the others wait for its answer; giving up a wait ends the wait alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lm_deluge import LLMClient
from lm_deluge.dispatch.cache.single_flight import SharedCall, shared_calls_here
from lm_deluge.dispatch.cache.sqlite import SQLiteCache
from lm_deluge.errors import BadRequestError, DelugeError
from lm_deluge.simulator import Script, Simulator

COUNT = 50


class Shelf:
    def __init__(self, *, takes: bool = True) -> None:
        self.values: dict[str, bytes] = {}
        self.takes = takes

    async def get(self, key: str) -> bytes | None:
        await asyncio.sleep(0)
        return self.values.get(key)

    async def put(self, key: str, value: bytes) -> None:
        await asyncio.sleep(0)
        if self.takes:
            self.values[key] = value


def client_of(sim: Simulator, cache: Any, model: Any = "gpt-4o", **options: Any) -> LLMClient:
    return LLMClient(model, base_url=sim.base_url, api_key="k", local_cache=cache, progress=None, **options)


async def in_order(client: LLMClient) -> list[str]:
    return [each.completion for each in await client.process_prompts_async(["x"] * COUNT)]


async def awaited(client: LLMClient) -> list[str]:
    responses = await asyncio.gather(*(client.stream("x", echo=None) for _ in range(COUNT)))
    return [each.completion for each in responses]


async def iterated(client: LLMClient) -> list[str]:
    async def read() -> str:
        return "".join([token async for token in client.stream("x")])

    return await asyncio.gather(*(read() for _ in range(COUNT)))


async def merged(client: LLMClient) -> list[str]:
    streams = client.stream_many(["x"] * COUNT)
    async for _ in streams:
        pass
    return [streams.responses[index].completion for index in range(COUNT)]


async def started(client: LLMClient) -> list[str]:
    ids = [client.start_nowait("x") for _ in range(COUNT)]
    return [each.completion for each in await client.wait_for_all(ids)]


WAYS = {each.__name__: each for each in (in_order, awaited, iterated, merged, started)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", ["gpt-4o", ["gpt-4o", "gpt-4o-mini"]], ids=["one model", "two models"])
async def test_equal_calls_at_once_ask_once(way: str, model: Any, tmp_path: Any) -> None:
    async with Simulator("One, two.") as sim, client_of(sim, SQLiteCache(tmp_path / "c"), model) as client:
        assert await WAYS[way](client) == ["One, two."] * COUNT
        assert sim.stats.requests == 1
        assert shared_calls_here() == {}


async def test_the_others_are_hits_and_cost_nothing() -> None:
    async with Simulator("One.") as sim, client_of(sim, Shelf()) as client:
        responses = await client.process_prompts_async(["x"] * 5 + ["y"])
        assert sim.stats.requests == 2
    assert sorted(each.local_cache_hit for each in responses) == [False, False, True, True, True, True]
    assert sum(each.cost > 0 for each in responses) == 2


async def test_clients_that_share_a_cache_ask_once() -> None:
    shelf = Shelf()
    async with Simulator("One.") as sim, client_of(sim, shelf) as one, client_of(sim, shelf) as two:
        await asyncio.gather(*(client.process_prompts_async(["x"] * 5) for client in (one, two)))
        assert sim.stats.requests == 1


async def test_a_failure_lets_another_one_ask() -> None:
    failures = [BadRequestError("no", status_code=400)]

    def script(_: Any) -> Script:
        if failures:
            raise failures.pop()
        return Script(text="One.")

    async with Simulator(script) as sim, client_of(sim, Shelf()) as client:
        responses = await client.process_prompts_async(["x"] * COUNT)
        assert sim.stats.requests == 2
    assert sum(each.is_error for each in responses) == 1
    assert sum(each.completion == "One." for each in responses) == COUNT - 1


async def test_calls_that_always_fail_do_not_queue_up() -> None:
    """Two fail one after the other; then all others ask at once."""
    async with Simulator(faults="status_400") as sim, client_of(sim, Shelf()) as client:
        responses = await client.process_prompts_async(["x"] * 20)
        assert sim.stats.requests == 20
        assert sim.stats.most_open > 1
    assert all(each.is_error for each in responses)


@pytest.mark.parametrize("shelf", [Shelf(takes=False), Shelf()], ids=["cache that keeps nothing", "filtered answer"])
async def test_answers_that_are_not_kept_do_not_queue_up(shelf: Shelf) -> None:
    script = Script(text="One.", finish_reason="content_filter") if shelf.takes else Script(text="One.")
    async with Simulator(script) as sim, client_of(sim, shelf) as client:
        await client.process_prompts_async(["x"] * 20)
        assert sim.stats.requests == 20


async def test_a_cancelled_call_lets_another_one_ask() -> None:
    async with Simulator("One.", faults=["no_answer", None]) as sim, client_of(sim, Shelf()) as client:
        first = asyncio.create_task(client.stream("x", echo=None))
        while sim.stats.requests < 1:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(client.stream("x", echo=None)) for _ in range(5)]
        await asyncio.sleep(0.01)
        assert sim.stats.requests == 1
        first.cancel()
        assert {(await other).completion for other in others} == {"One."}
        assert sim.stats.requests == 2


async def test_a_wait_that_is_given_up_ends_alone() -> None:
    gate = asyncio.Event()

    async def hold(response: Any) -> Any:
        await gate.wait()
        return response

    async with Simulator("One.") as sim, client_of(sim, Shelf(), postprocess=hold) as client:
        first = client.start_nowait("x")
        while sim.stats.completed < 1:
            await asyncio.sleep(0.001)
        waiting = asyncio.create_task(client.stream("x", echo=None))
        cancelled = client.stream("x")
        reading = asyncio.create_task(cancelled.next_batch())
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await cancelled.cancel()
        assert await reading == []
        gate.set()
        assert (await client.wait_for(first)).completion == "One."
        assert (await client.stream("x", echo=None)).local_cache_hit
        assert sim.stats.requests == 1
        assert shared_calls_here() == {}


@pytest.mark.parametrize("how", ["left unread", "left", "dropped"])
async def test_two_streams_in_one_task_do_not_wait_for_each_other(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "left unread":
        monkeypatch.setattr(SharedCall, "patience_s", 0.05)
    async with Simulator("one two three") as sim, client_of(sim, Shelf()) as client, asyncio.timeout(10):
        tokens = aiter(client.stream("x"))
        await anext(tokens)
        if how == "left":
            await tokens.aclose()
        elif how == "dropped":
            del tokens
        assert (await client.stream("x", echo=None)).completion == "one two three"
        assert sim.stats.requests == 2
        if how == "left unread":
            assert [token async for token in tokens] == [" two", " three"]
            async for _ in client.stream_many(["y"] * 3):
                assert (await client.stream("z", echo=None)).completion == "one two three"
    assert shared_calls_here() == {}


async def test_an_error_before_anything_is_sent_wakes_the_others() -> None:
    async with Simulator("One.") as sim, client_of(sim, Shelf(), max_cost=0.0) as client:
        responses = await client.process_prompts_async(["x"] * 10)
        assert sim.stats.requests == 0
        assert all(isinstance(each.error, DelugeError) for each in responses)
    assert shared_calls_here() == {}


def test_each_loop_has_its_own_flights() -> None:
    async def ask(client: LLMClient) -> list[str]:
        found = await in_order(client)
        await client.close()
        return found

    with Simulator("One.").start_in_thread() as sim:
        client = client_of(sim, Shelf())
        for _ in range(2):
            assert asyncio.run(ask(client)) == ["One."] * COUNT
        assert sim.stats.requests == 1
