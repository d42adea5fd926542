"""One fact that a response has shown, for all processes. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from lm_deluge.dispatch.scheduling.shared.configuration import Part
from lm_deluge.dispatch.scheduling.shared.server_view import ServerClock

__all__ = ["Report"]


class Report(msgspec.Struct, frozen=True):
    """A fact about a group of limits.

    Attributes:
        part: The group.
        kind: Name of the script's function: `refused`, `named`, `aligned`, ...
        before, after: Its arguments, those before and after the moments.
        sent_at: When the request left; None: not an argument.
        until: End of a pause, or the opening of a window; the script gets the seconds until then.
        is_kept: Whether it is reported again if the exchange fails.
        is_replaced: Whether a later report of the same kind about the same limit replaces it.
    """

    part: Part
    kind: str
    before: tuple[Any, ...] = ()
    after: tuple[Any, ...] = ()
    sent_at: float | None = None
    until: float | None = None
    is_kept: bool = False
    is_replaced: bool = False

    @property
    def place(self) -> tuple[Any, ...]:
        """What it is about."""
        return self.part, self.kind, self.before[:2]

    def encoded(self, clock: ServerClock, now: float) -> list[Any]:
        """Return it as the script reads it."""
        moments = [] if self.sent_at is None else [clock.there(self.sent_at)]
        if self.until is not None:
            moments.append(max(0.0, self.until - now))
        return [*self.part, self.kind, *self.before, *moments, *self.after]
