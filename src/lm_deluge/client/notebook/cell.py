"""Output in the cell of a notebook: one output that is updated, in place of one output for each write.

A display may fail in any way, at any update. None of that reaches the answer, which is paid.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable
from typing import Any, Protocol

from lm_deluge.dispatch.hooks import ContainedHook
from lm_deluge.response import APIResponse

__all__ = ["CELL_EVERY_S", "CellText", "Loop", "PacedCell", "UpdatedCell", "is_notebook", "show_no_result"]

CELL_EVERY_S = 0.1
"""Seconds between two updates: ten a second look smooth, and are few messages for the browser."""
_SHARE = 0.1  # of the time for updates: those of an answer of a megabyte take longer, and become fewer


def is_notebook() -> bool:
    """Whether the program runs in the kernel of a notebook."""
    return getattr(_shell(), "kernel", None) is not None


def _shell() -> Any:
    return getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()


class UpdatedCell:
    """One output of a cell. It needs no widgets.

    Raises:
        ImportError: IPython is not installed.
    """

    def __init__(self) -> None:
        # By name, so that type checkers need no IPython.
        self._display: Callable[..., Any] = importlib.import_module("IPython.display").display
        self._handle: Any = None

    def show(self, content: dict[str, str]) -> None:
        """Replace the output; `content` has its text by MIME type."""
        if self._handle is None:
            self._handle = self._display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


class Loop(Protocol):
    """What a `PacedCell` needs of an event loop."""

    def time(self) -> float:
        """Return the time in seconds."""
        ...

    def call_later(self, delay: float, callback: Callable[[], Any], /) -> Any:
        """Call a function after so many seconds; the returned handle has a method `cancel`."""
        ...


class PacedCell:
    """An output that follows a growing content, with `CELL_EVERY_S` between two updates, or more. It raises nothing.

    Args:
        content: Returns the content by MIME type.
        loop: Has the clock and the timer; by default the running loop.
    """

    def __init__(self, content: Callable[[], dict[str, str]], loop: Loop | None = None) -> None:
        self._content = content
        self._loop: Loop = loop or asyncio.get_running_loop()
        self._next_at = self._loop.time()
        self._timer: Any = None
        self._cell: UpdatedCell | None = None
        self._update = ContainedHook(self._show_content, None)

    def refresh(self) -> None:
        """Show the content, now or as soon as an update is due, even if nothing else happens until then."""
        if self._timer is None:
            wait_s = self._next_at - self._loop.time()
            if wait_s <= 0:
                self._show()
            else:
                self._timer = self._loop.call_later(wait_s, self._show)

    def close(self) -> None:
        """Show the complete content, whenever the last update was."""
        if self._timer is not None:
            self._timer.cancel()
        self._show()

    def _show_content(self) -> None:
        self._cell = self._cell or UpdatedCell()
        self._cell.show(self._content())

    def _show(self) -> None:
        self._timer = None
        started = self._loop.time()
        self._update()
        ended = self._loop.time()
        self._next_at = ended + max(CELL_EVERY_S, (ended - started) / _SHARE)


class CellText:
    """A text file whose text is one output of the cell. It raises nothing, since an answer is printed to it.

    Args:
        loop: Has the clock and the timer; by default the running loop.
    """

    def __init__(self, loop: Loop | None = None) -> None:
        self._pieces: list[str] = []
        self._cell = PacedCell(self._content, loop)

    def _content(self) -> dict[str, str]:
        self._pieces = ["".join(self._pieces)]
        return {"text/plain": self._pieces[0]}

    def write(self, text: str) -> int:
        """Append text."""
        self._pieces.append(text)
        return len(text)

    def flush(self) -> None:
        """Show the text as soon as an update is due."""
        self._cell.refresh()

    def close(self) -> None:
        """Show the text, whenever the last update was; nothing if there is none."""
        if self._pieces:
            self._cell.close()


_shown: list[tuple[APIResponse, int]] = []  # the last response that a cell has shown, and the number of the cell


def show_no_result(response: APIResponse) -> None:
    """Keep a response that a cell has shown from being shown once more as the result of the same cell."""
    shell = _shell()
    formatter = getattr(getattr(shell, "display_formatter", None), "ipython_display_formatter", None)
    number = getattr(shell, "execution_count", None)
    if formatter is not None and number is not None:
        _shown[:] = [(response, number)]
        formatter.for_type(APIResponse, _show_unless_shown)


def _show_unless_shown(response: APIResponse) -> None:
    """Show nothing if the running cell has shown the response.

    Raises:
        NotImplementedError: It has not: IPython then shows the response as it shows any object.
    """
    if not any(each is response and number == _shell().execution_count for each, number in _shown):
        raise NotImplementedError
