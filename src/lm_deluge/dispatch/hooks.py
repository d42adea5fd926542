"""What follows when a function of the user, or code that should not fail, raises: one call fails, never a batch.

Hooks are functions that the user passes in: `postprocess`, `on_state`, a local cache, a display. Whatever they raise is
contained, `SystemExit` and `MemoryError` included. Only interruptions pass: Ctrl-C, and the cancellation of the task.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import warnings
from collections.abc import Callable
from typing import Any

from lm_deluge.errors import DelugeError, DispatchError
from lm_deluge.response import APIResponse

__all__ = [
    "ContainedHook",
    "failed_response",
    "failure_of",
    "is_interruption",
    "postprocess_response",
    "response_or_failed",
    "unexpected_error",
    "warn_of_hook",
]


def is_interruption(error: BaseException, *, of_hook: bool = False) -> bool:
    """Whether an exception interrupts the program or the running task, and is not a failure of the code that raised it.

    Args:
        error: The exception.
        of_hook: Whether a hook raised it: then `SystemExit` is a failure of the hook.
    """
    if isinstance(error, asyncio.CancelledError):  # a hook may raise it, too: only a cancelled task is cancelled
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return isinstance(error, KeyboardInterrupt | GeneratorExit) or (isinstance(error, SystemExit) and not of_hook)


def unexpected_error(error: BaseException, what: str = "the call") -> DelugeError:
    """Return an error of ours for any exception; one of ours is returned unchanged.

    Args:
        error: The exception. Its message may contain the prompt, so only its class is named.
        what: What it ended.
    """
    if isinstance(error, DelugeError):
        return error
    name = type(error).__name__
    failure = DispatchError(
        f"an unexpected {name} ended {what}", hint="It is the __cause__ of this error.", billed="maybe"
    )
    failure.__cause__ = error
    return failure


def response_or_failed(respond: Callable[[], APIResponse], error: BaseException | None = None) -> APIResponse:
    """Return the response so far; if `respond` fails, an empty one with `error`, or else with what `respond` raised."""
    try:
        return respond()
    except Exception as failure:  # noqa: BLE001 - a value of the provider, such as usage that is no number, may break it
        return APIResponse(error=unexpected_error(error or failure))


def failed_response(respond: Callable[[], APIResponse], error: BaseException) -> APIResponse:
    """Return the response so far with an error; an empty response if `respond` fails as well."""
    response = response_or_failed(respond)
    response.error = unexpected_error(error)
    return response


async def postprocess_response(response: APIResponse, postprocess: Callable[[APIResponse], Any]) -> APIResponse:
    """Return the response that a hook makes of a response; if the hook fails, the response with `error` set."""
    is_awaited = False
    try:
        result = postprocess(response)
        if inspect.isawaitable(result):
            is_awaited = True
            result = await result
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or (is_awaited and is_interruption(error, of_hook=True)):
            raise
        failure = DispatchError(
            f"postprocess raised {type(error).__name__}", hint="The response has the complete answer."
        )
        failure.__cause__ = error
    else:
        if isinstance(result, APIResponse):
            return result
        failure = DispatchError(
            f"postprocess returned {type(result).__name__}, not an APIResponse",
            hint="It must return the response, changed or not. The response has the complete answer.",
        )
    response.error = failure
    return response


async def failure_of(hook: Callable[..., Any], *arguments: Any) -> BaseException | None:
    """Call a hook, which may be async; return what it raised, or None."""
    is_awaited = False
    try:
        result = hook(*arguments)
        if inspect.isawaitable(result):
            is_awaited = True
            await result
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or (is_awaited and is_interruption(error, of_hook=True)):
            raise
        return error
    return None


def warn_of_hook(name: str, error: BaseException) -> None:
    """Warn that a hook raised; its message may contain the prompt, so only its class is named."""
    with contextlib.suppress(Exception):  # where warnings are errors
        warnings.warn(f"{name} raised {type(error).__name__}", RuntimeWarning, stacklevel=3)


class ContainedHook:
    """A hook whose result is not used. What it raises becomes one `RuntimeWarning`, and the hook is still called.

    Args:
        hook: The function.
        name: Its name, for the warning; None: no warning.
    """

    def __init__(self, hook: Callable[..., object], name: str | None) -> None:
        self._hook = hook
        self._name = name

    def __call__(self, *arguments: Any) -> bool:
        """Call the hook; return whether it returned normally."""
        try:
            self._hook(*arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - the rule of this module
            name, self._name = self._name, None
            if name is not None:
                warn_of_hook(name, error)
            return False
        return True
