"""One line of JSON for each call: who asked what, how it ended and what it cost; never its text."""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO

import msgspec

from lm_deluge.response import APIResponse

__all__ = ["AccessLog", "LoggedCall", "show_warnings"]

_SHOWN = ("lm_deluge.gateway", "lm_deluge.limiter")  # not those of single calls, which have a line of their own


def show_warnings() -> None:
    """Write the warnings about the server itself to stderr: workers that ended, a server that cannot be reached."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name in _SHOWN:
        logging.getLogger(name).addHandler(handler)


class LoggedCall(msgspec.Struct, kw_only=True):
    """A call in the log. Times are seconds.

    Attributes:
        status: The HTTP status; 499 if the client left. A stream that broke has the status of its error.
        first_token_s: From the arrival of the request to the first token of the answer.
        duration_s: From the arrival of the request to the end of the response.
        cost: US dollars.
        error: Class of the error.
    """

    request_id: str
    dialect: str
    started_at: float
    key_name: str = ""
    model: str = ""
    answered_by: str = ""
    status: int = 0
    first_token_s: float | None = None
    duration_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    attempts: int = 0
    error: str | None = None

    def note_first(self) -> None:
        """Note that the first token has arrived."""
        if self.first_token_s is None:
            self.first_token_s = round(time.time() - self.started_at, 4)

    def fail(self, status: int, error: BaseException) -> None:
        """Note the error."""
        self.status = status
        self.error = type(error).__name__

    def note(self, response: APIResponse | None) -> None:
        """Note the end, and what the response used."""
        self.duration_s = round(time.time() - self.started_at, 4)
        if response is None:
            return
        self.answered_by = response.model_internal
        self.cost = response.cost
        self.attempts = 0 if response.stats is None else response.stats.attempts
        if response.usage is not None:
            self.input_tokens = response.usage.input_tokens
            self.output_tokens = response.usage.output_tokens


class AccessLog:
    """Writes the log.

    Args:
        file: Where the lines are written; None writes nothing.
    """

    def __init__(self, file: TextIO | None = sys.stderr) -> None:
        self._file = file

    def write(self, call: LoggedCall) -> None:
        """Write the line of a call. A file that fails ends the log, and nothing else."""
        if self._file is None:
            return
        try:
            self._file.write(msgspec.json.encode(call).decode() + "\n")
            self._file.flush()
        except (OSError, ValueError):
            self._file = None
