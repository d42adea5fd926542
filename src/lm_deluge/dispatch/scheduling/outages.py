"""Which providers answered before and cannot be reached now. Pure.

A refused connection says nothing of the request, which nobody saw. As long as such an outage may pass, it spends no
attempt: a provider that is away for a minute would else take a whole batch with it. Where nobody ever answered, the
address is more likely to be wrong, and that is told soon.
"""

from __future__ import annotations

from lm_deluge.errors import ConnectError, DelugeError

__all__ = ["Outages"]

_BASE_S = 0.5
_LONGEST_S = 10.0


class Outages:
    """The models of a client, by whether they can be reached."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._answered: set[str] = set()
        self._since: dict[str, float] = {}

    def answered(self, model: str) -> None:
        """Note that a model's provider answered, whatever it said."""
        self._answered.add(model)
        self._since.pop(model, None)

    def is_one(self, model: str, error: DelugeError, now: float) -> bool:
        """Take note of an error; return whether it is an outage that has not lasted too long yet."""
        if not isinstance(error, ConnectError) or not error.retryable or model not in self._answered:
            return False
        return now - self._since.setdefault(model, now) < self._patience_s

    def wait_s(self, attempt: int, chance: float) -> float:
        """Return how long to wait before the next look whether it is over."""
        return chance * min(_BASE_S * 2.0 ** (attempt - 1), _LONGEST_S)
