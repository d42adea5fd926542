"""Base class of the encoders' event writers: one table from event type to method, shared by all wire APIs.

A wire API brings `HANDLED` (event type -> method that returns the frames) and `IGNORED` (event types that the API
cannot express). The class statement fails if an event type of the union `events.Event` is in neither of them. The
events between the rounds of an agent loop are in no wire API, and are ignored by all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar, get_args

from lm_deluge.events import Event, ResponseStarted, RoundStarted, ToolProgress, ToolResult

__all__ = ["OF_AGENT_LOOPS", "EventHandlers", "EventWriter"]

FrameT = TypeVar("FrameT")
EventHandlers: TypeAlias = Mapping[type, Callable[[Any, Any], Iterable[Any]]]

OF_AGENT_LOOPS: frozenset[type] = frozenset({ToolProgress, ToolResult, RoundStarted})
"""Events that no writer handles: an agent loop is the program's own, and a wire API has single answers."""
_EVENT_TYPES: frozenset[type] = frozenset(get_args(Event)) - OF_AGENT_LOOPS


class EventWriter(Generic[FrameT]):
    """State of one response that is being written, and the loop that hands each event to its method.

    Attributes:
        HANDLED: The method for each event type that the API can express; it returns the frames to send.
        IGNORED: The event types that the API cannot express; they produce no frame and do not open the response.
        IMPLICIT_START: Whether an empty `ResponseStarted` is handled first if the events begin with another type, for
            an API whose streams must open with a certain frame.

    A response has one start: a second `ResponseStarted` produces no frame.
    """

    HANDLED: ClassVar[EventHandlers]
    IGNORED: ClassVar[frozenset[type]]
    IMPLICIT_START: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Check that each event type is either handled or ignored.

        Raises:
            TypeError: An event type is in neither table or in both, or an entry is not an event type.
        """
        handled, ignored = set(cls.HANDLED), set(cls.IGNORED)
        faults = {
            "neither handled nor ignored": _EVENT_TYPES - handled - ignored,
            "both handled and ignored": handled & ignored,
            "no event type": (handled | ignored) - _EVENT_TYPES,
        }
        for fault, types in faults.items():
            if types:
                names = ", ".join(sorted(each.__name__ for each in types))
                raise TypeError(f"{cls.__module__}.{cls.__qualname__}: {fault}: {names}")

    def __init__(self) -> None:
        self._is_started = not self.IMPLICIT_START
        self._has_start = False

    def write(self, event: Event) -> Iterable[FrameT]:
        """Return the frames that `event` completes."""
        handler = self.HANDLED.get(type(event))
        if handler is None:
            return ()
        if type(event) is ResponseStarted:
            if self._has_start:
                return ()
            self._has_start = self._is_started = True
            return handler(self, event)
        if self._is_started:
            return handler(self, event)
        self._is_started = self._has_start = True
        return [*self.HANDLED[ResponseStarted](self, ResponseStarted()), *handler(self, event)]

    def write_all(self, events: Iterable[Event]) -> Iterator[FrameT]:
        """Yield the frames of all events, each as soon as the events that complete it are read."""
        for event in events:
            yield from self.write(event)
