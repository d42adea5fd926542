"""Which parts of a provider are not used for a while, and why. Pure: time and chance are arguments.

A failed connection shows nothing about the request, which did not arrive. After the provider has answered once, such
failures are an outage: as long as it may pass, failed attempts are not counted, because an outage of a minute would
otherwise use up the attempts of a whole batch. If the provider never answered, its address is probably wrong, and the
error is raised soon.
"""

from __future__ import annotations

import math

from lm_deluge.errors import ConnectError, DelugeError

__all__ = ["CircuitBreaker", "Cooldown"]

PROBE_PAUSES_S = (2.0, 8.0, 30.0)
"""Seconds before each probe, the last one repeated: a restart passes within two, and a long outage costs two requests
a minute."""
_HOPELESS_PROBES = 4  # with the pauses above after more than a minute, longer than a network takes to come up
_RETRY_BASE_S, _RETRY_LONGEST_S = 0.5, 10.0  # the cap is short, so that calls go on soon after the outage ends


class Cooldown:
    """A time during which a route or a provider is not used.

    Attributes:
        until: Moment before which other routes are used, and calls without another route wait.
        blocked_by: The error with which calls fail that have no other route; None if they are to wait.
        blocked_until: Moment at which `blocked_by` ends; infinite: never.
    """

    def __init__(self) -> None:
        self.until = -math.inf
        self.blocked_by: DelugeError | None = None
        self.blocked_until = math.inf

    def extend(self, until: float) -> None:
        """Do not use it before `until`."""
        self.until = max(self.until, until)

    def block(self, error: DelugeError, until: float) -> None:
        """Do not use it before `until`, and let calls fail with the error rather than wait."""
        self.blocked_by, self.blocked_until = error, until

    def unblock(self, now: float) -> bool:
        """End a block whose time is over; return whether it may be used."""
        if self.blocked_until <= now:
            self.blocked_by, self.blocked_until = None, math.inf
        return self.blocked_by is None


class CircuitBreaker(Cooldown):
    """The state of the connection to one provider, for all calls of one event loop.

    Closed while connections succeed. A failed connection opens it; it is half open each time that a probe is due, and
    any answer closes it. Callers that ask `acquire` are held back while it is open; others retry by themselves, after
    `retry_wait_s`.

    Args:
        patience_s: How long an outage may last before failed attempts are counted.

    Attributes:
        has_answered: Whether the provider ever answered.
        failing_since: Moment of the first failed connection of an outage; None without an outage.
    """

    def __init__(self, patience_s: float = math.inf) -> None:
        super().__init__()
        self.probe_pauses_s = PROBE_PAUSES_S
        self._patience_s = patience_s
        self.has_answered = False
        self.failing_since: float | None = None
        self._probes = 0
        self._next_probe_at = math.inf

    @property
    def is_open(self) -> bool:
        """Whether the last connection failed."""
        return self.failing_since is not None

    @property
    def is_hopeless(self) -> bool:
        """Whether the provider never answered, not even to several probes: the address is probably wrong."""
        return self.is_open and not self.has_answered and self._probes >= _HOPELESS_PROBES

    def record_answer(self) -> bool:
        """Note that the provider answered, with whatever status; return whether that closed an open breaker."""
        self.has_answered = True
        if self.failing_since is None:
            return False
        self.failing_since, self._probes = None, 0
        return True

    def record_failure(self, error: DelugeError, now: float) -> bool:
        """Note why an attempt failed; return whether an outage explains it, so that the attempt does not count."""
        if not isinstance(error, ConnectError) or not error.retryable:
            return False
        if self.failing_since is None:
            self.failing_since = now
            self._next_probe_at = now + self._pause_s()
        return self.has_answered and now - self.failing_since < self._patience_s

    def acquire(self, now: float) -> float:
        """Return 0 if a request may leave now, as a probe if the breaker is open; else the seconds until to ask again.

        A breaker that closes ends the wait early: see `record_answer`.
        """
        if self.failing_since is None:
            return 0.0
        if now < self._next_probe_at:
            return self._next_probe_at - now
        self._probes += 1
        self._next_probe_at = now + self._pause_s()
        return 0.0

    def _pause_s(self) -> float:
        return self.probe_pauses_s[min(self._probes, len(self.probe_pauses_s) - 1)]

    def retry_wait_s(self, attempt: int, chance: float) -> float:
        """Return how long a call waits between two attempts during an outage, with full jitter."""
        return chance * min(_RETRY_BASE_S * 2.0 ** (attempt - 1), _RETRY_LONGEST_S)
