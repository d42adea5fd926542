"""Assemble tool calls from the fragments of a stream.

In OpenAI's documentation each fragment has an index, and the first fragment of an index has the id and the name. Other
hosts omit the index or always send 0; omit the id, repeat it or send a new one each time; and repeat the name in each
fragment or split it.
"""

from __future__ import annotations

from typing import Any

from lm_deluge.events import Event, ToolCallDelta, ToolCallFinished, ToolCallStarted
from lm_deluge.wire.tolerant_json import parse_arguments

__all__ = ["KeyedCalls", "ToolCallAssembler", "parse_arguments"]


class _OpenCall:
    """A call that may get more fragments. `key` is the index on the wire, `index` the position in our events."""

    __slots__ = ("custom", "id", "index", "is_named_again", "is_started", "key", "name", "opaque", "pieces")

    def __init__(self, key: int | None, call_id: str, *, custom: bool) -> None:
        self.index = -1  # assigned with ToolCallStarted
        self.key = key
        self.id = call_id
        self.name = ""
        self.custom = custom
        self.pieces: list[str] = []
        self.is_started = False
        self.is_named_again = False  # its name came again without arguments, after complete arguments
        self.opaque: list[Event] = []  # to be emitted after ToolCallStarted

    @property
    def is_whole(self) -> bool:
        """Whether the arguments are complete, so that more of them cannot belong to this call."""
        # Arguments are objects, so checking the last character first avoids parsing them at each repeated name.
        text = next((piece for piece in reversed(self.pieces) if piece.strip()), "")
        return text.rstrip().endswith("}") and parse_arguments("".join(self.pieces))[1] is None

    def is_repeated(self, call_id: str, arguments: str) -> bool:
        """Whether a fragment with this id repeats the whole call, as the last chunk of some hosts does."""
        return bool(call_id) and self.is_whole and arguments == "".join(self.pieces)


class ToolCallAssembler:
    """Assigns fragments to calls: by index, then by a change of id, then by the name before more arguments.

    A fragment with the name (and the id) of the open call continues it, unless its arguments are complete and the
    fragment has arguments of its own: then it starts another call.
    """

    def __init__(self) -> None:
        self._calls: list[_OpenCall] = []
        self._waiting: list[_OpenCall] = []  # ToolCallStarted not emitted yet, because the name may grow
        self._last: dict[int | None, _OpenCall] = {}
        self._started = 0

    @property
    def has_calls(self) -> bool:
        """Whether any call was added."""
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
        opaque: Event | None = None,
    ) -> None:
        """Add a fragment and append its events.

        Args:
            events: The list to append to.
            key: Index of the call on the wire; None if the fragment has none.
            call_id: Id of the call, or empty.
            name: Name of the tool or a piece of the name, or empty.
            arguments: The next piece of the arguments, or empty.
            custom: Whether the call has free text in place of JSON arguments.
            opaque: The provider's data that belongs to the call, or None. It is emitted after `ToolCallStarted`.
        """
        before = self._last.get(key)
        call = self._find(key, call_id, name, arguments)
        if call is None:
            call = _OpenCall(key, call_id, custom=custom)
            if not name and before is not None and before.is_named_again:
                call.name = before.name
            self._calls.append(call)
            self._waiting.append(call)
        self._last[key] = call
        self._last[None] = call
        call.id = call.id or call_id
        if name and name != call.name and not call.is_started:
            call.name += name
        if opaque is not None:
            (events if call.is_started else call.opaque).append(opaque)
        if arguments and not call.is_repeated(call_id, arguments):
            if not call.is_started:
                self._start_up_to(call, events)
            call.pieces.append(arguments)
            events.append(ToolCallDelta(call.index, arguments))

    def finish(self, events: list[Event]) -> None:
        """Append `ToolCallFinished` for all calls, in order of appearance."""
        for call in self._waiting:
            self._start(call, events)
        self._waiting = []
        for call in sorted(self._calls, key=lambda call: call.index):
            text = "".join(call.pieces)
            arguments, error = (None, None) if call.custom else parse_arguments(text)
            events.append(ToolCallFinished(call.index, call.id, call.name, text, arguments, error, call.custom))

    def _find(self, key: int | None, call_id: str, name: str, arguments: str) -> _OpenCall | None:
        """Return the call that the fragment continues, None if it starts a call."""
        call = self._last.get(key)
        if call is None and key is None and call_id:
            call = next((each for each in self._calls if each.id == call_id), None)
        if call is None:
            return None
        if call_id and call.id and call_id != call.id:
            # Another id means another call, even with the same index: an earlier call or a new one.
            same = next((each for each in self._calls if each.id == call_id and key in (None, each.key)), None)
            if same is not None or name or key is None or not call.pieces or call.is_whole:
                return same
            return call  # a host with a new id in each fragment
        return None if self._is_next(call, call_id, name, arguments) else call

    @staticmethod
    def _is_next(call: _OpenCall, call_id: str, name: str, arguments: str) -> bool:
        """Whether a fragment with the index of a call, and with its id or none, starts another call."""
        if not call.pieces or not (name or call.is_named_again):
            return False
        if name and name != call.name:
            return not call_id
        if not call.is_whole:
            return False
        if not arguments.strip():
            call.is_named_again = True
            return False
        return arguments.lstrip().startswith("{") and not call.is_repeated(call_id, arguments)

    def _start_up_to(self, call: _OpenCall, events: list[Event]) -> None:
        """Emit `ToolCallStarted` for the waiting calls up to this one; earlier calls without a name keep waiting."""
        for each in self._waiting[: self._waiting.index(call) + 1]:
            if each.name or each is call:
                self._start(each, events)
        self._waiting = [each for each in self._waiting if not each.is_started]

    def _start(self, call: _OpenCall, events: list[Event]) -> None:
        """Emit `ToolCallStarted`; after that the name of the call cannot change."""
        call.is_started = True
        call.index = self._started
        self._started += 1
        call.id = call.id or f"call_{call.index}"
        events.append(ToolCallStarted(call.index, call.id, call.name, call.custom))
        events += call.opaque


class KeyedCalls:
    """Assembles tool calls of APIs with explicit start and end events. `key` is the API's identifier of a call."""

    def __init__(self) -> None:
        self._open: dict[Any, tuple[ToolCallStarted, list[str]]] = {}
        self._number = 0  # index of the next call in our events
        self._first = 0  # index of the first call of the current attempt

    @property
    def has_calls(self) -> bool:
        """Whether any call was started, since the last `restart`."""
        return self._number > self._first

    def is_open(self, key: Any) -> bool:
        """Whether the call with this key is started and not finished."""
        return key in self._open

    def start(self, events: list[Event], key: Any, call_id: str, name: str, *, custom: bool = False) -> None:
        """Start a call. An open call with the same key is finished first."""
        self.finish(events, key)
        started = ToolCallStarted(self._number, call_id or f"call_{self._number}", name, custom)
        self._number += 1
        self._open[key] = (started, [])
        events.append(started)

    def add(self, events: list[Event], key: Any, fragment: str) -> None:
        """Add a piece of the arguments; ignored if no call with this key is open."""
        found = self._open.get(key)
        if found is not None and fragment:
            found[1].append(fragment)
            events.append(ToolCallDelta(found[0].index, fragment))

    def has_text(self, key: Any) -> bool:
        """Whether any piece of the arguments was received."""
        return key in self._open and bool(self._open[key][1])

    def text(self, key: Any) -> str:
        """Return the arguments received so far."""
        return "".join(self._open[key][1]) if key in self._open else ""

    def finish(self, events: list[Event], key: Any) -> None:
        """Finish the call with this key, if it is open."""
        found = self._open.pop(key, None)
        if found is not None:
            start, pieces = found
            text = "".join(pieces)
            arguments, error = (None, None) if start.custom else parse_arguments(text)
            events.append(ToolCallFinished(start.index, start.id, start.name, text, arguments, error, start.custom))

    def finish_all(self, events: list[Event]) -> None:
        """Finish all open calls, in the order of their start."""
        for key in list(self._open):
            self.finish(events, key)

    def restart(self, events: list[Event]) -> None:
        """Finish all open calls, because the provider discards them and generates again. Indexes keep increasing."""
        self.finish_all(events)
        self._first = self._number
