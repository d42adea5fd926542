"""Markdown within a line, while the line grows: emphasis, code, links.

A closed span is settled: it is final and not parsed again. An open span (`**bold` without the closing marker) is shown
as if it were closed, and as plain characters if it never closes. The length of an open span is limited, so that
text that may be drawn again is always on the screen. No character is ever lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from lm_deluge.cli.render.lines import Run

__all__ = ["InlineText"]

BOLD, ITALIC, STRUCK, CODE, LINK, DIM = "1", "3", "9", "36", "4", "2"

_EMPHASIS = {
    "***": f"{BOLD};{ITALIC}",
    "___": f"{BOLD};{ITALIC}",
    "**": BOLD,
    "__": BOLD,
    "*": ITALIC,
    "_": ITALIC,
    "~~": STRUCK,
}
_MOST_EMPHASIS = 3  # the longest marker above
_MOST_DEPTH = 8  # nested spans; answers rarely nest more than three, and deeper recursion only costs time

# Other backslashes stay: models write formulas as \( ... \) and \[ ... \].
_ESCAPABLE = "*_`#~|"

_SPECIAL = re.compile(r"[\\`*_~\[!]")
_RUN = re.compile(r"(.)\1*", re.DOTALL)
_LINK = re.compile(r"(!?)\[([^\[\]\n]*)\]\(([^()\s]*(?:\([^()\s]*\)[^()\s]*)*)(?:\s+\"[^\"\n]*\")?\)")
_OPEN_LINK = re.compile(r"!?(\[[^\[\]\n]*(\]\([^)\n]*)?(\])?)?")


class _Span(NamedTuple):
    """The text from a position on: its runs, its end, and whether more text may change it."""

    runs: list[Run]
    end: int
    is_open: bool = False


class _Source(NamedTuple):
    """A text to parse. If `is_final` is false more text may follow; `depth` is the number of spans around it."""

    text: str
    is_final: bool
    depth: int = 0


def _joined(style: str, other: str) -> str:
    return f"{style};{other}" if style and other else style or other


class InlineText:
    """Parses the text of one line while it grows.

    Args:
        style: The style of plain text.
        most_open: Most characters of a span that is not closed yet; a longer span is plain text.
    """

    def __init__(self, style: str = "", most_open: int = 400) -> None:
        self._style = style
        self._most_open = most_open
        self._pending = ""
        self._before = ""

    def feed(self, text: str) -> list[Run]:
        """Add text; return the runs that are settled now."""
        self._pending += text
        return self._settle(is_final=False)

    def finish(self) -> list[Run]:
        """End the line; return the remaining runs."""
        return self._settle(is_final=True)

    def open_runs(self) -> list[Run]:
        """Return the runs that are not settled, as they are to be shown until more text comes."""
        runs: list[Run] = []
        position = 0
        source = _Source(self._pending, is_final=False)
        while position < len(source.text):
            span = _next_span(source, position, self._style, self._before)
            runs += span.runs
            position = span.end
        return runs

    def _settle(self, *, is_final: bool) -> list[Run]:
        settled: list[Run] = []
        position = 0
        source = _Source(self._pending, is_final)
        while position < len(source.text):
            before = source.text[position - 1] if position else self._before
            span = _next_span(source, position, self._style, before)
            if span.is_open:
                if len(source.text) - position <= self._most_open:
                    break
                # The span is too long: its marker is plain text.
                end = position + len(_run_at(source.text, position))
                span = _Span([Run(source.text[position:end], self._style)], end)
            settled += span.runs
            position = span.end
        if position:
            self._before = source.text[position - 1]
            self._pending = source.text[position:]
        return settled


def _run_at(text: str, position: int) -> str:
    match = _RUN.match(text, position)
    return match.group() if match else ""


def _next_span(source: _Source, position: int, style: str, before: str) -> _Span:
    """Return the plain text from `position` up to the next special character, or the span that starts there."""
    text = source.text
    special = _SPECIAL.search(text, position)
    if special is None or special.start() > position:
        end = len(text) if special is None else special.start()
        return _Span([Run(text[position:end], style)], end)
    if source.depth > _MOST_DEPTH:
        return _literal(text, position, style)
    return _OPENERS[text[position]](source, position, style, before)


def _literal(text: str, position: int, style: str, length: int = 0) -> _Span:
    end = position + (length or len(_run_at(text, position)))
    return _Span([Run(text[position:end], style)], end)


def _escape(source: _Source, position: int, style: str, before: str) -> _Span:
    text = source.text
    if position + 1 == len(text):
        return _Span([Run("\\", style)], len(text), is_open=not source.is_final)
    if text[position + 1] in _ESCAPABLE:
        return _Span([Run(text[position + 1], style)], position + 2)
    return _Span([Run("\\", style)], position + 1)


def _code(source: _Source, position: int, style: str, before: str) -> _Span:
    text = source.text
    fence = _run_at(text, position)
    start = position + len(fence)
    end = _find_run(text, start, fence)
    inner_style = _joined(style, CODE)
    if end is not None and (end + len(fence) < len(text) or source.is_final):
        return _Span([Run(_code_text(text[start:end]), inner_style)], end + len(fence))
    if source.is_final:
        return _literal(text, position, style)
    inner = text[start : len(text) if end is None else end].rstrip("`")
    return _Span([Run(inner, inner_style)], len(text), is_open=True)


def _code_text(text: str) -> str:
    """Drop one space on each side: Markdown requires it around code that starts or ends with a backtick."""
    is_padded = text.startswith(" ") and text.endswith(" ") and text.strip()
    return text[1:-1] if is_padded else text


def _find_run(text: str, start: int, fence: str) -> int | None:
    """Return the position of the next run of backticks that is as long as `fence`."""
    position = text.find(fence, start)
    while position >= 0:
        run = _run_at(text, position)
        if len(run) == len(fence):
            return position
        position = text.find(fence, position + len(run))
    return None


def _emphasis(source: _Source, position: int, style: str, before: str) -> _Span:
    text = source.text
    run = _run_at(text, position)
    start = position + len(run)
    if start == len(text):
        # The next character decides whether the marker opens a span, so it is not shown yet.
        shown = [Run(run, style)] if source.is_final else []
        return _Span(shown, start, is_open=not source.is_final)
    if run not in _EMPHASIS or not _can_open(run, before, text[start]):
        return _literal(text, position, style)
    inner_style = _joined(style, _EMPHASIS[run])
    end, is_certain = _find_closer(text, start, run)
    if end is not None and (is_certain or source.is_final):
        return _Span(_inner(text[start:end], inner_style, source.depth), end + len(run))
    if source.is_final:
        return _literal(text, position, style)
    inner = text[start : len(text) if end is None else end]
    return _Span(_inner(_without_closing(inner, run[0]), inner_style, source.depth), len(text), is_open=True)


def _without_closing(text: str, mark: str) -> str:
    return text.rstrip(mark) if text.endswith(mark) else text


def _can_open(run: str, before: str, after: str) -> bool:
    return not after.isspace() and not (run[0] == "_" and before.isalnum())


def _inner(text: str, style: str, depth: int) -> list[Run]:
    """Return the runs inside a span."""
    runs: list[Run] = []
    position = 0
    source = _Source(text, is_final=True, depth=depth + 1)
    while position < len(text):
        before = text[position - 1] if position else " "
        span = _next_span(source, position, style, before)
        runs += span.runs
        position = span.end
    return runs


def _find_closer(text: str, start: int, marker: str) -> tuple[int | None, bool]:
    """Return the position of the closing marker, and whether more text cannot change the result."""
    position = start
    mark = marker[0]
    while position < len(text):
        char = text[position]
        if char == "\\":
            position += 2
        elif char == "`":
            fence = _run_at(text, position)
            closing = _find_run(text, position + len(fence), fence)
            position = position + len(fence) if closing is None else closing + len(fence)
        elif char == mark:
            run = _run_at(text, position)
            end = position + len(run)
            if _closes(text, position, end, marker):
                return end - len(marker), end < len(text)
            position = end
        else:
            position += 1
    return None, False


def _closes(text: str, position: int, end: int, marker: str) -> bool:
    length = end - position
    # In `**a *b***` the last three close both spans. Two inside a span of single markers belong to another span.
    fits = length == len(marker) or (len(marker) > 1 and length == _MOST_EMPHASIS)
    if not fits or text[position - 1].isspace():
        return False
    return marker[0] != "_" or end == len(text) or not text[end].isalnum()


def _link(source: _Source, position: int, style: str, before: str) -> _Span:
    text = source.text
    match = _LINK.match(text, position)
    if match is not None:
        _, label, url = match.groups()
        if label in (url, ""):
            return _Span([Run(url or "[]()", _joined(style, LINK))], match.end())
        label_runs = _inner(label, _joined(style, LINK), source.depth)
        return _Span([*label_runs, Run(f" ({url})", _joined(style, DIM))], match.end())
    is_open = not source.is_final and _OPEN_LINK.fullmatch(text, position) is not None
    if is_open:
        return _Span([Run(text[position:], style)], len(text), is_open=True)
    return _literal(text, position, style, 1)


_OPENERS: dict[str, Callable[[_Source, int, str, str], _Span]] = {
    "\\": _escape,
    "`": _code,
    "*": _emphasis,
    "_": _emphasis,
    "~": _emphasis,
    "[": _link,
    "!": _link,
}
