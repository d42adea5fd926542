"""A decoder that changes the events of another one."""

from __future__ import annotations

from abc import ABC, abstractmethod

from lm_deluge.adapters.adapter import Decoder
from lm_deluge.errors import DelugeError
from lm_deluge.events import Event

__all__ = ["ChangedDecoder"]


class ChangedDecoder(ABC):
    """A `Decoder` that changes the events of another decoder; `change` has to be overridden."""

    def __init__(self, inner: Decoder) -> None:
        self.error: DelugeError | None = None
        self._inner = inner

    @property
    def is_flowing(self) -> bool:
        """Whether the last `feed` was in the middle of a stream."""
        return self._inner.is_flowing and self.error is None

    @property
    def is_complete(self) -> bool:
        """Whether the response would be a success if its body ended now."""
        return self._inner.is_complete

    @property
    def is_finished(self) -> bool:
        """Whether `ResponseFinished` was returned."""
        return self._inner.is_finished

    @property
    def failure(self) -> DelugeError | None:
        """The error that the provider reported, if its reason may still follow; else None."""
        return self._inner.failure

    @property
    def ignored(self) -> int:
        """Number of frames that were skipped."""
        return self._inner.ignored

    def expect(self, content_type: str) -> None:
        """Set the response's Content-Type."""
        self._inner.expect(content_type)

    def feed(self, data: bytes) -> list[Event]:
        """Decode the next bytes; return the events that they complete."""
        return self._changed(self._inner.feed(data))

    def close(self) -> list[Event]:
        """Signal the end of the body; return the last events."""
        return self._changed(self._inner.close())

    def _changed(self, events: list[Event]) -> list[Event]:
        self.error = self._inner.error
        return self.change(events)

    @abstractmethod
    def change(self, events: list[Event]) -> list[Event]:
        """Return the events to deliver; `error` is that of the other decoder."""
