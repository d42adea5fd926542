"""Slices of a limit, as headers tell of them."""

from __future__ import annotations

import math
import random

import pytest

from lm_deluge.dispatch.scheduling.fixed_windows import FixedWindows, SendSchedule, WindowLength
from lm_deluge.dispatch.scheduling.limiter import Limit
from lm_deluge.dispatch.scheduling.rate_limit import RateLimitState
from lm_deluge.wire.rate_limit_headers import RateLimit


def told(
    fixed_windows: FixedWindows, *, width_s: float, jitter_s: float, limit: int = 600, seconds: int = 60, seed: int = 1
) -> list[tuple[float, float]]:
    """Send evenly, and tell what a server says that counts in slices which begin at 3.3 s; return what was told."""
    chance = random.Random(seed)
    used: dict[int, int] = {}
    said = []
    for number in range(int(seconds * limit / 60)):
        sent_at = number * 60 / limit
        arrived = sent_at + chance.uniform(0, jitter_s)
        index = math.floor((arrived - 3.3) / width_s)
        used[index] = used.get(index, 0) + 1
        left = max(0.0, limit * width_s / 60 - used[index])
        reset_s = 3.3 + (index + 1) * width_s - arrived
        fixed_windows.observe(sent_at, RateLimit("requests", None, limit, left, reset_s), arrived)
        said.append((sent_at, reset_s))
    return said


@pytest.mark.parametrize("jitter_s", [0.01, 0.5, 1.0])
@pytest.mark.parametrize(("limit", "width_s"), [(60, 10.0), (600, 10.0), (600, 5.0), (6_000, 2.0)])
def test_what_leaves_in_an_open_slice_arrives_in_it(limit: int, width_s: float, jitter_s: float) -> None:
    fixed_windows = FixedWindows(WindowLength(60.0))
    told(fixed_windows, width_s=width_s, jitter_s=jitter_s, limit=limit)
    schedule = fixed_windows.schedule
    assert schedule is not None
    assert (schedule.length_s, schedule.amount) == (width_s, limit * width_s / 60)
    first = (schedule.opens_at - 3.3) % width_s
    last = first + schedule.open_s
    assert 0 <= first <= 0.1 * jitter_s + 0.02, "the fastest arrives when the slice has begun"
    assert last + jitter_s <= width_s + 0.05 * jitter_s, "and the slowest before it ends"
    assert schedule.open_s > width_s - 1.3 * jitter_s - 0.05


def test_ways_that_differ_by_more_than_a_slice_leave_no_safe_moment() -> None:
    fixed_windows = FixedWindows(WindowLength(60.0))
    told(fixed_windows, width_s=1.0, jitter_s=1.0)
    assert fixed_windows.schedule is None
    assert fixed_windows._length.at(60.0) == 1.0, "so that who paces can allow for it"


@pytest.mark.parametrize("limit", [60, 600])
def test_a_window_that_slides_has_no_slices(limit: int) -> None:
    fixed_windows = FixedWindows(WindowLength(60.0))
    for number in range(400):
        now = number * 60.5 / limit
        left = max(0, limit - 1 - number) if number < limit else 3
        fixed_windows.observe(now, RateLimit("requests", None, limit, left, 60.0 - now if now < 60 else 0.3), now)
    assert fixed_windows.schedule is None
    assert fixed_windows._length.by_headers_s is None


def test_a_key_that_others_use_up_has_no_slices() -> None:
    fixed_windows, chance = FixedWindows(WindowLength(60.0)), random.Random(1)
    for number in range(300):
        now = number * 0.1
        fixed_windows.observe(now, RateLimit("requests", None, 600, chance.randint(0, 99), chance.uniform(0, 10)), now)
    assert fixed_windows.schedule is None


def test_headers_that_say_half_tell_nothing() -> None:
    fixed_windows = FixedWindows(WindowLength(60.0))
    for limit, left, reset_s in ((None, 1.0, 1.0), (600.0, None, 1.0), (600.0, 1.0, None)):
        fixed_windows.observe(1.0, RateLimit("requests", None, limit, left, reset_s), 1.0)
    assert fixed_windows._length.by_headers_s is None


def test_slices_are_not_filled_beyond_what_they_have() -> None:
    fixed_windows = FixedWindows(WindowLength(60.0))
    fixed_windows.schedule = SendSchedule(100.0, 10.0, 9.0, 3)
    sent = []
    for _ in range(7):
        sent.append(fixed_windows.earliest(max([100.0, *sent]), 1.0))
        fixed_windows.add(sent[-1])
    assert sent == [100.0] * 3 + [110.0] * 3 + [120.0]
    assert fixed_windows.earliest(119.5, 1.0) == 120.0, "closed"
    assert fixed_windows.earliest(100.0, 0.1) == 130.0, "one each is the least"
    fixed_windows.remove(110.0)
    fixed_windows.remove(55.0)
    assert fixed_windows.earliest(112.0, 1.0) == 112.0


def test_slices_that_are_rounded_up_do_not_sum_up_to_more_than_the_limit() -> None:
    """16 a minute as 3 in ten seconds are 18."""
    fixed_windows = FixedWindows(WindowLength(60.0))
    fixed_windows.schedule = SendSchedule(100.0, 10.0, 9.0, 3)
    sent = []
    for _ in range(19):
        sent.append(fixed_windows.earliest(max([100.0, *sent]), 1.0, 16.0))
        fixed_windows.add(sent[-1])
    assert sent[:16] == [100.0 + 10.0 * (number // 3) for number in range(16)]
    assert sent[16:] == [161.0, 161.0, 161.0], "a minute after those of the first slice, and by what the ways differ"


def test_a_lower_limit_of_the_user_holds_in_slices_too() -> None:
    state = RateLimitState(Limit("requests", 300.0), is_firm=True)
    fixed_windows = state._fixed_windows = FixedWindows(WindowLength(60.0))
    fixed_windows.schedule = SendSchedule(100.0, 1.0, 0.9, 10)  # 600 a minute
    now, sent = 100.0, 0
    while now < 100.0 + 600.0:
        now = max(now, state.earliest(1.0, now, 0.0))
        state.charge(1.0, 1.0, now, now, 0.0, 0.0)
        sent += 1
    assert 2_900 <= sent <= 3_010


def test_what_left_before_slices_were_known_counts_where_it_may_arrive() -> None:
    fixed_windows = FixedWindows(WindowLength(60.0))
    fixed_windows.add(99.5)
    fixed_windows.schedule = SendSchedule(100.0, 10.0, 9.0, 1)
    assert fixed_windows.earliest(101.0, 1.0) == 110.0


def test_old_starts_are_forgotten() -> None:
    fixed_windows = FixedWindows(WindowLength(1.0))
    for number in range(1_000):
        fixed_windows.add(float(number))
    assert len(fixed_windows._starts) <= 4


def test_a_way_longer_than_all_before_narrows_what_is_open() -> None:
    fixed_windows = FixedWindows(WindowLength(60.0))
    said = told(fixed_windows, width_s=10.0, jitter_s=0.2)
    before = fixed_windows.schedule
    assert before is not None
    sent_at, reset_s = said[-1]
    fixed_windows.observe(sent_at, RateLimit("requests", None, 600, 50, reset_s - 2.0), sent_at + 3.0)
    assert fixed_windows.schedule is not None
    assert fixed_windows.schedule.open_s < before.open_s - 1.5
