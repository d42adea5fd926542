"""The clocks of one attempt, as numbers: nothing here waits or asks for the time.

Three clocks run while a stream is read. Before the first delta only `first_token`: a reasoning model may be silent
for minutes. After it `idle` (no byte at all) and `progress` (no delta, whatever pings come). Each counts only the time
that was spent waiting for the network, so a consumer that takes its time trips none of them.
"""

from __future__ import annotations

import math

import msgspec

from lm_deluge.config import Timeouts
from lm_deluge.errors import Clock

__all__ = ["StreamClocks"]

_GRACE_S = 5.0
"""After the finish reason only usage and the end mark are due: nobody waits a minute for them."""


class StreamClocks(msgspec.Struct, gc=False):
    """What is left on each clock.

    Attributes:
        timeouts: Settled for the model: `first_token` is a number or None.
        deadline: When the whole call must be over, on the clock that `limit` is asked with; None: no such time.
        is_flowing: The last wait brought a delta, and the answer is not complete: another delta changes nothing.
    """

    timeouts: Timeouts
    deadline: float | None
    is_flowing: bool = False
    _has_token: bool = False
    _waited: float = 0.0  # for the first token, or since the last delta
    _is_complete: bool = False

    def limit(self, now: float) -> tuple[float, Clock]:
        """Return when a wait that begins now would be too long, and by which clock."""
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
        """Return what a clock is set to, in seconds; infinite where it is set to nothing."""
        value = getattr(self.timeouts, clock)
        return math.inf if value is None or isinstance(value, str) else value

    def restart(self) -> None:
        """Begin the wait for the next delta anew: the answer is taken up again on another connection."""
        self._waited = 0.0

    def waited(self, seconds: float, *, is_progress: bool, is_complete: bool = False) -> bool:
        """Take note of a wait that is over, whether it brought a delta, and whether the answer is complete now.

        Return whether another clock runs from now on: its limit may be nearer.
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
