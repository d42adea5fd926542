"""What a process knows of the shared state: the server's clock, and the limits as the last reply has them. Pure.

All moments are of the process's own clock.
"""

from __future__ import annotations

import math
from collections import deque

import msgspec

from lm_deluge.dispatch.scheduling.shared.reply import GroupReply
from lm_deluge.wire.rate_limit_headers import Dimension

__all__ = ["GroupView", "LimitView", "ServerClock"]

_SAMPLES_KEPT = 64  # some seconds of traffic or two minutes of heartbeats: clocks drift by a few milliseconds in them
_MOST_DRIFT_S = 0.05  # beyond the round trip of a reply: the server's clock was set, or it is another server
_DIGITS = 6  # microseconds, the resolution of the server's clock


class ServerClock:
    """The difference between the own clock and the server's, from the times at which requests and replies passed.

    The own clock shows a server's moment `t` at `t + difference`, which is between the times of the request and of the
    reply. The smallest upper bound is used: it is late by the fastest way back, which all processes of a network share.
    """

    def __init__(self) -> None:
        self._bounds: deque[tuple[float, float]] = deque(maxlen=_SAMPLES_KEPT)
        self._least, self._most = -math.inf, math.inf

    @property
    def is_known(self) -> bool:
        """Whether a reply came."""
        return bool(self._bounds)

    @property
    def difference_s(self) -> float:
        """Seconds to add to a moment of the server's clock."""
        return self._most

    @property
    def doubt_s(self) -> float:
        """By how much `difference_s` may be too late: at most the fastest round trip."""
        return max(0.0, self._most - self._least) if self._bounds else 0.0

    def agrees(self, server: float, sent_at: float, received_at: float) -> bool:
        """Whether a reply fits the earlier ones: the server's clock has not been set."""
        if not self._bounds:
            return True
        lower, upper = sent_at - server, received_at - server
        return lower <= self._most + _MOST_DRIFT_S and upper >= self._least - _MOST_DRIFT_S

    def note(self, server: float, sent_at: float, received_at: float) -> None:
        """Learn from a reply: the server's time in it, and when the request left and the reply arrived."""
        self._bounds.append((sent_at - server, received_at - server))
        self._least = max(lower for lower, _ in self._bounds)
        self._most = min(upper for _, upper in self._bounds)

    def forget(self) -> None:
        """Forget the difference, because the server's clock is another one."""
        self._bounds.clear()

    def here(self, server: float) -> float:
        """Return the moment of the own clock for one of the server's."""
        return round(server + self.difference_s, _DIGITS)

    def there(self, moment: float) -> float:
        """Return the moment of the server's clock for one of the own."""
        return moment - self._most if self._bounds else 0.0


class LimitView(msgspec.Struct):
    """A shared limit. `opens_at`: when it alone would admit the next request; `moved_s`: see `rate_limit.Charge`."""

    dimension: Dimension
    period_s: float
    amount: float
    opens_at: float
    closed_until: float
    spacing_s: float
    moved_s: float
    rate_share: float
    is_cut: bool
    is_guess: bool
    is_named: bool
    is_firm: bool


class GroupView(msgspec.Struct):
    """The limits of a group, as the last reply has them.

    `free_at` is the first slot that was given back, or kept for interactive calls.
    `fixed` is the schedule of fixed windows that the processes have found: period, opening, length, seconds open,
    amount.
    """

    limits: list[LimitView] = []
    closed_until: float = -math.inf
    allowed: float | None = None
    most: float | None = None
    free_at: float = math.inf
    busy: float = 0
    fixed: tuple[float, float, float, float, float] | None = None

    @property
    def opens_at(self) -> float:
        """End of the pause that the provider asked for."""
        return max([self.closed_until, *(limit.closed_until for limit in self.limits)])

    @property
    def has_room(self) -> bool:
        """Whether one more request may be in flight."""
        return self.allowed is None or self.busy + 1 <= self.allowed

    @classmethod
    def read(cls, reply: GroupReply, now: float) -> GroupView:
        """Return the view of a group of a reply, whose moments are relative to `now`."""
        limits = [
            LimitView(
                each.dimension,
                each.period_s,
                each.amount,
                _after(now, each.opens_in_s),
                _pause_until(now, each.closed_for_s),
                each.spacing_s,
                each.moved_s,
                each.rate_share,
                bool(each.is_cut),
                bool(each.is_guess),
                bool(each.is_named),
                bool(each.is_firm),
            )
            for each in reply.limits
            if not isinstance(each, str)
        ]
        fixed = reply.fixed
        return cls(
            limits=limits,
            closed_until=_pause_until(now, reply.closed),
            allowed=reply.allowed,
            most=reply.most,
            busy=reply.busy,
            free_at=_after(now, reply.free) if reply.free else math.inf,
            fixed=None if fixed is None else (fixed[0], now + fixed[1], *fixed[2:]),
        )


def _after(now: float, delay_s: float) -> float:
    return round(now + delay_s, _DIGITS)


def _pause_until(now: float, delay_s: float) -> float:
    return _after(now, delay_s) if delay_s > 0 else -math.inf
