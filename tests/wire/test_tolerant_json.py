"""Objects with fields of unexpected types are decoded without these fields."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.wire.tolerant_json import NotJSONError, TolerantDecoder, convert_tolerantly, decode_json


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


class Report:
    """Records the values that are omitted."""

    def __init__(self) -> None:
        self.skipped: list[Any] = []

    def skip_value(self, value: Any) -> None:
        self.skipped.append(value)


@pytest.mark.parametrize(
    ("data", "skipped"),
    [
        (b'{"name": "a", "Size": 1, "unknown": 5}', []),
        (b'{"name": 5}', [5]),
        (b'{"name": null, "leaf": null, "leaves": null, "pair": null}', []),
        (b'{"name": [], "Size": "1"}', [[], "1"]),
        (b'{"Size": 2.0, "leaf": {"word": "w", "number": 3.0}}', []),
        (b'{"Size": 2.5}', [2.5]),
        (b'{"leaf": {"word": "w", "number": "x"}}', ["x"]),
        (b'{"leaf": {"number": 1}}', [{"number": 1}]),
        (b'{"leaves": [{"word": "w"}, 5, {"word": "v", "number": {}}]}', [5, {}]),
        (b'{"extra": "x", "pair": {}}', ["x", {}]),
        (b"5", [None]),
        (b"null", [None]),
    ],
    ids=str,
)
def test_each_omitted_value_is_reported(data: bytes, skipped: list[Any]) -> None:
    report = Report()
    DECODER.decode(data, report)
    assert report.skipped == skipped


def test_integral_numbers_are_integers() -> None:
    assert DECODER.decode(b'{"Size": 2.0, "leaf": {"word": "w", "number": 3e1}}') == Tree(size=2, leaf=Leaf("w", 30))


def test_fields_are_looked_up_once_for_each_struct(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fresh(msgspec.Struct):
        name: str | None = None
        leaf: Leaf | None = None

    looked_up = []
    fields = msgspec.structs.fields
    monkeypatch.setattr(msgspec.structs, "fields", lambda kind: looked_up.append(kind) or fields(kind))
    for _ in range(50):
        convert_tolerantly({"name": 5, "leaf": {"word": "w", "number": "x"}}, Fresh)
        convert_tolerantly({"name": "fits"}, Fresh)
    assert looked_up.count(Fresh) == 1
    assert looked_up.count(Leaf) <= 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (rb'"\ud800"', "\ufffd"),
        (rb'"\\ud800"', r"\ud800"),
        (rb'"\\\ud800"', "\\\ufffd"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'"\ude00\ud83d"', "\ufffd\ufffd"),
        (rb'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (rb'{"\udfff": 1}', {"\ufffd": 1}),
        (b'"a\xffb"', "a\ufffdb"),
    ],
)
def test_broken_text_is_repaired(text: bytes, value: Any) -> None:
    assert decode_json(text) == value


@given(st.recursive(st.text() | st.integers(0, 9), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_text_is_read_as_by_the_standard_library(value: Any) -> None:
    """The standard library takes halves of pairs for characters."""
    text = json.dumps(value)
    assert decode_json(text.encode()) == _without_surrogates(json.loads(text))


@given(st.lists(st.sampled_from([r"\ud83d", r"\ude00", r"\uDfFf", r"\\", r"\n", "a", "ud800", r"\u0041"])))
def test_any_escapes_are_read_as_by_the_standard_library(pieces: list[str]) -> None:
    text = '"' + "".join(pieces) + '"'
    assert decode_json(text.encode()) == decode_json(text) == _without_surrogates(json.loads(text))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return (
        "".join("\ufffd" if "\ud800" <= each <= "\udfff" else each for each in value)
        if isinstance(value, str)
        else value
    )
