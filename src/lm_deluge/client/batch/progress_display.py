"""How a batch is shown while it runs: a live display, a bar, lines, or nothing. Always on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

import msgspec

from lm_deluge.dispatch.batch.progress import BatchProgress
from lm_deluge.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Progress", "ProgressKind", "describe", "make_progress"]

ProgressKind = Literal["rich", "tqdm", "plain", "none"]

_LINE_EVERY_S = 10.0
_MINUTE, _HOUR = 60, 3_600


class Progress(Protocol):
    """What shows a batch. It never slows a batch down and never ends one: it is told where the batch stands."""

    every_s: float
    """How often it wants to be told."""

    def show(self, tally: BatchProgress) -> None:
        """Show where the batch stands."""
        ...

    def close(self, tally: BatchProgress) -> None:
        """Show how it ended, and leave the terminal as it was."""
        ...


def make_progress(kind: ProgressKind | None, file: TextIO | None = None) -> Progress:
    """Return the display of a kind. The live one falls back to lines where there is no terminal and no notebook.

    Raises:
        ConfigurationError: There is no such kind.
        MissingExtraError: `tqdm` is not installed.
    """
    make = _KINDS.get(kind or "none")
    if make is None:
        raise ConfigurationError(f"progress={kind!r} is none", hint=f"Known: {', '.join(_KINDS)}.")
    return make(file or sys.stderr)


def describe(tally: BatchProgress) -> str:
    """Return where a batch stands, in one line of plain text."""
    words = [_count(tally)]
    if tally.in_flight:
        words.append(f"{tally.in_flight} in flight")
    words.append(f"{_short(tally.input_rate)} in {_short(tally.output_rate)} out tokens/s")
    if tally.cost is not None:
        projected = "" if tally.projected_cost is None else f" of ${tally.projected_cost:.2f}"
        words.append(f"${tally.cost:.4f}{projected}" if tally.cost < 1 else f"${tally.cost:.2f}{projected}")
    if tally.remaining_s is not None and tally.done != tally.total:
        words.append(f"{_span(tally.remaining_s)} left")
    else:
        words.append(f"in {_span(tally.elapsed_s)}")
    if tally.limited_by is not None:
        words.append(f"held by {tally.limited_by}")
    if tally.errors:
        words.append(_errors(tally))
    return ", ".join(words)


def _count(tally: BatchProgress) -> str:
    if tally.total is None:
        return f"{tally.done} done"
    percent = f" ({tally.done / tally.total:.0%})" if tally.total else ""
    return f"{tally.done}/{tally.total}{percent}"


def _errors(tally: BatchProgress) -> str:
    each = (f"{name} {count}" for name, count in sorted(tally.errors.items(), key=lambda item: -item[1]))
    return f"failed {tally.failed}: {', '.join(each)}"


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
    """Nothing is shown."""

    every_s = 3_600.0

    def show(self, tally: BatchProgress) -> None:
        """Show nothing."""

    def close(self, tally: BatchProgress) -> None:
        """Show nothing."""


class _Lines:
    """A line now and then: for log files, CI, and pipes."""

    every_s = _LINE_EVERY_S

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def show(self, tally: BatchProgress) -> None:
        self._file.write(f"{describe(tally)}\n")
        self._file.flush()

    def close(self, tally: BatchProgress) -> None:
        self.show(tally)


class _Live:
    """A display that is drawn anew in its place."""

    every_s = 0.1

    def __init__(self, file: TextIO, console: Any) -> None:
        from rich.live import Live

        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._is_open = False

    def show(self, tally: BatchProgress) -> None:
        if not self._is_open:
            self._is_open = True
            self._live.start()
        self._live.update(_drawn(tally), refresh=True)

    def close(self, tally: BatchProgress) -> None:
        self.show(tally)
        self._live.stop()


def _drawn(tally: BatchProgress) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bar = Table.grid(expand=True)
    bar.add_row(ProgressBar(total=tally.total, completed=tally.done, pulse=tally.total is None))
    # The text is in no grid, which would fill its last row: the ^C of a terminal would begin one that stays.
    rows: list[RenderableType] = [bar, Text(describe(msgspec.structs.replace(tally, errors={})))]
    if tally.errors:
        rows.append(Text(_errors(tally), style="red"))
    return Group(*rows)


def _rich(file: TextIO) -> Progress:
    from rich.console import Console

    console = Console(file=file)
    return _Live(file, console) if console.is_terminal or console.is_jupyter else _Lines(file)


class _Bar:
    """The bar of tqdm, which notebooks and other tools know how to place."""

    every_s = 0.2

    def __init__(self, file: TextIO) -> None:
        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            raise MissingExtraError(
                "progress='tqdm' needs the package tqdm", hint="Install it, or take progress='rich'."
            ) from error
        self._make: Callable[..., Any] = tqdm
        self._file = file
        self._bar: Any = None

    def show(self, tally: BatchProgress) -> None:
        if self._bar is None:
            self._bar = self._make(total=tally.total, file=self._file, unit="call")
        self._bar.n = tally.done
        self._bar.set_postfix_str(describe(tally).partition(", ")[2], refresh=False)
        self._bar.refresh()

    def close(self, tally: BatchProgress) -> None:
        self.show(tally)
        self._bar.close()


_KINDS: dict[str, Callable[[TextIO], Progress]] = {
    "rich": _rich,
    "tqdm": _Bar,
    "plain": _Lines,
    "none": lambda _file: _None(),
}
