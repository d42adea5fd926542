"""Find the matches of literals and patterns in a text that arrives in pieces, and hold back what may become one.

Rules over one text, as for the alternation of all of them in one regular expression:

1. The match that starts first wins.
2. Of matches that start at the same character, the one of the rule that is listed first wins.
3. The search goes on after the end of the match. What replaces a match is not searched.

The outcome never depends on how the text is cut into pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from lm_deluge.wire.literal_matcher import Candidate

__all__ = ["Finder", "Match", "RuleFinder", "Scanner"]


class Finder(Protocol):
    """Finds the matches of some rules; it may keep for the next search how far it looked.

    Attributes:
        look_behind: Number of characters before a match that it has to see.
    """

    look_behind: int

    def find(self, text: str, base: int, start: int, *, is_end: bool = False) -> Candidate | None:
        """Return the first match, or possible match, that starts at `start` or later; as `LiteralMatcher.find`."""
        ...

    def extends(self, context: str, match: str, character: str) -> bool:
        """Whether a match that is as long as it may be goes on with this character, which is then part of it."""
        ...


class RuleFinder(NamedTuple):
    """A finder, and for each number of its candidates the number of the rule: a lower one has precedence."""

    finder: Finder
    rules: Sequence[int]


class Match(NamedTuple):
    """A match.

    Attributes:
        rule: Number of the rule.
        text: The matched text.
        start: Position of its first character in the whole text.
    """

    rule: int
    text: str
    start: int


class Scanner:
    r"""Splits one text into text without matches, and matches.

    Args:
        context: Text before the first piece; it is only looked at, as by `\b` or a lookbehind.

    Attributes:
        position: Position in the whole text of the first character that is held back.
        skipped: The characters that the last scan left out at its start, as they go on with the match before them.
    """

    def __init__(self, context: str = "", position: int = 0) -> None:
        self.position = position
        self.skipped = ""
        self._text = context  # some characters before the held text, and the held text
        self._at = len(context)  # index of the first held character
        self._overlong: tuple[Finder, str, str] | None = None  # a match that may go on: finder, context, match
        self._extending: dict[str, bool] = {}  # whether it goes on with a character
        self._rules: Sequence[RuleFinder] = ()
        self._kept = 0  # characters before the held text that these rules look at

    @property
    def held(self) -> str:
        """The text that is held back."""
        return self._text[self._at :]

    def scan(self, piece: str, rules: Sequence[RuleFinder], *, is_end: bool = False) -> tuple[str, Match | None]:
        """Add a piece; return the text that is certainly in no match, up to the first match, and that match.

        After a match, call again with an empty piece, maybe with other rules: the rest is searched then.
        """
        if rules is not self._rules:
            self._rules, self._kept = rules, max([finder.look_behind for finder, _ in rules], default=0)
        text = self._text = self._text + piece if self._text else piece
        if self._overlong is not None:
            self._skip(self._overlong)
        elif self.skipped:
            self.skipped = ""
        at, base = self._at, self.position - self._at
        best: tuple[int, int] | None = None
        chosen: tuple[Candidate, Finder] | None = None
        for finder, numbers in rules:
            found = finder.find(text, base, at, is_end=is_end)
            if found is not None and (best is None or (found.start, numbers[found.number]) < best):
                best, chosen = (found.start, numbers[found.number]), (found, finder)
        if best is None or chosen is None:
            self._move(len(text))
            return text[at:], None
        candidate, finder = chosen
        if candidate.end is None:
            self._move(candidate.start)
            return text[at : candidate.start], None
        match = Match(best[1], text[candidate.start : candidate.end], base + candidate.start)
        context = text[max(0, candidate.start - finder.look_behind) : candidate.start]
        self._overlong, self._extending = (finder, context, match.text), {}
        self._move(candidate.end)
        return text[at : candidate.start], match

    def _skip(self, overlong: tuple[Finder, str, str]) -> None:
        """Leave out characters that continue the match before them."""
        finder, context, match = overlong
        first = self._at
        while self._at < len(self._text):
            character = self._text[self._at]
            if character not in self._extending:
                self._extending[character] = finder.extends(context, match, character)
            if not self._extending[character]:
                self._overlong, self._extending = None, {}
                break
            self._at += 1
        self.skipped = self._text[first : self._at]
        self.position += self._at - first

    def _move(self, at: int) -> None:
        """Hold back the text from `at` on; keep before it what the finders look at."""
        self.position += at - self._at
        first = at - self._kept
        if first > 0:
            self._text = self._text[first:]
            at = self._kept
        self._at = at
