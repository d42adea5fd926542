"""One timer for all waits of all streams. The loop here has hands that the test moves."""

import asyncio
from collections.abc import Callable

import pytest

from lm_deluge.api_requests.clocks import StreamClocks
from lm_deluge.api_requests.timeouts import ReadTimeout, TimeoutMonitor
from lm_deluge.config import Timeouts


class Timer:
    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self._when, self.call, self.is_cancelled = when, call, False

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        self.is_cancelled = True


class Clockwork:
    """The two methods of an event loop that a patrol uses."""

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
def clocks() -> StreamClocks:
    return StreamClocks(Timeouts(first_token=100.0, idle=5.0, progress=9.0), None)


@pytest.fixture
def read_timeout(loop: Clockwork, clocks: StreamClocks, bites: list[str]) -> ReadTimeout:
    return ReadTimeout(TimeoutMonitor(loop), clocks, lambda: bites.append("on_timeout"))  # type: ignore[arg-type]


def get(read_timeout: ReadTimeout, loop: Clockwork, clocks: StreamClocks, *, is_progress: bool = True) -> None:
    """End the wait."""
    assert read_timeout.since is not None  # what is to end has begun
    waited, read_timeout.since = loop.now - read_timeout.since, None
    if clocks.waited(waited, is_progress=is_progress):
        read_timeout.watch(loop.now)


def test_a_wait_that_lasts_too_long_is_bitten_once(
    read_timeout: ReadTimeout, loop: Clockwork, bites: list[str]
) -> None:
    read_timeout.begin(loop.now)
    loop.go_to(99.9)
    assert (bites, read_timeout.expired) == ([], None)
    loop.go_to(100.0)
    assert (bites, read_timeout.expired) == (["on_timeout"], "first_token")
    loop.go_to(999.0)
    assert bites == ["on_timeout"]
    assert not loop.waiting


def test_a_thousand_reads_set_few_timers(
    read_timeout: ReadTimeout, loop: Clockwork, clocks: StreamClocks, bites: list[str]
) -> None:
    for n in range(1_000):
        loop.go_to(n * 0.01)
        read_timeout.begin(loop.now)
        get(read_timeout, loop, clocks)
    assert len(loop.waiting) == 1
    assert bites == []
    loop.go_to(60.0)
    assert (bites, loop.waiting) == ([], [])


def test_a_timer_that_fires_early_is_set_again(
    read_timeout: ReadTimeout, loop: Clockwork, clocks: StreamClocks, bites: list[str]
) -> None:
    read_timeout.begin(loop.now)
    get(read_timeout, loop, clocks)
    loop.now = 4.0
    read_timeout.begin(loop.now)
    assert len(loop.waiting) == 1
    loop.go_to(5.0)
    assert bites == []
    loop.go_to(9.0)
    assert (bites, read_timeout.expired) == (["on_timeout"], "idle")


def test_the_first_token_brings_the_limit_nearer(
    read_timeout: ReadTimeout, loop: Clockwork, clocks: StreamClocks, bites: list[str]
) -> None:
    read_timeout.begin(loop.now)
    loop.now = 1.0
    get(read_timeout, loop, clocks)
    assert [timer.when() for timer in loop.waiting] == [6.0]
    read_timeout.begin(loop.now)
    loop.go_to(6.0)
    assert read_timeout.expired == "idle"


def test_the_last_one_brings_it_nearer_still(loop: Clockwork, bites: list[str]) -> None:
    clocks = StreamClocks(Timeouts(first_token=100.0, idle=60.0), None)
    read_timeout = ReadTimeout(TimeoutMonitor(loop), clocks, lambda: bites.append("on_timeout"))  # type: ignore[arg-type]
    read_timeout.begin(loop.now)
    get(read_timeout, loop, clocks)
    read_timeout.begin(loop.now)
    read_timeout.since = None
    assert clocks.waited(0.0, is_progress=False, is_complete=True)
    read_timeout.watch(loop.now)
    read_timeout.begin(loop.now)
    loop.go_to(5.0)
    assert (bites, read_timeout.expired) == (["on_timeout"], "idle")


def test_pings_push_the_limit_no_further_than_the_clock_of_progress(
    read_timeout: ReadTimeout, loop: Clockwork, clocks: StreamClocks, bites: list[str]
) -> None:
    read_timeout.begin(loop.now)
    get(read_timeout, loop, clocks)
    for n in range(1, 9):
        read_timeout.begin(loop.now)
        loop.go_to(n * 1.0)
        get(read_timeout, loop, clocks, is_progress=False)
    read_timeout.begin(loop.now)
    assert bites == []
    loop.go_to(9.0)
    assert (bites, read_timeout.expired) == (["on_timeout"], "progress")


def test_a_consumer_that_takes_its_time_is_not_bitten_and_the_next_wait_is_watched_again(
    read_timeout: ReadTimeout, loop: Clockwork, clocks: StreamClocks, bites: list[str]
) -> None:
    read_timeout.begin(loop.now)
    get(read_timeout, loop, clocks)
    loop.go_to(50.0)
    assert (bites, loop.waiting) == ([], [])
    read_timeout.begin(loop.now)
    loop.go_to(54.9)
    assert bites == []
    loop.go_to(55.0)
    assert (bites, read_timeout.expired) == (["on_timeout"], "idle")


def test_a_wait_that_begins_behind_the_deadline_is_bitten_at_once(loop: Clockwork, bites: list[str]) -> None:
    clocks = StreamClocks(Timeouts(first_token=100.0, idle=5.0), deadline=3.0)
    read_timeout = ReadTimeout(TimeoutMonitor(loop), clocks, lambda: bites.append("on_timeout"))  # type: ignore[arg-type]
    read_timeout.begin(loop.now)
    get(read_timeout, loop, clocks)
    loop.go_to(4.0)
    assert bites == []
    read_timeout.begin(loop.now)
    loop.go_to(4.0)
    assert (bites, read_timeout.expired) == (["on_timeout"], "total")


def test_stop_ends_the_watch(read_timeout: ReadTimeout, loop: Clockwork, bites: list[str]) -> None:
    read_timeout.begin(loop.now)
    read_timeout.stop()
    read_timeout.stop()
    loop.go_to(999.0)
    assert bites == []
    assert not loop.waiting


def test_streams_that_follow_each_other_share_a_timer(loop: Clockwork, bites: list[str]) -> None:
    """Setting and cancelling one for each stream would cost as much as ten deltas."""
    timeout_monitor = TimeoutMonitor(loop)  # type: ignore[arg-type]
    for _ in range(100):
        clocks = StreamClocks(Timeouts(first_token=9.0), None)
        read_timeout = ReadTimeout(timeout_monitor, clocks, lambda: bites.append("on_timeout"))
        read_timeout.begin(loop.now)
        read_timeout.stop()
        loop.go_to(loop.now + 0.01)
    read_timeout.begin(loop.now)
    assert len(loop.timers) == 1
    loop.go_to(9.0)
    assert (bites, len(loop.waiting)) == ([], 1)
    loop.go_to(10.0)
    assert bites == ["on_timeout"]
    assert not loop.waiting


def test_an_endless_wait_needs_no_timer(loop: Clockwork) -> None:
    clocks = StreamClocks(Timeouts(first_token=None, idle=None, progress=None), None)
    ReadTimeout(TimeoutMonitor(loop), clocks, lambda: None).begin(loop.now)  # type: ignore[arg-type]
    assert not loop.timers


@pytest.fixture
def pack(loop: Clockwork, bites: list[str]) -> list[ReadTimeout]:
    """Four streams of one loop, which allow waits of 1 s to 4 s."""
    timeout_monitor = TimeoutMonitor(loop)  # type: ignore[arg-type]

    def dog_of(number: int) -> ReadTimeout:
        clocks = StreamClocks(Timeouts(first_token=float(number)), None)
        return ReadTimeout(timeout_monitor, clocks, lambda: bites.append(str(number)))

    return [dog_of(number) for number in range(1, 5)]


def test_many_streams_share_a_timer_and_each_is_bitten_in_its_time(
    pack: list[ReadTimeout], loop: Clockwork, bites: list[str]
) -> None:
    for read_timeout in reversed(pack):
        read_timeout.begin(loop.now)
    assert [timer.when() for timer in loop.waiting] == [1.0]
    for second in range(1, 5):
        loop.go_to(second - 0.01)
        assert len(bites) == second - 1
        loop.go_to(second)
        assert bites == ["1", "2", "3", "4"][:second]
    assert not loop.waiting


def test_who_leaves_takes_no_timer_from_the_others(pack: list[ReadTimeout], loop: Clockwork, bites: list[str]) -> None:
    for read_timeout in pack:
        read_timeout.begin(loop.now)
    pack[0].stop()
    pack[1].stop()
    assert len(loop.waiting) == 1
    loop.go_to(2.9)
    assert bites == []
    loop.go_to(3.0)
    assert bites == ["3"]
    pack[3].stop()
    loop.go_to(4.0)
    assert bites == ["3"]
    assert not loop.waiting


def test_a_bite_may_end_other_streams_too(pack: list[ReadTimeout], loop: Clockwork, bites: list[str]) -> None:
    """As the end of a call does that has two attempts side by side."""
    for read_timeout in pack:
        read_timeout.begin(loop.now)
    pack[0].on_timeout = lambda: [read_timeout.stop() for read_timeout in pack]  # type: ignore[assignment,return-value]
    loop.go_to(9.0)
    assert pack[0].expired == "first_token"
    assert not loop.waiting
    assert set(bites) <= {"2", "3", "4"}  # those whose time had come as well, and whose turn came before


def test_bites_that_follow_each_other_closely_share_a_round(loop: Clockwork, bites: list[str]) -> None:
    """A thousand streams that hang: a round takes as long as it takes, and the next one does not follow at once."""
    timeout_monitor = TimeoutMonitor(loop)  # type: ignore[arg-type]
    for number in range(1_000):
        clocks = StreamClocks(Timeouts(first_token=1.0 + number * 1e-5), None)
        ReadTimeout(timeout_monitor, clocks, lambda: bites.append("on_timeout")).begin(loop.now)
    rounds = 0
    while loop.waiting:
        loop.go_to(loop.waiting[0].when())
        rounds += 1
    assert len(bites) == 1_000
    assert rounds <= 5
    assert loop.now < 1.03  # each 10 us late at most for each of the others


async def test_it_runs_on_a_real_loop() -> None:
    woken = asyncio.Event()
    now = asyncio.get_running_loop().time()
    read_timeout = ReadTimeout(
        TimeoutMonitor(asyncio.get_running_loop()), StreamClocks(Timeouts(), now + 0.01), woken.set
    )
    read_timeout.begin(now)
    async with asyncio.timeout(10):
        await woken.wait()
    assert read_timeout.expired == "total"
