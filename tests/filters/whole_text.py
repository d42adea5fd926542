"""Filters over a whole text, the slow and obvious way: what the tests of filters compare with."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from lm_deluge.filters.patterns import Pattern, PatternMatcher
from lm_deluge.filters.scanner import Match, RuleFinder, Scanner
from lm_deluge.wire.literal_matcher import LiteralMatcher, Literals

Rule: TypeAlias = str | Pattern
"""A literal or a pattern."""
Part: TypeAlias = str | Match
"""A character that is in no match, or a match."""


def _end_at(rule: Rule, text: str, at: int) -> int | None:
    """Return the end of the match of a rule that starts at a position: `re.match` within the window of the rule."""
    if isinstance(rule, Pattern):
        return rule.match_at(text, at)
    return at + len(rule) if text.startswith(rule, at) else None


def over_whole_text(rules: Sequence[Rule], text: str) -> list[Part]:
    """Return what the rules make of a text, by the definition: the first match, by the first rule, then the rest."""
    parts: list[Part] = []
    at = 0
    while at < len(text):
        ends = ((number, _end_at(rule, text, at)) for number, rule in enumerate(rules))
        number, end = next(((number, end) for number, end in ends if end is not None), (0, at))
        if end == at:
            parts.append(text[at])
            at += 1
            continue
        match, context = text[at:end], text[:at]
        parts.append(Match(number, match, at))
        at, rule = end, rules[number]
        while isinstance(rule, Pattern) and at < len(text) and rule.goes_on(context, match, text[at]):
            at += 1
    return parts


def finders_of(rules: Sequence[Rule]) -> list[RuleFinder]:
    literals = [(number, rule) for number, rule in enumerate(rules) if isinstance(rule, str)]
    found = [
        RuleFinder(PatternMatcher(rule), [number]) for number, rule in enumerate(rules) if isinstance(rule, Pattern)
    ]
    if literals:
        matcher = LiteralMatcher(Literals([text for _, text in literals]))
        found.append(RuleFinder(matcher, [number for number, _ in literals]))
    return found


def scan(scanner: Scanner, piece: str, finders: Sequence[RuleFinder], *, is_end: bool = False) -> list[Part]:
    """Return what a piece makes certain."""
    parts: list[Part] = []
    text, match = scanner.scan(piece, finders, is_end=is_end)
    parts += text
    while match is not None:
        parts.append(match)
        text, match = scanner.scan("", finders, is_end=is_end)
        parts += text
    return parts


def by_pieces(rules: Sequence[Rule], pieces: Iterable[str]) -> list[Part]:
    """Return what the rules make of a text that arrives in pieces."""
    scanner, finders = Scanner(), finders_of(rules)
    parts = [part for piece in pieces for part in scan(scanner, piece, finders)]
    return parts + scan(scanner, "", finders, is_end=True)


def cut(text: str, positions: Iterable[int]) -> list[str]:
    """Return a text in pieces, cut at the positions."""
    borders = [0, *sorted(min(at, len(text)) for at in positions), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(borders)]
