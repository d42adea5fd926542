r"""Regular expressions over a text that arrives in pieces, by the `regex` library.

`regex` can report that a match would be possible with more text (`partial=True`), but a search prefers any complete
match to a possible one that starts earlier (`abcd|bc` in "abc" is "bc"), and takes the end of the text for its real
end (`[a-z]{2,}` and `\bkey\b` match although the next character may be a letter). So two forms of each pattern are
used:

- The asking form wants to see the character after each `\b`, `$` and the like. It matches only if the text that
  follows cannot change that.
- The open form is the asking form followed by `(?!)`: it never matches, so its partial matches are exactly the places
  where some way through the pattern reads beyond the end of the text.

A place that is neither a match of the one nor a partial match of the other is no match, whatever follows.
"""

from __future__ import annotations

import importlib
import re
import warnings
from functools import cache
from typing import Any, NamedTuple

from lm_deluge.errors import ConfigurationError, FilterError, MissingExtraError
from lm_deluge.extras import install_hint
from lm_deluge.wire.literal_matcher import Candidate

__all__ = ["LONGEST_MATCH", "Pattern", "PatternMatcher", "is_literal"]

LONGEST_MATCH = 10_000
"""Characters of a match at most. A held text is read again with each piece: of 10,000 characters about 0.1 ms."""
_TIMEOUT_S = 0.25
"""CPU seconds of one search, which needs some microseconds unless the pattern takes exponential time."""
_UNLIMITED = 2**31  # widths from here on are `re`'s infinity, which differs between its versions

_META = frozenset(r".^$*+?{}[]\|()")
_SYNTAX = (
    r"(?P<comment>\(\?\#[^)]*\))"
    r"|(?P<set>\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\])"
    r"|(?P<brace>\{[^{}\[\\$]*\})"
    r"|(?P<escape>\\[pPN]\{[^}]*\}|\\.)"
    r"|(?P<end>\$)|(?P<verb>\(\*)|."
)
_TOKENS = re.compile(_SYNTAX, re.DOTALL)
_VERBOSE_TOKENS = re.compile(rf"(?P<hash>\#[^\n]*)|{_SYNTAX}", re.DOTALL)
_ASK = r"(?=[\s\S])"  # a character follows, whichever
_ASK_AT_END = r"(?=[^\n]|\n[\s\S])"  # `$` is also true before a line break at the end
_ASSERTIONS = frozenset((r"\b", r"\B", r"\Z", r"\z", r"\m", r"\M"))
_FUZZY = re.compile(r"\{(?=[^}:]*[eids])[eids\d<=+,\s]+(:[^}]*)?\}")
_REFUSED_FLAGS = ("REVERSE", "BESTMATCH", "ENHANCEMATCH", "POSIX", "VERSION1")


class _Reach(NamedTuple):
    """How far a pattern looks, in characters.

    Attributes:
        least: Length of its shortest match.
        most: Length of its longest match.
        after: Characters after a match that it looks at.
        before: Characters before a match that it looks at.
    """

    least: int
    most: int
    after: int
    before: int


class Pattern:
    """A pattern, compiled. It has no state and serves any number of matchers.

    Args:
        source: The regular expression.
        flags: Flags of `re`: IGNORECASE, MULTILINE, DOTALL, VERBOSE and ASCII.
        max_length: Characters of a match at most; None: as the pattern itself limits it.

    Attributes:
        max_length: Characters of a match at most.
        window: Characters from the start of a match on that can decide about it.
        look_behind: Characters before a match that can decide about it.

    Raises:
        ConfigurationError: It is no regular expression, can match an empty text, has no longest match, or uses what
            cannot be matched in pieces.
        MissingExtraError: The package `regex` is not installed.
    """

    def __init__(self, source: str, flags: int = 0, max_length: int | None = None) -> None:
        library = _regex()
        number = _flags_of(library, flags)
        self._full = _compiled(library, source, number)
        _check_syntax(library, source, self._full)
        reach = _reach_of(source, flags)
        self.max_length = _limit_of(source, reach, max_length)
        # What looks at any amount of text, or cannot be measured, is given the space of another match.
        is_measured = reach is not None and reach.after <= LONGEST_MATCH
        self.window = self.max_length + (reach.after if reach is not None and is_measured else self.max_length)
        self.look_behind = 1 + (self.max_length if reach is None else reach.before)
        if self._full.match("") is not None or (reach is not None and reach.least == 0):
            raise ConfigurationError(
                "a pattern that can match an empty text matches everywhere",
                hint="Let it have one character at least, for example with + in place of *.",
            )
        end = "\n" if self._full.flags & library.VERBOSE else ""  # a comment may stand at its end
        asking = _asking(source, is_verbose=bool(end))
        self._asking = _compiled(library, f"(?:{asking}{end})", number)
        self._open = _compiled(library, f"(?:{asking}{end})(?!)", number)

    def may_match(self, text: str, start: int, end: int) -> tuple[int, int | None] | None:
        """Return start and end of the first match between two positions, as if more text could follow.

        The end is None if it depends on that text. The result is None if no match can start there, whatever follows.
        """
        found = self._search(self._asking, text, start, end)
        if found is None or found.start() >= end:
            return None
        opened = self._search(self._open, text, start, end)
        at = end if opened is None else opened.start()
        if not found.partial and found.start() < at:
            return found.start(), min(found.end(), found.start() + self.max_length)
        return (at, None) if at < end else None

    def match_at(self, text: str, start: int) -> int | None:
        """Return the end of the match that starts exactly here, in the text as it stands; None without one."""
        try:
            found = self._full.match(text, start, min(len(text), start + self.window), timeout=_TIMEOUT_S)
        except TimeoutError as error:
            raise _too_slow() from error
        if found is None or found.end() == start:
            return None
        end: int = found.end()
        return min(end, start + self.max_length)

    def goes_on(self, context: str, match: str, character: str) -> bool:
        """Whether a match that was cut at `max_length` would have this character as well."""
        if len(match) < self.max_length:
            return False
        end = len(context) + len(match) + 1
        try:
            found = self._full.match(context + match + character, len(context), timeout=_TIMEOUT_S)
        except TimeoutError as error:
            raise _too_slow() from error
        return found is not None and bool(found.end() == end)

    @staticmethod
    def _search(pattern: Any, text: str, start: int, end: int) -> Any:
        try:
            return pattern.search(text, start, end, partial=True, timeout=_TIMEOUT_S)
        except TimeoutError as error:
            raise _too_slow() from error


class PatternMatcher:
    """Finds a pattern in one text that grows."""

    def __init__(self, pattern: Pattern) -> None:
        self._pattern = pattern
        self._clear_to = 0  # position in the whole text before which no match starts
        self.look_behind = pattern.look_behind

    def find(self, text: str, base: int, start: int, *, is_end: bool = False) -> Candidate | None:
        """Return the first match, or possible match, that starts at `start` or later; see `LiteralMatcher.find`.

        A match is decided by the `window` of characters from its start on: longer ones are cut. So a search never
        looks further than the window of the first place that is not decided.
        """
        pattern = self._pattern
        size, window = len(text), pattern.window
        start = max(start, self._clear_to - base)
        found: Candidate | None = None
        while found is None and start < size:
            end = min(size, start + window)
            possible = pattern.may_match(text, start, end)
            if possible is None:
                start = end
                continue
            at, stop = possible
            if stop is None and at > start and end < size:
                start = at  # its window reaches further
                continue
            start = at
            if stop is None and (is_end or size >= start + window):
                stop = pattern.match_at(text, start)
                if stop is None:
                    start += 1
                    continue
            found = Candidate(0, start, stop)
        self._clear_to = base + start
        return found

    def extends(self, context: str, match: str, character: str) -> bool:
        """Whether a match as long as `max_length` goes on with this character."""
        return self._pattern.goes_on(context, match, character)


def is_literal(source: str) -> bool:
    """Whether a pattern matches nothing but its own text."""
    return not _META.intersection(source)


@cache
def _regex() -> Any:
    try:
        return importlib.import_module("regex")
    except ImportError as error:
        raise MissingExtraError(
            "patterns in filters need the regex package", hint=install_hint("regex", otherwise="use literal text")
        ) from error


def _flags_of(library: Any, flags: int) -> int:
    names = ("IGNORECASE", "MULTILINE", "DOTALL", "VERBOSE", "ASCII")
    return sum(int(getattr(library, name)) for name in names if flags & int(getattr(re, name)))


def _compiled(library: Any, source: str, flags: int) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return library.compile(source, flags)
    except (library.error, RecursionError, OverflowError, ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(
            f"the pattern of a filter is no regular expression: {error}",
            hint="Pass literal=True for text that is not a pattern.",
        ) from error


def _check_syntax(library: Any, source: str, compiled: Any) -> None:
    """Refuse what changes the meaning of a position or of the order of matches."""
    syntax = _VERBOSE_TOKENS if compiled.flags & library.VERBOSE else _TOKENS
    tokens = [(token.lastgroup, token.group()) for token in syntax.finditer(source)]
    refused = [text for kind, text in tokens if kind == "verb" or text in (r"\K", r"\G")]
    refused += [text for kind, text in tokens if kind == "brace" and _FUZZY.fullmatch(text)]
    refused += [name for name in _REFUSED_FLAGS if compiled.flags & int(getattr(library, name))]
    if refused:
        raise ConfigurationError(
            f"{refused[0]} cannot be used in the pattern of a filter",
            hint="Write the pattern without it; a backslash makes text of it.",
        )


def _asking(source: str, *, is_verbose: bool) -> str:
    """Return a pattern whose assertions about the next character want to see one."""

    def ask(token: re.Match[str]) -> str:
        text = token.group()
        if token.lastgroup == "end":
            return _ASK_AT_END + text
        return (_ASK if text in _ASSERTIONS else "") + text

    return (_VERBOSE_TOKENS if is_verbose else _TOKENS).sub(ask, source)


def _limit_of(source: str, reach: _Reach | None, max_length: int | None) -> int:
    """Return the characters of a match at most."""
    if max_length is not None:
        if isinstance(max_length, bool) or not isinstance(max_length, int) or not 0 < max_length <= LONGEST_MATCH:
            raise ConfigurationError(f"max_length must be a whole number from 1 to {LONGEST_MATCH:,}")
        is_short = reach is not None and max_length < reach.least
        if is_short:
            raise ConfigurationError("max_length is shorter than any match of the pattern")
        return max_length if reach is None else min(max_length, reach.most)
    if reach is None or max(reach.most, reach.after) > LONGEST_MATCH:
        raise ConfigurationError(
            f"the pattern {source!r} has no longest match, so any amount of text could be held back",
            hint="Name the length: max_length=80, for example. A longer match is replaced as a whole, too.",
        )
    return reach.most


def _reach_of(source: str, flags: int) -> _Reach | None:
    """Return how far a pattern looks; None if `re`, whose parser measures it, cannot read it."""
    parser: Any = importlib.import_module("re._parser")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = parser.parse(source, flags)
        least, most = tree.getwidth()
        after, before = _looks(parser, tree)
    except (re.error, RecursionError, OverflowError, ValueError, KeyError):
        return None
    return _Reach(least, most, after, before)


def _looks(parser: Any, tree: Any) -> tuple[int, int]:
    """Return how many characters after and before its own a part of a pattern looks at, at most."""
    after = before = 0
    for operation, value in tree:
        name = str(operation)
        if name == "AT":
            after, before = max(after, 2), max(before, 1)
        elif name in ("ASSERT", "ASSERT_NOT"):
            direction, inner = value
            width = inner.getwidth()[1]
            more_after, more_before = _looks(parser, inner)
            after = max(after, more_after + (width if direction > 0 else 0))
            before = max(before, more_before + (width if direction < 0 else 0))
        else:
            for inner in _parts(parser, value):
                more_after, more_before = _looks(parser, inner)
                after, before = max(after, more_after), max(before, more_before)
    return min(after, _UNLIMITED), min(before, LONGEST_MATCH)


def _parts(parser: Any, value: Any) -> list[Any]:
    """Return the patterns within the operand of an operation of `re`'s parser."""
    if isinstance(value, parser.SubPattern):
        return [value]
    return [part for each in value for part in _parts(parser, each)] if isinstance(value, tuple | list) else []


def _too_slow() -> FilterError:
    return FilterError(
        f"the pattern of a filter needed more than {_TIMEOUT_S:g} s for one piece of the answer",
        hint="Write it without nested repetition, such as (a+)+.",
    )
