"""JSON arrays in reads of any size give the same items."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

import cuts
from lm_deluge.errors import ResponseLimitError
from lm_deluge.wire.json_array import JSONArrayDecoder

_values = st.recursive(
    st.none() | st.integers() | st.text(max_size=6) | st.sampled_from(['"', "\\", '\\"', "}]", "[{"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
_items = st.lists(st.dictionaries(st.text(max_size=4), _values, max_size=3), max_size=4)


def items_of(decoder: JSONArrayDecoder, chunks: list[bytes]) -> list[object]:
    return [json.loads(item.data) for chunk in chunks for item in decoder.feed(chunk)]


@given(_items, st.lists(st.integers(0, 200), max_size=6), st.booleans())
def test_items_come_whole_however_they_are_cut(items: list, positions: list[int], is_ascii: bool) -> None:
    body = json.dumps(items, indent=1, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass") + b"\r\n ignored {}"
    decoder = JSONArrayDecoder()
    assert decoder.may_begin(body)
    assert items_of(decoder, cuts.at(body, positions)) == items
    assert decoder.close() is None
    assert items_of(JSONArrayDecoder(), cuts.every(body, 1)) == items


def test_an_item_counts_with_its_last_byte() -> None:
    decoder = JSONArrayDecoder()
    assert items_of(decoder, [b'[{"a": 1},\n{"b": {"c": "}'])[0] == {"a": 1}
    tail = decoder.close()
    assert tail is not None
    assert tail.data == b'{"b": {"c": "}'


def test_an_item_has_a_limit() -> None:
    decoder = JSONArrayDecoder(100)
    assert items_of(decoder, [b'[{"a": 1}, ', b'{"b": "' + b"x" * 200]) == [{"a": 1}]
    assert isinstance(decoder.error, ResponseLimitError)
    assert decoder.feed(b'"}]') == []
