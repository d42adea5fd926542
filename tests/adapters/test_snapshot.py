"""The rule that reconciles streamed deltas with a snapshot, for all wire APIs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.adapters.snapshot import StreamedText, extend_json, is_same_json, joined

pieces = st.lists(st.text(alphabet="ab", max_size=3), max_size=400)


def streamed(*parts: str) -> StreamedText:
    text = StreamedText()
    for part in parts:
        text.add(part)
    return text


@given(pieces, st.text(alphabet="ab", max_size=8))
def test_the_rest_of_a_snapshot_that_begins_with_the_text(parts: list[str], rest: str) -> None:
    text, whole = streamed(*parts), "".join(parts)
    assert text.length == len(whole)
    assert text.rest_of(whole + rest) == rest
    assert text.agrees(whole + rest)
    assert text.rest_of(whole + "c" + rest) == "c" + rest
    assert "".join(text) == str(text) == whole


@given(pieces, pieces, st.text(alphabet="ab", max_size=30))
def test_pieces_compare_as_their_text(one: list[str], two: list[str], snapshot: str) -> None:
    whole = "".join(one + two)
    text = joined([streamed(*one), streamed(*two)])
    expected = snapshot[len(whole) :] if snapshot.startswith(whole) else None
    assert text.rest_of(snapshot) == ("" if not snapshot else expected)
    assert text.agrees(snapshot) == (snapshot.startswith(whole) or whole.startswith(snapshot))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"id": "a"}, {"id": "b", "encrypted_content": "x"}, {"id": "a", "encrypted_content": "x"}),
        ({"a": None, "b": "", "c": [], "d": {}}, {"a": 1, "b": "t", "c": [1], "d": {"e": 1}}, None),
        ({"a": {"b": 1}}, {"a": {"b": 2, "c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({"a": [1], "code": "x ="}, {"a": [1, 2], "code": "x = 1"}, {"a": [1, 2], "code": "x = 1"}),
    ],
)
def test_objects_get_what_only_the_snapshot_has(old: Any, new: Any, expected: Any) -> None:
    assert extend_json(old, new) == (new if expected is None else expected)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"a": 1}, {"a": 1}),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"a": 1, "b": None}),
        ({"a": [1, 2]}, {"a": [1]}),
        ({"a": [2]}, {"a": [1, 2]}),
        ({"a": "xy"}, {"a": "x"}),
        ({"a": None}, {"a": ""}),
        ("", []),
        ({}, None),
    ],
)
def test_an_object_stays_itself_where_the_snapshot_has_no_more(old: Any, new: Any) -> None:
    assert extend_json(old, new) is old


def test_json_is_the_same_with_other_whitespace() -> None:
    assert is_same_json('{"a":1,"b":2}', '{"b": 2, "a": 1}')
    assert not is_same_json('{"a":1}', '{"a":2}')
    assert not is_same_json('{"a":', '{"a":')
