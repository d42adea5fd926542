"""Output in the cell of a notebook: one output that is updated, in place of one output for each write."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["CELL_EVERY_S", "CellText", "UpdatedCell", "is_notebook"]

CELL_EVERY_S = 0.1
"""Seconds between two updates: ten a second look smooth, and are few messages for the browser."""


def is_notebook() -> bool:
    """Whether the program runs in the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class UpdatedCell:
    """One output of a cell. It needs no widgets.

    Raises:
        ImportError: IPython is not installed.
    """

    def __init__(self) -> None:
        from IPython.display import display  # type: ignore[import-not-found]  # present where a notebook runs

        self._display: Callable[..., Any] = display
        self._handle: Any = None

    def show(self, content: dict[str, str]) -> None:
        """Replace the output; `content` has its text by MIME type."""
        if self._handle is None:
            self._handle = self._display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


class CellText:
    """A text file whose text is one output of the cell. It raises nothing, since an answer is printed to it.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pieces: list[str] = []
        self._shown_at = -CELL_EVERY_S
        self._cell: UpdatedCell | None = None

    def write(self, text: str) -> int:
        """Append text."""
        self._pieces.append(text)
        return len(text)

    def flush(self) -> None:
        """Show the text, unless an update was shown within the last `CELL_EVERY_S`."""
        if self._clock() - self._shown_at >= CELL_EVERY_S:
            self.close()

    def close(self) -> None:
        """Show the text, whenever the last update was."""
        self._shown_at = self._clock()
        self._pieces = ["".join(self._pieces)]
        with contextlib.suppress(Exception):  # the display of another package may raise anything
            self._cell = self._cell or UpdatedCell()
            self._cell.show({"text/plain": self._pieces[0]})
