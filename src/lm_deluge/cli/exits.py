"""How a command ends: quiet where the user wanted it, in plain words where it failed, with a code that says which."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lm_deluge.cli.render.escape import visible
from lm_deluge.errors import ConfigurationError, DelugeError

__all__ = ["EXIT_CODES", "FAILED", "INTERRUPTED", "READER_GONE", "WRONG_USE", "EndedError", "TerminatedError", "run"]

FAILED, WRONG_USE, INTERRUPTED, READER_GONE, TERMINATED = 1, 2, 130, 141, 143

EXIT_CODES = {
    0: "the answer is complete",
    FAILED: "the call failed; what came before it failed is on stdout",
    WRONG_USE: "wrong use or configuration; nothing was sent",
    INTERRUPTED: "interrupted (Ctrl-C)",
    READER_GONE: "whoever read the output has gone (| head)",
    TERMINATED: "ended from outside (SIGTERM)",
}


class TerminatedError(BaseException):
    """The process was asked to end: the terminal and the connection are left in order first."""


class EndedError(BaseException):
    """Carries what ended a command past click, which would answer it with an exit code and a line of its own."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__()
        self.cause = cause


def run(command: Callable[[], Any]) -> int:
    """Run a command and return its exit code: what it returns, where that is a number."""
    try:
        return _run(command)
    finally:
        _drop_output()


def _run(command: Callable[[], Any]) -> int:
    try:
        _listen_to_sigterm()
        code = command()
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - the last door: nobody is to see a traceback
        cause = error.cause if isinstance(error, EndedError) else error
        return next(end(cause) for kind, end in _ENDS if isinstance(cause, kind))
    return code if isinstance(code, int) else 0


def _say(text: str) -> None:
    from lm_deluge.cli.render.terminal import report

    with contextlib.suppress(AttributeError):  # no stderr at all
        report(visible(text))


def _end_of_usage(error: Any) -> int:
    context = getattr(error, "ctx", None)
    hint = f"\nTry: {context.command_path} --help" if context is not None else ""
    _say(f"deluge: {error.format_message()}{hint}")
    return int(error.exit_code)


def _end_of_reader(error: Any) -> int:
    return READER_GONE


def _end_of_call(error: Any) -> int:
    _say(f"deluge: {error}")
    return WRONG_USE if isinstance(error, ConfigurationError) else FAILED


def _end_of_fault(error: Any) -> int:
    _say(f"deluge: {_unexpected(error)}")
    return FAILED


def _reraise(error: Any) -> int:
    raise error


def _unexpected(error: Exception) -> str:
    """Return what can be said of a fault of our own without its message, which may hold anything."""
    if isinstance(error, OSError) and error.strerror:
        name = f" {Path(str(error.filename)).name}" if error.filename else ""
        return f"cannot use{name or ' a file'}: {error.strerror}."
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" in {Path(frame[0].filename).name}, line {frame[0].lineno}" if frame else ""
    return f"an unexpected {type(error).__name__}{place}. This is a fault of deluge; please report it."


def _drop_output() -> None:
    """Let the interpreter flush what nobody reads into nothing when it ends, instead of complaining."""
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # it may be closed, or not there at all
            try:
                file.flush()
            except OSError:
                with open(os.devnull, "wb") as nothing:  # noqa: PTH123 - no path of anybody's
                    os.dup2(nothing.fileno(), file.fileno())


def _listen_to_sigterm() -> None:
    import signal

    def end(number: int, frame: Any) -> None:
        raise TerminatedError

    with contextlib.suppress(ValueError, AttributeError):  # not in the main thread, or no such signal
        signal.signal(signal.SIGTERM, end)


# The first that fits, in order.
_ENDS: tuple[tuple[type[BaseException], Callable[[Any], int]], ...] = (
    (click.ClickException, _end_of_usage),
    (KeyboardInterrupt, lambda _: INTERRUPTED),
    (click.Abort, lambda _: INTERRUPTED),
    (BrokenPipeError, _end_of_reader),
    (TerminatedError, lambda _: TERMINATED),
    (click.exceptions.Exit, lambda end: int(end.exit_code)),
    (DelugeError, _end_of_call),
    (Exception, _end_of_fault),
    (BaseException, _reraise),
)
