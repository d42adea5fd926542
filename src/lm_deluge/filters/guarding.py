"""Call the guards of a call with the text that is about to be delivered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from lm_deluge.errors import DelugeError, FilterError
from lm_deluge.events import (
    Event,
    MediaDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
)
from lm_deluge.filters.rules import Channel, Guard

__all__ = ["GuardWatch", "Verdict"]

_CHANNELS: Mapping[type, Channel] = {
    TextDelta: "text",
    RefusalDelta: "text",
    MediaDelta: "text",
    ReasoningDelta: "reasoning",
    ToolCallDelta: "arguments",
    ToolCallFinished: "arguments",
}


class Verdict(NamedTuple):
    """What a guard that stopped the answer leaves of a read.

    Attributes:
        events: The events to deliver.
        error: The error that ends the call; None if the answer just ends.
    """

    events: list[Event]
    error: DelugeError | None


class GuardWatch:
    """Calls one guard for one answer."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._ends: dict[tuple[type, int], str] = {}  # of the text before, by kind and number of the call

    def judge(self, events: list[Event]) -> Verdict | None:
        """Call the guard for each text of a read; return None if all of it can be delivered."""
        texts: dict[tuple[type, int], list[str]] = {}
        for event in events:
            channel = _CHANNELS.get(type(event))
            if channel is None or not self._guard.covers(channel) or not (text := _text_of(event)):
                continue
            name = _name_of(event)
            if isinstance(event, ToolCallFinished) and (name in texts or name in self._ends):
                continue  # its arguments arrived piece by piece
            texts.setdefault(name, []).append(text)
        for name, pieces in texts.items():
            new = "".join(pieces)
            window = (self._ends.get(name, "") + new)[-max(self._guard.window, len(new)) :]
            self._ends[name] = window[-self._guard.window :]
            verdict = self._ask(window)
            if verdict is not None:
                return self._cut(events, name, verdict)
        return None

    def _ask(self, window: str) -> str | DelugeError | None:
        """Return None to go on, the text that takes the place of the rest, or an error."""
        try:
            answer: object = self._guard.check(window)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - the function is the user's; what it raises ends this call only
            return _failed(f"the function of a Guard raised {type(error).__name__}", error)
        if answer is None or answer is True:
            return None
        if answer is False:
            return ""
        if isinstance(answer, str):
            return answer
        return _failed(f"the function of a Guard returned {type(answer).__name__}, not None, a bool or text")

    @staticmethod
    def _cut(events: list[Event], name: tuple[type, int], verdict: str | DelugeError) -> Verdict:
        at = next(at for at, event in enumerate(events) if _text_of(event) and _name_of(event) == name)
        before = events[:at]
        if isinstance(verdict, DelugeError):
            return Verdict(before, verdict)
        return Verdict([*before, *_end_with(events[at], verdict)], None)


def _text_of(event: Event) -> str:
    if isinstance(event, ToolCallDelta):
        return event.arguments
    if isinstance(event, ToolCallFinished):
        return event.arguments_text
    if isinstance(event, MediaDelta):
        return event.transcript or ""
    return event.text if isinstance(event, TextDelta | RefusalDelta | ReasoningDelta) else ""


def _name_of(event: Event) -> tuple[type, int]:
    return (ToolCallDelta, event.index) if isinstance(event, ToolCallDelta | ToolCallFinished) else (type(event), 0)


def _end_with(event: Event, text: str) -> list[Event]:
    """Return the event that ends an answer with this text; arguments of a tool call are left as they are."""
    if not text or isinstance(event, ToolCallDelta | ToolCallFinished):
        return []
    return [ReasoningDelta(text) if isinstance(event, ReasoningDelta) else TextDelta(text)]


def _failed(message: str, cause: BaseException | None = None) -> FilterError:
    error = FilterError(message, hint="It must return None or True to go on, or False or text to end the answer.")
    error.__cause__ = cause
    return error
