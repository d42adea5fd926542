"""One kind of text of an answer: its filter, and what has to keep its place in the text."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from lm_deluge.events import Citation, Event, ReasoningDelta, TokenLogprob
from lm_deluge.filters.text_filter import Segment, TextFilter

__all__ = ["TextChannel"]

MakeEvent = Callable[[str, tuple[TokenLogprob, ...]], Event]


class TextChannel:
    """Filters the text of one kind of delta.

    Args:
        text_filter: The filter of the text.
        make: Returns a delta.

    Attributes:
        filter: The filter of the text.
        is_changed: Anything was replaced since `start`.
        delivered: Number of characters that were delivered.
    """

    def __init__(self, text_filter: TextFilter, make: MakeEvent) -> None:
        self.filter = text_filter
        self.is_changed = False
        self.delivered = 0
        self._make = make
        self._tokens: deque[tuple[int, int, TokenLogprob]] = deque()  # with start and end in the text
        self._waiting: deque[tuple[int, Event]] = deque()  # events after a position of the text
        self._length = 0  # characters of the text itself, as delivered, without reasoning between tags
        self._edits: list[tuple[int, int, int, int]] = []  # start and end: in the text, and as delivered

    def take(self, event: Event, text: str, logprobs: tuple[TokenLogprob, ...], ready: list[Event]) -> bool:
        """Add a delta and append what can be delivered to `ready`; return whether that is the event as it is."""
        if logprobs:
            self._note_tokens(text, logprobs)
        elif not self._tokens and not self._waiting:
            segments = self.filter.take(text)
            if segments is None:
                self.delivered += len(text)
                self._length += len(text)
                ready.append(event)
                return True
            self._deliver(segments, ready)
            return False
        self._deliver(self.filter.feed(text), ready)
        return False

    def close(self, ready: list[Event]) -> None:
        """Append the rest: no more text belongs to it."""
        self._deliver(self.filter.close(), ready)

    def put(self, event: Event, ready: list[Event]) -> None:
        """Append an event, or keep it until the text before it is certain."""
        if self._waiting or self.filter.held:
            self._waiting.append((self.filter.received, event))
        else:
            ready.append(self._placed(event))

    @property
    def withheld(self) -> int:
        """Number of characters that were received and are not delivered."""
        return self.filter.received - self.delivered

    def _note_tokens(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> None:
        """Note where in the text each token stands; if the tokens are not the text, all stand for all of it."""
        at = start = self.filter.received
        is_aligned = "".join([each.token for each in logprobs]) == text
        for each in logprobs:
            end = at + len(each.token) if is_aligned else start + len(text)
            self._tokens.append((at, end, each))
            at = end if is_aligned else start

    def _deliver(self, segments: list[Segment], ready: list[Event]) -> None:
        texts, tokens, is_tagged = list[str](), list[TokenLogprob](), False
        for segment in segments:
            if segment.is_tagged != is_tagged:
                self._append(texts, tokens, ready, is_tagged=is_tagged)
                texts, tokens, is_tagged = [], [], segment.is_tagged
            texts.append(segment.text)
            tokens += self._tokens_of(segment)
            self._note_edit(segment)
        if self.filter.ending is None:
            tokens += self._tokens_of(Segment("", "", self.filter.position, False, is_tagged))
        self._append(texts, tokens, ready, is_tagged=is_tagged)
        while self._waiting and self._waiting[0][0] <= self.filter.position and self.filter.ending is None:
            ready.append(self._placed(self._waiting.popleft()[1]))

    def _append(self, texts: list[str], tokens: list[TokenLogprob], ready: list[Event], *, is_tagged: bool) -> None:
        text = "".join(texts)
        self.delivered += len(text)
        if is_tagged:
            if text:
                ready.append(ReasoningDelta(text))
        elif text or tokens:
            ready.append(self._make(text, tuple(tokens)))

    def _tokens_of(self, segment: Segment) -> list[TokenLogprob]:
        """Return the log probabilities of tokens that end in a segment; those of tokens that are changed are lost."""
        found: list[TokenLogprob] = []
        while self._tokens and self._tokens[0][1] <= segment.end:
            start, _, token = self._tokens.popleft()
            if not segment.is_changed and not segment.is_tagged and start >= self._changed_to:
                found.append(token)
        return found

    def _note_edit(self, segment: Segment) -> None:
        self.is_changed |= segment.is_changed
        if segment.is_tagged and self._edits and self._edits[-1][1:] == (segment.start, self._length, self._length):
            self._edits[-1] = (self._edits[-1][0], segment.end, self._length, self._length)  # reasoning goes on
        elif segment.is_changed or segment.is_tagged:
            length = 0 if segment.is_tagged else len(segment.text)
            self._edits.append((segment.start, segment.end, self._length, self._length + length))
            self._length += length
        else:
            self._length += len(segment.text)

    @property
    def _changed_to(self) -> int:
        return self._edits[-1][1] if self._edits else 0

    def _placed(self, event: Event) -> Event:
        """Return an event; a citation with the positions that its text has after all changes."""
        if not self._edits or not isinstance(event, Citation):
            return event
        start = None if event.start is None else self._place(event.start, is_end=False)
        end = None if event.end is None else self._place(event.end, is_end=True)
        return msgspec.structs.replace(event, start=start, end=end)

    def _place(self, position: int, *, is_end: bool) -> int:
        for start, end, new_start, new_end in reversed(self._edits):
            if position >= end:
                return new_end + position - end
            if position > start:
                return new_end if is_end else new_start
        return position
