"""A block that must be over by a time: it does what `asyncio.timeout_at` does, and can be ended from elsewhere."""

import asyncio
import builtins

import pytest

from lm_deluge.api_requests.timeouts import Deadline


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_what_waits_beyond_the_time_is_interrupted() -> None:
    with pytest.raises(builtins.TimeoutError), Deadline(now() - 1) as deadline:
        await asyncio.Event().wait()
    assert deadline.is_past
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
    await asyncio.sleep(0)  # nothing of it is left that would hit what comes after


async def test_a_block_that_ends_before_leaves_no_timer() -> None:
    with Deadline(now() + 3600) as deadline:
        await asyncio.sleep(0)
    assert not deadline.is_past
    assert deadline._handle is None


async def test_without_a_time_only_somebody_else_ends_it() -> None:
    deadline = Deadline()
    asyncio.get_running_loop().call_soon(deadline.pass_now)
    with pytest.raises(builtins.TimeoutError), deadline:
        await asyncio.Event().wait()


async def test_what_was_over_before_is_not_interrupted_any_more() -> None:
    deadline = Deadline()
    with deadline:
        deadline.pass_now()
    deadline.pass_now()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not deadline.is_past


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_cancellation_from_outside_stays_one(is_first: bool) -> None:
    deadline = Deadline()

    async def wait() -> None:
        with deadline:
            await asyncio.Event().wait()

    task = asyncio.get_running_loop().create_task(wait())
    await asyncio.sleep(0)
    if is_first:
        task.cancel()
    deadline._pass()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_from_within_goes_through_as_it_is() -> None:
    with pytest.raises(ValueError, match="mine"), Deadline(now() + 3600):
        raise ValueError("mine")


async def test_one_in_another_each_knows_its_own() -> None:
    outer, inner = Deadline(), Deadline(now() + 3600)
    asyncio.get_running_loop().call_soon(outer.pass_now)
    with pytest.raises(builtins.TimeoutError), outer, inner:
        await asyncio.Event().wait()
    assert outer.is_past
    assert not inner.is_past


async def test_it_says_nothing_of_a_task_that_was_cancelled_before() -> None:
    async def wait() -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            with pytest.raises(builtins.TimeoutError), Deadline(now() - 1):
                await asyncio.Event().wait()
            assert task.cancelling() == 1
            raise

    task = asyncio.get_running_loop().create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
