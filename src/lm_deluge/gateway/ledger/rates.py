"""The rate limits of a key: requests and tokens in any minute, and calls at a time. Pure: time is an argument."""

from __future__ import annotations

from collections import deque

from lm_deluge.errors import RateLimitError
from lm_deluge.gateway.dialects import KeyLimit
from lm_deluge.gateway.ledger.keys import KeyRules

__all__ = ["BUSY_S", "WINDOW_S", "KeyRates", "limit_reached"]

WINDOW_S = 60.0  # the limits are for a minute, as those of the providers
BUSY_S = 1.0  # suggested wait for a place: it is not known when a running call ends


class _Window:
    """Amounts of the last minute."""

    def __init__(self, kind: str, limit: int) -> None:
        self.kind = kind
        self.limit = limit
        self.used = 0
        self._entries: deque[list[float]] = deque()  # time and amount

    def _forget(self, now: float) -> None:
        while self._entries and self._entries[0][0] <= now - WINDOW_S:
            self.used -= int(self._entries.popleft()[1])

    def wait_s(self, amount: int, now: float, share: int) -> float:
        """Return the seconds until an amount fits into a share of the limit; 0 if it does now.

        One above the limit fits an empty window.
        """
        self._forget(now)
        limit = max(1, self.limit // share)
        excess = self.used + min(amount, limit) - limit
        for moment, each in self._entries:
            if excess <= 0:
                break
            excess -= int(each)
            if excess <= 0:
                return max(moment + WINDOW_S - now, 0.001)
        return 0.0

    def add(self, amount: int, now: float) -> list[float]:
        entry = [now, float(amount)]
        self._entries.append(entry)
        self.used += amount
        return entry

    def correct(self, entry: list[float], amount: int) -> None:
        """Replace the amount of an entry, if the window still has it."""
        if self._entries and self._entries[0][0] <= entry[0]:
            self.used += amount - int(entry[1])
            entry[1] = float(amount)

    def shown(self, now: float) -> KeyLimit:
        self._forget(now)
        reset_s = self._entries[-1][0] + WINDOW_S - now if self._entries else 0.0
        return KeyLimit(self.kind, self.limit, max(0, self.limit - self.used), max(0.0, reset_s))


class KeyRates:
    """What a key has used in the last minute.

    Args:
        rules: The limits of the key.
    """

    def __init__(self, rules: KeyRules) -> None:
        self._most_at_once = rules.max_concurrent
        self._running = 0
        self._requests = None if rules.requests_per_minute is None else _Window("requests", rules.requests_per_minute)
        self._tokens = None if rules.tokens_per_minute is None else _Window("tokens", rules.tokens_per_minute)

    def check(self, tokens: int, now: float, *, share: int = 1) -> None:
        """Check that one more call may begin.

        Args:
            tokens: Estimate of what the call uses.
            now: The time, in seconds.
            share: The part of the limits that this process may use: 1 / share.

        Raises:
            RateLimitError: A limit of the key is reached.
        """
        if self._most_at_once is not None and self._running >= max(1, self._most_at_once // share):
            raise limit_reached("calls", self._most_at_once, BUSY_S)
        for window, amount in ((self._requests, 1), (self._tokens, tokens)):
            wait_s = 0.0 if window is None else window.wait_s(amount, now, share)
            if window is not None and wait_s > 0:
                raise limit_reached(window.kind, window.limit, wait_s)

    def add(self, tokens: int, now: float) -> list[float] | None:
        """Note a call that begins; return the entry of its tokens, for `end`."""
        self._running += 1
        if self._requests is not None:
            self._requests.add(1, now)
        return None if self._tokens is None else self._tokens.add(tokens, now)

    def end(self, entry: list[float] | None, tokens: int) -> None:
        """Note the end of a call, and how many tokens it used."""
        self._running -= 1
        if entry is not None and self._tokens is not None:
            self._tokens.correct(entry, tokens)

    def shown(self, now: float) -> list[KeyLimit]:
        """Return the limits for the headers of a response."""
        return [window.shown(now) for window in (self._requests, self._tokens) if window is not None]


def limit_reached(kind: str, limit: int, wait_s: float) -> RateLimitError:
    """Return the error for a call over a limit of its key: `requests` or `tokens` per minute, or `calls` at a time."""
    what = f"run {limit:,} calls at a time" if kind == "calls" else f"use {limit:,} {kind} per minute"
    return RateLimitError(f"this key may {what}", status_code=429, code="rate_limit_exceeded", retry_after_s=wait_s)
