"""Passes what happens in an agent loop on to its observers."""

from __future__ import annotations

from collections.abc import Callable

from lm_deluge.dispatch.call_watch import ObserverGroup
from lm_deluge.dispatch.hooks import response_or_failed
from lm_deluge.errors import DelugeError
from lm_deluge.response import APIResponse
from lm_deluge.telemetry.observer import AgentObserver, ObservedCall, ToolObserver

__all__ = ["AgentWatch", "ToolWatch"]


class AgentWatch:
    """The observers of one agent loop.

    Args:
        call: The loop at its start.
        group: Its observers.

    Attributes:
        rounds: The observers of its rounds: what watches the loop, or the observer itself.
    """

    def __init__(self, call: ObservedCall, group: ObserverGroup) -> None:
        self._group = group
        observers = group.observers()
        found = [group.report(observer, "agent_started", call) for observer in observers]
        self._watchers: list[AgentObserver] = [each for each in found if each is not None]
        rounds = [each or observer for each, observer in zip(found, observers, strict=True)]
        self.rounds = ObserverGroup(rounds, is_whole=True) if self._watchers else group

    def tool_started(self, name: str, call_id: str) -> ToolWatch:
        """Report that a tool runs from now on."""
        started = [self._group.report(watcher, "tool_started", name, call_id) for watcher in self._watchers]
        return ToolWatch([each for each in started if each is not None], self._group)

    def ended(self, respond: Callable[[], APIResponse], error: DelugeError | None) -> None:
        """Report the end of the loop, once."""
        watchers, self._watchers = self._watchers, []
        if not watchers:
            return
        response = response_or_failed(respond, error)
        for watcher in watchers:
            self._group.report(watcher, "ended", response)


class ToolWatch:
    """The observers of one run of a tool.

    Args:
        watchers: What the observers returned for it.
        group: Contains what they raise.
    """

    def __init__(self, watchers: list[ToolObserver], group: ObserverGroup) -> None:
        self._watchers = watchers
        self._group = group

    def ended(self, error: BaseException | None) -> None:
        """Report the end, the last observer first, as each may have changed the context of the task."""
        for watcher in reversed(self._watchers):
            self._group.report(watcher, "ended", error)
