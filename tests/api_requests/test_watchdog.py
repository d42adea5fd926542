"""One timer for all waits of a stream. The loop here has hands that the test moves."""

import asyncio
import math
from collections.abc import Callable

import pytest

from lm_deluge.api_requests.watchdog import Watchdog


class Timer:
    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self._when, self.call, self.is_cancelled = when, call, False

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        self.is_cancelled = True


class Clockwork:
    """The two methods of an event loop that a watchdog uses."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(when, call))
        return self.timers[-1]

    @property
    def waiting(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.is_cancelled]

    def go_to(self, now: float) -> None:
        self.now = now
        for timer in self.waiting:
            if timer.when() <= now:
                self.timers.remove(timer)
                timer.call()


@pytest.fixture
def loop() -> Clockwork:
    return Clockwork()


@pytest.fixture
def bites() -> list[str]:
    return []


@pytest.fixture
def dog(loop: Clockwork, bites: list[str]) -> Watchdog:
    return Watchdog(loop, lambda: bites.append("bite"))  # type: ignore[arg-type]


def test_a_wait_that_lasts_too_long_is_bitten_once(dog: Watchdog, loop: Clockwork, bites: list[str]) -> None:
    dog.watch(5.0, "idle")
    loop.go_to(4.9)
    assert (bites, dog.expired) == ([], None)
    loop.go_to(5.0)
    assert (bites, dog.expired) == (["bite"], "idle")
    loop.go_to(99.0)
    assert bites == ["bite"]
    assert not loop.waiting


def test_a_thousand_reads_set_few_timers(dog: Watchdog, loop: Clockwork, bites: list[str]) -> None:
    for n in range(1_000):
        loop.go_to(n * 0.01)
        dog.watch(loop.now + 5.0, "idle")
        dog.rest()
    assert len(loop.waiting) == 1
    assert bites == []
    loop.go_to(60.0)
    assert (bites, loop.waiting) == ([], [])


def test_a_timer_that_fires_early_is_set_again(dog: Watchdog, loop: Clockwork, bites: list[str]) -> None:
    dog.watch(5.0, "idle")
    dog.rest()
    loop.now = 4.0
    dog.watch(9.0, "progress")
    assert len(loop.waiting) == 1
    loop.go_to(5.0)
    assert bites == []
    loop.go_to(9.0)
    assert (bites, dog.expired) == (["bite"], "progress")


def test_a_nearer_limit_sets_the_timer_anew(dog: Watchdog, loop: Clockwork, bites: list[str]) -> None:
    dog.watch(100.0, "first_token")
    dog.rest()
    dog.watch(5.0, "idle")
    assert len(loop.waiting) == 1
    loop.go_to(5.0)
    assert dog.expired == "idle"


def test_rest_and_stop_end_the_watch(dog: Watchdog, loop: Clockwork, bites: list[str]) -> None:
    dog.watch(5.0, "idle")
    dog.rest()
    loop.go_to(50.0)
    dog.watch(60.0, "idle")
    dog.stop()
    dog.stop()
    assert not loop.waiting
    loop.go_to(99.0)
    assert bites == []


def test_an_endless_wait_needs_no_timer(dog: Watchdog, loop: Clockwork) -> None:
    dog.watch(math.inf, "idle")
    assert not loop.timers


async def test_it_runs_on_a_real_loop() -> None:
    woken = asyncio.Event()
    dog = Watchdog(asyncio.get_running_loop(), woken.set)
    dog.watch(asyncio.get_running_loop().time() + 0.01, "total")
    async with asyncio.timeout(10):
        await woken.wait()
    assert dog.expired == "total"
