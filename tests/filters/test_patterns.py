"""Patterns in pieces of text: for all texts and all cuts the result is that of the pattern over the whole text."""

# ruff: noqa: RUF001 - characters beyond the basic plane
from __future__ import annotations

import re
import sys

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from filters.whole_text import Part, Rule, by_pieces, cut, finders_of, over_whole_text, scan
from lm_deluge.errors import ConfigurationError, FilterError, MissingExtraError
from lm_deluge.filters import Redact, patterns
from lm_deluge.filters.patterns import Pattern
from lm_deluge.filters.scanner import Match, Scanner

# Each with the longest match, where the pattern has none.
BOUNDED = [
    ("ab", None),
    ("abcd|bc", None),
    ("ab|abcd", None),
    ("abcd|ab", None),
    ("(?:a|ab)(?:c|bcd)", None),
    ("[ab]{2,3}", None),
    ("[ab]{2,3}?", None),
    (r"\bab\b", None),
    (r"ab\b", None),
    (r"a\B", None),
    (r"a\Bb", None),
    (r"a\B_", None),
    (r"a\b|ab ", None),
    ("ab$", None),
    (r"a\Z", None),
    ("^a", None),
    (r"\Aab?", None),
    ("(?m)^a$", None),
    ("(?m)b$", None),
    ("a(?=b)", None),
    ("a(?!b)", None),
    ("a(?!bc)", None),
    (r"a(?=\b)", None),
    (r"a(?!\b)", None),
    ("a(?=b$)", None),
    ("(?<=a)b", None),
    ("(?<!a)b", None),
    (r"(?<=\bab)c", None),
    ("(?i)AB", None),
    (r"(a)b?\1", None),
    ("(?>ab|a)b", None),
    ("(?x) a  # the first\n b", None),
    ("[$a]b", None),
    (r"\$b", None),
    ("𝔸b?", None),
    ("(?i)é𝔸", None),
]
OPEN = [
    ("a+", 4),
    ("[ab]{2,}", 5),
    (r"a+\b", 4),
    ("a.*b", 7),
    ("a.*?b", 7),
    ("a*b", 6),
    ("a++b", 6),
    (r"\w+c", 5),
    (r"\p{L}+c", 5),
    (r"(?<=\p{L})c+", 3),
    ("a(?=.*c)", 6),
    ("a(?!.*c)", 6),
    ("(?s)a.*", 5),
    ("(a+)+c", 6),
]
COMPILED = [Pattern(source, max_length=length) for source, length in [*BOUNDED, *OPEN]]
LITERALS = ["a", "ab", "abc", "bca", "b c", "𝔸a"]

texts = st.text("aaabbbc $_\né𝔸", max_size=18)
rules = st.lists(st.sampled_from(COMPILED) | st.sampled_from(LITERALS), min_size=1, max_size=4)
places = st.lists(st.integers(0, 18), max_size=6)


@given(rules, texts, places)
def test_the_result_does_not_depend_on_the_cuts(chosen: list[Rule], text: str, positions: list[int]) -> None:
    expected = over_whole_text(chosen, text)
    assert by_pieces(chosen, list(text)) == expected
    assert by_pieces(chosen, [text]) == expected
    assert by_pieces(chosen, cut(text, positions)) == expected


@pytest.mark.parametrize("source", [source for source, _ in BOUNDED])
@given(text=texts)
def test_the_result_is_that_of_regex_over_the_whole_text(source: str, text: str) -> None:
    expected: list[Part] = []
    end = 0
    for found in regex.finditer(source, text):
        expected += text[end : found.start()]
        expected.append(Match(0, found.group(), found.start()))
        end = found.end()
    assert by_pieces([Pattern(source)], list(text)) == [*expected, *text[end:]]


@given(rules, texts, st.text("abc $_\n", max_size=4))
def test_no_character_of_a_match_is_ever_released(chosen: list[Rule], text: str, future: str) -> None:
    scanner, finders = Scanner(), finders_of(chosen)
    released = [part for character in text for part in scan(scanner, character, finders)]
    assert over_whole_text(chosen, text + future)[: len(released)] == released


@pytest.mark.parametrize(
    ("source", "length", "pieces", "released"),
    [
        (r"sk-[a-z0-9]{4,}", 20, ["key sk", "-ab", "cd", "e", "f ", "x"], ["key ", "", "", "", "# ", "x"]),
        (r"\bkey\b", None, ["monkey ", "key", "s key", "."], ["monkey ", "", "keys ", "#."]),
        ("abcd|bc", None, ["abc", "x"], ["", "a#x"]),
        ("(?i)end", None, ["the e", "N", "d"], ["the ", "", "#"]),
        ("cat(?!s)", None, ["cat", "s cat", " "], ["", "cats ", "# "]),
        ("(?<=id: )[0-9]{2}", None, ["id: ", "4", "2", "!"], ["id: ", "", "#", "!"]),
        (r"[\w.]+@[\w.]+", 30, ["mail a.b", "@c.d", "e or", " f"], ["mail ", "", "# ", "or "]),
    ],
)
def test_when_text_leaves(source: str, length: int | None, pieces: list[str], released: list[str]) -> None:
    scanner, finders = Scanner(), finders_of([Pattern(source, max_length=length)])
    found = [scan(scanner, piece, finders) for piece in pieces]
    assert ["".join("#" if isinstance(part, Match) else part for part in parts) for parts in found] == released


def test_a_match_that_is_longer_than_max_length_is_left_out_to_its_end() -> None:
    key = "sk-" + "a1" * 500
    rule = Pattern("sk-[a-z0-9]{4,}", max_length=40)
    parts = by_pieces([rule], [*f"<{key}>"])
    assert parts == ["<", Match(0, key[:40], 1), ">"]
    assert by_pieces([rule], [f"<{key}>"]) == parts


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("a+", {}, "no longest match.*max_length=80"),
        ("a(?=.*b)", {}, "no longest match"),
        ("a{1,20000}", {}, "no longest match"),
        (r"\p{L}", {}, "no longest match"),
        ("a*", {"max_length": 5}, "empty text matches everywhere"),
        (r"\b", {}, "empty text matches everywhere"),
        ("(?=a)", {}, "empty text matches everywhere"),
        (r"x?\p{L}*", {"max_length": 5}, "empty text matches everywhere"),
        ("(", {}, "no regular expression"),
        (r"\L<names>", {"max_length": 5}, "no regular expression"),
        ("(?:abc){e<=1}", {}, "cannot be used"),
        (r"a\Kb", {"max_length": 5}, "cannot be used"),
        ("(?r)ab", {}, "cannot be used"),
        ("(?V1)ab", {}, "cannot be used"),
        ("a(*SKIP)b", {"max_length": 5}, "cannot be used"),
        ("abc", {"max_length": 2}, "shorter than any match"),
        ("a+", {"max_length": 0}, "whole number from 1"),
        ("a+", {"max_length": 10_001}, "whole number from 1"),
        ("a+", {"max_length": True}, "whole number from 1"),
    ],
)
def test_what_cannot_be_matched_in_pieces_is_refused(source: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Pattern(source, **options)


def test_the_package_regex_is_named_if_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "regex", None)
    patterns._regex.cache_clear()
    try:
        with pytest.raises(MissingExtraError, match="pip install regex"):
            Redact("[0-9]")
        assert Redact("plain").literal == "plain"
    finally:
        patterns._regex.cache_clear()


def test_flags_of_re_are_those_of_the_pattern() -> None:
    rule = Pattern("a b$", re.IGNORECASE | re.VERBOSE | re.MULTILINE)
    assert by_pieces([rule], list("AB\nab")) == [Match(0, "AB", 0), "\n", Match(0, "ab", 3)]


def test_a_pattern_of_exponential_time_ends_the_answer() -> None:
    rule = Pattern("(a|aa)+c", max_length=60)
    with pytest.raises(FilterError, match=r"more than 0\.25 s") as caught:
        by_pieces([rule], ["a" * 50 + "!"])
    assert "nested repetition" in str(caught.value)


def test_time_grows_with_the_text_and_not_with_its_square() -> None:
    class Counted(Pattern):
        searched = 0

        def may_match(self, text: str, start: int, end: int) -> tuple[int, int | None] | None:
            type(self).searched += end - start
            return super().may_match(text, start, end)

    read = []
    for size in (1_000, 10_000):
        Counted.searched = 0
        by_pieces([Counted("x[ab]{3,}y", max_length=20)], ["xabab"] * (size // 5))
        read.append(Counted.searched)
    assert read[1] < 11 * read[0]
