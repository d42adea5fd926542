"""Find literals in a text that arrives in pieces, as far as it is certain.

The matcher is an automaton of Aho and Corasick (https://doi.org/10.1145/360825.360855): the depth of its state is the
length of the longest end of the text that begins a literal, so no character before it has to be held back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lm_deluge.errors import ConfigurationError

__all__ = ["Candidate", "LiteralMatcher", "Literals"]


class Candidate(NamedTuple):
    """The first place of a text where a match starts or may start.

    Attributes:
        number: Index of the literal or pattern; of a match that is not certain, the lowest one that it may have.
        start: Position of its first character.
        end: Position after its last character; None: whether there is a match depends on the text that follows.
    """

    number: int
    start: int
    end: int | None


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


class Literals:
    """The automaton of a list of literals. It has no state and serves any number of matchers.

    Args:
        literals: The literals, in the order of their precedence.

    Raises:
        ConfigurationError: There is no literal, or one is empty.
    """

    def __init__(self, literals: Sequence[str]) -> None:
        if not literals or not all(literals):
            raise ConfigurationError("there must be at least one literal, and none of them empty")
        self.root = _build(literals)
        self.next_start: Callable[[str, int], re.Match[str] | None] = re.compile(
            "[" + "".join(map(re.escape, self.root.steps)) + "]"
        ).search


class LiteralMatcher:
    """Finds literals in one text that grows.

    The matches are those of `re.finditer` with the alternation of the literals in their order, over the whole text:
    the one that starts first wins; of two that start at the same place, the one that is listed first; and the search
    goes on after its end. So `["ab", "abcd"]` never finds `abcd`, and `["abcd", "ab"]` waits after `ab`.

    Example:
        >>> matcher = LiteralMatcher(Literals(["END"]))
        >>> matcher.find("So be it. EN", 0, 0), matcher.find("So be it. END", 0, 10)
        (Candidate(number=0, start=10, end=None), Candidate(number=0, start=10, end=13))
    """

    look_behind = 0

    def __init__(self, literals: Literals) -> None:
        self._root = literals.root
        self._next_start = literals.next_start
        self._node = self._root
        self._match: tuple[int, int, int] | None = None  # best so far, not yet certain: index, start, end
        self._held_from = -1  # position in the whole text that the last search left open
        self._read_to = 0  # position up to which it read

    def find(self, text: str, base: int, start: int, *, is_end: bool = False) -> Candidate | None:
        """Return the first match, or possible match, that starts at `start` or later.

        Args:
            text: The text so far, or its end.
            base: Position of the first character of `text` in the whole text.
            start: Index in `text` of the first character that may belong to a match. A search that goes on where the
                last one left a match open reads only the new characters.
            is_end: The whole text has arrived.
        """
        if base + start == self._held_from:
            at, best = self._read_to - base, self._match
        else:
            self._node, at, best = self._root, start, None
        while at < len(text):
            at, found = self._step(text, at)
            if found is not None and (best is None or base + at - found[1] <= best[1]):
                best = (found[0], base + at - found[1], base + at)
            if best is not None and self._is_final(best[1], base + at):
                break
        self._held_from = -1
        if best is not None and (is_end or self._is_final(best[1], base + at)):
            return Candidate(best[0], best[1] - base, best[2] - base)
        if is_end or self._node.depth == 0:
            return None
        self._match, self._read_to = best, base + len(text)
        held = len(text) - self._node.depth
        held = held if best is None else min(held, best[1] - base)
        self._held_from = base + held
        return Candidate(0, held, None)

    def extends(self, context: str, match: str, character: str) -> bool:
        """Whether a match goes on with this character; never, as a literal has one length."""
        return False

    def _is_final(self, start: int, at: int) -> bool:
        """Whether no better match can follow: one that starts before it, or one that is longer and listed before it."""
        earliest = at - self._node.depth
        return earliest > start or (earliest == start and not self._node.steps)

    def _step(self, text: str, at: int) -> tuple[int, tuple[int, int] | None]:
        """Read one character, or skip those that begin no literal; return the position after them, and what ends."""
        node = self._node
        if node.depth == 0:
            found = self._next_start(text, at)
            if found is None:
                return len(text), None
            at = found.start()
        self._node = node = _next(node, text[at])
        return at + 1, node.found


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
