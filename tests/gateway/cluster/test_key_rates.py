"""The limits of a key: the same contract for one process and for several on a Redis server, and what outages do."""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from dispatch.scheduling.shared.redis_server import RedisServer, need_redis, server_of_tests
from lm_deluge.dispatch.scheduling.shared.connection import ScriptConnection, parse_address
from lm_deluge.dispatch.scheduling.shared.script import LimiterScript
from lm_deluge.errors import RateLimitError
from lm_deluge.gateway.cluster import shared_rates
from lm_deluge.gateway.cluster.shared_rates import SharedRates
from lm_deluge.gateway.ledger.keys import GatewayKey, KeyRules
from lm_deluge.gateway.rate_limits import KeyPermit, LocalRates, RateLimits

_ids = itertools.count()


class Clock:
    """The time of a test, of processes and server alike."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class TimedConnection(ScriptConnection):
    """Runs the real scripts with the time of the test; the server's clock is ahead of the processes'."""

    clock: Clock
    runs = 0

    async def run(self, keys: Any, arguments: Any, timeout_s: float, *, script: LimiterScript | None = None) -> bytes:
        assert script is not None
        self.runs += 1
        timed = LimiterScript.of(script.text.replace(b"redis.call('TIME')", b"{ ARGV[2], 0 }"))
        server_time = f"{self.clock.now + 1_764_000_000.25:.6f}".encode()
        return await super().run(keys, (arguments[0], server_time), timeout_s, script=timed)


def new_key(**rules: Any) -> GatewayKey:
    return GatewayKey(id=secrets.token_hex(8), name="team", rules=KeyRules(**rules), created_at=0.0)


def shared(server: RedisServer, clock: Clock, processes: int = 1) -> SharedRates:
    address = parse_address(server.url)
    rates = SharedRates(address, lambda: processes, clock)
    rates._connection = TimedConnection(address)
    rates._connection.clock = clock
    return rates


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    """A server of its own, for tests that end it."""
    need_redis()
    found = await asyncio.to_thread(RedisServer)
    yield found
    found.close()


@pytest.fixture(params=["local", "redis", "two on redis"])
async def limits(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Callable[[], RateLimits]]:
    """Returns what counts the next call: always the same, or two processes in turn."""
    if request.param == "local":
        made: list[RateLimits] = [LocalRates(clock)]
    else:
        need_redis()
        made = [shared(server_of_tests(), clock) for _ in range(1 if request.param == "redis" else 2)]
    turns = itertools.cycle(made)
    yield lambda: next(turns)
    for each in made:
        await each.close()


async def begin(rates: RateLimits, key: GatewayKey, tokens: int = 10) -> KeyPermit:
    return await rates.begin(key, f"call-{next(_ids)}", tokens)


async def refused(rates: RateLimits, key: GatewayKey, tokens: int = 10) -> tuple[float, str]:
    with pytest.raises(RateLimitError) as caught:
        await begin(rates, key, tokens)
    assert caught.value.status_code == 429
    return caught.value.retry_after_s, str(caught.value)


async def settled(rates: RateLimits) -> None:
    """Wait until the ends of calls are reported."""
    if isinstance(rates, SharedRates):
        while any(use.unreported() for use in rates._uses.values()):
            await asyncio.sleep(0.002)


# The contract


async def test_requests_of_any_minute(limits: Callable[[], RateLimits], clock: Clock) -> None:
    key = new_key(requests_per_minute=3)
    first = await begin(limits(), key)
    clock.now += 20
    second = await begin(limits(), key)
    clock.now += 10
    third = await begin(limits(), key)
    for permit, remaining in ((first, 2), (second, 1), (third, 0)):
        (limit,) = permit.limits
        assert (limit.kind, limit.limit) == ("requests", 3)
        assert limit.remaining in (remaining, 0)
    wait_s, text = await refused(limits(), key)
    assert wait_s == pytest.approx(30, abs=1e-3)
    assert "this key may use 3 requests per minute" in text
    clock.now += 30.001
    await begin(limits(), key)  # the first one is out of the window
    assert (await refused(limits(), key))[0] == pytest.approx(20, abs=0.01)


async def test_tokens_are_corrected_at_the_end(limits: Callable[[], RateLimits], clock: Clock) -> None:
    key = new_key(tokens_per_minute=100)
    one = limits()
    permit = await begin(one, key, tokens=80)
    assert "100 tokens per minute" in (await refused(one, key, tokens=30))[1]
    permit.end(20)
    permit.end(90)  # has no effect
    await settled(one)
    other = limits()
    await begin(other, key, tokens=80)
    assert (await refused(limits(), key, tokens=1))[0] == pytest.approx(60, abs=1e-3)
    clock.now += 60.001
    await begin(limits(), key, tokens=100)


async def test_a_call_above_the_limit_gets_an_empty_window(limits: Callable[[], RateLimits], clock: Clock) -> None:
    key = new_key(tokens_per_minute=100)
    permit = await begin(limits(), key, tokens=500)
    assert permit.limits[0].remaining == 0
    assert (await refused(limits(), key, tokens=1))[0] == pytest.approx(60, abs=1e-3)
    clock.now += 60.001
    await begin(limits(), key, tokens=60)
    await refused(limits(), key, tokens=500)


async def test_calls_at_a_time(limits: Callable[[], RateLimits], clock: Clock) -> None:
    key = new_key(max_concurrent=2)
    one, other = limits(), limits()
    permit = await begin(one, key)
    await begin(other, key)
    assert "this key may run 2 calls at a time" in (await refused(one, key))[1]
    permit.end(5)
    await settled(one)
    await begin(other, key)
    await refused(one, key)


async def test_a_burst_gets_exactly_the_limit(limits: Callable[[], RateLimits]) -> None:
    key = new_key(requests_per_minute=20, tokens_per_minute=10_000)
    outcomes = await asyncio.gather(*(begin(limits(), key) for _ in range(60)), return_exceptions=True)
    assert sum(isinstance(outcome, RateLimitError) for outcome in outcomes) == 40
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 20


async def test_a_key_without_limits_is_not_counted(limits: Callable[[], RateLimits]) -> None:
    permits = [await begin(limits(), new_key()) for _ in range(3)]
    assert [permit.limits for permit in permits] == [[], [], []]
    permits[0].end(3)


# Several processes


async def test_the_places_of_a_dead_process_come_back(clock: Clock) -> None:
    need_redis()
    key = new_key(max_concurrent=1)
    dead, alive = shared(server_of_tests(), clock), shared(server_of_tests(), clock)
    await begin(dead, key)
    dead._keeper.cancel()  # it renews and reports nothing any more
    await refused(alive, key)
    clock.now += 14
    await refused(alive, key)
    clock.now += 2
    await begin(alive, key)
    await alive.close()


async def test_the_place_of_a_long_call_is_renewed(clock: Clock) -> None:
    need_redis()
    key = new_key(max_concurrent=1)
    one, other = shared(server_of_tests(), clock), shared(server_of_tests(), clock)
    permit = await begin(one, key)
    for _ in range(20):
        clock.now += 5
        one._renew()
        await one._report()
    await refused(other, key)
    permit.end(1)
    await one.close()  # reports it
    await begin(other, key)
    await other.close()


async def test_a_client_that_leaves_while_the_server_is_asked_takes_no_place(clock: Clock) -> None:
    need_redis()
    key = new_key(max_concurrent=1)
    rates = shared(server_of_tests(), clock)
    (await begin(rates, key)).end(0)
    await settled(rates)
    task = asyncio.create_task(begin(rates, key))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled(rates)
    await begin(rates, key)
    await rates.close()


# Outages


async def test_without_the_server_each_process_uses_its_share(
    server: RedisServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    key = new_key(requests_per_minute=40, max_concurrent=100)
    processes = [shared(server, clock, processes=4) for _ in range(4)]
    for _ in range(4):
        await begin(processes[0], key)
    server.kill()
    taken = 0
    for rates in processes:
        outcomes = await asyncio.gather(*(begin(rates, key) for _ in range(30)), return_exceptions=True)
        taken += sum(not isinstance(outcome, BaseException) for outcome in outcomes)
    assert taken == 10 - 4 + 3 * 10  # what the first one had before the outage is of its share
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 4
    assert all("uses 1/4 of the limits of keys until it is back" in each for each in warnings)
    for rates in processes:
        await rates.close()


async def test_an_empty_server_brings_no_burst(
    server: RedisServer, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is lost with the server, a minute has no more than the limit."""
    monkeypatch.setattr(shared_rates, "_RETRY_S", 0.01)
    key = new_key(requests_per_minute=20)
    processes = [shared(server, clock, processes=2) for _ in range(2)]
    for _ in range(3):
        for rates in processes:
            await begin(rates, key)
    server.kill()
    clock.now += 10
    for rates in processes:
        for _ in range(2):
            await begin(rates, key)
    await asyncio.to_thread(server.start)
    while any(rates._is_lost for rates in processes):
        await asyncio.sleep(0.01)
    granted = 10
    for rates in processes:
        outcomes = await asyncio.gather(*(begin(rates, key) for _ in range(30)), return_exceptions=True)
        granted += sum(not isinstance(outcome, BaseException) for outcome in outcomes)
    assert granted == 20
    assert sum("are shared again" in record.getMessage() for record in caplog.records) == 2
    clock.now += 60.001  # from now on one process may use all of it again
    outcomes = await asyncio.gather(*(begin(processes[0], key) for _ in range(30)), return_exceptions=True)
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 20
    for rates in processes:
        await rates.close()


async def test_a_restart_between_two_calls_is_noticed(server: RedisServer, clock: Clock) -> None:
    """The connection is gone, and so is what the server knew: that is reported again."""
    key = new_key(requests_per_minute=6)
    processes = [shared(server, clock, processes=2) for _ in range(2)]
    for rates in processes:
        for _ in range(3):
            await begin(rates, key)
    server.kill()
    await asyncio.to_thread(server.start)
    for rates in processes:
        await refused(rates, key)
    for rates in processes:
        await rates.close()


async def test_a_connection_that_the_server_closed_is_no_outage(
    server: RedisServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    key = new_key(requests_per_minute=4)
    rates = shared(server, clock, processes=4)
    await begin(rates, key)
    await rates._connection.close()
    for _ in range(3):
        await begin(rates, key)  # more than a share
    await refused(rates, key)
    assert not caplog.records
    await rates.close()


async def test_a_server_that_stands_still_holds_up_no_second_call(
    server: RedisServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_rates, "_TIMEOUT_S", 0.05)
    monkeypatch.setattr(shared_rates, "_QUICK_S", 0.01)
    key = new_key(requests_per_minute=1000)
    rates = shared(server, clock)
    await begin(rates, key)
    server.pause()
    try:
        before = rates._connection.runs
        await asyncio.gather(*(begin(rates, key) for _ in range(200)))
        assert rates._connection.runs <= before + 2  # not a timeout for each
    finally:
        server.resume()
    await rates.close()
