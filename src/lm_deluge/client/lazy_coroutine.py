"""A coroutine that starts when it is awaited, and that need not be awaited."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any

__all__ = ["LazyCoroutine"]


class LazyCoroutine(Coroutine[Any, Any, None]):
    """A coroutine that is made at its first step. Left alone it does nothing, and Python warns of nothing.

    Args:
        make: Returns the coroutine itself.
    """

    def __init__(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._make = make
        self._running: Coroutine[Any, Any, None] | None = None

    def __await__(self) -> Generator[Any, Any, None]:
        return self._made().__await__()

    def send(self, value: Any) -> Any:
        """Run until the next step."""
        return self._made().send(value)

    def throw(self, *error: Any) -> Any:
        """Raise an error where it waits."""
        return self._made().throw(*error)

    def close(self) -> None:
        """End it; one that never started has nothing to end."""
        if self._running is not None:
            self._running.close()

    def _made(self) -> Coroutine[Any, Any, None]:
        if self._running is None:
            self._running = self._make()
        return self._running
