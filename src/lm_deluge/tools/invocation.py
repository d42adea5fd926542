"""Calls of functions, whatever kind they are: sync ones run in a thread, async ones in the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

from lm_deluge.errors import ConfigurationError, ToolError
from lm_deluge.schemas.signature import unwrapped
from lm_deluge.tools.threads import run_in_thread

__all__ = ["call_async", "call_blocking", "is_async"]

Report = Callable[[Any], object]


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling the function returns at once with a coroutine or an async generator."""
    inner = unwrapped(function)
    return inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)


async def call_async(
    function: Callable[..., Any], positional: list[Any], keywords: dict[str, Any], report: Report | None = None
) -> Any:
    """Call a function and return its result.

    A sync function runs in a daemon thread with a copy of the context variables. A cancellation ends the wait for it,
    but not the thread; a generator stops at its next `yield`.

    Args:
        function: Sync, async, a generator or an async generator.
        positional: Its positional arguments.
        keywords: Its keyword arguments.
        report: Called in the event loop with each value that a generator yields but the last, which is its result
            unless it returns one.
    """
    if getattr(function, "takes_report", False):
        keywords = {**keywords, "report": report}
    if is_async(function):
        result = function(*positional, **keywords)
    else:
        result = await _ThreadCall(function, report or _ignore).result(positional, keywords)
    if inspect.isasyncgen(result):
        return await _last_of(result, report or _ignore)
    return await result if inspect.isawaitable(result) else result


def call_blocking(function: Callable[..., Any], positional: list[Any], keywords: dict[str, Any]) -> Any:
    """Call a function and return its result; an async one in an event loop of its own."""
    if not is_async(function):
        result = function(*positional, **keywords)
        if inspect.isgenerator(result):
            return _drained(result, _ignore)
        if not inspect.isawaitable(result) and not inspect.isasyncgen(result):
            return result
        function, positional, keywords = _returning(result), [], {}
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(call_async(function, positional, keywords))
    if getattr(function, "is_bound_to_loop", False):
        raise ConfigurationError(
            "this tool needs the event loop, which the call would block", hint="Use await tool.acall(...)."
        )
    return _run_in_own_loop(call_async(function, positional, keywords))


def _run_in_own_loop(work: Any) -> Any:
    """Run a coroutine to its end in the event loop of a new thread."""
    results: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _returning(value: Any) -> Callable[[], Any]:
    async def function() -> Any:
        return await _last_of(value, _ignore) if inspect.isasyncgen(value) else await value

    return function


def _ignore(value: Any) -> None:
    """Ignore progress."""


class _ThreadCall:
    """A call of a sync function in a thread of its own."""

    def __init__(self, function: Callable[..., Any], report: Report) -> None:
        self._function = function
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[tuple[Any, Exception | None]] = self._loop.create_future()

    async def result(self, positional: list[Any], keywords: dict[str, Any]) -> Any:
        """Run the function and return its result, the last value of a generator."""
        context = contextvars.copy_context()
        run_in_thread(lambda: context.run(self._run, positional, keywords))
        result, error = await self._outcome
        if error is not None:
            raise error
        return result

    def _run(self, positional: list[Any], keywords: dict[str, Any]) -> None:
        result: Any = None
        failure: Exception | None = None
        try:
            result = self._function(*positional, **keywords)
            if inspect.isgenerator(result):
                result = _drained(result, self._report_in_loop)
        except Exception as error:  # noqa: BLE001 - raised in the event loop
            failure = error
        except BaseException as error:  # noqa: BLE001 - there it would look like an interruption of the caller
            failure = ToolError(f"the tool ended with {type(error).__name__}", reason="exit")
            failure.__cause__ = error
        self._in_loop(self._deliver, result, failure)

    def _deliver(self, result: Any, error: Exception | None) -> None:
        if not self._outcome.done():
            self._outcome.set_result((result, error))

    def _report_in_loop(self, value: Any) -> None:
        if self._outcome.done():
            raise GeneratorExit  # the caller has given up
        self._in_loop(self._report, value)

    def _in_loop(self, callback: Callable[..., object], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed: the wait was given up
            self._loop.call_soon_threadsafe(callback, *arguments)


def _drained(values: Iterator[Any], report: Report) -> Any:
    """Return the last value of a generator, or the one that it returns; report the others."""
    last: list[Any] = []
    with contextlib.closing(values):  # type: ignore[type-var]  # a generator
        while True:
            try:
                value = next(values)
            except StopIteration as end:
                if end.value is None:
                    return last[0] if last else None
                for each in last:
                    report(each)
                return end.value
            for each in last:
                report(each)
            last = [value]


async def _last_of(values: Any, report: Report) -> Any:
    """Return the last value of an async generator; report the others."""
    last: list[Any] = []
    async with contextlib.aclosing(values):
        async for value in values:
            for each in last:
                report(each)
            last = [value]
    return last[0] if last else None
