"""Splices the continuation of an answer to the text delivered before. Pure, and linear in the length of the text.

A continuation is buffered until it is certain how much of it repeats the delivered text; the repetition is cut off and
the rest passes. If that never becomes certain, nothing is spliced: a missing word is worse than an error.
"""

from __future__ import annotations

import unicodedata
from typing import Protocol

__all__ = ["AnchorSplice", "PrefillSplice", "Splice", "SpliceError", "choose_anchor"]

_LEAST = 12
"""Characters. A shorter overlap may be a coincidence (two words of English); of a shorter answer, all of it."""
_LEAST_BEHIND_CHATTER = 24  # characters of a repetition after an introduction: "Here is the rest" may occur in both
_ANCHOR = 40  # characters: seven words are rarely repeated in a text, and cheap to generate again
_LONGEST_ANCHOR = 400  # characters: repetitive texts (tables, lists) need more; beyond this, repeating costs too much
_MOST_STARTS = 60  # words in 400 characters of English; bounds the search
_CHATTER = 200  # characters of an introduction that a model may write before the repetition
_JOINERS = ("\u200d", "\ufe0e", "\ufe0f")
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)


class SpliceError(Exception):
    """The continuation cannot be spliced; the message has the reason."""


class Splice(Protocol):
    """Takes the text of a continuation piece by piece.

    Attributes:
        is_sure: The position of the splice was found; all further text passes.
        cut: Number of characters of the continuation that were cut off.
        buffered: Number of characters that are buffered.
    """

    is_sure: bool
    cut: int
    buffered: int

    def feed(self, text: str) -> str:
        """Take the next text; return the part of the continuation that is certainly new.

        Raises:
            SpliceError: The position of the splice will never be certain.
        """
        ...

    def close(self, *, is_whole: bool) -> str:
        """Take the end of the continuation; return the new part of the buffered text.

        Args:
            is_whole: The model ended the continuation, not a limit.

        Raises:
            SpliceError: The position of the splice is not certain.
        """
        ...


class _BufferedSplice:
    """Text that is buffered until the position of the splice is certain."""

    def __init__(self) -> None:
        self.is_sure = False
        self.cut = 0
        self.buffered = 0
        self._pieces: list[str] = []

    def _hold(self, text: str) -> None:
        self._pieces.append(text)
        self.buffered += len(text)

    def _text(self) -> str:
        text = "".join(self._pieces)
        self._pieces = [text]
        return text

    def _pass(self, cut: int) -> str:
        text = self._text()
        self.is_sure, self.cut = True, min(cut, len(text))
        self._pieces, self.buffered = [], 0
        return text[cut:]


class PrefillSplice(_BufferedSplice):
    """The model continues a prefilled message; only the white space that was not sent may be repeated.

    Args:
        shown: The answer so far.
        sent: The prefilled text: the answer without the white space at its end, which some APIs refuse.
        is_echoed: The provider's response starts with the prefilled text.
    """

    def __init__(self, shown: str, sent: str, *, is_echoed: bool = False) -> None:
        super().__init__()
        self._echo = sent if is_echoed else ""
        self._blank = shown[len(sent) :]
        self._expected = self._echo + self._blank

    def feed(self, text: str) -> str:
        """Take the next text; see `Splice`."""
        if self.is_sure:
            return text
        is_as_expected = self._expected.startswith(text, self.buffered)
        self._hold(text)
        return "" if is_as_expected and self.buffered < len(self._expected) else self._decide()

    def _decide(self) -> str:
        text, echo, start = self._text(), self._echo, 0
        if echo and text.startswith(echo):
            start = len(echo)
        elif echo and text.startswith(echo[:_LEAST]):
            raise SpliceError("the continuation starts like the answer, but then differs from it")
        if text.startswith(self._blank, start):
            return self._pass(start + len(self._blank))
        if text[start : start + 1].isspace():
            raise SpliceError("the continuation starts with other white space than the answer had at its end")
        return self._pass(start)  # the white space was delivered before

    def close(self, *, is_whole: bool) -> str:
        """Take the end of the continuation; see `Splice`."""
        if self.is_sure:
            return ""
        if 0 < self.buffered < len(self._echo):
            raise SpliceError("the continuation ended within the text delivered before")
        return self._pass(self.buffered)  # the answer was complete, only its end mark was missing


class AnchorSplice(_BufferedSplice):
    """The model was asked to repeat the last words and to continue after them.

    It may repeat more or less than that. A position fits if the continuation repeats the delivered text from there to
    its end. The splice is made only if exactly one position fits.
    """

    def __init__(self, shown: str, anchor: str) -> None:
        super().__init__()
        self._shown = shown
        self._anchor = anchor
        self._least = min(_LEAST, len(shown.lstrip()))
        self._window = 2 * _CHATTER + len(anchor)
        self._at = 0  # first position in the delivered text that has the whole continuation so far
        self._is_elsewhere = False  # there is none: the model writes something else first
        self._end: int | None = None  # of the repetition

    def feed(self, text: str) -> str:
        """Take the next text; see `Splice`."""
        if self.is_sure:
            return text
        is_there = not self._is_elsewhere and self._shown.startswith(text, self._at + self.buffered)
        self._hold(text)
        if self._is_elsewhere:
            self._end = self._find_anchor() if self.buffered >= self._window else None
        elif self._end is None and not self._may_be_inside(is_there=is_there):
            self._end = self._find_end()
        return "" if self._end is None or self._may_come_again(self._end) else self._pass(self._end)

    def _may_be_inside(self, *, is_there: bool) -> bool:
        """Whether the continuation so far is part of the delivered text, before its end: the repetition may go on."""
        if not is_there:
            # Positions only move to the right, so no part of the delivered text is searched twice.
            found = self._shown.find(self._text(), self._at + 1, len(self._shown) - 1)
            if found < 0:
                return False
            self._at = found
        return self._at + self.buffered < len(self._shown)

    def _find_end(self) -> int | None:
        """Return where the repetition ends; None if it may only come after an introduction."""
        overlaps = _overlaps(self._text(), self._shown, self._least)
        if len(overlaps) > 1:
            raise SpliceError("the continuation fits at more than one position")
        if overlaps:
            return overlaps[0]
        is_single = self._shown.find(self._anchor) == len(self._shown) - len(self._anchor)
        if len(self._anchor) < _LEAST_BEHIND_CHATTER or not is_single:
            raise SpliceError("the model did not repeat the last words")
        self._is_elsewhere = True
        return None

    def _find_anchor(self) -> int:
        """Return where a repetition ends that follows an introduction; its end must not occur before it."""
        near, anchor = self._text()[: self._window], self._anchor
        found = near.find(anchor)
        end = found + len(anchor)
        if not 0 <= found <= _CHATTER:
            raise SpliceError("the model did not repeat the last words")
        if near.find(anchor[-_LEAST:]) != end - _LEAST or near.find(anchor, found + 1) >= 0:
            raise SpliceError("the model repeated the last words more than once")
        if found and not near[found - 1].isspace():
            raise SpliceError("the model repeated the last words within others")
        return end

    def _may_come_again(self, end: int) -> bool:
        """Whether the repetition may occur again: a model may quote the last words before it starts with them."""
        anchor = self._anchor
        rest = self._text()[end:].lstrip()[: len(anchor)]
        if len(anchor) < _LEAST or not anchor.startswith(rest):
            return False
        if rest == anchor:
            raise SpliceError("the model repeated the last words more than once")
        return True

    def close(self, *, is_whole: bool) -> str:
        """Take the end of the continuation; see `Splice`."""
        if self.is_sure:
            return ""
        if self._end is None and not self._is_elsewhere:
            if not is_whole or not self.buffered:
                raise SpliceError("the continuation ended before the repetition was complete")
            self._end = self._find_end()
        return self._pass(self._find_anchor() if self._end is None else self._end)


def _overlaps(text: str, shown: str, least: int) -> list[int]:
    """Return the two longest lengths, `least` or more, of an end of `shown` that `text` starts with.

    Uses the prefix function of Knuth, Morris and Pratt.
    """
    pattern = text[: len(shown)]
    borders = _borders(pattern)
    length = 0
    for character in shown[-len(pattern) :]:
        while length and (length == len(pattern) or pattern[length] != character):
            length = borders[length - 1]
        if pattern[length] == character:
            length += 1
    found: list[int] = []
    while length >= max(least, 1) and len(found) < 2:  # noqa: PLR2004 - two are too many already
        found.append(length)
        length = borders[length - 1]
    return found


def _borders(pattern: str) -> list[int]:
    """Return the length of the longest proper border of each prefix of the pattern."""
    borders = [0] * len(pattern)
    length = 0
    for position in range(1, len(pattern)):
        while length and pattern[length] != pattern[position]:
            length = borders[length - 1]
        if pattern[length] == pattern[position]:
            length += 1
        borders[position] = length
    return borders


def choose_anchor(shown: str) -> str:
    """Return the last words of a text that is not blank, from the start of a word.

    They are long enough to be found and, if possible, unmistakable: they occur once in the text, and their end differs
    from their start.
    """
    first = len(shown) - len(shown.lstrip())
    starts = _starts(shown, first)
    return next((shown[at:] for at in starts if _is_unmistakable(shown, at)), shown[starts[0] :])


def _starts(shown: str, first: int) -> list[int]:
    """Return the positions where an anchor may start, the last one first."""
    latest, earliest = max(first, len(shown) - _ANCHOR), max(first, len(shown) - _LONGEST_ANCHOR)
    begins = [at for at in range(latest, earliest, -1) if shown[at - 1].isspace() and not shown[at].isspace()]
    if not begins:  # no blanks between words
        begins = [at for at in range(latest, earliest, -1) if _starts_grapheme(shown, at)]
    return [*begins[:_MOST_STARTS], earliest if _starts_grapheme(shown, earliest) else first]


def _starts_grapheme(shown: str, at: int) -> bool:
    """Whether a grapheme may start at a position."""
    sign = shown[at]
    if sign.isspace() or unicodedata.category(sign).startswith("M") or sign in _JOINERS or ord(sign) in _SKIN_TONES:
        return False
    before = shown[at - 1] if at else ""
    return before != "\u200d" and not (ord(sign) in _FLAG_LETTERS and before and ord(before) in _FLAG_LETTERS)


def _is_unmistakable(shown: str, at: int) -> bool:
    anchor = shown[at:]
    return shown.find(anchor) == at and _borders(anchor)[-1] < _LEAST
