"""A real command on a pseudo-terminal, and its screen as SVG."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import pyte
from pyte.screens import Char
from wcwidth import wcwidth

PATIENCE_S = 60.0  # long enough for a slow machine, and the script ends if a command does not

COLUMN, ROW, MARGIN, BAR = 8.4, 17, 16, 30  # in units of the picture: a cell of a font of 14, the frame, its title bar
BACKGROUND, FOREGROUND = "#1c2128", "#d3d9e0"
_COLOURS = {
    "black": "#545d68",
    "red": "#f47067",
    "green": "#8ddb8c",
    "brown": "#daaa3f",
    "blue": "#6cb6ff",
    "magenta": "#dcbdfb",
    "cyan": "#76e3ea",
    "white": "#adbac7",
    "brightblack": "#768390",
    "brightred": "#ff938a",
    "brightgreen": "#b4f1b4",
    "brightbrown": "#eac55f",
    "brightblue": "#96d0ff",
    "brightmagenta": "#eedcff",
    "brightcyan": "#b3f0ff",
    "brightwhite": "#cdd9e5",
}


class FaintScreen(pyte.Screen):
    """A screen that keeps faint text, as blinking text: pyte has no attribute for it, and no command blinks."""

    def select_graphic_rendition(self, *attributes: int, **kwargs: Any) -> None:
        """Set the style of what follows."""
        kept: list[int] = []
        rest = iter(attributes)
        for attribute in rest:
            kept.append({2: 5}.get(attribute, attribute))
            if attribute in (38, 48):  # a colour: 5;n or 2;r;g;b, whose numbers are no attributes
                kind = next(rest, 5)
                kept += [kind, *itertools.islice(rest, 3 if kind == 2 else 1)]  # noqa: PLR2004
            elif attribute == 22:  # noqa: PLR2004 - neither bold nor faint
                kept.append(25)
        super().select_graphic_rendition(*kept, **kwargs)


def fed(screen: pyte.Screen, data: bytes) -> None:
    """Let a screen interpret bytes."""
    pyte.ByteStream(screen).feed(data)


class Terminal:
    """A shell on a pseudo-terminal.

    Args:
        folder: The working folder and the home of the shell.
        environment: Its environment.
        columns: Of the terminal.
        rows: Of the terminal.
    """

    def __init__(self, folder: Path, environment: dict[str, str], columns: int, rows: int) -> None:
        self.screen = FaintScreen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._descriptor, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._process = subprocess.Popen(
            ["/bin/bash", "--norc", "--noprofile", "-i"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env={**environment, "PS1": "$ ", "TERM": "xterm-256color", "COLORTERM": "truecolor", "HOME": str(folder)},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads here
        )
        os.close(slave)
        self.wait_for(r"\$$")
        self.screen.reset()
        self.type("\f")  # an empty screen with a prompt: what the shell wrote at its start is gone
        self.wait_for(r"\$$")

    def type(self, text: str) -> None:
        """Press keys; a carriage return is Enter."""
        os.write(self._descriptor, text.encode())

    def text(self) -> str:
        """Return the text of the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip("\n")

    def wait_for(self, pattern: str) -> None:
        """Wait until the text of the screen matches.

        Raises:
            TimeoutError: It does not.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.text()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {pattern!r} in\n{self.text()}")
            if select.select([self._descriptor], [], [], 0.02)[0]:
                data = os.read(self._descriptor, 65536)
                if b"\x1b[6n" in data:  # where the cursor is
                    self.type(f"\x1b[{self.screen.cursor.y + 1};{self.screen.cursor.x + 1}R")
                self._stream.feed(data)

    def close(self) -> None:
        """End the shell and the command that it runs."""
        os.close(self._descriptor)  # the kernel sends SIGHUP to the session
        self._process.wait()


def drawn(screen: pyte.Screen, title: str) -> str:
    """Return the screen as SVG, without the empty rows at its end."""
    used = max((row for row in range(screen.lines) if screen.display[row].strip()), default=0) + 1
    width = screen.columns * COLUMN + 2 * MARGIN
    height = used * ROW + BAR + MARGIN
    size = f'width="{width:g}" height="{height}"'
    style = (
        "<style>text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre}"
        ".b{font-weight:bold}.i{font-style:italic}.f{opacity:.6}"
        ".u{text-decoration:underline}.s{text-decoration:line-through}</style>"
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" {size} fill="{FOREGROUND}">',
        f"<title>{escape(title)}</title>",
        style,
        f'<rect {size} rx="8" fill="{BACKGROUND}"/>',
    ]
    for number, colour in enumerate(("#ff5f57", "#febc2e", "#28c840")):
        lines.append(f'<circle cx="{18 + 18 * number}" cy="16" r="5.5" fill="{colour}"/>')
    lines.append(f'<text x="{width / 2:g}" y="21" text-anchor="middle" class="f">{escape(title)}</text>')
    for row in range(used):
        lines += _row(screen, row)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _row(screen: pyte.Screen, row: int) -> Iterator[str]:
    """Yield the runs of a row: neighbouring cells of the same style."""
    cells = [screen.buffer[row][column] for column in range(screen.columns)]
    for style, group in itertools.groupby(
        enumerate(cells), key=lambda cell: (_is_wide(cell[1]), cell[1]._replace(data=""))
    ):
        run = list(group)
        text = "".join(cell.data for _, cell in run)
        fill, background = _colours(style[1])
        if background is not None:
            yield _rect(MARGIN + run[0][0] * COLUMN, row, len(run), background)
        if text.strip():
            left = MARGIN + (run[0][0] + len(text) - len(text.lstrip())) * COLUMN
            # The length is fixed, so that a font of another width does not move what follows.
            length = "" if style[0] else f' textLength="{len(text.strip()) * COLUMN:g}"'
            place = f'x="{left:g}" y="{BAR + row * ROW + 13}"{length}'
            yield f"<text {place}{_classes(style[1])}{fill}>{escape(text.strip())}</text>"


def _is_wide(cell: Char) -> bool:
    """Whether a cell has a character of two cells, or is the second of them, which is empty."""
    return not cell.data or wcwidth(cell.data[0]) > 1


def _rect(left: float, row: int, count: int, colour: str) -> str:
    return f'<rect x="{left:g}" y="{BAR + row * ROW}" width="{count * COLUMN:g}" height="{ROW}" fill="{colour}"/>'


def _colours(style: Char) -> tuple[str, str | None]:
    front, back = _colour(style.fg), _colour(style.bg)
    if style.reverse:
        front, back = back or BACKGROUND, front or FOREGROUND
    return (f' fill="{front}"' if front else ""), back


def _colour(name: str) -> str | None:
    if name == "default":
        return None
    return _COLOURS.get(name, f"#{name}")


def _classes(style: Char) -> str:
    flags = {
        "b": style.bold,
        "i": style.italics,
        "f": style.blink,
        "u": style.underscore,
        "s": style.strikethrough,
    }
    names = " ".join(name for name, is_set in flags.items() if is_set)
    return f' class="{names}"' if names else ""
