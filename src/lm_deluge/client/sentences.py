"""Split a text that arrives in pieces into sentences. Pure.

A sentence ends with `.`, `!`, `?` or an ellipsis before white space, unless an abbreviation, an initial or a lower-case
letter after it speaks against it; with one of the full stops of Chinese and Japanese; with an empty line; and where the
next line is an item of a list, a heading, a quotation or a row of a table. A fenced block of code is one sentence.
"""

# ruff: noqa: RUF001 - full stops and quotation marks of many languages
from __future__ import annotations

import re

__all__ = ["SentenceSplitter"]

_MARK = re.compile(
    r"""(?P<stop>[.!?…]+["'”’»)\]*_]*)|(?P<wide>[。！？｡]+["”’」』）】》〉]*)|(?P<line>\n\s*)|(?P<fence>```|~~~)"""
)
_BLOCK = re.compile(r"[-*+•]\s|\d{1,3}[.)]\s|#{1,6}\s|>|\||```|~~~")
_OPEN_BLOCK = re.compile(r"(?:[-*+•]|\d{1,3}[.)]?|#{1,6}|`{1,2}|~{1,2})?\Z")  # what may become one of them
_CLOSING_FENCE = re.compile(r"\n[ \t]*(?:```|~~~)[`~ \t]*(?=\n|(?P<end>\Z))")
_OPEN_FENCE = re.compile(r"[`~]{1,2}\Z")
_NEXT = re.compile(r"\S")
_WORD = re.compile(r"[^\s(\[\"'“‘«]*\Z")
_DOTTED = re.compile(r"(?!a\.m|p\.m)(?:[a-z]\.)+[a-z]", re.IGNORECASE)  # such as U.S
_ROW, _HEADING = re.compile(r"\s*\|"), re.compile(r"\s*#{1,6}\s")  # each is one line
_LONG = 2_000  # characters: a longer text is not copied with each piece
_LONGEST_WORD = 40  # characters before a full stop that are looked at; abbreviations have fewer

# Words before a full stop that rarely end a sentence, as English and German use them.
_NEVER_LAST = frozenset(
    (
        *("mr", "mrs", "ms", "dr", "prof", "st", "sen", "rep", "gov", "gen", "col", "capt", "lt", "sgt", "rev", "hon"),
        *("ed", "eds", "approx", "dept", "est", "cf", "vs", "viz", "bzw", "ca", "hr"),
    )
)
_BEFORE_NUMBERS = frozenset(("no", "nos", "fig", "figs", "eq", "vol", "pp", "p", "art", "sec", "ch", "nr", "abb", "bd"))


class SentenceSplitter:
    """Collects a text and returns its sentences, without the white space around them.

    A sentence is certain once the next one starts; so it takes one more piece of the text.

    Example:
        >>> splitter = SentenceSplitter()
        >>> splitter.feed("Dr. Who paid 3.50. Then"), splitter.close()
        (['Dr. Who paid 3.50.'], ['Then'])
    """

    def __init__(self) -> None:
        self._head: list[str] = []  # the start of the present sentence, as far as it is long
        self._text = ""  # the rest of it
        self._at = 0  # up to here, it has no end
        self._is_code = False

    def feed(self, text: str) -> list[str]:
        """Add a piece; return the sentences that are certain."""
        self._text += text
        found = self._split(is_end=False)
        if self._at > _LONG:
            cut = self._at - _LONGEST_WORD
            self._head.append(self._text[:cut])
            self._text, self._at = self._text[cut:], _LONGEST_WORD
        return found

    def close(self) -> list[str]:
        """Return the rest at the end of the text."""
        found = self._split(is_end=True)
        self._cut(len(self._text), found)
        return found

    def _split(self, *, is_end: bool) -> list[str]:
        found: list[str] = []
        while True:
            mark = (_CLOSING_FENCE if self._is_code else _MARK).search(self._text, self._at)
            if mark is None:
                self._at = self._open_from()
                return found
            end = self._end_of_code(mark, is_end=is_end) if self._is_code else self._end_at(mark, is_end=is_end)
            if end is None:
                self._at = mark.start()
                return found
            if end < 0:
                self._at = mark.end()
                continue
            self._is_code = mark.lastgroup == "fence"
            self._cut(end, found)
            self._at = len(mark.group()) if self._is_code else 0

    def _open_from(self) -> int:
        """Return from where on the text may be the start of a mark."""
        if self._is_code:
            return max(self._text.rfind("\n"), self._at)
        found = _OPEN_FENCE.search(self._text, max(self._at, len(self._text) - 2))
        return len(self._text) if found is None else found.start()

    def _cut(self, end: int, found: list[str]) -> None:
        sentence = "".join([*self._head, self._text[:end]]).strip()
        self._head, self._text, self._at = [], self._text[end:], 0
        if sentence:
            found.append(sentence)

    @staticmethod
    def _end_of_code(mark: re.Match[str], *, is_end: bool) -> int | None:
        return mark.end() if is_end or mark.group("end") is None else None

    def _end_at(self, mark: re.Match[str], *, is_end: bool) -> int | None:
        """Return where the sentence ends; -1 if it goes on after the mark, None if that is not certain."""
        following = _NEXT.search(self._text, mark.end())
        if following is None and not is_end and mark.lastgroup != "fence":
            return None
        if mark.lastgroup == "fence":
            is_line_start = not self._text[: mark.start()].rpartition("\n")[2].strip()
            return mark.start() if is_line_start else -1
        if mark.lastgroup == "wide":
            return mark.end()
        if mark.lastgroup == "stop":
            return mark.end() if self._is_stop(mark, following) else -1
        is_line = self._is_like(_ROW) or self._is_like(_HEADING)
        if is_line or mark.group().count("\n") > 1 or _BLOCK.match(self._text, mark.end()):
            return mark.end()
        return None if not is_end and _OPEN_BLOCK.match(self._text, mark.end()) else -1

    def _is_like(self, start: re.Pattern[str]) -> bool:
        """Whether the present sentence starts like this."""
        return start.match(self._head[0] if self._head else self._text) is not None

    def _is_stop(self, mark: re.Match[str], following: re.Match[str] | None) -> bool:
        if following is None:
            return True
        if following.start() == mark.end() or following.group().islower():
            return False
        if self._is_like(_ROW):
            return False
        if not mark.group().startswith(".") or mark.group().startswith(".."):
            return True
        before = self._text[max(0, mark.start() - _LONGEST_WORD) : mark.start()]
        found = _WORD.search(before)
        word = found.group() if found is not None else ""
        is_number = word.isdecimal() and not before[: len(before) - len(word)].rpartition("\n")[2].strip()
        is_initial = len(word) == 1 and word.isupper() and word != "I"
        is_dotted = _DOTTED.fullmatch(word) is not None
        is_short = word.lower() in (_BEFORE_NUMBERS if following.group().isdecimal() else _NEVER_LAST)
        return not (is_number or is_initial or is_dotted or is_short)
