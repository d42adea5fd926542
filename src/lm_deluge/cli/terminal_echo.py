"""What is typed while an answer streams is not shown: it would land in the middle of the answer.

The terminal keeps it for the next prompt, of the chat or of the shell.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TextIO

from lm_deluge.cli.render.terminal import is_terminal

__all__ = ["hide_typing"]

_LOCAL_FLAGS = 3  # the position of these flags in the list that termios.tcgetattr returns

# Signals whose default action ends or stops the process without an exception. Windows has none of them.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGQUIT", "SIGTSTP", "SIGCONT") if hasattr(signal, name))


@contextlib.contextmanager
def hide_typing(file: TextIO) -> Iterator[None]:
    """Turn the echo of a terminal off until the block ends, except while the process is suspended (Ctrl-Z).

    On Windows nothing is done: a console shows what is typed only to a program that reads it.

    Args:
        file: The output; nothing is done if it is not a terminal. With `| less` the terminal belongs to less.
    """
    if sys.platform == "win32" or not is_terminal(file):
        yield
        return
    echo = _Echo(file.fileno())
    with _handlers(echo):
        echo.hide()
        try:
            yield
        finally:
            echo.restore()


class _Echo:
    """The echo of a terminal. Only the flags that `hide` removed are set again: changes of other programs stay."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._removed = 0

    def hide(self) -> None:
        """Turn the echo off. A process in the background changes nothing: the system would stop it."""
        self._removed |= _change_echo(self._descriptor, restored=0)

    def restore(self) -> None:
        """Turn the echo on again if `hide` has turned it off."""
        removed, self._removed = self._removed, 0
        if removed:
            _change_echo(self._descriptor, restored=removed)


def _change_echo(descriptor: int, *, restored: int) -> int:
    """Set these flags of a terminal, or remove those of the echo if there are none; return what was removed."""
    if sys.platform == "win32":
        return 0
    import termios

    with contextlib.suppress(OSError, termios.error):
        if os.tcgetpgrp(descriptor) != os.getpgrp():
            return 0
        modes = termios.tcgetattr(descriptor)
        removed = 0 if restored else modes[_LOCAL_FLAGS] & (termios.ECHO | termios.ECHONL)
        modes[_LOCAL_FLAGS] = (modes[_LOCAL_FLAGS] | restored) & ~removed
        termios.tcsetattr(descriptor, termios.TCSANOW, modes)
        return int(removed)
    return 0


@contextlib.contextmanager
def _handlers(echo: _Echo) -> Iterator[None]:
    """Restore the echo before a signal stops or ends the process, and hide it again when it continues.

    A signal that is ignored, or that the program handles, is left alone. Outside the main thread nothing is done.
    """

    def take_default_action(number: int, frame: FrameType | None) -> None:
        echo.restore()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        # After Ctrl-Z the process continues here.
        signal.signal(number, take_default_action)
        echo.hide()

    def go_on(number: int, frame: FrameType | None) -> None:
        echo.hide()

    changed = []
    try:
        for number in _SIGNALS:
            if signal.getsignal(number) == signal.SIG_DFL:
                with contextlib.suppress(ValueError):  # not in the main thread
                    signal.signal(number, go_on if number == _SIGNALS[-1] else take_default_action)
                    changed.append(number)
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)
