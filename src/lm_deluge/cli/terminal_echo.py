"""What is typed while an answer streams is not shown: it would land in the middle of the answer.

The terminal keeps it for the next prompt, of the chat or of the shell. Only the flags that were removed are set again,
so that changes of other programs stay.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TextIO

from lm_deluge.cli.render.terminal import is_terminal

__all__ = ["hide_typing"]

if sys.platform == "win32":

    @contextlib.contextmanager
    def hide_typing(file: TextIO) -> Iterator[None]:
        """Do nothing: a console of Windows shows what is typed only to a program that reads it."""
        yield

else:
    import termios

    _LOCAL_FLAGS = 3  # of the list that termios.tcgetattr returns
    _ECHO = termios.ECHO | termios.ECHONL

    # Signals that end the process or stop it without an exception in Python.
    _ENDING = (signal.SIGHUP, signal.SIGQUIT)

    @contextlib.contextmanager
    def hide_typing(file: TextIO) -> Iterator[None]:
        """Turn the echo of a terminal off until the block ends, and while the process is suspended (Ctrl-Z).

        Args:
            file: The output; nothing is done if it is not a terminal. With `| less` the terminal belongs to less.
        """
        if not is_terminal(file):
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
        """The echo of a terminal. A process in the background changes nothing: the system would stop it."""

        def __init__(self, descriptor: int) -> None:
            self._descriptor = descriptor
            self._removed = 0

        def hide(self) -> None:
            def remove(flags: int) -> int:
                self._removed |= flags & _ECHO
                return flags & ~_ECHO

            self._change(remove)

        def restore(self) -> None:
            removed, self._removed = self._removed, 0
            if removed:
                self._change(lambda flags: flags | removed)

        def _change(self, change: Callable[[int], int]) -> None:
            with contextlib.suppress(OSError, termios.error):
                if os.tcgetpgrp(self._descriptor) != os.getpgrp():
                    return
                modes = termios.tcgetattr(self._descriptor)
                modes[_LOCAL_FLAGS] = change(modes[_LOCAL_FLAGS])
                termios.tcsetattr(self._descriptor, termios.TCSANOW, modes)

    @contextlib.contextmanager
    def _handlers(echo: _Echo) -> Iterator[None]:
        """Restore the echo before a signal stops or ends the process, and hide it again when it continues.

        A signal that is ignored, or that the program handles, is left alone. Outside the main thread nothing is done.
        """

        def default_action(number: int, frame: FrameType | None) -> None:
            echo.restore()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            # Only after Ctrl-Z the process gets here, when it continues.
            signal.signal(number, default_action)
            echo.hide()

        def go_on(number: int, frame: FrameType | None) -> None:
            echo.hide()

        changed = []
        try:
            for number in (*_ENDING, signal.SIGTSTP, signal.SIGCONT):
                if signal.getsignal(number) == signal.SIG_DFL:
                    with contextlib.suppress(ValueError):  # not in the main thread
                        signal.signal(number, go_on if number == signal.SIGCONT else default_action)
                        changed.append(number)
            yield
        finally:
            for number in changed:
                signal.signal(number, signal.SIG_DFL)
