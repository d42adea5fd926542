"""Find literals in a text that arrives in pieces, and hold back only what can still become part of a match.

The matcher is an automaton of Aho and Corasick (https://doi.org/10.1145/360825.360855): the depth of its state is the
length of the longest end of the text that begins a literal, so exactly these characters are held back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from lm_deluge.errors import ConfigurationError

__all__ = ["LiteralMatch", "LiteralMatcher"]


@dataclass(frozen=True, slots=True)
class LiteralMatch:
    """A literal that was found.

    Attributes:
        index: Its index in the list that the matcher was given.
        start: Characters of the text before it.
    """

    index: int
    literal: str
    start: int


@dataclass(slots=True)
class _Node:
    """A beginning of literals.

    Attributes:
        steps: The longer beginning, by its last character.
        depth: The number of characters.
        fallback: The longest beginning that is an end of this one; None for the empty beginning.
        found: Index and length of the longest literal that is an end of this beginning.
    """

    depth: int = 0
    steps: dict[str, _Node] = field(default_factory=dict)
    fallback: _Node | None = None
    found: tuple[int, int] | None = None


class LiteralMatcher:
    """Splits a text in pieces into text without literals, and matches.

    The matches are those of `re.finditer` with the alternation of the literals in their order, over the whole text:
    the one that starts first wins; of two that start at the same place, the one that is listed first; and the search
    goes on after its end. So `["ab", "abcd"]` never finds `abcd`, and `["abcd", "ab"]` waits after `ab`.

    Example:
        >>> matcher = LiteralMatcher(["END"])
        >>> matcher.feed("So be it. EN"), matcher.feed("TE"), matcher.held
        (['So be it. '], ['ENT'], 'E')
        >>> matcher.feed("ND")
        [LiteralMatch(index=0, literal='END', start=13)]
    """

    def __init__(self, literals: Sequence[str]) -> None:
        """Build the automaton.

        Raises:
            ConfigurationError: There is no literal, or one is empty.
        """
        if not literals or not all(literals):
            raise ConfigurationError("there must be at least one literal, and none of them empty")
        self._literals = tuple(literals)
        self._root = _build(self._literals)
        self._next_start = re.compile("[" + "".join(map(re.escape, self._root.steps)) + "]").search
        self._node = self._root
        self._text = ""  # the held text; within `feed` the pieces after it as well
        self._start = 0  # of `_text` in the whole text
        self._match: LiteralMatch | None = None  # the best one so far, which an earlier or longer one may replace

    @property
    def held(self) -> str:
        """The text that is held back: it can still become part of a match, or waits for the choice between two."""
        return self._text

    def feed(self, piece: str) -> list[str | LiteralMatch]:
        """Return what is certain after the next piece, in order: text that is in no match, and matches."""
        at = len(self._text)
        self._text += piece
        certain, done = self._split(at)
        held = self._node.depth
        if self._match is not None:
            held = max(held, self._start + len(self._text) - self._match.start)
        self._release(certain, done, len(self._text) - held)
        self._drop(len(self._text) - held)
        return certain

    def close(self) -> list[str | LiteralMatch]:
        """Return the rest at the end of the text. The matcher starts again with the next piece."""
        certain: list[str | LiteralMatch] = []
        done = 0
        while self._match is not None:
            done = self._emit(certain, done, self._match)
            more, done = self._split(done, done)
            certain += more
        self._release(certain, done, len(self._text))
        self._drop(len(self._text))
        self._node = self._root
        return certain

    def _split(self, at: int, done: int = 0) -> tuple[list[str | LiteralMatch], int]:
        """Read the text from `at` on.

        Returns:
            The matches that are final, with the text before each that is not `done`, and the position after them.
        """
        certain: list[str | LiteralMatch] = []
        while at < len(self._text):
            at = self._step(at)
            if self._match is not None and self._is_final(self._match, self._start + at):
                at = done = self._emit(certain, done, self._match)
        return certain, done

    def _is_final(self, match: LiteralMatch, at: int) -> bool:
        """Whether no better match can follow: one that starts before it, or one that is longer and listed before it."""
        earliest = at - self._node.depth
        return earliest > match.start or (earliest == match.start and not self._node.steps)

    def _emit(self, certain: list[str | LiteralMatch], done: int, match: LiteralMatch) -> int:
        start = match.start - self._start
        self._release(certain, done, start)
        certain.append(match)
        self._match = None
        self._node = self._root
        return start + len(match.literal)

    def _release(self, certain: list[str | LiteralMatch], start: int, end: int) -> None:
        if start < end:
            certain.append(self._text[start:end])

    def _drop(self, count: int) -> None:
        self._text = self._text[count:]
        self._start += count

    def _step(self, at: int) -> int:
        """Read one character, or skip those that begin no literal; return the position after them."""
        node = self._node
        if node.depth == 0:
            found = self._next_start(self._text, at)
            if found is None:
                return len(self._text)
            at = found.start()
        character = self._text[at]
        self._node = node = _next(node, character)
        at += 1
        if node.found is not None:
            index, length = node.found
            start = self._start + at - length
            if self._match is None or start <= self._match.start:
                self._match = LiteralMatch(index, self._literals[index], start)
        return at


def _next(node: _Node, character: str) -> _Node:
    """Return the longest beginning that is an end of the node's characters and this one."""
    while character not in node.steps and node.fallback is not None:
        node = node.fallback
    return node.steps.get(character, node)


def _build(literals: Sequence[str]) -> _Node:
    root = _Node()
    for index, literal in enumerate(literals):
        _insert(root, literal, index)
    level = [root]
    while level:  # shorter beginnings first: the fallback of a node is shorter than the node
        following = []
        for parent in level:
            for character, node in parent.steps.items():
                node.fallback = _next(parent.fallback, character) if parent.fallback is not None else root
                node.found = node.found or node.fallback.found
                following.append(node)
        level = following
    return root


def _insert(root: _Node, literal: str, index: int) -> None:
    """Add a literal, unless one that is listed before it begins it: it would never be found."""
    node = root
    for character in literal:
        if node.found is not None:
            return
        node = node.steps.setdefault(character, _Node(node.depth + 1))
    if node.found is None:
        node.found = (index, len(literal))
