"""The base class of the encoders' event writers: its check of the tables, and the order of frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, get_args

import pytest

from lm_deluge.encoders.catalog import encoder_names
from lm_deluge.encoders.event_writer import OF_AGENT_LOOPS, EventHandlers, EventWriter
from lm_deluge.events import (
    Attempt,
    Event,
    ReasoningDelta,
    ResponseFinished,
    ResponseStarted,
    RoundStarted,
    TextDelta,
    ToolCallDelta,
    ToolResult,
    UsageReported,
)

EVENT_TYPES = set(get_args(Event)) - OF_AGENT_LOOPS


class NameWriter(EventWriter[str]):
    """Write the class name of each event; the start is written with its model."""

    def start(self, event: ResponseStarted) -> list[str]:
        return [f"start {event.model}"]

    def write_name(self, event: Event) -> list[str]:
        return [type(event).__name__]

    def write_nothing(self, event: UsageReported) -> Iterator[str]:
        yield from ()

    HANDLED: ClassVar[EventHandlers] = {
        **dict.fromkeys(EVENT_TYPES - {Attempt, ToolCallDelta}, write_name),
        ResponseStarted: start,
        UsageReported: write_nothing,
    }
    IGNORED = frozenset({Attempt, ToolCallDelta})


class OpeningWriter(NameWriter):
    """The same writer for an API whose streams must be opened."""

    IMPLICIT_START = True


def define(handled: set[type], ignored: set[type]) -> None:
    """Define a writer class with these tables."""
    namespace: dict[str, Any] = {
        "HANDLED": dict.fromkeys(handled, NameWriter.write_name),
        "IGNORED": frozenset(ignored),
    }
    type("SomeWriter", (EventWriter,), namespace)


def writers() -> list[type[EventWriter[Any]]]:
    """Return the writers of all wire APIs."""
    assert len(encoder_names()) == 10
    return [each for each in EventWriter.__subclasses__() if each.__module__.startswith("lm_deluge.")]


@pytest.mark.parametrize("writer", writers(), ids=lambda writer: writer.__module__)
def test_each_writer_decides_about_each_event_type(writer: type[EventWriter[Any]]) -> None:
    assert set(writer.HANDLED) | writer.IGNORED == EVENT_TYPES
    assert not set(writer.HANDLED) & writer.IGNORED
    assert Attempt in writer.IGNORED


def test_the_events_between_the_rounds_of_a_loop_are_not_written() -> None:
    assert set(get_args(Event)) >= OF_AGENT_LOOPS
    assert list(NameWriter().write_all([RoundStarted(2), ToolResult("c", "f", "21")])) == []


def test_each_wire_api_has_a_writer() -> None:
    """Bedrock's native API has its own writer for text models; other families use the writers of other APIs."""
    assert sorted(writer.__module__.split(".")[2].replace("_", "-") for writer in writers()) == encoder_names()


@pytest.mark.parametrize(
    ("handled", "ignored", "fault"),
    [
        (EVENT_TYPES - {TextDelta, Attempt}, {Attempt}, "neither handled nor ignored: TextDelta"),
        (set(), EVENT_TYPES - {TextDelta, Attempt}, "neither handled nor ignored: Attempt, TextDelta"),
        (EVENT_TYPES, {ReasoningDelta}, "both handled and ignored: ReasoningDelta"),
        (EVENT_TYPES | {int}, set(), "no event type: int"),
        (EVENT_TYPES - {Attempt}, {Attempt, bytes}, "no event type: bytes"),
    ],
)
def test_a_table_that_does_not_fit_the_union_fails_the_class(
    handled: set[type], ignored: set[type], fault: str
) -> None:
    with pytest.raises(TypeError) as caught:
        define(handled, ignored)
    assert str(caught.value).endswith(f".SomeWriter: {fault}")


def test_frames_come_in_the_order_of_their_events() -> None:
    events: list[Event] = [ResponseStarted(model="m"), TextDelta("a"), ToolCallDelta(0, "{}"), ResponseFinished("stop")]
    assert list(NameWriter().write_all(events)) == ["start m", "TextDelta", "ResponseFinished"]
    assert list(OpeningWriter().write_all(events)) == ["start m", "TextDelta", "ResponseFinished"]


def test_a_frame_is_yielded_before_the_next_event_is_read() -> None:
    read: list[Event] = []

    def events() -> Iterator[Event]:
        for event in (TextDelta("a"), TextDelta("b")):
            read.append(event)
            yield event

    frames = NameWriter().write_all(events())
    assert next(frames) == "TextDelta"
    assert len(read) == 1


def test_a_stream_without_a_start_is_opened_by_its_first_handled_event() -> None:
    events: list[Event] = [Attempt(2, "ServerError", "", 0.0, "m"), TextDelta("a"), TextDelta("b")]
    assert list(OpeningWriter().write_all(events)) == ["start None", "TextDelta", "TextDelta"]
    assert list(NameWriter().write_all(events)) == ["TextDelta", "TextDelta"]
    assert list(OpeningWriter().write_all(events[:1])) == []
