"""Ctrl-C and its kin for commands that have something to finish first."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

from lm_deluge.cli.exits import TerminatedError

__all__ = ["Interrupts"]

_HANGUP = getattr(signal, "SIGHUP", None)


class Interrupts:
    """The first one asks to end in order, the next one to end at once; a third one ends the process the hard way.

    Attributes:
        count: How many there were.
    """

    def __init__(self) -> None:
        self.count = 0
        self._first: int | None = None

    @contextlib.contextmanager
    def caught(self, on_first: Callable[[], None], on_next: Callable[[], None]) -> Iterator[None]:
        """Call these in place of what a signal would do, in the running loop, as long as the block lasts."""
        loop = asyncio.get_running_loop()
        watched = [each for each in (signal.SIGINT, signal.SIGTERM, _HANGUP) if each and not _is_ignored(each)]

        def come(number: int) -> None:
            self.count += 1
            if self._first is None:
                self._first = number
                on_first()
                return
            for each in watched:
                loop.remove_signal_handler(each)
            on_next()

        for each in watched:
            loop.add_signal_handler(each, come, each)
        try:
            yield
        finally:
            for each in watched:
                loop.remove_signal_handler(each)

    def end(self) -> BaseException:
        """Return what ends the command as the first signal wanted."""
        return KeyboardInterrupt() if self._first == signal.SIGINT else TerminatedError()


def _is_ignored(number: int) -> bool:
    """Whether somebody wants a signal to do nothing, as `nohup` does."""
    return signal.getsignal(number) == signal.SIG_IGN
