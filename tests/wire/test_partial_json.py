"""JSON in pieces: `ijson` judges the completed values, `json.loads` the final one and each wrong byte."""

from __future__ import annotations

import copy
import io
import itertools
import json
import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ijson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cuts
from lm_deluge.errors import DelugeError, InvalidJSONError, ResponseLimitError
from lm_deluge.wire.partial_json import MAX_DIGITS, CompletedValue, IncrementalParser

_SUITE = json.loads(Path(__file__).with_name("json_test_suite.json").read_text("ascii"))
SUITE: dict[str, bytes] = {
    **{name: text.encode("latin-1") for name, text in _SUITE.items()},
    "n_structure_100000_opening_arrays": b"[" * 100_000,
    "n_structure_open_array_object": b'[{"":' * 50_000,
    "i_structure_500_nested_arrays": b"[" * 500 + b"]" * 500,
}

_characters = st.sampled_from(
    ['"', "\\", "/", "\n", "\x01", "\x7f", "a", "b", "\u00e9", "\u20ac", "\U0001f600", "}", "]", ","]
)
_texts = st.text(_characters, max_size=6)
_numbers = (
    st.integers()
    | st.integers(-(10**60), 10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, -1, 0.0, -0.0, 1e300, 1.5e-7])
)
_values = st.recursive(
    st.none() | st.booleans() | _numbers | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)
_positions = st.lists(st.integers(0, 250), max_size=8)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    value = draw(_values)
    indent = draw(st.sampled_from([None, None, 1]))
    separators = draw(st.sampled_from([None, (",", ":"), (" ,\t", "\r: ")]))
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=indent, separators=separators)
    return draw(st.sampled_from(["", " \n"])).encode() + text.encode() + draw(st.sampled_from(["", "\t "])).encode()


def read(parser: IncrementalParser, pieces: Iterable[bytes | str]) -> list[CompletedValue]:
    """Return the values in the order in which they were completed, each as it was then."""
    completed = [copy.deepcopy(each) for piece in pieces for each in parser.feed(piece)]
    return completed + copy.deepcopy(parser.close())


def fault_of(pieces: Iterable[bytes | str], **limits: int) -> tuple[Any, ...] | None:
    """Return class and offset of the error, the values that were complete before it, and the value so far; or None."""
    parser = IncrementalParser(**limits)
    completed: list[CompletedValue] = []
    try:
        for piece in pieces:
            try:
                parser.feed(piece)
            finally:
                completed += copy.deepcopy(parser.completed)
        parser.close()
    except DelugeError as error:
        return type(error), getattr(error, "offset", None), repr(completed), repr(parser.value)
    return None


def completed_by_ijson(document: bytes) -> list[CompletedValue]:
    """Return the completed values by the events of another parser."""
    completed: list[CompletedValue] = []
    stack: list[tuple[tuple, Any, Any]] = [((), [], None)]  # path, container, key of the current value

    def place(value: Any) -> tuple:
        path, container, key = stack[-1]
        if isinstance(container, list):
            container.append(value)
            key = len(container) - 1
        else:
            container[key] = value
        return (*path, key) if len(stack) > 1 else ()

    for event, value in ijson.basic_parse(io.BytesIO(document)):
        if event.startswith("start_"):
            container: Any = [] if event == "start_array" else {}
            path = place(container)
            stack.append((path, container, None))
        elif event.startswith("end_"):
            path, container, _ = stack.pop()
            completed.append((path, container))
        elif event == "map_key":
            stack[-1] = (*stack[-1][:2], value)
        else:
            plain = float(value) if event == "number" and not isinstance(value, int) else value
            completed.append((place(plain), plain))
    return completed


def loads(text: str | bytes) -> Any:
    """`json.loads` without its extensions, and with U+FFFD for lone surrogates."""
    text = text.decode() if isinstance(text, bytes) else text
    if text.startswith("\ufeff"):
        raise ValueError(text)

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    value = json.loads(text, parse_constant=refuse)
    return json.loads(re.sub("[\ud800-\udfff]", "\ufffd", json.dumps(value, ensure_ascii=False)))


def same(first: Any, second: Any) -> bool:
    """Whether values and types are equal: 1, 1.0 and True differ, as do 0.0 and -0.0."""
    return repr(first) == repr(second)


# Valid text


@given(documents(), _positions)
def test_completed_values_and_the_final_one_are_those_of_other_parsers(document: bytes, positions: list[int]) -> None:
    parser = IncrementalParser()
    completed = read(parser, cuts.at(document, positions))
    assert same(parser.value, json.loads(document))
    assert same(completed, completed_by_ijson(document))
    assert completed[-1] == ((), parser.value)
    text = document.decode()
    as_text = IncrementalParser()
    assert same(read(as_text, [text[at : at + 3] for at in range(0, len(text), 3)]), completed)


@given(documents())
def test_every_division_gives_the_same_values_in_the_same_order(document: bytes) -> None:
    whole = read(IncrementalParser(), [document])
    for position in range(len(document)):
        assert same(read(IncrementalParser(), [document[:position], document[position:]]), whole)
    assert same(read(IncrementalParser(), cuts.every(document, 1)), whole)


def is_start(partial: Any, final: Any) -> bool:
    """Whether a value can become `final` by growing at its end alone."""
    if isinstance(partial, str) and isinstance(final, str):
        return final.startswith(partial)
    if isinstance(partial, list) and isinstance(final, list):
        *done, last = partial or [None]
        return not partial or (same(done, final[: len(done)]) and is_start(last, final[len(done)]))
    if isinstance(partial, dict) and isinstance(final, dict):
        *keys, last = partial or [None]
        return not partial or (
            list(partial) == list(final)[: len(partial)]
            and all(same(partial[key], final[key]) for key in keys)
            and is_start(partial[last], final[last])
        )
    return same(partial, final)


@given(documents())
def test_values_only_grow_and_a_complete_one_never_changes(document: bytes) -> None:
    final = json.loads(document)
    parser = IncrementalParser()
    versions, complete = [], []
    for piece in cuts.every(document, 1):
        complete += [(value, copy.deepcopy(value)) for _, value in parser.feed(piece)]
        if parser.open_path is not None and not isinstance(final, int | float):
            versions.append(copy.deepcopy(parser.value))
        assert not parser.is_complete or parser.open_path is None
    assert all(same(value, then) for value, then in complete)
    for earlier, later in itertools.pairwise([*versions, final]):
        assert earlier is None or is_start(earlier, later)


def test_the_value_grows_in_place() -> None:
    parser = IncrementalParser()
    parser.feed('{"a": [1, ')
    value, items = parser.value, parser.value["a"]
    parser.feed('{"b": "x')
    assert parser.value is value
    assert value["a"] is items
    assert items == [1, {"b": "x"}]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("{", {}),
        ('{"a', {}),
        ('{"a": ', {}),
        ('{"a": "', {"a": ""}),
        ('{"a": "x\\', {"a": "x"}),
        ('{"a": "x\\n', {"a": "x\n"}),
        ('{"a": "\\ud83d', {"a": ""}),
        ('{"a": "\\ud83d\\ude00', {"a": "\U0001f600"}),
        ('{"a": 12', {}),
        ('{"a": 12 ', {"a": 12}),
        ('{"a": tru', {}),
        ('{"a": true', {"a": True}),
        ('{"a": [[', {"a": [[]]}),
        ("12", None),
        ('"ab', "ab"),
    ],
)
def test_what_is_visible(text: str, value: Any) -> None:
    parser = IncrementalParser()
    parser.feed(text)
    assert same(parser.value, value)


def test_what_is_open_and_what_is_complete() -> None:
    parser = IncrementalParser()
    assert parser.open_path is None
    assert parser.feed('{"title": "Invoi') == []
    assert parser.open_path == ("title",)
    assert parser.is_open(())
    assert parser.feed('ce", "lines": [{"price": 1.5, "count"') == [
        (("title",), "Invoice"),
        (("lines", 0, "price"), 1.5),
    ]
    assert parser.completed_fields() == [("title", "Invoice")]
    assert parser.open_path == ("lines", 0)
    assert not parser.is_open(("lines", 0, "price"))
    parser.feed(": 2}, 7, 8")
    assert parser.completed_items(("lines",)) == [(0, {"price": 1.5, "count": 2}), (1, 7)]
    assert parser.open_path == ("lines", 2)
    parser.feed("]}")
    assert [path for path, _ in parser.completed] == [("lines", 2), ("lines",), ()]
    assert parser.completed_fields() == [("lines", [{"price": 1.5, "count": 2}, 7, 8])]
    assert parser.is_complete
    assert parser.open_path is None


def test_items_of_the_root_and_no_fields_in_an_array() -> None:
    parser = IncrementalParser()
    parser.feed('["a", [1, 2], {"0": 3}')
    assert parser.completed_items() == [(0, "a"), (1, [1, 2]), (2, {"0": 3})]
    assert parser.completed_fields() == []
    assert parser.completed_items((2,)) == []


def test_the_last_of_two_values_with_one_key_wins() -> None:
    parser = IncrementalParser()
    assert parser.feed('{"a": "first", "a": "') == [(("a",), "first")]
    assert parser.value == {"a": ""}
    assert parser.feed('second"}') == [(("a",), "second"), ((), {"a": "second"})]


def test_only_the_end_completes_a_number_at_the_root() -> None:
    parser = IncrementalParser()
    assert parser.feed("-1.5e2") == []
    assert (parser.value, parser.is_complete, parser.open_path) == (None, False, ())
    assert parser.close() == [((), -150.0)]
    assert parser.is_complete
    assert parser.close() == []


@pytest.mark.parametrize(
    "text", ["1e999", "-1e999", "-0", "-0.0", "1E5", "1" * MAX_DIGITS, "0." + "3" * 1000, "123e-99999"]
)
def test_numbers_are_those_of_json_loads(text: str) -> None:
    parser = IncrementalParser()
    read(parser, [f"[{text}", "]"])
    assert same(parser.value, [json.loads(text)])


@given(st.lists(st.sampled_from(["\ud83d", "\ude00", "a", "\u00e9", "\U0001f600"]), max_size=6), _positions)
def test_pairs_of_surrogates_stay_whole_and_lone_ones_are_replaced(parts: list[str], positions: list[int]) -> None:
    text = "".join(parts)
    expected = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    escaped = "".join(f"\\u{unit:04X}" for unit in memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H"))
    borders = [0, *sorted(positions), len(text) + 250]
    by_character = IncrementalParser()
    read(by_character, f'"{text}"')
    assert by_character.value == expected
    for document in (f'"{escaped}"', f'"{text}"'):
        parser = IncrementalParser()
        read(parser, [document[start:end] for start, end in itertools.pairwise(borders)])
        assert parser.value == expected
    growing = IncrementalParser()
    for character in f'"{escaped}':
        growing.feed(character)
        assert growing.value is None or expected.startswith(growing.value)


# Invalid text

_IN_TOKEN = ["", "\\", "0", "00", "000", "0000", "u0000", "rue", "ue", "e", "alse", "lse", "se", "ull", "ll", "l"]
CONTINUATIONS = ["".join(each) for each in itertools.product(_IN_TOKEN, ("", '"'), ("", ":0", '"":0', "0", ".0"))]


def can_go_on(text: str) -> bool:
    """Whether `json.loads` takes the text with some continuation."""
    closing, is_string = [], False
    for token in re.findall(r'\\.|["\[\]{}]', text):
        if token == '"':
            is_string = not is_string
        elif not is_string and token in "[{":
            closing.append("]" if token == "[" else "}")
        elif not is_string and token in "]}" and closing:
            closing.pop()
    end = "".join(reversed(closing))
    for continuation in CONTINUATIONS:
        try:
            loads(text + continuation + end)
        except ValueError:
            continue
        return True
    return False


def assert_first_wrong_byte(document: bytes, offset: int) -> None:
    assert can_go_on(document[:offset].decode())
    following = next((at for at in range(offset + 1, offset + 4) if is_utf8(document[:at])), None)
    if offset < len(document) and following is not None:
        assert not can_go_on(document[:following].decode())


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(
    documents(), st.integers(0, 10**6), st.sampled_from(sorted('"\\{}[],:0-+.eEtfnu \n\x00x')) | st.just(""), _positions
)
def test_the_error_names_the_first_wrong_byte_however_the_text_is_divided(
    document: bytes, place: int, wrong: str, positions: list[int]
) -> None:
    text = document.decode()
    place %= len(text)
    broken = (text[:place] + wrong + text[place + 1 :]).encode()
    fault = fault_of([broken])
    assert fault_of(cuts.every(broken, 1)) == fault
    assert fault_of(cuts.at(broken, positions)) == fault
    assert fault_of([broken.decode()]) == fault
    if fault is None:
        parser = IncrementalParser()
        read(parser, [broken])
        assert same(parser.value, loads(broken))
    else:
        assert fault[0] is InvalidJSONError
        assert_first_wrong_byte(broken, fault[1])


@pytest.mark.parametrize("name", sorted(SUITE))
def test_the_public_suite(name: str) -> None:
    document = SUITE[name]
    fault = fault_of([document])
    assert fault_of(cuts.every(document, 7 if len(document) > 1000 else 1)) == fault
    if len(document) >= 1000:  # too deep
        assert fault is not None
        assert fault[0] is ResponseLimitError
        return
    try:
        value = loads(document)
    except ValueError:
        assert not name.startswith("y_")
        assert fault is not None
        assert fault[0] is InvalidJSONError
        assert_first_wrong_byte(document, fault[1])
        return
    assert not name.startswith("n_")
    assert fault is None
    parser = IncrementalParser()
    completed = read(parser, cuts.every(document, 1))
    assert same(parser.value, value)
    if name.startswith("y_"):
        assert same(completed, completed_by_ijson(document))


@pytest.mark.parametrize(
    ("document", "offset"),
    [
        (b'{"a": 01}', 7),
        (b'{"a": truX}', 9),
        (b'["\\x"]', 3),
        (b'["\\u12g4"]', 6),
        (b'["\\ud83d\\x"]', 9),
        (b'["a\nb"]', 3),
        (b"[1 2]", 3),
        (b"[1a]", 2),
        (b"[-]", 2),
        (b"[1.e5]", 3),
        (b"[NaN]", 1),
        (b"{'a': 1}", 1),
        (b'{"a": 1,}', 8),
        (b"[1,]", 3),
        (b"[1}", 2),
        (b"\xef\xbb\xbf{}", 0),
        ('["\u20ac", x'.encode(), 8),
        (b'["\xe2\x82"]', 2),
        (b'["a", \xff', 6),
        (b"{} {", 3),
        (b'{"a": [1', 8),
        (b'"\xe2', 1),
        (b"{}\xe2", 2),
        (b"-", 1),
        (b"1.", 2),
        (b"", 0),
    ],
)
def test_offsets(document: bytes, offset: int) -> None:
    for size in (0, 1, 2):
        fault = fault_of(cuts.every(document, size))
        assert fault is not None
        assert fault[:2] == (InvalidJSONError, offset)


def test_half_a_surrogate_pair_after_the_value_is_an_error() -> None:
    assert fault_of(["{}\ud83d"]) == (InvalidJSONError, 2, "[((), {})]", "{}")


def test_a_number_is_not_complete_before_a_wrong_character() -> None:
    assert fault_of(["[1a"]) == fault_of(["[1", "a"]) == (InvalidJSONError, 2, "[]", "[]")


def test_an_error_keeps_what_was_complete_and_quotes_nothing() -> None:
    parser = IncrementalParser()
    with pytest.raises(InvalidJSONError) as caught:
        parser.feed('{"secret": "key-123", "b": ?')
    assert parser.completed == [(("secret",), "key-123")]
    assert parser.value == {"secret": "key-123"}
    assert str(caught.value) == "invalid JSON at byte 27: expected a value."
    assert caught.value.reason == "json"
    for again in (lambda: parser.feed("1}"), parser.close):
        with pytest.raises(InvalidJSONError, match="at byte 27") as repeated:
            again()
        assert repeated.value is not caught.value
    assert parser.completed == []


@pytest.mark.parametrize(
    ("limits", "fits", "exceeds"),
    [
        ({"max_depth": 3}, '[{"a": [1]}, [[]]]', '[{"a": [[]]}]'),
        ({"max_bytes": 11}, '["\u20ac\u20ac1"]', '["\u20ac\u20ac12"]'),
        ({"max_digits": 5}, "[12345, -1.23, 1e-10]", "[123456]"),
        ({"max_digits": 5}, "[-1.23]", "[-1.234]"),
    ],
)
def test_limits(limits: dict[str, int], fits: str, exceeds: str) -> None:
    name = next(iter(limits))
    for size in (0, 1, 2):
        assert fault_of(cuts.every(fits.encode(), size), **limits) is None
        fault = fault_of(cuts.every(exceeds.encode(), size), **limits)
        assert fault == fault_of([exceeds], **limits)
        assert fault is not None
        assert fault[0] is ResponseLimitError
    with pytest.raises(ResponseLimitError, match=f"Raise {name}"):
        IncrementalParser(**limits).feed(exceeds)


def test_the_limit_of_the_interpreter_for_digits_is_one_of_ours() -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        with pytest.raises(ResponseLimitError, match="get_int_max_str_digits"):
            IncrementalParser().feed(f"[{'1' * 700}]")
    finally:
        sys.set_int_max_str_digits(before)


def test_work_is_linear() -> None:
    """The number of calls, of Python and C functions, grows as the size."""

    def calls_for(count: int) -> int:
        item = json.dumps({"name": "some text \u00e9\n" * 3, "price": 1.25, "tags": [True, None, "x"]})
        text = "[" + ",".join([item] * count) + "]"
        parser, calls = IncrementalParser(), 0

        def count_call(frame: object, event: str, argument: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        sys.setprofile(count_call)
        try:
            for at in range(0, len(text), 5):
                parser.feed(text[at : at + 5])
        finally:
            sys.setprofile(None)
        return calls

    assert math.isclose(calls_for(80), 8 * calls_for(10), rel_tol=0.05)
