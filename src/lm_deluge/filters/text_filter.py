"""Apply the rules of a call to one text."""

from __future__ import annotations

from typing import NamedTuple

from lm_deluge.filters.compiled import CompiledFilters, SearchPlan
from lm_deluge.filters.rules import ReasoningTags, Redact
from lm_deluge.filters.scanner import Match, Scanner

__all__ = ["Segment", "TextFilter"]


class Segment(NamedTuple):
    """A part of a text that is certain.

    Attributes:
        text: What is delivered: the text itself, or what replaces it.
        source: The text itself.
        start: Position of its first character in the whole text.
        is_changed: `text` replaces `source`.
        is_tagged: It is reasoning, between two tags.
    """

    text: str
    source: str
    start: int
    is_changed: bool
    is_tagged: bool

    @property
    def end(self) -> int:
        """Position after its last character in the whole text."""
        return self.start + len(self.source)


class TextFilter:
    """Applies rules to one text that arrives in pieces.

    Args:
        filters: The filters of the call.
        plan: What is searched, outside of tags.
        context: Text before the first piece, which patterns may look at.

    Attributes:
        ending: The match that ends the answer, after which nothing is delivered; None as long as there is none.
        received: Number of characters that arrived.
    """

    def __init__(self, filters: CompiledFilters, plan: SearchPlan, context: str = "") -> None:
        self.ending: Match | None = None
        self.received = 0
        self._filters = filters
        self._outside = self._rules = plan.finders()
        self._scanner = Scanner(context)
        self._tag: int | None = None  # rule of the tags that are open

    @property
    def position(self) -> int:
        """Position of the first character that is held back."""
        return self._scanner.position

    @property
    def held(self) -> str:
        """The text that is held back."""
        return self._scanner.held

    def take(self, piece: str) -> list[Segment] | None:
        """Add a piece; return what is certain, or None if that is the piece itself and no reasoning."""
        self.received += len(piece)
        text, match = self._scanner.scan(piece, self._rules)
        if match is None and text == piece and self._tag is None and not self._scanner.skipped:
            return None
        return self._segments(text, match, is_end=False)

    def feed(self, piece: str, *, is_end: bool = False) -> list[Segment]:
        """Add a piece; return what is certain. At the end, everything is."""
        self.received += len(piece)
        return self._segments(*self._scanner.scan(piece, self._rules, is_end=is_end), is_end=is_end)

    def _segments(self, text: str, match: Match | None, *, is_end: bool) -> list[Segment]:
        """Return the segments of the scanned text, and of what follows it."""
        scanner, found = self._scanner, list[Segment]()
        while self.ending is None:
            end = scanner.position if match is None else match.start
            is_tagged = self._tag is not None
            if scanner.skipped:
                skipped = scanner.skipped
                found.append(Segment("", skipped, end - len(text) - len(skipped), True, is_tagged))
            if text:
                found.append(Segment(text, text, end - len(text), False, is_tagged))
            if match is None:
                break
            self._apply(match, found)
            if self.ending is None:
                text, match = scanner.scan("", self._rules, is_end=is_end)
        return found

    def close(self) -> list[Segment]:
        """Return the rest, as no more text belongs to it. A further piece starts another text after it."""
        found = self.feed("", is_end=True)
        self._scanner = Scanner(position=self._scanner.position)
        return found

    def _apply(self, match: Match, found: list[Segment]) -> None:
        rule = self._filters.rules[match.rule]
        if isinstance(rule, Redact):
            found.append(Segment(rule.replacement, match.text, match.start, True, self._tag is not None))
        elif isinstance(rule, ReasoningTags):
            found.append(Segment("", match.text, match.start, True, True))
            is_opening = self._tag is None
            self._tag = match.rule if is_opening else None
            self._rules = self._filters.tagged[match.rule].finders() if is_opening else self._outside
        else:
            self.ending = match
