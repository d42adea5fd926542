"""The first code block of an answer, while the answer arrives."""

from __future__ import annotations

import re

__all__ = ["FirstCodeBlock"]

_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})[^`]*")


class FirstCodeBlock:
    """Takes the first fenced code block out of Markdown that arrives in pieces.

    Attributes:
        is_found: Whether a block was found.
    """

    def __init__(self) -> None:
        self.is_found = False
        self._is_over = False
        self._line = ""
        self._skipped: list[str] = []
        self._indent = self._fence = ""

    def feed(self, text: str) -> str:
        """Add text; return the lines of the block that are complete now."""
        if self._is_over:
            return ""
        *lines, self._line = (self._line + text).split("\n")
        return "".join(self._take(f"{line}\n") for line in lines)

    def finish(self) -> str:
        """End the text; return the rest of a block that was cut off, or the whole text if it has no block."""
        rest, self._line = self._take(self._line), ""
        return rest if self.is_found else "".join(self._skipped)

    def _take(self, line: str) -> str:
        """Return the line without the indentation of the fence if it is in the block."""
        if self._is_over:
            return ""
        if self.is_found:
            stripped = line.strip()
            self._is_over = stripped.startswith(self._fence) and not stripped.strip(self._fence[0])
            return "" if self._is_over else self._without_indent(line)
        fence = _FENCE.fullmatch(line.rstrip("\r\n"))
        if fence is None:
            self._skipped.append(line)
        else:
            self.is_found = True
            self._indent, self._fence = fence.groups()
        return ""

    def _without_indent(self, line: str) -> str:
        length = len(line) - len(line.lstrip(" \t"))
        return line[min(length, len(self._indent)) :]
