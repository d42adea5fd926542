"""Convert text between the tags `<think>` and `</think>` into reasoning events.

Used only for hosts and models with `think_tags` in their row; elsewhere such tags are ordinary text of the model.
Amazon Bedrock names the tags `<reasoning>` (gpt-oss), Gemini's OpenAI endpoint `<thought>`.
"""

from __future__ import annotations

from lm_deluge.adapters.adapter import Call, Decoder
from lm_deluge.adapters.changed_decoder import ChangedDecoder
from lm_deluge.events import Event, ReasoningDelta, ResponseStarted, TextDelta, TokenLogprob, UsageReported

__all__ = ["TagSplitter", "TaggedDecoder", "has_think_tags"]

_TAGS = ("<think>", "<reasoning>", "<thought>")


def has_think_tags(call: Call) -> bool:
    """Whether the answer's text contains its reasoning in tags. The model's row has precedence over its host's."""
    of_model, quirks = call.model.capabilities.think_tags, call.provider.quirks
    if of_model is not None:
        return of_model
    names = quirks.tagged_models
    return quirks.think_tags and (not names or any(name in call.model.name for name in names))


class TagSplitter:
    """Splits the text of a response at the tags. Only characters that may be the start of a tag are buffered.

    The opening tag is recognised if only whitespace precedes it, the closing tag once after it; later tags are text.
    Only the tags are removed. Log probabilities of text are kept, those of reasoning are dropped.
    """

    def __init__(self) -> None:
        self._step = self._seek_open
        self._close = ""  # the closing tag, once the opening tag was recognised
        self._buffered = ""
        self._logprobs: tuple[TokenLogprob, ...] = ()

    def split(self, events: list[Event]) -> list[Event]:
        """Return the events, with text between the tags replaced by reasoning."""
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
        """Return the buffered characters as an event, because no more text can complete a tag."""
        buffered, self._buffered = self._buffered, ""
        if not buffered:
            return []
        if self._step == self._seek_close:
            return [ReasoningDelta(buffered)]
        self._step = self._pass_on
        made: list[Event] = []
        self._pass_on(buffered, made)
        return made

    def _seek_open(self, text: str, made: list[Event]) -> None:
        self._buffered += text
        stripped = self._buffered.lstrip()
        tag = next((tag for tag in _TAGS if stripped.startswith(tag)), None)
        if tag is None and any(each.startswith(stripped) for each in _TAGS):
            return
        buffered, self._buffered = self._buffered, ""
        if tag is None:
            self._step = self._pass_on
            self._pass_on(buffered, made)
            return
        self._step = self._seek_close
        self._close = f"</{tag[1:]}"
        blanks = buffered[: len(buffered) - len(stripped)]
        if blanks:
            made.append(TextDelta(blanks))
        self._seek_close(stripped[len(tag) :], made)

    def _seek_close(self, text: str, made: list[Event]) -> None:
        self._logprobs = ()
        text = self._buffered + text
        thought, tag, rest = text.partition(self._close)
        kept = 0 if tag else _overlap(thought, self._close)
        self._buffered = thought[len(thought) - kept :]
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


def _overlap(text: str, tag: str) -> int:
    """Return how many characters at the end of the text may be the start of the closing tag."""
    for size in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:size]):
            return size
    return 0


class TaggedDecoder(ChangedDecoder):
    """A `Decoder` that passes the events of another decoder through a `TagSplitter`."""

    def __init__(self, inner: Decoder) -> None:
        super().__init__(inner)
        self._splitter = TagSplitter()

    def change(self, events: list[Event]) -> list[Event]:
        """Return the events, with text between the tags replaced by reasoning."""
        made = self._splitter.split(events)
        return made if self.error is None else [*made, *self._splitter.release()]
