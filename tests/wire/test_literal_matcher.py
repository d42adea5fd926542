"""Literals in pieces of text: `re` over the whole text judges what is found, all continuations what is held back."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.whole_text import Part, by_pieces, cut, finders_of, scan
from lm_deluge.errors import ConfigurationError
from lm_deluge.filters.scanner import Match, Scanner
from lm_deluge.wire.literal_matcher import Candidate, LiteralMatcher, Literals

_literals = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=5)
_texts = st.text("abc", max_size=24)


def by_re(literals: list[str], text: str) -> list[Part]:
    """Return single characters and matches, as `re` finds them in the whole text."""
    parts: list[Part] = []
    end = 0
    for found in re.finditer("|".join(map(re.escape, literals)), text):
        parts += text[end : found.start()]
        parts.append(Match(literals.index(found.group()), found.group(), found.start()))
        end = found.end()
    return [*parts, *text[end:]]


@given(_literals, _texts, st.lists(st.integers(0, 24), max_size=6))
def test_the_result_is_that_of_re_over_the_whole_text(literals: list[str], text: str, positions: list[int]) -> None:
    expected = by_re(literals, text)
    assert by_pieces(literals, cut(text, positions)) == expected
    assert by_pieces(literals, list(text)) == expected
    assert by_pieces(literals, [text]) == expected


@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=3), st.text("abc", max_size=6))
def test_exactly_what_depends_on_the_rest_is_held_back(literals: list[str], text: str) -> None:
    futures = ["".join(letters) for size in range(5) for letters in itertools.product("abc", repeat=size)]
    scanner, finders = Scanner(), finders_of(literals)
    given_out = [part for character in text for part in scan(scanner, character, finders)]
    outcomes = [by_re(literals, text + future) for future in futures]
    certain = [
        column[0] for column in itertools.takewhile(lambda column: len(set(column)) == 1, zip(*outcomes, strict=False))
    ]
    # A character of the future is no part of the present, though all futures may agree on what follows.
    assert given_out == certain[: len(given_out)]
    length = sum(len(part) if isinstance(part, str) else len(part.text) for part in given_out)
    assert scanner.held == text[length:]
    following = certain[len(given_out) :][:1]
    assert not following or not scanner.held


@pytest.mark.parametrize(
    ("literals", "pieces", "parts"),
    [
        (["abcd", "bc"], ["abc", "x"], [[], ["a", Match(1, "bc", 1), "x"]]),
        (["abcd", "bc"], ["abc", "d"], [[], [Match(0, "abcd", 0)]]),
        (["ab", "abcd"], ["ab", "cd"], [[Match(0, "ab", 0)], ["c", "d"]]),
        (["abcd", "ab"], ["ab", "ce"], [[], [Match(1, "ab", 0), "c", "e"]]),
        (["</think>"], ["a</", "think", "> b"], [["a"], [], [Match(0, "</think>", 1), " ", "b"]]),
        (["aa"], ["a", "a", "a"], [[], [Match(0, "aa", 0)], []]),
        (["END"], ["ENEN", "D."], [["E", "N"], [Match(0, "END", 2), "."]]),
        (["a-b]^"], ["a-b", "]", "^"], [[], [], [Match(0, "a-b]^", 0)]]),
    ],
)
def test_when_text_and_matches_leave(literals: list[str], pieces: list[str], parts: list[list[Part]]) -> None:
    scanner, finders = Scanner(), finders_of(literals)
    assert [scan(scanner, piece, finders) for piece in pieces] == parts


def test_the_end_releases_what_is_held_and_decides() -> None:
    scanner, finders = Scanner(), finders_of(["abcd", "ab", "c"])
    assert scan(scanner, "abc", finders) == []
    assert scanner.held == "abc"
    assert scan(scanner, "", finders, is_end=True) == [Match(1, "ab", 0), Match(2, "c", 2)]
    assert scanner.held == ""


def test_a_search_that_goes_on_reads_only_the_new_characters() -> None:
    class Counted(str):
        __slots__ = ()
        read = 0

        def __getitem__(self, key: object) -> str:
            type(self).read += 1
            return super().__getitem__(key)  # type: ignore[index]

    literal = "a" * 1_000 + "b"
    matcher, size = LiteralMatcher(Literals([literal])), 900
    for length in range(1, size + 1):
        assert matcher.find(Counted("a" * length), 0, 0) == Candidate(0, 0, None)
    assert Counted.read == size


@pytest.mark.parametrize("literals", [[], ["a", ""]])
def test_literals_that_match_everywhere_are_refused(literals: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="at least one literal, and none of them empty"):
        Literals(literals)
