"""What to expect of the next answer."""

import random

from lm_deluge.dispatch.lengths import RecentLengths


def test_before_anything_is_known_the_request_s_own_limit_counts() -> None:
    lengths = RecentLengths()
    assert lengths.estimate(100) == 100
    assert lengths.estimate(None) == 4_096
    for _ in range(19):
        lengths.add(10, under_way=1)
    assert lengths.estimate(100) == 100
    assert lengths.deviation == 0.0


def test_nine_of_ten_were_no_longer() -> None:
    lengths = RecentLengths()
    for tokens in range(1, 101):
        lengths.add(tokens, under_way=0)
    assert 80 <= lengths.estimate(None) <= 100
    assert lengths.estimate(50) == 50
    assert 28 <= lengths.deviation <= 30


def test_only_recent_ones_count() -> None:
    lengths = RecentLengths()
    for tokens in [1_000] * 400 + [10] * 400:
        lengths.add(tokens, under_way=0)
    assert lengths.estimate(None) == 10
    assert lengths.deviation < 1e-3


def test_the_first_to_end_are_the_short_ones() -> None:
    lengths = RecentLengths()
    for _ in range(399):
        lengths.add(10, under_way=200)
    assert lengths.estimate(None) == 4_096
    lengths.add(10, under_way=200)
    assert lengths.estimate(None) == 10


def test_small_changes_change_nothing() -> None:
    lengths = RecentLengths()
    chance = random.Random(1)
    seen = set()
    for _ in range(3_000):
        lengths.add(int(chance.lognormvariate(6, 0.5)), under_way=0)
        if lengths.deviation:
            seen.add(lengths.estimate(None))
    assert len(seen) <= 4
