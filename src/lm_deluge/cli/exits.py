"""The end of a command: its message on stderr, if any, and its exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lm_deluge.cli.render.escape import visible
from lm_deluge.errors import ConfigurationError, DelugeError

__all__ = ["EXIT_CODES", "FAILED", "INTERRUPTED", "READER_GONE", "WRONG_USE", "EndedError", "TerminatedError", "run"]

# 2 is click's code for wrong use. The last three are 128 + SIGINT, SIGPIPE and SIGTERM, as shells report signals.
FAILED, WRONG_USE, INTERRUPTED, READER_GONE, TERMINATED = 1, 2, 130, 141, 143

EXIT_CODES = {
    0: "the answer is complete",
    FAILED: "the call failed, and the text received before the failure is on stdout",
    WRONG_USE: "wrong use or configuration, and no request was sent",
    INTERRUPTED: "interrupted (Ctrl-C)",
    READER_GONE: "the program that read stdout has ended (| head)",
    TERMINATED: "terminated (SIGTERM)",
}

# The signals that ask a process to end. Windows sends SIGBREAK for Ctrl-Break and never sends SIGTERM.
_TERMINATING = [getattr(signal, name) for name in ("SIGTERM", "SIGBREAK") if hasattr(signal, name)]


class TerminatedError(BaseException):
    """The process received SIGTERM. As an exception it lets commands close connections and restore the terminal."""


class EndedError(BaseException):
    """Carries an exception past click, which would print its own message for it and choose the exit code.

    Attributes:
        cause: The exception that ended the command.
    """

    def __init__(self, cause: BaseException) -> None:
        super().__init__()
        self.cause = cause


def run(command: Callable[[], Any]) -> int:
    """Run a command and return the exit code: the command's return value if it is a number, else 0."""
    _reserve_descriptors()
    try:
        return _run(command)
    finally:
        _discard_unwritten()


def _run(command: Callable[[], Any]) -> int:
    try:
        _handle_termination()
        code = command()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - users never see a traceback
        cause = error.cause if isinstance(error, EndedError) else error
        return next(end(cause) for kind, end in _ENDS if isinstance(cause, kind))
    return code if isinstance(code, int) else 0


def _print_error(text: str) -> None:
    from lm_deluge.cli.render.terminal import report

    with contextlib.suppress(AttributeError):  # sys.stderr is None
        report(visible(text))


def _end_of_usage(error: Any) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # of click 8.2 and later; its message is the help text
        _print_error(error.format_message())
        return int(error.exit_code)
    context = getattr(error, "ctx", None)
    hint = f"\nTry: {context.command_path} --help" if context is not None else ""
    _print_error(f"deluge: {error.format_message()}{hint}")
    return int(error.exit_code)


def _end_of_call(error: Any) -> int:
    _print_error(f"deluge: {error}")
    return WRONG_USE if isinstance(error, ConfigurationError) else FAILED


def _end_of_bug(error: Any) -> int:
    _print_error(f"deluge: {_describe_bug(error)}")
    return FAILED


def _reraise(error: Any) -> int:
    raise error


def _describe_bug(error: Exception) -> str:
    """Describe an unexpected error without its message, which may contain keys or text of a prompt."""
    if isinstance(error, OSError) and error.strerror:
        name = f" {Path(str(error.filename)).name}" if error.filename else ""
        return f"cannot use{name or ' a file'}: {error.strerror}."
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    location = f" in {Path(frame[0].filename).name}, line {frame[0].lineno}" if frame else ""
    return f"an unexpected {type(error).__name__}{location}. This is a bug in deluge; please report it."


def _discard_unwritten() -> None:
    """Redirect an output whose reader has ended to the null device.

    Else the interpreter flushes the rest of the output when it exits, and prints the error.
    """
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # the file is closed, or None
            try:
                file.flush()
            except OSError:
                with open(os.devnull, "wb") as null:  # noqa: PTH123 - a device, not a path
                    os.dup2(null.fileno(), file.fileno())


def _reserve_descriptors() -> None:
    """Open the null device in place of each standard file that is closed (`2>&-`).

    Else the next file that is opened, a journal for example, would get its number, and with it messages meant for
    stderr. `sys.stderr` is then the null device; `sys.stdin` and `sys.stdout` stay None.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - until the process ends


def _handle_termination() -> None:
    """Turn SIGTERM into TerminatedError, unless it is ignored: the parent process has decided so."""

    def end(number: int, frame: Any) -> None:
        raise TerminatedError

    for number in _TERMINATING:
        if signal.getsignal(number) != signal.SIG_IGN:
            with contextlib.suppress(ValueError):  # not in the main thread
                signal.signal(number, end)


# The first class that fits decides.
_ENDS: tuple[tuple[type[BaseException], Callable[[Any], int]], ...] = (
    (click.ClickException, _end_of_usage),
    (KeyboardInterrupt, lambda _: INTERRUPTED),
    (click.Abort, lambda _: INTERRUPTED),
    (BrokenPipeError, lambda _: READER_GONE),
    (TerminatedError, lambda _: TERMINATED),
    (click.exceptions.Exit, lambda end: int(end.exit_code)),
    (DelugeError, _end_of_call),
    (Exception, _end_of_bug),
    (BaseException, _reraise),
)
