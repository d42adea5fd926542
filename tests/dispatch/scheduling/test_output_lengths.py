"""The estimates for the next response and for responses in flight."""

import math
import random

import pytest

from lm_deluge.dispatch.scheduling.output_lengths import Expected, RecentLengths


def answered(lengths: RecentLengths, sizes: list[int], at: float = 0.0) -> float:
    """Record responses of these lengths, one starting each second, each taking 10 ms per token."""
    for tokens in sizes:
        answer = lengths.begin(at, 100, 500, None)
        lengths.end(answer, at + tokens / 100, tokens)
        at += 1.0
    return at


def test_before_anything_is_known_the_request_s_own_limit_counts() -> None:
    lengths = RecentLengths()
    assert lengths.estimate(100) == 100
    assert lengths.estimate(None) == 4_096
    answered(lengths, [10] * 19)
    assert not lengths.is_known
    assert lengths.estimate(100) == 100
    assert lengths.in_flight(20.0, -math.inf) == (Expected(0.0, 0.0), 0.0)


def test_the_mean_is_expected_and_never_more_than_the_request_allows() -> None:
    lengths = RecentLengths()
    answered(lengths, list(range(1, 100)))
    assert lengths.estimate(None) == 50
    assert lengths.estimate(20) == 20


def test_only_recent_ones_count() -> None:
    lengths = RecentLengths()
    answered(lengths, [5_000] * 100 + [10] * 4_000)
    assert lengths.estimate(None) == 10


def test_short_ones_end_first_and_count_when_all_before_them_have_ended() -> None:
    lengths = RecentLengths()
    chance = random.Random(1)
    sizes = [int(chance.lognormvariate(6, 1)) for _ in range(400)]
    begun = [(lengths.begin(0.0, 100, 0, None), size) for size in sizes]
    for answer, size in sorted(begun, key=lambda each: each[1])[:200]:
        lengths.end(answer, size / 100, size)
    assert not lengths.is_known, "half of them, and the shorter half"
    for answer, size in sorted(begun, key=lambda each: each[1])[200:]:
        lengths.end(answer, size / 100, size)
    assert lengths.estimate(None) == math.ceil(sum(sizes) / len(sizes))


def test_one_that_never_ends_stops_no_learning() -> None:
    lengths = RecentLengths()
    straggler = lengths.begin(0.0, 100, 0, None)
    answered(lengths, [100] * 40)
    assert not lengths.is_known
    answered(lengths, [100] * 40, at=60.0)
    assert lengths.estimate(None) == 100
    lengths.end(straggler, 900.0, 90_000)
    answered(lengths, [100] * 10, at=101.0)
    assert lengths.estimate(None) > 100, "it counts when it ends"


def test_what_was_cut_off_tells_nothing() -> None:
    lengths = RecentLengths()
    for _ in range(100):
        lengths.end(lengths.begin(0.0, 100, 0, None), 1.0, None)
    assert not lengths.is_known


def test_what_takes_long_will_be_long() -> None:
    lengths = RecentLengths()
    now = answered(lengths, [100, 3_000] * 100)
    lengths.begin(now, 100, 1_550, None)
    assert lengths.in_flight(now, -math.inf)[0].mean == pytest.approx(0.0, abs=1.0)
    assert lengths.in_flight(now + 10, -math.inf)[0].mean == pytest.approx(1_450.0), "not one of the short ones"
    assert lengths.in_flight(now + 300, -math.inf)[0].mean > 10_000, "longer than any"
    assert lengths.in_flight(now + 10, now)[0].mean == 0.0, "what began before is not asked for"


def test_more_under_way_are_less_sure_and_many_known_are_surer() -> None:
    few, many = RecentLengths(), RecentLengths()
    now = answered(few, [100, 900] * 10)
    then = answered(many, [100, 900] * 900)
    one = few.begin(now, 0, 500, None)
    alone = few.in_flight(now, -math.inf)[0].variance
    few.begin(now, 0, 500, None)
    assert few.in_flight(now, -math.inf)[0].variance > 1.9 * alone
    few.end(one, now + 1, 900)
    many.begin(then, 0, 500, None)
    assert many.in_flight(then, -math.inf)[0].variance < 0.5 * alone


def test_the_share_that_inputs_come_to() -> None:
    lengths = RecentLengths()
    assert lengths.input_share == 1.0
    for _ in range(30):
        lengths.note_input(100, 70)
        lengths.note_input(100, 90)
        lengths.note_input(0, 5)
    now = answered(lengths, [10] * 30)
    assert lengths.input_share == pytest.approx(0.8)
    lengths.begin(now, 1_000, 10, None)
    assert lengths.in_flight(now, -math.inf)[1] == pytest.approx(100.0**2)


def test_rare_long_ones_are_allowed_for() -> None:
    even, skewed = Expected(1_000.0, 10_000.0), Expected(1_000.0, 10_000.0, 3_000_000.0)
    assert Expected(7.0, 0.0).at_most(3.0) == 7.0
    assert even.at_most(3.0) == 1_300.0
    assert skewed.at_most(3.0) == 1_700.0
    assert even.plus(skewed) == Expected(2_000.0, 20_000.0, 3_000_000.0)
