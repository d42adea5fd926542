"""Check that events follow the grammar of a response."""

from __future__ import annotations

from collections.abc import Iterable

from lm_deluge.events import (
    Event,
    ResponseFinished,
    ResponseStarted,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)


def check_grammar(events: Iterable[Event], *, is_complete: bool = True) -> None:
    """Assert that the events are a valid response, or its beginning if `is_complete` is false.

    The first event is the only start, the last event the only finish. Calls are numbered from 0 in order of appearance.
    Deltas and ends belong to started calls. Each call ends once, with the joined text of its deltas.
    """
    events = list(events)
    kinds = [type(event) for event in events]
    if is_complete or events:
        assert kinds[0] is ResponseStarted
        assert kinds.count(ResponseStarted) == 1
    assert kinds.count(ResponseFinished) == (1 if is_complete else 0)
    if is_complete:
        assert kinds[-1] is ResponseFinished
    _check_calls(events, is_complete=is_complete)


def _check_calls(events: list[Event], *, is_complete: bool) -> None:
    started: dict[int, ToolCallStarted] = {}
    texts: dict[int, str] = {}
    finished: set[int] = set()
    for event in events:
        if isinstance(event, ToolCallStarted):
            assert event.index not in started
            assert event.id
            started[event.index] = event
            texts[event.index] = ""
        elif isinstance(event, ToolCallDelta):
            assert event.index in started
            assert event.index not in finished
            assert event.arguments
            texts[event.index] += event.arguments
        elif isinstance(event, ToolCallFinished):
            assert event.index not in finished
            finished.add(event.index)
            start = started[event.index]
            assert (event.id, event.name, event.custom) == (start.id, start.name, start.custom)
            assert event.arguments_text == texts[event.index]
            assert event.arguments is None or event.arguments_error is None
    assert list(started) == list(range(len(started)))
    assert finished <= set(started)  # an incomplete response may have finished calls
    if is_complete:
        assert finished == set(started)
