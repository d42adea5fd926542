"""The first JSON value of a text: where it begins and ends, and what is reported about the rest."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.wire.json_in_text import IN_FENCE, SECOND_VALUE, TEXT_AFTER, TEXT_BEFORE, JSONInText
from lm_deluge.wire.partial_json import IncrementalParser


def split(text: str, size: int, opening: str = "{[") -> tuple[str, set[str], bool]:
    finder = JSONInText(opening)
    found = "".join(finder.feed(text[at : at + size]) for at in range(0, len(text), size))
    finder.close()
    assert len(set(finder.warnings)) == len(finder.warnings)
    assert finder.is_found == bool(found)
    return found, set(finder.warnings), finder.is_complete


CASES = [
    ('{"a": 1}', '{"a": 1}', set()),
    (' \n[1, {"]": "\\"}"}] \n', '[1, {"]": "\\"}"}]', set()),
    ("\ufeff{}", "{}", set()),
    ('```json\n{"a": 1}\n```', '{"a": 1}', {IN_FENCE}),
    ("```\r\n[true]\r\n```\r\n", "[true]", {IN_FENCE}),
    ("~~~ json5\n[]\n~~~", "[]", {IN_FENCE}),
    ("```json" + "\n" * 300 + "{}" + " " * 300 + "\n```", "{}", {IN_FENCE}),
    ('Sure! Here it is:\n\n```json\n{"a": 1}\n```\nAnything else?', '{"a": 1}', {TEXT_BEFORE, IN_FENCE, TEXT_AFTER}),
    ("word " * 50 + "\n```json\n{}\n```", "{}", {TEXT_BEFORE, IN_FENCE}),
    ("`code` then {}", "{}", {TEXT_BEFORE}),
    ("``` x\ny {}", "{}", {TEXT_BEFORE}),
    ("``` \nx {}", "{}", {TEXT_BEFORE}),
    ('As in [the docs](x), {name} is: {"a": [1]}', '{"a": [1]}', {TEXT_BEFORE}),
    ("[trux] [false]", "[false]", {TEXT_BEFORE}),
    ("[ \n\t1]", "[ \n\t1]", set()),
    ('{{"a": "}"}}', '{"a": "}"}', {TEXT_BEFORE, TEXT_AFTER}),
    ('{"a": 1} {"b": 2}', '{"a": 1}', {SECOND_VALUE}),
    ('{"a": 1}\n\nor\n\n[2]', '{"a": 1}', {TEXT_AFTER, SECOND_VALUE}),
    ("{} [", "{}", {TEXT_AFTER}),
    ("{} [note]", "{}", {TEXT_AFTER}),
    ("{}" + "\n" * 200 + "x" * 200, "{}", {TEXT_AFTER}),
    ('{"a": "\\\\"}', '{"a": "\\\\"}', set()),
    ('{"a": 1]', '{"a": 1]', set()),  # the parser finds what is wrong
]


@pytest.mark.parametrize(("text", "found", "warnings"), CASES)
def test_what_is_found_and_reported_however_the_text_is_divided(text: str, found: str, warnings: set[str]) -> None:
    for size in range(1, len(text) + 1):
        assert split(text, size) == (found, warnings, True)


@pytest.mark.parametrize("text", ["", "no JSON", "{'a': 1}", "{a: 1}", "[the list]", "[nul", "{ ", '"text"', "12"])
def test_a_text_without_a_value(text: str) -> None:
    for size in range(1, len(text) + 1):
        assert split(text, size) == ("", set(), False)


def test_a_value_that_does_not_end() -> None:
    for size in (1, 3, 100):
        assert split('Yes: {"a": [1, 2', size) == ('{"a": [1, 2', {TEXT_BEFORE}, False)


def test_only_an_object_or_only_an_array() -> None:
    text = 'See [1]: {"a": [2]}'
    for size in range(1, len(text) + 1):
        assert split(text, size, "{")[0] == '{"a": [2]}'
        assert split(text, size, "[")[0] == "[1]"


def test_json_leaves_at_once() -> None:
    finder = JSONInText()
    assert [finder.feed(piece) for piece in ("Well, {", '"', "a", '": "\\', '"}', '"}', "}")] == [
        "", '{"', "a", '": "\\', '"}', '"}', "",
    ]  # fmt: skip


_inner = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('"\\{}[]a`\n'), max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab\\", max_size=2), inner, max_size=2),
    max_leaves=5,
)


@given(
    st.lists(_inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), _inner, max_size=3),
    st.sampled_from(["", "Here: ", "```json\n", "a {b} [c]\n"]),
    st.sampled_from(["", "\n```", " and so on {", "\n[1]"]),
    st.integers(1, 30),
)
def test_the_parser_gets_the_value_and_nothing_else(value: object, before: str, after: str, size: int) -> None:
    finder, parser = JSONInText(), IncrementalParser()
    text = before + json.dumps(value) + after
    for at in range(0, len(text), size):
        parser.feed(finder.feed(text[at : at + size]))
        assert parser.is_complete == finder.is_complete
    finder.close()
    assert parser.value == value
    assert bool(finder.warnings) == bool(before or after.strip("\n`"))
