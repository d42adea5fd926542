"""Parse the pages of the documentation."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "changelog.d" / "README.md", *DOCS]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block; `line` is the line number of its first line."""

    language: str
    text: str
    line: int


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def read(page: Path) -> str:
    return page.read_text("utf-8")


def blocks(page: Path, *languages: str) -> list[Block]:
    text = read(page)
    found = [Block(each[1], each[2], text.count("\n", 0, each.start()) + 2) for each in _FENCE.finditer(text)]
    return [block for block in found if block.language in languages]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", read(page))


def table_rows(page: Path, first_cell: str) -> list[list[str]]:
    """Return the table rows of a page whose first cell matches a pattern, with stripped cells."""
    rows = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in prose(page).splitlines() if line[:1] == "|"]
    cells = [[cell.strip().replace("\\|", "|") for cell in row] for row in rows]
    return [row for row in cells if re.fullmatch(first_cell, row[0])]
