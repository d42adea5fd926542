"""Exceptions that a hook of the user may raise, and a display that raises."""

from __future__ import annotations

import asyncio
from typing import Any


class OddError(BaseException):
    """As `SystemExit`, not an `Exception`."""


EVERY_EXCEPTION: dict[str, BaseException] = {
    "ZeroDivisionError": ZeroDivisionError(),
    "MemoryError": MemoryError(),
    "RecursionError": RecursionError(),
    "OverflowError": OverflowError(),
    "StopIteration": StopIteration(),
    "StopAsyncIteration": StopAsyncIteration(),
    "KeyError": KeyError("x"),
    "TimeoutError": TimeoutError(),
    "BrokenPipeError": BrokenPipeError(),
    "UnicodeEncodeError": UnicodeEncodeError("ascii", "x", 0, 1, "x"),
    "CancelledError": asyncio.CancelledError(),
    "SystemExit": SystemExit(3),
    "GeneratorExit": GeneratorExit(),
    "ExceptionGroup": BaseExceptionGroup("x", [OddError()]),
    "OddError": OddError(),
}


class FailingDisplay:
    """A progress display that raises each time."""

    every_s = 0.0

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.calls = 0

    def show(self, _progress: Any) -> None:
        self.calls += 1
        raise self.error

    close = show
