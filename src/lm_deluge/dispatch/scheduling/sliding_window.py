"""What left within the last period: the exact sum that a server with a sliding window would have, as far as known."""

from __future__ import annotations

from collections import deque
from typing import Protocol

__all__ = ["Window", "WindowEntry"]


class WindowEntry(Protocol):
    """Something that left, or will: at which moment, and at what cost as far as it is known by now."""

    at: float
    units: float


class Window:
    """Entries in the order of their moments, and their sum. Whatever `reach_s` ago or longer left counts no more."""

    def __init__(self) -> None:
        self._entries: deque[WindowEntry] = deque()
        self._used = 0.0

    def add(self, entry: WindowEntry) -> None:
        """Count an entry; nearly always it is the last one."""
        place = len(self._entries)
        while place and self._entries[place - 1].at > entry.at:
            place -= 1
        self._entries.insert(place, entry)
        self._used += entry.units

    def remove(self, entry: WindowEntry) -> None:
        """Count an entry no more; one that is forgotten already is no fault."""
        for place in range(len(self._entries) - 1, -1, -1):
            if self._entries[place] is entry:
                del self._entries[place]
                self._used -= entry.units
                return
            if self._entries[place].at < entry.at:
                return

    def change(self, entry: WindowEntry, units: float) -> None:
        """Note what an entry costs after all; to be told before the entry itself is changed."""
        if self._entries and entry.at >= self._entries[0].at:
            self._used += units - entry.units

    def forget(self, before: float) -> None:
        """Drop what left until then."""
        entries = self._entries
        while entries and entries[0].at <= before:
            self._used -= entries.popleft().units
        if not entries:
            self._used = 0.0

    def room_at(self, most: float, now: float, reach_s: float) -> float:
        """Return when no more than `most` units will be left within the window; at the latest when none are."""
        self.forget(now - reach_s)
        moment, over = now, self._used - most
        for entry in self._entries:
            if over <= 0:
                break
            over -= entry.units
            moment = entry.at + reach_s
        return moment

    def used_at(self, moment: float, reach_s: float) -> float:
        """Return the units that count at a moment that is not over yet."""
        used = self._used
        for entry in self._entries:
            if entry.at > moment - reach_s:
                break
            used -= entry.units
        return used
