"""Passes what happens in a call on to its observers. Whatever they raise is contained: it never ends paid work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from lm_deluge.api_requests.timing import Timing
from lm_deluge.dispatch.hooks import response_or_failed, warn_of_hook
from lm_deluge.errors import DelugeError
from lm_deluge.response import APIResponse
from lm_deluge.telemetry.logs import LogObserver, is_logged
from lm_deluge.telemetry.observer import (
    AgentObserver,
    CallObserver,
    ObservedAttempt,
    ObservedCall,
    Observer,
    observers_of_all_calls,
)

__all__ = ["CallWatch", "ObserverGroup"]

_LOGS = LogObserver()


class ObserverGroup:
    """The observers of the calls of a client.

    Args:
        own: Those of the client alone.
        is_whole: Whether nothing else observes the calls: neither the logger nor `observe_all_calls`.

    Attributes:
        deferred: Reports that could not be made at once.
    """

    def __init__(self, own: Sequence[Observer | AgentObserver] = (), *, is_whole: bool = False) -> None:
        self._own = tuple(own)
        self._is_whole = is_whole
        self._failed: set[str] = set()  # classes of observers that a warning was about
        self.deferred: deque[Callable[[], None]] = deque()  # reports of finalisers

    @property
    def is_idle(self) -> bool:
        """Whether nothing observes a call that starts now: neither an observer nor a log."""
        return not (self._own or self.deferred) and (self._is_whole or not (observers_of_all_calls() or is_logged()))

    def watch(self, call: ObservedCall) -> CallWatch | None:
        """Return what a call reports to; None if nothing observes it."""
        while self.deferred:
            self.deferred.popleft()()
        started = (self.report(observer, "call_started", call) for observer in self.observers())
        found = [watcher for watcher in started if watcher is not None]
        return CallWatch(found, self) if found else None

    def observers(self) -> Sequence[Any]:
        """Return all of them."""
        return self._own if self._is_whole else (_LOGS, *self._own, *observers_of_all_calls())

    def report(self, observer: object, method: str, *arguments: Any) -> Any:
        """Call a method of an observer; return its result, None if it failed."""
        try:
            return getattr(observer, method)(*arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - what a hook raises never ends a call
            self.note_failure(observer, error)
            return None

    def note_failure(self, observer: object, error: BaseException) -> None:
        """Warn of an observer that fails, once for each class."""
        name = type(observer).__name__
        if name not in self._failed:
            self._failed.add(name)
            warn_of_hook(f"the observer {name}", error)


class CallWatch:
    """The observers of one call.

    Args:
        watchers: What the observers returned for this call.
        group: Warns of those that fail.

    Attributes:
        wants_reads: Whether one of them is interested in single reads.
    """

    def __init__(self, watchers: Sequence[CallObserver], group: ObserverGroup) -> None:
        self._watchers = watchers
        self._group = group
        self._reason: str | None = None  # of the next attempt
        self._timing: Timing | None = None  # of the attempt that is read
        self._last_at: float | None = None  # of the last read with output
        self._is_over = False
        self.wants_reads = any(
            getattr(type(watcher), name, None) is not getattr(CallObserver, name)
            for watcher in watchers
            for name in ("read", "first_token")
        )

    def waited(self, seconds: float) -> None:
        """Report a wait for the limits."""
        self._report("waited", max(0.0, seconds))

    def attempt_started(self, number: int, model: str, provider: str) -> ObservedAttempt:
        """Report that a request is sent; return how observers see it."""
        reason, self._reason = self._reason, None
        attempt = ObservedAttempt(number, model, provider, reason if number == 1 else reason or "Hedge")
        self._report("attempt_started", attempt)
        return attempt

    def attempt_failed(self, attempt: ObservedAttempt, error: DelugeError) -> None:
        """Report that an attempt failed."""
        self._reason = type(error).__name__
        self._report("attempt_failed", attempt, error)

    def read(self, timing: Timing, started_at: float, events: int) -> None:
        """Report a read, if it brought anything of the answer.

        Args:
            timing: The measurements of the attempt.
            started_at: When the first request of the call was admitted, in the loop's time.
            events: The number of events.
        """
        last_at = timing.last_at
        if last_at is None or last_at == self._last_at:
            return
        if self._last_at is None:
            self._report("first_token", (timing.first_token_at or last_at) - started_at)
        elif self._timing is timing:  # else another attempt: the time between them is that of a retry
            self._report("read", events, last_at - self._last_at)
        self._timing, self._last_at = timing, last_at

    def ended(self, respond: Callable[[], APIResponse], error: DelugeError | None) -> None:
        """Report the end, once."""
        if self._is_over:
            return
        self._is_over = True
        self._report("ended", response_or_failed(respond, error))

    def ended_later(self, respond: Callable[[], APIResponse], error: DelugeError | None) -> None:
        """Have the end reported when the next call starts.

        A finaliser may run while its own thread holds a lock of an observer, so it reports nothing itself.
        """
        self._group.deferred.append(lambda: self.ended(respond, error))

    def _report(self, method: str, *arguments: Any) -> None:
        for watcher in self._watchers:
            self._group.report(watcher, method, *arguments)
