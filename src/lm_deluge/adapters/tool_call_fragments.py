"""Tool calls from fragments, as OpenAI-like hosts send them.

By the book a fragment has an index, and the first one of each index brings id and name. In the wild the index is
missing or always 0, the id is missing, repeated or only in the first fragment, and the name comes again with each
fragment or in pieces.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lm_deluge.events import Event, ToolCallDelta, ToolCallFinished, ToolCallStarted

__all__ = ["KeyedCalls", "ToolCallAssembler", "parse_arguments"]


def parse_arguments(text: str) -> tuple[Any, str | None]:
    """Return parsed arguments and None, or None and why they are no JSON. Empty text is `{}`."""
    if not text.strip():
        return {}, None
    try:
        return msgspec.json.decode(text), None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return None, f"the arguments are not JSON: {error}"[:200]


class _OpenCall:
    """A call whose end has not come."""

    __slots__ = ("custom", "id", "index", "is_started", "key", "name", "pieces")

    def __init__(self, key: int | None, call_id: str, *, custom: bool) -> None:
        self.index = -1  # known when it is started
        self.key = key
        self.id = call_id
        self.name = ""
        self.custom = custom
        self.pieces: list[str] = []
        self.is_started = False


class ToolCallAssembler:
    """Sorts fragments into calls: by index, then by a change of id, then by a new name after whole arguments."""

    def __init__(self) -> None:
        self._calls: list[_OpenCall] = []
        self._waiting: list[_OpenCall] = []  # not started yet
        self._last: dict[int | None, _OpenCall] = {}
        self._started = 0

    @property
    def has_calls(self) -> bool:
        """Whether any call was begun."""
        return bool(self._calls)

    def add(
        self,
        events: list[Event],
        *,
        key: int | None,
        call_id: str,
        name: str,
        arguments: str,
        custom: bool = False,
    ) -> None:
        """Take a fragment; what is absent is empty, `key` is the wire's index."""
        call = self._find(key, call_id, name)
        if call is None:
            call = _OpenCall(key, call_id, custom=custom)
            self._calls.append(call)
            self._waiting.append(call)
        self._last[key] = call
        self._last[None] = call
        call.id = call.id or call_id
        if name and name != call.name and not call.is_started:
            call.name += name
        if arguments:
            if not call.is_started:
                self._start_up_to(call, events)
            call.pieces.append(arguments)
            events.append(ToolCallDelta(call.index, arguments))

    def finish(self, events: list[Event]) -> None:
        """Close all calls, in order of appearance."""
        for call in self._waiting:
            self._start(call, events)
        self._waiting = []
        for call in sorted(self._calls, key=lambda call: call.index):
            text = "".join(call.pieces)
            arguments, error = (None, None) if call.custom else parse_arguments(text)
            events.append(ToolCallFinished(call.index, call.id, call.name, text, arguments, error, call.custom))

    def _find(self, key: int | None, call_id: str, name: str) -> _OpenCall | None:
        call = self._last.get(key)
        if call is None and key is None and call_id:
            call = next((each for each in self._calls if each.id == call_id), None)
        if call is None:
            return None
        if call_id and call.id and call_id != call.id:
            # The same index, or none, with another id is another call, maybe one of those before.
            same = (each for each in self._calls if each.id == call_id and key in (None, each.key))
            return next(same, None)
        if name and not call_id and call.pieces and (name != call.name or self._is_whole(call)):
            return None
        return call

    def _start_up_to(self, call: _OpenCall, events: list[Event]) -> None:
        """Announce the call, and before it those that appeared earlier and have a name."""
        for each in self._waiting[: self._waiting.index(call) + 1]:
            if each.name or each is call:
                self._start(each, events)
        self._waiting = [each for each in self._waiting if not each.is_started]

    @staticmethod
    def _is_whole(call: _OpenCall) -> bool:
        # Arguments are objects: a look at the last piece spares parsing all of them at each repeated name.
        return call.pieces[-1].rstrip().endswith("}") and parse_arguments("".join(call.pieces))[1] is None

    def _start(self, call: _OpenCall, events: list[Event]) -> None:
        """Announce the call, once its name cannot grow any more."""
        call.is_started = True
        call.index = self._started
        self._started += 1
        call.id = call.id or f"call_{call.index}"
        events.append(ToolCallStarted(call.index, call.id, call.name, call.custom))


class KeyedCalls:
    """Tool calls of APIs that say where each begins, what belongs to it and where it ends. A key is the wire's."""

    def __init__(self) -> None:
        self._open: dict[Any, tuple[ToolCallStarted, list[str]]] = {}
        self._number = 0
        self._first = 0

    @property
    def has_calls(self) -> bool:
        """Whether any call was begun."""
        return self._number > self._first

    def is_open(self, key: Any) -> bool:
        """Whether a call of this key was begun and not ended."""
        return key in self._open

    def start(self, events: list[Event], key: Any, call_id: str, name: str, *, custom: bool = False) -> None:
        """Begin a call; one that was open under the key is ended."""
        self.finish(events, key)
        started = ToolCallStarted(self._number, call_id or f"call_{self._number}", name, custom)
        self._number += 1
        self._open[key] = (started, [])
        events.append(started)

    def add(self, events: list[Event], key: Any, fragment: str) -> None:
        """Take a piece of the arguments; one of a call that nobody began is passed over."""
        found = self._open.get(key)
        if found is not None and fragment:
            found[1].append(fragment)
            events.append(ToolCallDelta(found[0].index, fragment))

    def text(self, key: Any) -> str:
        """Return the arguments so far."""
        return "".join(self._open[key][1]) if key in self._open else ""

    def finish(self, events: list[Event], key: Any) -> None:
        """End the call of this key, if one is open."""
        found = self._open.pop(key, None)
        if found is not None:
            start, pieces = found
            text = "".join(pieces)
            arguments, error = (None, None) if start.custom else parse_arguments(text)
            events.append(ToolCallFinished(start.index, start.id, start.name, text, arguments, error, start.custom))

    def finish_all(self, events: list[Event]) -> None:
        """End all calls that are open, in order."""
        for key in list(self._open):
            self.finish(events, key)

    def begin_anew(self, events: list[Event]) -> None:
        """End all calls that are open: they belong to an answer that was given up. Numbers go on."""
        self.finish_all(events)
        self._first = self._number
