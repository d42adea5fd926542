"""Signal handlers for commands that finish some work before they end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

from lm_deluge.cli.exits import TerminatedError

__all__ = ["Interrupts", "handle_signals"]

_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # SIGHUP: Unix only; SIGBREAK: Windows only
    if hasattr(signal, name)
)


@contextlib.contextmanager
def handle_signals(numbers: Iterable[int], on_signal: Callable[[int], None]) -> Iterator[None]:
    """Call `on_signal` in the running event loop when one of the signals arrives, until the block ends.

    A signal that is ignored stays ignored: `nohup`, or a shell that starts a background job, has set it so. Outside the
    main thread nothing is changed. `loop.add_signal_handler` is not used, because event loops on Windows have no such
    method, and because it cannot restore the previous handlers.
    """
    loop = asyncio.get_running_loop()

    def on_arrival(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(on_signal, number)

    previous = {}
    try:
        for number in numbers:
            if (handler := signal.getsignal(number)) != signal.SIG_IGN:
                with contextlib.suppress(ValueError):  # not in the main thread
                    signal.signal(number, on_arrival)
                    previous[number] = handler
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class Interrupts:
    """The first signal ends a command in order, the second signal at once, a third signal ends the process.

    Attributes:
        count: Number of signals that arrived.
    """

    def __init__(self) -> None:
        self.count = 0
        self._first: int | None = None

    @contextlib.contextmanager
    def caught(self, on_first: Callable[[], None], on_second: Callable[[], None]) -> Iterator[None]:
        """Call `on_first` and `on_second` in the running event loop for the signals that arrive within the block."""

        def on_signal(number: int) -> None:
            self.count += 1
            if self._first is None:
                self._first = number
                on_first()
            else:
                _restore_defaults()
                on_second()

        try:
            with handle_signals(_SIGNALS, on_signal):
                yield
        finally:
            if self.count > 1:
                _restore_defaults()

    def end(self) -> BaseException:
        """Return the exception that ends the command: KeyboardInterrupt after SIGINT, else TerminatedError."""
        return KeyboardInterrupt() if self._first == signal.SIGINT else TerminatedError()


def _restore_defaults() -> None:
    """Let the next signal end the process at once."""
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
