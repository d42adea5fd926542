"""What the state machines of all wire APIs share: the count of ignored frames and values, and its warning."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from lm_deluge.errors import APIError, ProtocolError
from lm_deluge.events import Event
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError, decode_json

__all__ = ["WRONG_TYPE", "PayloadState"]

WRONG_TYPE = "wrong_type"
"""The warning that a value of a wrong JSON type was left out."""


class PayloadState(ABC):
    """Base class of the state machines, and the `SkipReport` of their decoders.

    Attributes:
        is_finished: Whether `ResponseFinished` was appended.
        ignored: Number of frames and values that were skipped.
        failure: The error that the provider reported, if its reason may still follow; else None.
    """

    failure: APIError | None = None

    def __init__(self) -> None:
        self.is_finished = False
        self.ignored = 0
        self._has_wrong_type = False

    @abstractmethod
    def handle(self, frame: ServerSentEvent, events: list[Event]) -> None:
        """Decode one frame; append its events."""

    def skip_value(self, value: Any) -> None:
        """Count a value that is left out because of its type, and warn of it unless it is null."""
        self.ignored += 1
        if value is not None:
            self._has_wrong_type = True

    def type_warnings(self) -> tuple[str, ...]:
        """Return the warning for `ResponseFinished` if a value of a wrong type was left out."""
        return (WRONG_TYPE,) if self._has_wrong_type else ()

    def text_of(self, fields: Mapping[str, Any], name: str) -> str:
        """Return a text field of an object that is decoded without types; empty if it is missing or no text."""
        value = fields.get(name)
        if isinstance(value, str):
            return value
        if value is not None:
            self.skip_value(value)
        return ""

    def list_of(self, fields: Mapping[str, Any], name: str) -> list[Any]:
        """Return a list field of an object that is decoded without types; empty if it is missing or no list."""
        value = fields.get(name)
        if isinstance(value, list):
            return value
        if value is not None:
            self.skip_value(value)
        return []

    def objects_of(self, values: list[Any]) -> list[dict[str, Any]]:
        """Return the objects in a list; other values are skipped."""
        found = []
        for value in values:
            if isinstance(value, dict):
                found.append(value)
            else:
                self.skip_value(value)
        return found

    def maybe_handle_tail(self, frame: ServerSentEvent, events: list[Event]) -> None:
        """Decode the unterminated last frame if it is an end mark or complete JSON; else count it as ignored."""
        try:
            if frame.data.strip() != b"[DONE]":
                decode_json(frame.data)
            self.handle(frame, events)
        except (ProtocolError, NotJSONError):
            self.ignored += 1
