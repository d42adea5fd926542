"""What is wrong with a value, in the words that the model reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from lm_deluge.errors import InvalidValueError

__all__ = ["Problem", "error_of", "invalid_value", "shown_path"]

InvalidValueErrorT = TypeVar("InvalidValueErrorT", bound=InvalidValueError)
Problem = tuple[Iterable[str | int], str]
"""The path of a wrong place, and what is wrong there."""

# Enough for the model to correct its answer; a wrong element type in a long list has thousands of them.
_MOST_PROBLEMS = 10


def invalid_value(problems: Iterable[Problem], what: str) -> InvalidValueError:
    """Return the error for the wrong places of a value.

    Args:
        problems: The wrong places.
        what: Name of the type that the value should have.
    """
    return error_of(InvalidValueError, problems, what)


def error_of(kind: type[InvalidValueErrorT], problems: Iterable[Problem], what: str) -> InvalidValueErrorT:
    """Return an error of a class for the wrong places of a value; the other arguments are those of `invalid_value`."""
    found = [(tuple(path), text) for path, text in problems]
    texts = [f"{shown_path(path)}: {text}" if path else text for path, text in found[:_MOST_PROBLEMS]]
    more = [f"and {len(found) - _MOST_PROBLEMS} more"] if len(found) > _MOST_PROBLEMS else []
    return kind(f"not a valid {what}: {'; '.join([*texts, *more])}", problems=found)


def shown_path(path: Iterable[str | int]) -> str:
    """Return a path into a JSON value as text: `lines[0].price`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
