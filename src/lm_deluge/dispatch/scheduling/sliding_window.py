"""The requests of the last period: the sum that a server with a sliding window has, as far as costs are known."""

from __future__ import annotations

from collections import deque
from typing import Protocol

__all__ = ["Window", "WindowEntry"]


class WindowEntry(Protocol):
    """A request: when it leaves, and its cost as far as it is known."""

    at: float
    units: float


class Window:
    """Entries ordered by time, and their sum. An entry counts for `reach_s` seconds."""

    def __init__(self) -> None:
        self._entries: deque[WindowEntry] = deque()
        self._used = 0.0

    def add(self, entry: WindowEntry) -> None:
        """Count an entry; it is nearly always the last in time, which is O(1)."""
        place = len(self._entries)
        while place and self._entries[place - 1].at > entry.at:
            place -= 1
        self._entries.insert(place, entry)
        self._used += entry.units

    def remove(self, entry: WindowEntry) -> None:
        """Stop counting an entry; nothing happens if it has been dropped already."""
        for place in range(len(self._entries) - 1, -1, -1):
            if self._entries[place] is entry:
                del self._entries[place]
                self._used -= entry.units
                return
            if self._entries[place].at < entry.at:
                return

    def change(self, entry: WindowEntry, units: float) -> None:
        """Count an entry with another cost; call this before the entry itself is changed."""
        if self._entries and entry.at >= self._entries[0].at:
            self._used += units - entry.units

    def forget(self, before: float) -> None:
        """Drop the entries that are not later than a moment."""
        entries = self._entries
        while entries and entries[0].at <= before:
            self._used -= entries.popleft().units
        if not entries:
            self._used = 0.0

    def room_at(self, most: float, now: float, reach_s: float) -> float:
        """Return when at most `most` units are left in the window; if that is negative, when the window is empty."""
        self.forget(now - reach_s)
        moment, over = now, self._used - most
        for entry in self._entries:
            if over <= 0:
                break
            over -= entry.units
            moment = entry.at + reach_s
        return moment

    def used_at(self, moment: float, reach_s: float) -> float:
        """Return the units that will still count at a moment that is not in the past."""
        used = self._used
        for entry in self._entries:
            if entry.at > moment - reach_s:
                break
            used -= entry.units
        return used
