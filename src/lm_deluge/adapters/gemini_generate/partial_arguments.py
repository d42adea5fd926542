"""Arguments of a call that come as values with their JSON paths, written as the JSON text that they make.

Vertex streams calls so where it is asked to:
https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling#streaming-fc (read 2026-11)

    {"jsonPath": "$.items[0].name", "stringValue": "app", "willContinue": true}
    {"jsonPath": "$.items[0].name", "stringValue": "le"}
    {"jsonPath": "$.items[0].price", "numberValue": 0.5}

A value is a leaf, and leaves come in the order of the text, so each of them completes a piece of it.
"""

from __future__ import annotations

import re
from typing import TypeAlias

import msgspec

from lm_deluge.errors import ProtocolError

__all__ = ["ArgumentsWriter", "PartialArgument"]

Steps: TypeAlias = tuple[str | int, ...]

_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,9})\]|\[(["'])((?:[^"'\\]|\\.|(?!\3)["'])*)\3\]""")
_MOST_MISSING = 1_000


class PartialArgument(msgspec.Struct, gc=False, rename="camel"):
    """One value, or a piece of one that is text."""

    json_path: str | None = None
    string_value: str | None = None
    number_value: float | int | None = None
    bool_value: bool | None = None
    will_continue: bool | None = None

    def literal(self) -> str | None:
        """Return the JSON of a value that is no text; None where it is yet to come. `nullValue` is null itself."""
        if self.bool_value is not None:
            return "true" if self.bool_value else "false"
        if self.number_value is not None:
            return msgspec.json.encode(self.number_value).decode()
        return None if self.will_continue else "null"


class ArgumentsWriter:
    """Writes the arguments of one call. Joined, the fragments are a JSON object."""

    def __init__(self) -> None:
        self._path: Steps = ()  # of the last leaf; all that leads to it is open
        self._is_text = False  # the last leaf is text, whose end is not written yet
        self._written: set[Steps] = set()

    def add(self, piece: PartialArgument) -> str:
        """Take a value; return the fragment of text that it makes.

        Raises:
            ProtocolError: It belongs before what is written already.
        """
        steps = _parse_path(piece.json_path or "")
        text = piece.string_value
        if not steps:
            return ""
        if text is not None and self._is_text and steps == self._path:
            return _inner(text)
        value = piece.literal() if text is None else f'"{_inner(text)}'
        if value is None:
            return ""
        fragment = self._lead_to(steps) + value
        self._path = steps
        self._is_text = text is not None
        return fragment

    def close(self) -> str:
        """Return the rest of the text; empty where there were no arguments."""
        return self._end_of_text() + self._closed(to=-1)

    def _end_of_text(self) -> str:
        return '"' if self._is_text else ""

    def _closed(self, *, to: int) -> str:
        return "".join("]" if isinstance(step, int) else "}" for step in reversed(self._path[to + 1 :]))

    def _lead_to(self, steps: Steps) -> str:
        """Return what stands between the last value and the one at `steps`."""
        last = self._path
        shared = 0
        while shared < min(len(last), len(steps)) - 1 and last[shared] == steps[shared]:
            shared += 1
        if steps[: shared + 1] in self._written:
            raise ProtocolError("the arguments of a call come out of order", reason="order", billed="maybe")
        self._written.update(steps[:end] for end in range(shared + 1, len(steps) + 1))
        pieces = [self._end_of_text(), self._closed(to=shared)]
        for depth in range(shared, len(steps)):
            step = steps[depth]
            is_first = depth > shared or not last
            if is_first:
                pieces.append("[" if isinstance(step, int) else "{")
            else:
                pieces.append(",")
            pieces.append(_label(step, None if is_first else last[depth]))
        return "".join(pieces)


def _label(step: str | int, before: str | int | None) -> str:
    """Return the key of a member; of an item the nulls in place of those before it that did not come."""
    if isinstance(step, str):
        return f'"{_inner(step)}":'
    missing = step - (before + 1 if isinstance(before, int) else 0)
    return "null," * missing if missing <= _MOST_MISSING else ""


def _inner(text: str) -> str:
    return msgspec.json.encode(text)[1:-1].decode()


def _parse_path(path: str) -> Steps:
    steps: list[str | int] = []
    for found in _STEP.finditer(path.removeprefix("$")):
        name, index, quote, quoted = found.groups()
        if index is not None:
            steps.append(int(index))
        else:
            steps.append(name if quote is None else re.sub(r"\\(.)", r"\1", quoted))
    return tuple(steps)
