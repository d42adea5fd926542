"""Snapshots of a value that grows: right after each piece, never changed later, and in linear time."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.outputs.snapshots import Snapshots
from lm_deluge.wire.partial_json import IncrementalParser

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=5),
    max_leaves=25,
)
CASES = st.tuples(VALUES, st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(0, 3))


def pieces_of(text: str, sizes: list[int]) -> list[str]:
    pieces, at, number = [], 0, 0
    while at < len(text):
        pieces.append(text[at : at + sizes[number % len(sizes)]])
        at += len(pieces[-1])
        number += 1
    return pieces


@given(CASES)
def test_each_snapshot_is_the_value_so_far_and_stays_so(case: tuple[Any, list[int], int]) -> None:
    value, sizes, kept = case
    parser = IncrementalParser()
    snapshots = Snapshots(parser)
    held: list[tuple[Any, str]] = []  # by a consumer that drops all but the last few
    for piece in pieces_of(json.dumps(value), sizes):
        parser.feed(piece)
        found = snapshots.take()
        assert found == parser.value
        held = [*held, (found, repr(found))][-kept:] if kept else []
        del found
        assert all(repr(snapshot) == shown for snapshot, shown in held)
    parser.close()
    assert snapshots.take() == value


def test_a_consumer_that_keeps_all_has_all() -> None:
    text = json.dumps({"lines": [{"name": "word " * 9, "count": number} for number in range(9)], "end": [1, 2]})
    parser = IncrementalParser()
    snapshots = Snapshots(parser)
    kept, shown = [], []
    for piece in pieces_of(text, [3]):
        parser.feed(piece)
        kept.append(snapshots.take())
        shown.append(repr(kept[-1]))
    assert list(map(repr, kept)) == shown


def test_an_object_with_two_equal_keys() -> None:
    parser = IncrementalParser()
    snapshots = Snapshots(parser)
    for piece in ('{"a": [1, ', '2], "b": 1, ', '"a": {"c": "x', 'y"}, "d', '": 1'):
        parser.feed(piece)
        assert snapshots.take() == parser.value
    assert parser.has_duplicate_keys


@pytest.mark.parametrize("end", [", {}", ', "k{}": 1'])
def test_a_loop_gets_the_same_two_objects_in_turn(end: str) -> None:
    """While a loop waits for the next snapshot it holds one: a long list is not copied for each read."""
    parser = IncrementalParser()
    snapshots = Snapshots(parser)
    parser.feed("[0" if end.startswith(", {") else '{"k": 1')
    seen: set[int] = set()
    snapshot = snapshots.take()
    for number in range(100):
        parser.feed(end.format(number) + " ")
        snapshot = snapshots.take()
        seen.add(id(snapshot))
        assert snapshot == parser.value
    assert len(seen) <= 4


def test_a_consumer_that_holds_the_last_two_gets_copies() -> None:
    parser = IncrementalParser()
    snapshots = Snapshots(parser)
    parser.feed("[0 ")
    one, other = snapshots.take(), None
    for number in range(1, 20):
        parser.feed(f", {number} ")
        other, one = one, snapshots.take()
        assert one == list(range(number + 1))
        assert other == list(range(number))
