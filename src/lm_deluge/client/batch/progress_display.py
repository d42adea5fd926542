"""Progress displays of a batch: a live display, a bar, lines, or nothing. They write to stderr, or to a notebook cell.

A display that fails ends itself, never the batch: its answers are paid.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import importlib
import importlib.util
import select
import sys
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

import msgspec

from lm_deluge.client.notebook.cell import CELL_EVERY_S, UpdatedCell, is_notebook
from lm_deluge.dispatch.batch.progress import BatchProgress
from lm_deluge.dispatch.hooks import ContainedHook
from lm_deluge.errors import ConfigurationError, DelugeError, MissingExtraError
from lm_deluge.extras import install_hint

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["FIRST_AFTER_S", "Progress", "ProgressKind", "describe", "make_progress", "shown"]

ProgressKind = Literal["rich", "tqdm", "plain", "none"]

_LINE_EVERY_S = 10.0  # few enough lines for a log file, often enough to see that a batch goes on
_MINUTE, _HOUR = 60, 3_600  # in seconds
FIRST_AFTER_S = 1.0
"""Seconds until a display is shown first: early enough for a waiting user, and a shorter batch has one line."""


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
    """Return a display, which raises nothing when it is used: after any error it shows nothing more.

    The kind `rich` falls back to lines if the output is neither a terminal nor a notebook.

    Args:
        kind: Of the display; None for `none`.
        file: Where the display writes, by default stderr. Without a stderr nothing is shown.

    Raises:
        ConfigurationError: The kind is unknown.
        MissingExtraError: `tqdm` is not installed.
    """
    make = _KINDS.get(kind or "none")
    if make is None:
        raise ConfigurationError(f"progress={kind!r} is unknown", hint=f"Known: {', '.join(_KINDS)}.")
    return _QuietAfterError(lambda: make(file))


@contextlib.asynccontextmanager
async def shown(progress: Progress, snapshot: Callable[[], BatchProgress]) -> AsyncIterator[None]:
    """Show the progress from time to time, also while no call ends, and its end after the block.

    Args:
        progress: The display.
        snapshot: Returns the progress at the moment of the call.
    """
    ticking = asyncio.get_running_loop().create_task(_tick(progress, snapshot))
    try:
        yield
    finally:
        ticking.cancel()
        ContainedHook(lambda: progress.close(snapshot()), None)()  # counts may fail to add up, too


async def _tick(progress: Progress, snapshot: Callable[[], BatchProgress]) -> None:
    show = ContainedHook(lambda: progress.show(snapshot()), None)
    await asyncio.sleep(min(progress.every_s, FIRST_AFTER_S))
    while True:
        show()
        await asyncio.sleep(progress.every_s)


class _QuietAfterError:
    """A display that shows nothing more after an error of the display that it contains.

    Args:
        make: Returns the other display.

    Raises:
        DelugeError: `make` raised it; any other exception makes the display quiet.
    """

    def __init__(self, make: Callable[[], _Display]) -> None:
        self._display: _Display = _None()
        try:
            self._display = make()
        except DelugeError:
            raise
        except Exception:  # noqa: BLE001, S110 - a display that cannot be created shows nothing
            pass
        self.every_s = self._display.every_s

    def show(self, progress: BatchProgress) -> None:
        """Show the progress of the batch."""
        self._use(lambda display: display.show(progress))

    def close(self, progress: BatchProgress) -> None:
        """Show the end of the batch, and restore the terminal."""
        self._use(lambda display: display.close(progress))

    def _use(self, use: Callable[[_Display], None]) -> None:
        display = self._display
        try:
            use(display)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - stderr may be closed, and a display of another package may raise anything
            self._display = _None()
            with contextlib.suppress(Exception):
                display.give_up()


class _Display(Progress, Protocol):
    """A display that may raise."""

    def give_up(self) -> None:
        """Restore the terminal after an error."""
        ...


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

    def give_up(self) -> None:
        """Do nothing."""


def _can_take(file: TextIO) -> bool:
    """Whether a write would not wait: a full pipe, or a terminal stopped with Ctrl-S, would hold up the event loop."""
    try:
        return sys.platform == "win32" or bool(select.select([], [file.fileno()], [], 0)[1])
    except (OSError, ValueError, AttributeError):  # no file of the system, or a number above the limit of select
        return True


class _Lines:
    """A display that writes a line every few seconds: for log files, CI, and pipes."""

    every_s = _LINE_EVERY_S

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def show(self, progress: BatchProgress) -> None:
        if _can_take(self._file):
            self._file.write(f"{describe(progress)}\n")
            self._file.flush()

    def close(self, progress: BatchProgress) -> None:
        self.show(progress)

    def give_up(self) -> None:
        """Do nothing: a line leaves no state."""


class _Live:
    """A display that is drawn again at the same place of the terminal."""

    every_s = 0.1  # smooth to the eye, and little work

    def __init__(self, file: TextIO, console: Any) -> None:
        from rich.live import Live

        self._file = file
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._outputs: tuple[Any, Any] | None = None  # stdout and stderr before the display redirected them

    def show(self, progress: BatchProgress) -> None:
        if not _can_take(self._file):
            return
        if self._outputs is None:
            self._outputs = (sys.stdout, sys.stderr)
            self._live.start()
        self._live.update(_drawn(progress), refresh=True)

    def close(self, progress: BatchProgress) -> None:
        self.show(progress)
        self._live.stop()

    def give_up(self) -> None:
        """Stop the display; redirect stdout and stderr back also if that fails."""
        try:
            self._live.stop()
        finally:
            if self._outputs is not None:
                sys.stdout, sys.stderr = self._outputs


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


class _Cell:
    """A display in the output of a notebook's cell."""

    every_s = CELL_EVERY_S

    def __init__(self) -> None:
        self._cell = UpdatedCell()

    def show(self, progress: BatchProgress) -> None:
        self._cell.show(_cell_of(progress))

    def close(self, progress: BatchProgress) -> None:
        self.show(progress)

    def give_up(self) -> None:
        """Do nothing: the last update stays."""


def _cell_of(progress: BatchProgress) -> dict[str, str]:
    """Return the progress in the formats of a notebook: a bar above the line, and the line alone."""
    line = describe(progress)
    value = f' value="{progress.done}" max="{progress.total or 1}"' if progress.total is not None else ""
    bar = f'<progress style="width: 100%"{value}></progress>'
    return {"text/plain": line, "text/html": f"{bar}<br><code>{html.escape(line)}</code>"}


def _rich(file: TextIO | None) -> _Display:
    if file is None and is_notebook():
        return _Cell()
    if (file := file or sys.stderr) is None:
        return _None()
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            """Raise the error: rich would redirect stdout to the null device and end the program."""
            raise BrokenPipeError

    console = _Console(file=file, force_jupyter=False)
    return _Live(file, console) if console.is_terminal else _Lines(file)


def _plain(file: TextIO | None) -> _Display:
    file = file or sys.stderr
    return _None() if file is None else _Lines(file)


class _Bar:
    """The bar of tqdm, which notebooks and other tools display well."""

    every_s = 0.2  # smooth to the eye; a bar of a notebook costs more than a line of a terminal

    def __init__(self, file: TextIO, make: Callable[..., Any]) -> None:
        self._make = make
        self._file = file
        self._bar: Any = None

    def show(self, progress: BatchProgress) -> None:
        if not _can_take(self._file):
            return
        if self._bar is None:
            self._bar = self._make(total=progress.total, file=self._file, unit="call")
        self._bar.n = progress.done
        self._bar.set_postfix_str(describe(progress).partition(", ")[2], refresh=False)
        self._bar.refresh()

    def close(self, progress: BatchProgress) -> None:
        self.show(progress)
        if self._bar is not None:
            self._bar.close()

    def give_up(self) -> None:
        """Disable the bar: else tqdm writes it once more when it is deleted."""
        if self._bar is not None:
            self._bar.disable = True


def _tqdm(file: TextIO | None) -> _Display:
    has_widgets = importlib.util.find_spec("ipywidgets") is not None
    try:
        from tqdm import std

        bar = importlib.import_module("tqdm.auto").tqdm if has_widgets else std.tqdm
    except ImportError as error:
        raise MissingExtraError(
            "progress='tqdm' needs the package tqdm", hint=install_hint("tqdm", otherwise="use progress='rich'")
        ) from error
    if file is None and is_notebook() and not has_widgets:
        return _Cell()  # tqdm would warn about the missing package, and show each refresh as an output of its own
    if (file := file or sys.stderr) is None:
        return _None()
    # No monitor: it is a thread that refreshes bars whose program does not, and this bar is refreshed by a timer. No
    # __del__: it would close the bar once more after an error.
    return _Bar(file, type("Bar", (bar,), {"monitor_interval": 0, "__del__": lambda _: None}))


_KINDS: dict[str, Callable[[TextIO | None], _Display]] = {
    "rich": _rich,
    "tqdm": _tqdm,
    "plain": _plain,
    "none": lambda _file: _None(),
}
