"""Objects with fields of unexpected types are decoded without these fields."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.wire.tolerant_json import NotJSONError, TolerantDecoder, convert_tolerantly


class Leaf(msgspec.Struct):
    word: str
    number: int = 0


class Tree(msgspec.Struct):
    name: str | None = None
    size: int | None = msgspec.field(default=None, name="Size")
    leaf: Leaf | None = None
    leaves: list[Leaf] | None = None
    extra: dict[str, Any] | None = None
    pair: tuple[int, ...] = ()


DECODER = TolerantDecoder(Tree)
CASES: list[tuple[bytes, Tree | None]] = [
    (b"{}", Tree()),
    (b'{"name": "a", "Size": 1, "unknown": [{}]}', Tree("a", 1)),
    (b'{"name": 5, "Size": 1}', Tree(None, 1)),
    (b'{"name": "a", "Size": "x", "pair": null}', Tree("a")),
    (b'{"name": "a", "size": 1}', Tree("a")),
    (b'{"name": "a", "leaf": {"word": "w", "number": "x"}}', Tree("a", leaf=Leaf("w"))),
    (b'{"name": "a", "leaf": {"number": 1}}', Tree("a")),
    (b'{"name": "a", "leaf": [1]}', Tree("a")),
    (
        b'{"leaves": [{"word": "w"}, 5, {"number": 1}, {"word": "v", "number": []}]}',
        Tree(leaves=[Leaf("w"), Leaf("v")]),
    ),
    (b'{"name": "a", "leaves": {"word": "w"}}', Tree("a")),
    (b'{"name": "a", "leaves": [[]], "extra": []}', Tree("a", leaves=[])),
    (b'{"name": "\xff", "extra": {"a": 1}}', Tree("\ufffd", extra={"a": 1})),
    (b"[]", None),
    (b"5", None),
    (b"null", None),
    (b'"text"', None),
]


@pytest.mark.parametrize(("data", "expected"), CASES, ids=lambda value: str(value)[:60])
def test_what_does_not_fit_is_left_out(data: bytes, expected: Tree | None) -> None:
    assert DECODER.decode(data) == expected


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"a": }', b"nope", b"{}{}", b"[" * 100_000, b"\xff", b"NaN", b"\xef\xbb\xbf{}"]
)
def test_what_is_no_json(data: bytes) -> None:
    with pytest.raises(NotJSONError):
        DECODER.decode(data)


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "Size", "leaf", "leaves", "word", "number", "pair"]), inner)
    ),
)


@given(_ANY)
def test_any_value_converts_or_is_none(value: Any) -> None:
    found = convert_tolerantly(value, Tree)
    assert isinstance(found, Tree) if isinstance(value, dict) else found is None
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        assert found is not None
        assert found.name == value["name"]
