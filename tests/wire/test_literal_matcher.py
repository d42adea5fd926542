"""Literals in pieces of text: `re` over the whole text judges what is found, all continuations what is held back."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.errors import ConfigurationError
from lm_deluge.wire.literal_matcher import LiteralMatch, LiteralMatcher

_literals = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=5)
_texts = st.text("abc", max_size=24)


def by_re(literals: list[str], text: str) -> list[str | LiteralMatch]:
    """Return single characters and matches, as `re` finds them in the whole text."""
    parts: list[str | LiteralMatch] = []
    end = 0
    for found in re.finditer("|".join(map(re.escape, literals)), text):
        parts += text[end : found.start()]
        parts.append(LiteralMatch(literals.index(found.group()), found.group(), found.start()))
        end = found.end()
    return [*parts, *text[end:]]


def by_pieces(matcher: LiteralMatcher, pieces: list[str]) -> list[str | LiteralMatch]:
    parts = [part for piece in pieces for part in matcher.feed(piece)] + matcher.close()
    assert "" not in parts
    return characters(parts)


def characters(parts: list[str | LiteralMatch]) -> list[str | LiteralMatch]:
    return [each for part in parts for each in (part if isinstance(part, str) else [part])]


@given(_literals, _texts, st.lists(st.integers(0, 24), max_size=6))
def test_the_result_is_that_of_re_over_the_whole_text(literals: list[str], text: str, positions: list[int]) -> None:
    expected = by_re(literals, text)
    borders = [0, *sorted(positions), max(24, len(text))]
    assert by_pieces(LiteralMatcher(literals), [text[a:b] for a, b in itertools.pairwise(borders)]) == expected
    assert by_pieces(LiteralMatcher(literals), list(text)) == expected
    assert by_pieces(LiteralMatcher(literals), [text]) == expected


@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=3), st.text("abc", max_size=6))
def test_exactly_what_depends_on_the_rest_is_held_back(literals: list[str], text: str) -> None:
    futures = ["".join(letters) for size in range(5) for letters in itertools.product("abc", repeat=size)]
    matcher = LiteralMatcher(literals)
    given_out = characters([part for character in text for part in matcher.feed(character)])
    outcomes = [by_re(literals, text + future) for future in futures]
    certain = [
        column[0] for column in itertools.takewhile(lambda column: len(set(column)) == 1, zip(*outcomes, strict=False))
    ]
    # A character of the future is no part of the present, though all futures may agree on what follows.
    assert given_out == certain[: len(given_out)]
    length = sum(len(part) if isinstance(part, str) else len(part.literal) for part in given_out)
    assert matcher.held == text[length:]
    following = certain[len(given_out) :][:1]
    assert not following or not matcher.held


@pytest.mark.parametrize(
    ("literals", "pieces", "parts"),
    [
        (["abcd", "bc"], ["abc", "x"], [[], ["a", LiteralMatch(1, "bc", 1), "x"]]),
        (["abcd", "bc"], ["abc", "d"], [[], [LiteralMatch(0, "abcd", 0)]]),
        (["ab", "abcd"], ["ab", "cd"], [[LiteralMatch(0, "ab", 0)], ["cd"]]),
        (["abcd", "ab"], ["ab", "ce"], [[], [LiteralMatch(1, "ab", 0), "ce"]]),
        (["</think>"], ["a</", "think", "> b"], [["a"], [], [LiteralMatch(0, "</think>", 1), " b"]]),
        (["aa"], ["a", "a", "a"], [[], [LiteralMatch(0, "aa", 0)], []]),
        (["END"], ["ENEN", "D."], [["EN"], [LiteralMatch(0, "END", 2), "."]]),
        (["a-b]^"], ["a-b", "]", "^"], [[], [], [LiteralMatch(0, "a-b]^", 0)]]),
    ],
)
def test_when_text_and_matches_leave(literals: list[str], pieces: list[str], parts: list) -> None:
    matcher = LiteralMatcher(literals)
    assert [matcher.feed(piece) for piece in pieces] == parts


def test_the_end_releases_what_is_held_and_decides() -> None:
    matcher = LiteralMatcher(["abcd", "ab", "c"])
    assert matcher.feed("abc") == []
    assert matcher.held == "abc"
    assert matcher.close() == [LiteralMatch(1, "ab", 0), LiteralMatch(2, "c", 2)]
    assert matcher.held == ""
    assert matcher.feed("xab") == ["x"]
    assert matcher.close() == [LiteralMatch(1, "ab", 4)]


@pytest.mark.parametrize("literals", [[], ["a", ""]])
def test_literals_that_match_everywhere_are_refused(literals: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="at least one literal, and none of them empty"):
        LiteralMatcher(literals)
