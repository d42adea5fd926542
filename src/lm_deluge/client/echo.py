"""Where an awaited stream prints. A file that fails is not written to again, and the answer arrives all the same."""

from __future__ import annotations

import sys
from typing import Literal, TextIO

from lm_deluge.client.notebook.cell import CellText, is_notebook, show_no_result
from lm_deluge.errors import ConfigurationError
from lm_deluge.events import Event, RefusalDelta, RoundStarted, TextDelta
from lm_deluge.response import APIResponse

__all__ = ["Echo", "EchoWriter", "check_echo"]

Echo = TextIO | Literal["stdout"] | None
"""Where an awaited stream prints: `sys.stdout` at the time of printing, any text file, or None."""


_PRINTED = (TextDelta, RefusalDelta)


def check_echo(echo: Echo) -> None:
    """Check that an echo can be written to.

    Raises:
        ConfigurationError: It is neither a text file nor None.
    """
    if echo not in (None, "stdout") and not hasattr(echo, "write"):
        raise ConfigurationError(
            "echo is not a text file", hint="Pass sys.stderr, for example, or None to print nothing."
        )


class EchoWriter:
    """Writes to an echo until it fails: it may be closed, missing, full, or a pipe that nothing reads."""

    def __init__(self, echo: Echo) -> None:
        # A notebook makes an output of each write, so a cell has one output that is updated.
        self._cell = CellText() if isinstance(echo, str) and is_notebook() else None
        self._file: TextIO | CellText | None = self._cell or (sys.stdout if isinstance(echo, str) else echo)
        self._is_in_line = False

    def write(self, text: str) -> None:
        """Write a text at once. Characters that the file's encoding does not have are replaced."""
        file = self._file
        if file is None or not text:
            return
        self._is_in_line = not text.endswith("\n")
        try:
            try:
                file.write(text)
            except UnicodeEncodeError as error:  # cp1252, ASCII, or half a surrogate pair; nothing was written
                file.write(text.encode(error.encoding, "replace").decode(error.encoding))
            file.flush()
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - a file of the user may raise anything
            self._file = None

    def end_line(self) -> None:
        """Start a new line, unless nothing is written in the present one."""
        if self._is_in_line:
            self.write("\n")

    def feed(self, events: list[Event]) -> None:
        """Write the text of one read."""
        if type(events[0]) is RoundStarted:  # always the first event of its batch
            self.end_line()
        self.write("".join([event.text for event in events if isinstance(event, _PRINTED)]))

    def end(self, error: BaseException | None) -> None:
        """Show what is written and not shown yet; a file stays open."""
        if self._cell is not None:
            self._cell.close()

    def return_response(self, response: APIResponse) -> APIResponse:
        """Return the response; a cell that has printed it does not show it once more as its result."""
        if self._cell is not None:
            show_no_result(response)
        return response
