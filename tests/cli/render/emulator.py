"""A terminal with the escape sequences that the commands use. Other sequences are collected in `unknown`."""

import codecs
import re

from rich.cells import get_character_cell_size

_SEQUENCE = re.compile(r"\x1b\[([?>]?[\d;]*)([A-Za-z])|\x1b([=>78])|\x1b\][^\x07]*\x07")


class Emulator:
    """All rows since the start. The cursor cannot reach rows above the last `rows`, which have scrolled off."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.lines: list[list[str]] = [[]]
        self.top = 0
        self.row = self.column = 0
        self.unknown: list[str] = []
        self.questions: list[str] = []
        self.styles: set[str] = set()
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._pending = ""

    @property
    def text(self) -> str:
        return "\n".join("".join(line).rstrip() for line in self.lines).rstrip()

    def feed(self, data: bytes) -> None:
        text = self._pending + self._decoder.decode(data)
        self._pending = ""
        position = 0
        while position < len(text):
            if text[position] != "\x1b":
                self._put(text[position])
                position += 1
                continue
            match = _SEQUENCE.match(text, position)
            if match is None:
                if len(text) - position < 32:
                    self._pending = text[position:]
                    return
                self.unknown.append(text[position : position + 8])
                position += 1
                continue
            self._control(match)
            position = match.end()

    def _put(self, char: str) -> None:
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self._line_feed()
        elif char == "\x08":
            self.column = max(self.column - 1, 0)
        elif ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0:
            self.unknown.append(char)
        else:
            self._print(char)

    def _print(self, char: str) -> None:
        width = get_character_cell_size(char)
        if self.column + width > self.columns:
            self.column = 0
            self._line_feed()
        line = self.lines[self.row]
        line.extend(" " * (self.column + width - len(line)))
        if width == 0:
            line[self.column - 1] += char
            return
        line[self.column] = char
        for extra in range(1, width):
            line[self.column + extra] = ""
        self.column += width

    def _line_feed(self) -> None:
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append([])
        self.top = max(self.top, self.row - self.rows + 1)

    def _control(self, match: re.Match[str]) -> None:
        parameters, final = match[1] or "", match[2]
        count = int(parameters) if parameters.isdigit() else 1
        moves = {"A": (-count, 0), "B": (count, 0), "C": (0, count), "D": (0, -count)}
        if final == "m":
            self.styles.add(parameters)
        elif final in moves:
            down, right = moves[final]
            self.row = min(max(self.row + down, self.top), len(self.lines) - 1)
            self.column = min(max(self.column + right, 0), self.columns - 1)
        elif match.group() == "\x1b[6n":
            self.questions.append(f"\x1b[{self.row - self.top + 1};{self.column + 1}R")
        elif final == "K":
            del self.lines[self.row][self.column :]
        elif final == "J":
            del self.lines[self.row][self.column :]
            del self.lines[self.row + 1 :]
        else:
            self.unknown.append(match.group())
