"""While nobody listens at the provider's, one request goes now and then, and the others wait."""

import asyncio

from lm_deluge.dispatch.batch.circuit_breaker import CircuitBreaker
from lm_deluge.errors import CertificateError, ConnectError, ServerError, StreamInterruptedError


async def test_one_is_let_through_now_and_then() -> None:
    gate = CircuitBreaker((0.02, 0.03, 0.04))
    left: list[int] = []

    async def call(number: int) -> None:
        await gate.wait()
        left.append(number)

    await call(0)
    gate.note(ConnectError("nobody"))
    gate.note(ConnectError("nobody"))
    assert gate.is_on
    tasks = [asyncio.create_task(call(number)) for number in range(1, 6)]
    async with asyncio.timeout(10):
        while len(left) < 3:
            await asyncio.sleep(0.001)
    assert len(left) < 6
    gate.note(ServerError("there, but ill", status_code=500))
    assert not gate.is_on
    await asyncio.gather(*tasks)
    assert sorted(left) == [0, 1, 2, 3, 4, 5]


async def test_what_is_no_outage() -> None:
    gate = CircuitBreaker()
    for error in (CertificateError("not to be trusted"), StreamInterruptedError("cut"), None):
        gate.note(error)
        assert not gate.is_on
        await gate.wait()
    gate.note(ConnectError("nobody"))
    gate.note(StreamInterruptedError("cut"))  # says nothing about who listens now
    assert gate.is_on


async def test_where_nobody_ever_was_there_is_no_hope() -> None:
    for was_reached in (False, True):
        gate = CircuitBreaker((0.001,))
        if was_reached:
            gate.note(None)
        for _ in range(4):
            assert not gate.is_hopeless
            gate.note(ConnectError("nobody"))
            await gate.wait()
        assert gate.is_hopeless != was_reached
