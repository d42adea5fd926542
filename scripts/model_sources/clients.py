"""Names and shutdown dates of models in the makers' own clients, whose type files are parsed as source text."""

from __future__ import annotations

import ast
import datetime as dt
import re

from model_sources.packages import Package

__all__ = ["anthropic_dates", "anthropic_names", "openai_dates", "openai_names"]


def openai_names(package: Package) -> tuple[set[str], set[str]]:
    """Return the models of Chat Completions, and those of the Responses API only."""
    chat = _literals(package.read("openai/types/shared/chat_model.py"))
    return chat, _literals(package.read("openai/types/shared/all_models.py")) - chat


def openai_dates(package: Package) -> dict[str, str]:
    """Return the announced shutdown dates by name, from the docstring of `ChatModel`."""
    text = package.read("openai/types/shared/chat_model.py").decode()
    notes = re.sub(r"\s+", " ", text.partition('"""')[2].partition('"""')[0])
    dates: dict[str, str] = {}
    for note in notes.split(" - ")[1:] or []:
        names, _, rest = note.partition(": Announced shutdown date: ")
        day = re.match(r"\d{4}-\d\d-\d\d", rest)
        if day:
            dates |= dict.fromkeys(re.findall(r'"([^"]+)"', names), day[0])
    return dates


def anthropic_names(package: Package) -> set[str]:
    """Return the models that the client lists."""
    return _literals(package.read("anthropic/types/model_param.py"))


def anthropic_dates(package: Package) -> dict[str, str]:
    """Return the shutdown dates by name, from `DEPRECATED_MODELS`."""
    tree = ast.parse(package.read("anthropic/_data/deprecated_models.py"))
    table = next(node.value for node in tree.body if isinstance(node, ast.AnnAssign) and node.value)
    return {name: _day(text) for name, text in ast.literal_eval(table).items()}


def _day(text: str) -> str:
    """Return `June 30th, 2026` as `2026-06-30`."""
    plain = re.sub(r"(?<=\d)(st|nd|rd|th)", "", text)
    return dt.datetime.strptime(plain, "%B %d, %Y").replace(tzinfo=dt.UTC).date().isoformat()


def _literals(source: bytes) -> set[str]:
    """Return all texts inside `Literal[...]`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal":
            found |= {str(each.value) for each in ast.walk(node.slice) if isinstance(each, ast.Constant)}
    return found
