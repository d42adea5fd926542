"""Reasoning that a host leaves in the text, between `<think>` and `</think>`: told as reasoning.

Only for hosts and models whose row says so: elsewhere the tags are what the model wrote.
"""

from __future__ import annotations

from lm_deluge.adapters.adapter import Decoder
from lm_deluge.errors import DelugeError
from lm_deluge.events import Event, ReasoningDelta, ResponseStarted, TextDelta, TokenLogprob, UsageReported

__all__ = ["TagSplitter", "TaggedDecoder"]

_OPEN, _CLOSE = "<think>", "</think>"


class TagSplitter:
    """Cuts an answer's text at the tags. Every character that can be part of none is given on at once.

    The opening tag counts where nothing but blanks is before it, the closing one behind it once; later ones are text.
    Nothing but the tags is lost. Log probabilities stay with text and are dropped with reasoning.
    """

    def __init__(self) -> None:
        self._step = self._seek_open
        self._held = ""
        self._logprobs: tuple[TokenLogprob, ...] = ()

    def split(self, events: list[Event]) -> list[Event]:
        """Return the events with text in tags made reasoning."""
        if self._step == self._pass_on:
            return events
        made: list[Event] = []
        for event in events:
            if isinstance(event, TextDelta):
                self._logprobs += event.logprobs
                self._step(event.text, made)
            else:
                if not isinstance(event, ResponseStarted | UsageReported):
                    made += self.release()
                made.append(event)
        return made

    def release(self) -> list[Event]:
        """Return what is held back, as nothing follows that could make a tag of it."""
        held, self._held = self._held, ""
        if not held:
            return []
        if self._step == self._seek_close:
            return [ReasoningDelta(held)]
        self._step = self._pass_on
        made: list[Event] = []
        self._pass_on(held, made)
        return made

    def _seek_open(self, text: str, made: list[Event]) -> None:
        self._held += text
        begun = self._held.lstrip()
        if len(begun) < len(_OPEN) and _OPEN.startswith(begun):
            return
        held, self._held = self._held, ""
        if not begun.startswith(_OPEN):
            self._step = self._pass_on
            self._pass_on(held, made)
            return
        self._step = self._seek_close
        blanks = held[: len(held) - len(begun)]
        if blanks:
            made.append(TextDelta(blanks))
        self._seek_close(begun[len(_OPEN) :], made)

    def _seek_close(self, text: str, made: list[Event]) -> None:
        self._logprobs = ()
        text = self._held + text
        thought, tag, rest = text.partition(_CLOSE)
        kept = 0 if tag else _overlap(thought)
        self._held = thought[len(thought) - kept :]
        thought = thought[: len(thought) - kept]
        if thought:
            made.append(ReasoningDelta(thought))
        if tag:
            self._step = self._pass_on
            self._pass_on(rest, made)

    def _pass_on(self, text: str, made: list[Event]) -> None:
        logprobs, self._logprobs = self._logprobs, ()
        if text or logprobs:
            made.append(TextDelta(text, logprobs))


def _overlap(text: str) -> int:
    """Return how many of the last characters may be the beginning of the closing tag."""
    for size in range(min(len(_CLOSE) - 1, len(text)), 0, -1):
        if text.endswith(_CLOSE[:size]):
            return size
    return 0


class TaggedDecoder:
    """A decoder whose text goes through a splitter."""

    def __init__(self, inner: Decoder) -> None:
        self.error: DelugeError | None = None
        self._inner = inner
        self._splitter = TagSplitter()

    @property
    def is_complete(self) -> bool:
        """Whether an end of the body now is a success."""
        return self._inner.is_complete

    @property
    def is_finished(self) -> bool:
        """Whether `ResponseFinished` was returned."""
        return self._inner.is_finished

    @property
    def ignored(self) -> int:
        """How many frames were passed over."""
        return self._inner.ignored

    def expect(self, content_type: str) -> None:
        """Take the answer's content type."""
        self._inner.expect(content_type)

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes; return the events that they complete."""
        return self._split(self._inner.feed(data))

    def close(self) -> list[Event]:
        """Take the end of the body."""
        return self._split(self._inner.close())

    def _split(self, events: list[Event]) -> list[Event]:
        made = self._splitter.split(events)
        self.error = self._inner.error
        return made if self.error is None else [*made, *self._splitter.release()]
