"""The timeout clocks of one attempt, as numbers: pure code, the time is an argument.

Before the first delta only `first_token` runs: a reasoning model may be silent for minutes. After it `idle` (no byte at
all) and `progress` (no delta, even if keep-alives arrive) run. Each clock counts only the time spent waiting for the
network, so a slow consumer trips none of them.
"""

from __future__ import annotations

import math

import msgspec

from lm_deluge.config import Timeouts
from lm_deluge.errors import Clock

__all__ = ["StreamClocks"]

_GRACE_S = 5.0
"""After the finish reason only the usage and the end mark are due, which providers send at once; 5 s is long enough for
a slow network and short enough for a user in front of a finished text."""


class StreamClocks(msgspec.Struct, gc=False):
    """The state of the clocks.

    Attributes:
        timeouts: The settings, with `first_token` as a number or None.
        deadline: When the whole call must be over, on the same clock as `limit`'s argument; None: never.
        is_flowing: The last read brought a delta, and the answer is not complete: another delta changes no limit.
    """

    timeouts: Timeouts
    deadline: float | None
    is_flowing: bool = False
    _has_token: bool = False
    _waited: float = 0.0  # for the first token, or since the last delta
    _is_complete: bool = False

    def limit(self, now: float) -> tuple[float, Clock]:
        """Return when a wait that starts now becomes too long, and the clock that limits it."""
        idle = self.setting("idle")
        if self._is_complete:
            return now + min(idle, _GRACE_S), "idle"
        if not self._has_token:
            limit: tuple[float, Clock] = now + self.setting("first_token") - self._waited, "first_token"
        elif idle <= (progress := self.setting("progress")) - self._waited:
            limit = now + idle, "idle"
        else:
            limit = now + progress - self._waited, "progress"
        return (self.deadline, "total") if self.deadline is not None and self.deadline < limit[0] else limit

    def setting(self, clock: Clock) -> float:
        """Return the setting of a clock in seconds; infinite if the clock is off."""
        value = getattr(self.timeouts, clock)
        return math.inf if value is None or isinstance(value, str) else value

    def restart(self) -> None:
        """Restart the wait for the next delta: the answer is resumed on another connection."""
        self._waited = 0.0

    def waited(self, seconds: float, *, is_progress: bool, is_complete: bool = False) -> bool:
        """Note that a wait is over; return whether another clock runs from now on, whose limit may be nearer.

        Args:
            seconds: Length of the wait.
            is_progress: Whether it brought a delta.
            is_complete: Whether the answer is complete now.
        """
        is_another = is_complete is not self._is_complete or (is_progress and not self._has_token)
        self._is_complete = is_complete
        self.is_flowing = is_progress and not is_complete
        if is_progress:
            self._has_token = True
            self._waited = 0.0
        else:
            self._waited += seconds
        return is_another
