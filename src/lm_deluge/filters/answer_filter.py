"""The filters of one response: events of a decoder in, events that may be delivered out. Pure.

A match lies within one part of an answer: a tool call, an image or a change between answer, reasoning and refusal ends
the text before it, which is then released as at the end of the answer. Events without text of their own (citations,
opaque data) keep their place in the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from lm_deluge.errors import DelugeError, FilterError
from lm_deluge.events import (
    Citation,
    Event,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.filters.argument_filter import ArgumentFilter
from lm_deluge.filters.channel import TextChannel
from lm_deluge.filters.compiled import CompiledFilters, SearchPlan
from lm_deluge.filters.guarding import GuardWatch
from lm_deluge.filters.rules import StopAt
from lm_deluge.filters.scanner import Match
from lm_deluge.filters.text_filter import TextFilter
from lm_deluge.wire.tolerant_json import parse_arguments

__all__ = ["STOP_REASON", "AnswerFilter"]

STOP_REASON = "stop_at"
"""`raw_finish_reason` of an answer that a `StopAt` ended."""
_GUARD_REASON = "guard"
_OF_THOUGHTS = re.compile(r"reasoning\w*|\w*_reasoning|signature|thought_signature")
"""Kinds of opaque data that sign the reasoning: providers refuse them beside other reasoning than they signed."""


class AnswerFilter:
    """Filters the events of one response, from its start to its end.

    Attributes:
        is_over: The filters ended the answer: no more events follow.
        error: The error that they ended it with; None if it just ends.
        withheld: Number of characters that were generated and are not delivered, for estimates of tokens.
        is_holding: Whether any text is held back.
    """

    def __init__(self, filters: CompiledFilters) -> None:
        self.is_over = False
        self.error: DelugeError | None = None
        self.withheld = 0
        self.is_holding = False
        self._is_touched = False  # anything was not delivered as it is
        self._match: Match | None = None  # the match that ended the answer
        self._filters = filters
        self._channels: dict[type, TextChannel] = {}
        self._open: TextChannel | None = None  # the channel of the last text
        self._calls: dict[int, ArgumentFilter] = {}
        self._guards = [GuardWatch(guard) for guard in filters.guards]
        self._has_arguments = filters.arguments.literals is not None or bool(filters.arguments.patterns)
        self._audio = MediaDelta("audio/unknown")  # the last piece of audio
        self._handlers: dict[type, Callable[[Any, list[Event]], None]] = {
            TextDelta: self._take_text,
            ReasoningDelta: self._take_text,
            RefusalDelta: self._take_text,
            MediaDelta: self._take_media,
            ToolCallStarted: self._start_call,
            Citation: self._take_citation,
            ProviderPart: self._take_part,
            ResponseFinished: self._finish,
        }
        if self._has_arguments:
            self._handlers |= {ToolCallDelta: self._take_arguments, ToolCallFinished: self._finish_call}

    def feed(self, events: Sequence[Event]) -> list[Event]:
        """Return what can be delivered after these events."""
        ready: list[Event] = []
        if self.is_over:
            return ready
        try:
            self._filter(events, ready)
        except FilterError as error:
            self.is_over, self.error = True, error
            self._end(events, ready)
        if self._is_touched:
            self._count()
        for guard in self._guards:
            verdict = guard.judge(ready)
            if verdict is not None:
                ready = verdict.events
                self.is_over, self.error = True, verdict.error
                if verdict.error is None:
                    self._end(events, ready, ResponseFinished("content_filter", _GUARD_REASON))
        return ready

    def _count(self) -> None:
        """Count what is not delivered."""
        self._is_touched = False
        channels, calls = self._channels.values(), self._calls.values()
        self.withheld = sum([channel.withheld for channel in channels])
        self.withheld += sum([call.received - call.delivered for call in calls])
        is_holding = any(channel.filter.held for channel in channels) or any(call.held for call in calls)
        self.is_holding = is_holding and not self.is_over

    def _filter(self, events: Sequence[Event], ready: list[Event]) -> None:
        for event in events:
            handle = self._handlers.get(type(event))
            if handle is None:
                ready.append(event)
            else:
                handle(event, ready)
                if self.is_over:
                    match = self._match
                    if match is not None:
                        details = {"stop": match.text}
                        self._end(events, ready, ResponseFinished("stop", STOP_REASON, finish_details=details))
                    return

    def _is_ended(self, ending: Match | None) -> bool:
        """Return whether there is a match that ends the answer, and end it.

        Raises:
            FilterError: It is the match of a `RaiseAt`.
        """
        if ending is None:
            return False
        self.is_over, self._match = True, ending
        if not isinstance(self._filters.rules[ending.rule], StopAt):
            raise FilterError(
                "the answer has what a RaiseAt filter excludes",
                hint=f"It is number {ending.rule + 1} of the filters. The answer before the match is in `partial`.",
            )
        return True

    @staticmethod
    def _end(events: Sequence[Event], ready: list[Event], finished: ResponseFinished | None = None) -> None:
        """Append the end of the answer, if it is no error, with the token counts if they arrived with the last text."""
        ready[:] = [event for event in ready if not isinstance(event, UsageReported | ResponseFinished)]
        ready += [event for event in events if isinstance(event, UsageReported)][-1:]
        ready += [] if finished is None else [finished]

    # Text

    def _channel(self, kind: type) -> TextChannel:
        channel = self._channels.get(kind)
        if channel is None:
            filters = self._filters
            plans: dict[type, SearchPlan] = {TextDelta: filters.text, ReasoningDelta: filters.reasoning}
            plan = plans.get(kind, filters.spoken)
            text_filter = TextFilter(filters, plan, filters.context if kind is TextDelta else "")
            make = self._transcript if kind is MediaDelta else _MAKERS[kind]
            channel = self._channels[kind] = TextChannel(text_filter, make)
        return channel

    def _turn_to(self, channel: TextChannel | None, ready: list[Event]) -> bool:
        """Release the text before another part of the answer; return whether that ended the answer."""
        before, self._open = self._open, channel
        if before is None or before is channel:
            return False
        self._is_touched = True
        before.close(ready)
        return self._is_ended(before.filter.ending)

    def _take_text(self, event: TextDelta | ReasoningDelta | RefusalDelta, ready: list[Event]) -> None:
        channel = self._channel(type(event))
        if channel is not self._open and event.text:
            if self._turn_to(channel, ready):
                return
            channel.is_changed = False
        logprobs = () if isinstance(event, ReasoningDelta) else event.logprobs
        if not channel.take(event, event.text, logprobs, ready):
            self._is_touched = True
            self._is_ended(channel.filter.ending)

    def _take_media(self, event: MediaDelta, ready: list[Event]) -> None:
        """Filter the transcript of audio; data of images and of audio pass."""
        is_audio = event.media_type.startswith("audio/")
        channel = self._channel(MediaDelta) if is_audio else None
        if self._turn_to(channel, ready):
            return
        if channel is None or not event.transcript:
            ready.append(event)
            return
        self._audio, self._is_touched = event, True
        spoken: list[Event] = []
        channel.take(event, event.transcript, (), spoken)
        if spoken != [event]:
            ready.append(msgspec.structs.replace(event, transcript=None))
        ready += spoken
        self._is_ended(channel.filter.ending)

    def _transcript(self, text: str, _: tuple[TokenLogprob, ...]) -> Event:
        return MediaDelta(self._audio.media_type, id=self._audio.id, transcript=text)

    # Tool calls

    def _start_call(self, event: ToolCallStarted, ready: list[Event]) -> None:
        if self._turn_to(None, ready):
            return
        if self._has_arguments:
            self._calls[event.index] = ArgumentFilter(self._filters, is_custom=event.custom)
        ready.append(event)

    def _take_arguments(self, event: ToolCallDelta, ready: list[Event]) -> None:
        call, self._is_touched = self._calls[event.index], True
        text = call.feed(event.arguments)
        if text:
            ready.append(event if text == event.arguments else ToolCallDelta(event.index, text))
        self._is_ended(call.ending)

    def _finish_call(self, event: ToolCallFinished, ready: list[Event]) -> None:
        call, self._is_touched = self._calls[event.index], True
        if rest := call.close():
            ready.append(ToolCallDelta(event.index, rest))
        if self._is_ended(call.ending):
            return
        if call.is_changed or "".join(call.sent) != event.arguments_text:  # some arrive as a whole
            whole = ArgumentFilter(self._filters, is_custom=event.custom)
            text = whole.feed(event.arguments_text) + whole.close()
            if self._is_ended(whole.ending):
                return
            if whole.is_changed:
                arguments, error = (None, None) if event.custom else parse_arguments(text)
                event = msgspec.structs.replace(event, arguments_text=text, arguments=arguments, arguments_error=error)
        ready.append(event)

    # Everything else

    def _take_citation(self, event: Citation, ready: list[Event]) -> None:
        clean = msgspec.structs.replace(
            event, url=self._clean(event.url), title=self._clean(event.title), raw=self._clean(event.raw)
        )
        self._put(clean, ready)

    def _take_part(self, event: ProviderPart, ready: list[Event]) -> None:
        """Deliver opaque data with its texts filtered; drop what signs reasoning that was changed."""
        data = self._clean(event.data)
        if _OF_THOUGHTS.fullmatch(event.kind):
            thought = self._channels.get(ReasoningDelta)
            if thought is not None and thought is self._open:
                if self._turn_to(None, ready):  # the signature is the end of the reasoning
                    return
            if data != event.data or (thought is not None and thought.is_changed):
                return
        self._put(event if data is event.data else ProviderPart(event.provider, event.kind, data), ready)

    def _put(self, event: Event, ready: list[Event]) -> None:
        text = self._channels.get(TextDelta) if isinstance(event, Citation) else self._open
        if text is None:
            ready.append(event)
        else:
            text.put(event, ready)

    def _finish(self, event: ResponseFinished, ready: list[Event]) -> None:
        if self._turn_to(None, ready):
            return
        for index, call in self._calls.items():
            if text := call.close():
                ready.append(ToolCallDelta(index, text))
            if self._is_ended(call.ending):
                return
        details = self._clean(event.finish_details)
        ready.append(msgspec.structs.replace(event, finish_details=details) if details else event)

    def _clean(self, value: Any) -> Any:
        """Return a value with its texts filtered; the value itself where nothing is found."""
        if isinstance(value, str):
            text_filter = TextFilter(self._filters, self._filters.values)
            parts = text_filter.feed(value, is_end=True)
            self._is_ended(text_filter.ending)
            return "".join([part.text for part in parts]) if any(part.is_changed for part in parts) else value
        if isinstance(value, dict):
            changed = {self._clean(name): self._clean(each) for name, each in value.items()}
            return changed if changed != value else value
        if isinstance(value, list):
            items = [self._clean(each) for each in value]
            return items if items != value else value
        return value


_MAKERS: dict[type, Callable[[str, tuple[TokenLogprob, ...]], Event]] = {
    TextDelta: TextDelta,
    RefusalDelta: RefusalDelta,
    ReasoningDelta: lambda text, _: ReasoningDelta(text),
}
