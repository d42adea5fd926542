"""Where the rest of an answer is joined to what was shown of it. Pure, and linear in what comes.

A continuation is held back until it is certain what of it was shown already; that is cut off, the rest passes. Where it
never is certain, nothing is joined: a missing word is worse than an error.
"""

from __future__ import annotations

import unicodedata
from typing import Protocol

__all__ = ["AnchorSplice", "PrefillSplice", "Splice", "SpliceError", "choose_anchor"]

_LEAST = 12
"""Characters of an overlap that is no chance; of a shorter answer all of it."""
_LEAST_BEHIND_CHATTER = 24  # "Here is the rest" may be both
_ANCHOR = 40
_LONGEST_ANCHOR = 400
_MOST_STARTS = 60
_CHATTER = 200  # characters that a model may say before it does as it was told
_JOINERS = ("\u200d", "\ufe0e", "\ufe0f")
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)


class SpliceError(Exception):
    """The rest cannot be joined; the message says why."""


class Splice(Protocol):
    """Takes the text of a continuation piece by piece.

    Attributes:
        is_sure: The seam was found: everything passes from here on.
        cut: How many characters of the continuation were cut off.
        held: How many are held back.
    """

    is_sure: bool
    cut: int
    held: int

    def feed(self, text: str) -> str:
        """Take the next piece; return what of the continuation is new, as far as that is certain.

        Raises:
            SeamError: It will never be.
        """
        ...

    def close(self, *, is_whole: bool) -> str:
        """Take the end of the continuation; return what was held back and is new.

        Args:
            is_whole: The model ended it, not a limit.

        Raises:
            SeamError: It is not certain what is.
        """
        ...


class _Held:
    """Text that is held back until a decision."""

    def __init__(self) -> None:
        self.is_sure = False
        self.cut = 0
        self.held = 0
        self._pieces: list[str] = []

    def _hold(self, text: str) -> None:
        self._pieces.append(text)
        self.held += len(text)

    def _text(self) -> str:
        text = "".join(self._pieces)
        self._pieces = [text]
        return text

    def _pass(self, cut: int) -> str:
        text = self._text()
        self.is_sure, self.cut = True, min(cut, len(text))
        self._pieces, self.held = [], 0
        return text[cut:]


class PrefillSplice(_Held):
    """The model goes on with words that were put into its mouth: nothing is said twice but what had to be left out.

    Args:
        shown: The answer so far.
        sent: The same as it was sent: without the blanks at its end, which some APIs refuse.
        is_echoed: The provider begins its answer with what was sent.
    """

    def __init__(self, shown: str, sent: str, *, is_echoed: bool = False) -> None:
        super().__init__()
        self._echo = sent if is_echoed else ""
        self._blank = shown[len(sent) :]
        self._expected = self._echo + self._blank

    def feed(self, text: str) -> str:
        """Take the next piece; see `Splice`."""
        if self.is_sure:
            return text
        is_as_expected = self._expected.startswith(text, self.held)
        self._hold(text)
        return "" if is_as_expected and self.held < len(self._expected) else self._decide()

    def _decide(self) -> str:
        text, echo, start = self._text(), self._echo, 0
        if echo and text.startswith(echo):
            start = len(echo)
        elif echo and text.startswith(echo[:_LEAST]):
            raise SpliceError("the rest begins as the answer did, but goes another way")
        if text.startswith(self._blank, start):
            return self._pass(start + len(self._blank))
        if text[start : start + 1].isspace():
            raise SpliceError("the rest begins with other blanks than those that were shown")
        return self._pass(start)  # the blanks were shown, and need not come again

    def close(self, *, is_whole: bool) -> str:
        """Take the end of the continuation; see `Splice`."""
        if self.is_sure:
            return ""
        if 0 < self.held < len(self._echo):
            raise SpliceError("the rest ended within what was shown")
        return self._pass(self.held)  # the answer was whole but for its end


class AnchorSplice(_Held):
    """The model was asked to repeat the last words and to go on behind them.

    Whatever it repeats, more or less than it should: a place fits if the continuation begins there and runs through to
    the end of what was shown. Only where one place alone fits, it is the seam.
    """

    def __init__(self, shown: str, anchor: str) -> None:
        super().__init__()
        self._shown = shown
        self._anchor = anchor
        self._least = min(_LEAST, len(shown.lstrip()))
        self._window = 2 * _CHATTER + len(anchor)
        self._at = 0  # the first place in what was shown where all of the continuation so far stands
        self._is_elsewhere = False  # it stands nowhere: the model says something else first
        self._end: int | None = None  # of the repeat

    def feed(self, text: str) -> str:
        """Take the next piece; see `Splice`."""
        if self.is_sure:
            return text
        is_there = not self._is_elsewhere and self._shown.startswith(text, self._at + self.held)
        self._hold(text)
        if self._is_elsewhere:
            self._end = self._find_anchor() if self.held >= self._window else None
        elif self._end is None and not self._may_be_inside(is_there=is_there):
            self._end = self._find_end()
        return "" if self._end is None or self._may_come_again(self._end) else self._pass(self._end)

    def _may_be_inside(self, *, is_there: bool) -> bool:
        """Whether all that came is within what was shown, before its end: then more of a repeat may come."""
        if not is_there:
            # Places only move to the right as more comes, so no part of what was shown is searched twice.
            found = self._shown.find(self._text(), self._at + 1, len(self._shown) - 1)
            if found < 0:
                return False
            self._at = found
        return self._at + self.held < len(self._shown)

    def _find_end(self) -> int | None:
        """Return where the repeat ends; None where there is none at the beginning, but may be one later."""
        overlaps = _overlaps(self._text(), self._shown, self._least)
        if len(overlaps) > 1:
            raise SpliceError("the rest fits in more than one place")
        if overlaps:
            return overlaps[0]
        is_single = self._shown.find(self._anchor) == len(self._shown) - len(self._anchor)
        if len(self._anchor) < _LEAST_BEHIND_CHATTER or not is_single:
            raise SpliceError("the model did not repeat the last words")
        self._is_elsewhere = True
        return None

    def _find_anchor(self) -> int:
        """Return where the repeat ends behind something else that was said first; its end must stand nowhere before."""
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
        """Whether the repeat may be repeated: a model may name the last words before it begins with them."""
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
            if not is_whole or not self.held:
                raise SpliceError("the rest ended before the seam")
            self._end = self._find_end()
        return self._pass(self._find_anchor() if self._end is None else self._end)


def _overlaps(text: str, shown: str, least: int) -> list[int]:
    """Return how much of `shown`'s end `text` may begin with: the two longest such lengths, `least` or more.

    By the prefix function of Knuth, Morris and Pratt.
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
    """Return for each beginning of the pattern the length of its longest proper border."""
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
    """Return the last words of a text that is not blank, from the beginning of one on.

    Long enough to be found, and if there are such words, not to be mistaken: they stand nowhere else in the text, and
    do not end as they begin.
    """
    first = len(shown) - len(shown.lstrip())
    starts = _starts(shown, first)
    return next((shown[at:] for at in starts if _is_unmistakable(shown, at)), shown[starts[0] :])


def _starts(shown: str, first: int) -> list[int]:
    """Return where an anchor may begin, the latest place first."""
    latest, earliest = max(first, len(shown) - _ANCHOR), max(first, len(shown) - _LONGEST_ANCHOR)
    begins = [at for at in range(latest, earliest, -1) if shown[at - 1].isspace() and not shown[at].isspace()]
    if not begins:  # no blanks between words
        begins = [at for at in range(latest, earliest, -1) if _begins_character(shown, at)]
    return [*begins[:_MOST_STARTS], earliest if _begins_character(shown, earliest) else first]


def _begins_character(shown: str, at: int) -> bool:
    """Whether a character as people see it may begin there."""
    sign = shown[at]
    if sign.isspace() or unicodedata.category(sign).startswith("M") or sign in _JOINERS or ord(sign) in _SKIN_TONES:
        return False
    before = shown[at - 1] if at else ""
    return before != "\u200d" and not (ord(sign) in _FLAG_LETTERS and before and ord(before) in _FLAG_LETTERS)


def _is_unmistakable(shown: str, at: int) -> bool:
    anchor = shown[at:]
    return shown.find(anchor) == at and _borders(anchor)[-1] < _LEAST
