"""The reader of a typed answer, at every boundary of pieces, without a network."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.outputs.answer_type import answer_type
from lm_deluge.outputs.reader import OutputReader
from outputs.invoices import DATA, INVOICE, TEXT, Invoice, Line, text_with

FIELDS = [
    (("number",), "7"),
    (("lines", 0, "name"), "Apple \u00e4"),
    (("lines", 0, "price"), 1.5),
    (("lines", 0), Line(name="Apple \u00e4", price=1.5)),
    (("lines", 1, "name"), "Pear \U0001f600"),
    (("lines", 1, "price"), 2.0),
    (("lines", 1), Line(name="Pear \U0001f600", price=2)),
    (("lines",), INVOICE.lines),
    (("total",), 3.5),
]


def read(text: str, sizes: list[int], kind: Any = Invoice, **options: Any) -> tuple[OutputReader, list[Any], list[Any]]:
    reader = OutputReader(answer_type(kind), **options)
    fields, partials, at, number = [], [], 0, 0
    while at < len(text):
        piece = text[at : at + sizes[number % len(sizes)]]
        at, number = at + len(piece), number + 1
        if reader.feed(piece):
            partials.append(reader.snapshot())
        fields += reader.fields
    return reader, fields, partials


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_each_value_comes_once_and_complete_wherever_the_text_is_cut(sizes: list[int]) -> None:
    reader, fields, partials = read(TEXT, sizes)
    reader.close("stop")
    assert fields == FIELDS
    assert reader.output is not None
    assert (reader.output.value, reader.output.data) == (INVOICE, DATA)
    assert partials[-1] == DATA
    assert (reader.problems, reader.warnings) == ([], ())


@pytest.mark.parametrize("end", range(len(TEXT)))
def test_an_answer_that_ends_anywhere_is_not_valid_and_has_what_arrived(end: int) -> None:
    reader, fields, _ = read(TEXT[:end], [7])
    reader.close("length")
    assert reader.output is None
    assert fields == FIELDS[: len(fields)]
    ((path, text),) = reader.problems
    assert text.startswith("the answer reached the token limit")
    assert reader.snapshot() == (None if not end else reader._parser.value)
    if end == TEXT.index("Pear"):
        assert path == ("lines", 1, "name")


SURROUNDED: dict[str, tuple[str, tuple[str, ...]]] = {
    "alone": (TEXT, ()),
    "in a fence": (f"```json\n{TEXT}\n```", ("json_in_fence",)),
    "after text": (f"Here it is: {TEXT}", ("text_before_json",)),
    "before text": (f"{TEXT} I hope this helps.", ("text_after_json",)),
    "before a second object": (f"{TEXT}\n{TEXT}", ("second_json",)),
    "all of it": (
        f"Sure:\n```\n{TEXT}\n```\nOr {{}}",
        ("text_before_json", "json_in_fence", "second_json", "text_after_json"),
    ),
    "two equal keys": (TEXT.replace('"total"', '"total": 1, "total"'), ("duplicate_keys",)),
}  # fmt: skip


@pytest.mark.parametrize("name", SURROUNDED)
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_what_surrounds_the_object_is_a_warning(name: str, size: int) -> None:
    text, warnings = SURROUNDED[name]
    reader, _, _ = read(text, [size])
    reader.close("stop")
    assert reader.output is not None
    assert reader.output.value == INVOICE
    assert set(reader.warnings) == set(warnings)


WRONG: dict[str, tuple[str, tuple[Any, ...], str]] = {
    "a wrong value": (text_with(total="much"), ("total",), "valid number"),
    "a value that a validator rejects": (text_with(total=-1), ("total",), "the total is negative"),
    "a wrong value in a list": (text_with(lines=[{"name": "a", "price": "x"}]), ("lines", 0, "price"), "valid number"),
    "a missing field": (text_with(total=None), ("total",), "Field required"),
    "a missing field in a list": (text_with(lines=[{"name": "a"}]), ("lines", 0, "price"), "Field required"),
    "no object": ("I cannot do that.", (), "there is no JSON object"),
    "nothing": ("", (), "there is no JSON object"),
    "no JSON": (TEXT.replace('"total"', "total"), (), "not valid JSON"),
    "single quotes": (TEXT.replace('"number": "7"', "\"number\": '7'"), (), "not valid JSON"),
    "a comma too many": (TEXT.replace("3.5}", "3.5,}"), (), "not valid JSON"),
    "too deep": (TEXT.replace('"7"', "[" * 300), ("number", *[0] * 198), "inside each other"),
}


@pytest.mark.parametrize("name", WRONG)
def test_where_an_answer_is_wrong(name: str) -> None:
    text, path, words = WRONG[name]
    reader, _, _ = read(text, [4])
    reader.close("stop")
    assert reader.output is None
    assert reader.problems[0][0][: len(path)] == path
    assert words in reader.problems[0][1]


def test_the_first_wrong_value_ends_the_reading_or_the_end_names_all() -> None:
    text = text_with(number=[1], total="x")
    reader, fields, _ = read(text, [3])
    assert reader.is_ended
    assert [path for path, _ in reader.problems] == [("number",)]
    assert fields == [(("number", 0), 1)]  # of which nothing is known, as a text is expected
    reader, fields, _ = read(text, [3], stops_early=False)
    assert [path for path, _ in reader.problems] == [("number",), ("total",)]
    assert [path for path, _ in fields if len(path) == 1] == [("lines",)]


def test_a_validator_sees_each_value_only_when_it_is_complete() -> None:
    seen: list[float] = []

    class Watched(Invoice):
        def model_post_init(self, context: Any) -> None:
            seen.append(self.total)

    read(TEXT.replace("3.5", "3.25"), [1], Watched)
    assert set(seen) == {3.25}


def test_null_stands_for_a_field_that_may_be_missing() -> None:
    text = text_with(note="-").replace('"-"', "null")
    reader, fields, partials = read(text, [5])
    assert reader.output is not None
    assert reader.output.value == INVOICE
    assert reader.output.data == DATA
    assert ("note",) not in [path for path, _ in fields]
    assert partials[-1]["note"] is None


@pytest.mark.parametrize("size", [1, 4, 100])
def test_a_wrapped_answer_is_unwrapped(size: int) -> None:
    text = json.dumps({"value": DATA["lines"]})
    reader, fields, partials = read(text, [size], list[Line])
    assert reader.output is not None
    assert reader.output.value == INVOICE.lines
    assert partials[-1] == DATA["lines"]
    assert [path for path, _ in fields] == [(0, "name"), (0, "price"), (0,), (1, "name"), (1, "price"), (1,)]
    reader, fields, _ = read('{"valeu": [1]}', [size], list[int])
    assert reader.problems == [((), "the property 'value' is missing")]
    reader, _, _ = read('{"value": 3}', [size], int)
    assert reader.output is not None
    assert reader.output.value == 3
