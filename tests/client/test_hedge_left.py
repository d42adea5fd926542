"""Calls of two attempts that are left, at every step: nothing is left of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grammar import check_grammar
from loopback import HANG, HEAD, HELLO, RST, Step, answer
from racing import BROKEN, MUTE, SILENT, TALKING, Race, racing, until

# Ways out


async def by_task(race: Race) -> None:
    race.reading.cancel()
    await asyncio.wait([race.reading])


async def by_cancel(race: Race) -> None:
    await race.stream.cancel()
    await asyncio.wait([race.reading])


async def by_abandoning(race: Race) -> None:
    race.stream.abandon()
    await asyncio.gather(race.reading, return_exceptions=True)  # who reads on may be told of a dead connection


WAYS = [by_task, by_cancel, by_abandoning]


@pytest.mark.parametrize("leave", WAYS)
@pytest.mark.parametrize("first", [SILENT, MUTE, BROKEN], ids=["silent", "mute", "failing"])
@pytest.mark.parametrize("second", [SILENT, MUTE, TALKING], ids=["silent", "mute", "talking"])
async def test_a_call_can_be_left_at_any_step(
    leave: Callable[[Race], Awaitable[None]], first: list[Step], second: list[Step]
) -> None:
    """After so many rounds of the event loop from the moment at which the second is due."""
    for rounds in (0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 30, 60):
        go = asyncio.Event()
        async with racing([go, *first], second, SILENT) as race:
            await race.begin()
            race.bell.ring()
            go.set()
            for _ in range(rounds):
                await asyncio.sleep(0)
            await leave(race)
            assert race.reading.done()
            assert len(race.server.requests) <= 3


@pytest.mark.parametrize("leave", WAYS)
@pytest.mark.parametrize("first", [SILENT, MUTE], ids=["silent", "mute"])
async def test_a_call_can_be_left_while_its_second_waits(
    leave: Callable[[Race], Awaitable[None]], first: list[Step]
) -> None:
    """The place that the first one leaves is not for the second."""
    async with racing(first, max_concurrent_requests=1) as race:
        await race.begin()
        race.bell.ring()
        await until(lambda: race.client.dispatcher.runner().waiting == 1)
        await leave(race)
        await asyncio.sleep(0.01)
        assert len(race.server.requests) == race.server.connections == 1


@pytest.mark.parametrize("leave", WAYS)
async def test_a_call_can_be_left_once_it_speaks(leave: Callable[[Race], Awaitable[None]]) -> None:
    async with racing(SILENT, TALKING) as race:
        await race.begin()
        await race.ring()
        await until(lambda: race.response.completion == "Hel")
        await leave(race)
        assert race.response.usage.estimated


async def test_nothing_is_sent_after_an_abort() -> None:
    """The connection that it closes is no failure that something could follow."""
    async with racing(TALKING, answer(HELLO), on_break="restart") as race:
        await race.begin()
        await until(lambda: race.response.completion == "Hel")
        await race.stream.cancel()
        await asyncio.wait([race.reading])
        await asyncio.sleep(0.01)
        assert len(race.server.requests) == 1


EVENTS = st.permutations(["ring", "first", "second", "leave", "third"])
ENDINGS = st.sampled_from(["answer", "500", "reset", "nothing"])
PAUSES = st.lists(st.integers(0, 12), min_size=5, max_size=5)


async def play(race: Race, gates: dict[str, asyncio.Event], order: list[tuple[str, int]], leave: Any) -> None:
    """Let things happen one after the other, so many rounds of the event loop apart."""
    for what, rounds in order:
        if what in gates:
            gates[what].set()
        elif what == "ring":
            race.bell.ring()
        elif leave is not None:
            await leave(race)
        for _ in range(rounds):
            await asyncio.sleep(0)
    done, _ = await asyncio.wait([race.reading], timeout=0.1)
    if not done:  # who is left in the race says nothing
        await by_task(race)


@settings(max_examples=150)
@given(EVENTS, ENDINGS, ENDINGS, PAUSES, st.sampled_from([*WAYS, None]))
def test_whatever_happens_in_whatever_order(
    order: list[str], first: str, second: str, pauses: list[int], leave: Callable[[Race], Awaitable[None]] | None
) -> None:
    """There is one answer or one error, and nothing is left."""
    gates = {name: asyncio.Event() for name in ("first", "second", "third")}

    def steps(gate: str, ending: str) -> list[Step]:
        rest = {"answer": answer(HELLO)[1:], "reset": [RST], "nothing": [HANG]}
        return [gates[gate], *BROKEN] if ending == "500" else [HEAD, gates[gate], *rest[ending]]

    async def run() -> None:
        last = steps("third", "answer")
        async with racing(steps("first", first), steps("second", second), last, max_attempts=3) as race:
            await race.begin()
            await play(race, gates, list(zip(order, pauses, strict=True)), leave)
            if race.reading.cancelled():
                assert leave is not None or "nothing" in (first, second)
            elif leave is None:
                check_grammar(race.reading.result())  # the third attempt answers if no other does
                assert race.response.completion == "Hello world"
            else:
                assert leave is by_abandoning or race.reading.exception() is None

    asyncio.run(run())
