r"""Apply the rules of a call to the arguments of a tool call: JSON, whose strings may have escapes.

The rules see the text with its escapes resolved, so that `\u0073ecret` is found as well. What passes keeps its
escapes; a replacement is escaped, and gets quotation marks where no string is open.
"""

from __future__ import annotations

import json
import re
from collections import deque

from lm_deluge.filters.compiled import CompiledFilters
from lm_deluge.filters.scanner import Match
from lm_deluge.filters.text_filter import Segment, TextFilter

__all__ = ["ArgumentFilter"]

_PAIR = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPE = re.compile(rf"{_PAIR}|\\u[0-9a-fA-F]{{4}}|\\.", re.DOTALL)
# The end of a piece that may be the start of an escape, or of a surrogate pair.
_OPEN_ESCAPE = re.compile(
    r"(?<!\\)(?:\\\\)*(\\(?:u(?:[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?|[0-9a-fA-F]{0,3}))?)\Z"
)


class ArgumentFilter:
    """Applies rules to the arguments of one call.

    Args:
        filters: The filters of the call to the model.
        is_custom: The arguments are free text, not JSON.

    Attributes:
        is_changed: Anything was replaced.
        sent: The pieces that were delivered.
        received: Number of characters that arrived.
        delivered: Number of characters in `sent`.
    """

    def __init__(self, filters: CompiledFilters, *, is_custom: bool) -> None:
        self.is_changed = False
        self.sent: list[str] = []
        self.received = 0
        self.delivered = 0
        self._is_custom = is_custom
        self._filter = TextFilter(filters, filters.arguments)
        self._open_escape = ""
        self._escapes: deque[tuple[int, str, str]] = deque()  # position in the resolved text, character, escape
        self._in_string = False  # at the end of what was delivered

    @property
    def ending(self) -> Match | None:
        """The match that ends the answer."""
        return self._filter.ending

    @property
    def held(self) -> str:
        """The text that is held back."""
        return self._filter.held + self._open_escape

    def feed(self, fragment: str) -> str:
        """Add a piece; return what can be delivered."""
        self.received += len(fragment)
        return self._deliver(self._filter.feed(fragment if self._is_custom else self._resolved(fragment)))

    def close(self) -> str:
        """Return the rest."""
        rest, self._open_escape = self._open_escape, ""
        return self._deliver(self._filter.feed(rest) + self._filter.close())

    def _resolved(self, fragment: str) -> str:
        text = self._open_escape + fragment
        if "\\" not in text:
            return text
        found = _OPEN_ESCAPE.search(text)
        at = len(text) if found is None else found.start(1)
        text, self._open_escape = text[:at], text[at:]
        at, base, parts = 0, self._filter.received, list[str]()
        for escape in _ESCAPE.finditer(text):
            parts.append(text[at : escape.start()])
            at = escape.end()
            base += len(parts[-1])
            character = _character(escape.group())
            if character != escape.group():
                self._escapes.append((base, character, escape.group()))
            parts.append(character)
            base += len(character)
        return "".join(parts) + text[at:]

    def _deliver(self, segments: list[Segment]) -> str:
        text = "".join([self._delivered(segment) for segment in segments])
        if text:
            self.sent.append(text)
            self.delivered += len(text)
        return text

    def _delivered(self, segment: Segment) -> str:
        if self._is_custom:
            self.is_changed |= segment.is_changed
            return segment.text
        raw, quotes, at = list[str](), segment.source.count('"'), segment.start
        while self._escapes and self._escapes[0][0] < segment.end:
            position, character, escape = self._escapes.popleft()
            raw += (segment.source[at - segment.start : position - segment.start], escape)
            at = position + len(character)
            quotes -= character == '"'
        was_in_string, self._in_string = self._in_string, self._in_string ^ bool(quotes % 2)
        if not segment.is_changed:
            return "".join(raw) + segment.source[at - segment.start :]
        self.is_changed = True
        text = json.dumps(segment.text, ensure_ascii=False)[1:-1]
        if not segment.text and was_in_string == self._in_string:
            return ""
        return ("" if was_in_string else '"') + text + ("" if self._in_string else '"')


def _character(escape: str) -> str:
    """Return the character of an escape; the escape itself if it is invalid or half of a pair."""
    try:
        found = json.loads(f'"{escape}"')
    except ValueError:
        return escape
    return found if isinstance(found, str) and len(found) == 1 and not "\ud800" <= found <= "\udfff" else escape
