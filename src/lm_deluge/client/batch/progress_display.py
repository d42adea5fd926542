"""Progress displays of a batch: a live display, a bar, lines, or nothing. They write to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

import msgspec

from lm_deluge.dispatch.batch.progress import BatchProgress
from lm_deluge.errors import ConfigurationError, MissingExtraError, install_hint

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Progress", "ProgressKind", "describe", "make_progress"]

ProgressKind = Literal["rich", "tqdm", "plain", "none"]

_LINE_EVERY_S = 10.0  # few enough lines for a log file, often enough to see that a batch goes on
_MINUTE, _HOUR = 60, 3_600  # in seconds


class Progress(Protocol):
    """A display of a batch's progress."""

    every_s: float
    """Seconds between two calls of `show`, at least."""

    def show(self, progress: BatchProgress) -> None:
        """Show the progress of the batch."""
        ...

    def close(self, progress: BatchProgress) -> None:
        """Show the end of the batch, and restore the terminal."""
        ...


def make_progress(kind: ProgressKind | None, file: TextIO | None = None) -> Progress:
    """Return a display. The kind `rich` falls back to lines if the output is neither a terminal nor a notebook.

    Args:
        kind: Of the display; None for `none`.
        file: Where the display writes, by default stderr.

    Raises:
        ConfigurationError: The kind is unknown.
        MissingExtraError: `tqdm` is not installed.
    """
    make = _KINDS.get(kind or "none")
    if make is None:
        raise ConfigurationError(f"progress={kind!r} is unknown", hint=f"Known: {', '.join(_KINDS)}.")
    return make(file or sys.stderr)


def describe(progress: BatchProgress) -> str:
    """Return the progress of a batch as one line of plain text."""
    words = [_count(progress)]
    if progress.in_flight:
        words.append(f"{progress.in_flight} in flight")
    words.append(f"{_short(progress.input_rate)} in {_short(progress.output_rate)} out tokens/s")
    if progress.cost is not None:
        projected = "" if progress.projected_cost is None else f" of ${progress.projected_cost:.2f}"
        words.append(f"${progress.cost:.4f}{projected}" if progress.cost < 1 else f"${progress.cost:.2f}{projected}")
    if progress.remaining_s is not None and progress.done != progress.total:
        words.append(f"{_span(progress.remaining_s)} left")
    else:
        words.append(f"in {_span(progress.elapsed_s)}")
    if progress.limited_by is not None:
        words.append(f"limited by {progress.limited_by}")
    if progress.errors:
        words.append(_errors(progress))
    return ", ".join(words)


def _count(progress: BatchProgress) -> str:
    if progress.total is None:
        return f"{progress.done} done"
    percent = f" ({progress.done / progress.total:.0%})" if progress.total else ""
    return f"{progress.done}/{progress.total}{percent}"


def _errors(progress: BatchProgress) -> str:
    each = (f"{name} {count}" for name, count in sorted(progress.errors.items(), key=lambda item: -item[1]))
    return f"failed {progress.failed}: {', '.join(each)}"


def _short(number: float) -> str:
    for size, sign in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{sign}"
    return f"{number:.0f}"


def _span(seconds: float) -> str:
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}:{whole % _MINUTE:02} min"
    return f"{whole // _HOUR}:{whole % _HOUR // _MINUTE:02} h"


class _None:
    """A display that shows nothing."""

    every_s = 3_600.0  # seldom: each call would do nothing

    def show(self, progress: BatchProgress) -> None:
        """Show nothing."""

    def close(self, progress: BatchProgress) -> None:
        """Show nothing."""


class _Lines:
    """A display that writes a line every few seconds: for log files, CI, and pipes."""

    every_s = _LINE_EVERY_S

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def show(self, progress: BatchProgress) -> None:
        self._file.write(f"{describe(progress)}\n")
        self._file.flush()

    def close(self, progress: BatchProgress) -> None:
        self.show(progress)


class _Live:
    """A display that is drawn again at the same place of the terminal."""

    every_s = 0.1  # smooth to the eye, and little work

    def __init__(self, file: TextIO, console: Any) -> None:
        from rich.live import Live

        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._is_open = False

    def show(self, progress: BatchProgress) -> None:
        if not self._is_open:
            self._is_open = True
            self._live.start()
        self._live.update(_drawn(progress), refresh=True)

    def close(self, progress: BatchProgress) -> None:
        self.show(progress)
        self._live.stop()


def _drawn(progress: BatchProgress) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bar = Table.grid(expand=True)
    bar.add_row(ProgressBar(total=progress.total, completed=progress.done, pulse=progress.total is None))
    # The text is in no grid, which would fill the last row of the terminal: its ^C would then start another row, which
    # is never cleared.
    rows: list[RenderableType] = [bar, Text(describe(msgspec.structs.replace(progress, errors={})))]
    if progress.errors:
        rows.append(Text(_errors(progress), style="red"))
    return Group(*rows)


def _rich(file: TextIO) -> Progress:
    from rich.console import Console

    console = Console(file=file)
    return _Live(file, console) if console.is_terminal or console.is_jupyter else _Lines(file)


class _Bar:
    """The bar of tqdm, which notebooks and other tools display well."""

    every_s = 0.2  # smooth to the eye; a bar of a notebook costs more than a line of a terminal

    def __init__(self, file: TextIO) -> None:
        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            raise MissingExtraError(
                "progress='tqdm' needs the package tqdm",
                hint=install_hint("tqdm", otherwise="use progress='rich'"),
            ) from error
        self._make: Callable[..., Any] = tqdm
        self._file = file
        self._bar: Any = None

    def show(self, progress: BatchProgress) -> None:
        if self._bar is None:
            self._bar = self._make(total=progress.total, file=self._file, unit="call")
        self._bar.n = progress.done
        self._bar.set_postfix_str(describe(progress).partition(", ")[2], refresh=False)
        self._bar.refresh()

    def close(self, progress: BatchProgress) -> None:
        self.show(progress)
        self._bar.close()


_KINDS: dict[str, Callable[[TextIO], Progress]] = {
    "rich": _rich,
    "tqdm": _Bar,
    "plain": _Lines,
    "none": lambda _file: _None(),
}
