"""The events of one round as events of the whole loop. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

from lm_deluge.agents.history import CallIds
from lm_deluge.events import (
    Attempt,
    Event,
    ResponseFinished,
    ResponseStarted,
    RoundStarted,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.usage import Usage

__all__ = ["RoundEvents"]


class RoundEvents:
    """Translates the events of a round: the loop has one start and one finish, and its calls are numbered throughout.

    Args:
        number: Number of the round, from 1.
        is_start: Whether the start of the round is the start of the loop.
        first_index: Index of the first call of the round.
        ids: The ids of the calls.
        usage: The usage of the rounds before; None if there are none.

    Attributes:
        finished: The finish of the round, once it arrived; it is not passed on.
        next_index: Index of the next call.
        has_calls: Whether the answer has calls.
    """

    def __init__(self, number: int, *, is_start: bool, first_index: int, ids: CallIds, usage: Usage | None) -> None:
        self.finished: ResponseFinished | None = None
        self.next_index = self._first_index = first_index
        self.has_calls = False
        self._number = number
        self._is_start = is_start
        self._ids = ids
        self._names: dict[int, str] = {}  # ids of the calls in the loop, by their index in the round
        self._usage = usage

    def translate(self, events: list[Event]) -> list[Event]:
        """Return the events as those of the loop."""
        edits = self._EDITS
        found: list[Event] = []
        for event in events:
            edit = edits.get(type(event))
            if edit is None:
                found.append(event)
            elif (edited := edit(self, event)) is not None:
                found.append(edited)
        return found

    def _start(self, event: ResponseStarted) -> Event:
        return event if self._is_start else RoundStarted(self._number, event.response_id, event.model)

    def _finish(self, event: ResponseFinished) -> None:
        self.finished = event

    def _restart(self, event: Attempt) -> Event:
        if not event.goes_on:
            self._ids.restart()
            self.has_calls = False
        return event

    def _add_usage(self, event: UsageReported) -> Event:
        return event if self._usage is None else UsageReported(self._usage + event.usage)

    def _start_call(self, event: ToolCallStarted) -> Event:
        self.has_calls = True
        index = self._first_index + event.index
        self.next_index = max(self.next_index, index + 1)
        name = self._names[event.index] = self._ids.add(event.id)
        return event if (index, name) == (event.index, event.id) else _moved(event, index, name)

    def _add_arguments(self, event: ToolCallDelta) -> Event:
        return ToolCallDelta(self._first_index + event.index, event.arguments) if self._first_index else event

    def _finish_call(self, event: ToolCallFinished) -> Event:
        index, name = self._first_index + event.index, self._names.get(event.index, event.id)
        return event if (index, name) == (event.index, event.id) else _moved(event, index, name)

    _EDITS: ClassVar[dict[type, Callable[[RoundEvents, Any], Event | None]]] = {
        ResponseStarted: _start,
        ResponseFinished: _finish,
        Attempt: _restart,
        UsageReported: _add_usage,
        ToolCallStarted: _start_call,
        ToolCallDelta: _add_arguments,
        ToolCallFinished: _finish_call,
    }


def _moved(event: Any, index: int, name: str) -> Any:
    return msgspec.structs.replace(event, index=index, id=name)
