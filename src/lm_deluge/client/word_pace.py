"""When the words of a stream are delivered, so that bursts become an even flow. Pure: time is an argument.

The words of a read are spread over the usual time between two reads. No word waits for longer than `LATEST_S`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from lm_deluge.events import Event, ReasoningDelta, RefusalDelta, TextDelta

__all__ = ["LATEST_S", "WordPace"]

LATEST_S = 0.25
"""Seconds that an event waits at most: with the delay of a timer less than 0.3 s, which readers do not notice."""
_FIRST_GAP_S = 0.1  # between reads, before there was a second one: a fast model's chunks
_SPREAD = 0.8  # of the gap between reads: words that are late catch up
_NEW_SHARE = 0.3  # of the last gap in the average: about the last five reads count
_LONGEST_WORD = 64  # characters; what is longer is no word of a language

_TEXTS = (TextDelta, ReasoningDelta, RefusalDelta)
_WIDE = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"  # written without blanks between words
_WORD = re.compile(rf"\s*(?:[{_WIDE}]|[^\s{_WIDE}]{{1,{_LONGEST_WORD}}})\s*|\s+")
_OPEN_END = re.compile(rf"[^\s{_WIDE}]\Z")


class _Item(NamedTuple):
    """An event that waits.

    Attributes:
        event: The event; of a text one word.
        at: When it arrived.
        word: The word, which has its turn; empty for other events, which follow the word before them at once.
        is_open: The word may go on in the next event.
    """

    event: Event
    at: float
    word: str
    is_open: bool


class WordPace:
    """The queue of events between the reads of a stream and their delivery. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._items: deque[_Item] = deque()
        self._words = 0  # number of words in the queue
        self._gap_s = _FIRST_GAP_S
        self._read_at: float | None = None
        self._delivered_at = float("-inf")
        self._interval_s = 0.0
        self._is_closed = False

    def add(self, events: Iterable[Event], now: float) -> None:
        """Add the events of a read."""
        words = self._words
        for event in events:
            if isinstance(event, _TEXTS) and event.text and not getattr(event, "logprobs", ()):
                self._add_text(event, now)
            else:
                self._items.append(_Item(event, now, "", False))
        if self._words == words:
            return
        if self._read_at is not None:
            self._gap_s += _NEW_SHARE * (min(now - self._read_at, LATEST_S) - self._gap_s)
        self._read_at = now
        self._interval_s = _SPREAD * self._gap_s / self._words

    def _add_text(self, event: TextDelta | ReasoningDelta | RefusalDelta, now: float) -> None:
        text, at = event.text, now
        last = self._items[-1] if self._items else None
        if last is not None and last.is_open and type(last.event) is type(event):
            self._items.pop()
            self._words -= 1
            text, at = last.word + text, last.at
        words = _WORD.findall(text)
        for number, word in enumerate(words):
            is_open = number == len(words) - 1 and len(word) < _LONGEST_WORD and bool(_OPEN_END.search(word))
            one = event if word == event.text else msgspec.structs.replace(event, text=word)
            self._items.append(_Item(one, at if number == 0 else now, word, is_open))
        self._words += len(words)

    def close(self) -> None:
        """Note that no more events follow."""
        self._is_closed = True

    def due_at(self) -> float | None:
        """Return when the next event is delivered, which may be in the past; None if none waits."""
        if not self._items:
            return None
        item = self._items[0]
        if not item.word:
            return item.at
        if item.is_open and len(self._items) == 1 and not self._is_closed:
            return item.at + LATEST_S
        return min(max(item.at, self._delivered_at + self._interval_s), item.at + LATEST_S)

    def take(self, now: float) -> list[Event]:
        """Return the events that are due, in order."""
        ready: list[Event] = []
        while (due_at := self.due_at()) is not None and due_at <= now:
            item = self._items.popleft()
            ready.append(item.event)
            if item.word:
                self._words -= 1
                self._delivered_at = max(due_at, self._delivered_at)
        return ready
