"""Convert arguments of a tool call that are streamed as values with JSON paths into JSON text.

Vertex streams calls in this form on request:
https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling#streaming-fc (read 2026-11)

    {"jsonPath": "$.items[0].name", "stringValue": "app", "willContinue": true}
    {"jsonPath": "$.items[0].name", "stringValue": "le"}
    {"jsonPath": "$.items[0].price", "numberValue": 0.5}

Each value is a leaf of the arguments. Leaves arrive in the order of the text, so each adds a fragment of text.
"""

from __future__ import annotations

import re
from typing import TypeAlias

import msgspec

from lm_deluge.errors import ProtocolError

__all__ = ["ArgumentsWriter", "PartialArgument"]

Steps: TypeAlias = tuple[str | int, ...]

_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,9})\]|\[(["'])((?:[^"'\\]|\\.|(?!\3)["'])*)\3\]""")
_MAX_MISSING = 1_000  # items skipped by an index: more than real gaps, few enough that an odd index stays harmless

_MAX_DEPTH = 64  # steps of a path: deeper than arguments of tools, small enough to keep the prefixes of each path


class PartialArgument(msgspec.Struct, gc=False, rename="camel"):
    """A value, or a fragment of a string value."""

    json_path: str | None = None
    string_value: str | None = None
    number_value: float | int | None = None
    bool_value: bool | None = None
    will_continue: bool | None = None

    def literal(self) -> str | None:
        """Return the JSON of a value that is not a string, or None if the value follows in a later piece.

        A `nullValue` is null in the JSON, so it looks like a missing value.
        """
        if self.bool_value is not None:
            return "true" if self.bool_value else "false"
        if self.number_value is not None:
            return msgspec.json.encode(self.number_value).decode()
        return None if self.will_continue else "null"


class ArgumentsWriter:
    """Writes the arguments of one call; the joined fragments are a JSON object."""

    def __init__(self) -> None:
        self._path: Steps = ()  # of the last leaf; its containers are open
        self._is_text = False  # the last leaf is a string whose closing quote is not written yet
        self._written: set[Steps] = set()

    def add(self, piece: PartialArgument) -> str:
        """Return the fragment of text for a value.

        Raises:
            ProtocolError: The value belongs before text that is already written, or is nested too deeply.
        """
        steps = _parse_path(piece.json_path or "")
        if len(steps) > _MAX_DEPTH:
            raise ProtocolError("the arguments of a tool call are nested too deeply", reason="json", billed="maybe")
        text = piece.string_value
        if not steps:
            return ""
        if text is not None and self._is_text and steps == self._path:
            return _inner(text)
        value = piece.literal() if text is None else f'"{_inner(text)}'
        if value is None:
            return ""
        fragment = self._path_to(steps) + value
        self._path = steps
        self._is_text = text is not None
        return fragment

    def close(self) -> str:
        """Return the rest of the text; empty without any values."""
        return self._end_of_text() + self._closed(to=-1)

    def _end_of_text(self) -> str:
        return '"' if self._is_text else ""

    def _closed(self, *, to: int) -> str:
        return "".join("]" if isinstance(step, int) else "}" for step in reversed(self._path[to + 1 :]))

    def _path_to(self, steps: Steps) -> str:
        """Return the text between the last value and the value at `steps`."""
        last = self._path
        shared = 0
        while shared < min(len(last), len(steps)) - 1 and last[shared] == steps[shared]:
            shared += 1
        if steps[: shared + 1] in self._written:
            raise ProtocolError("the arguments of a tool call arrive out of order", reason="order", billed="maybe")
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
    """Return the key of an object member, or for an array item the nulls in place of skipped items."""
    if isinstance(step, str):
        return f'"{_inner(step)}":'
    missing = step - (before + 1 if isinstance(before, int) else 0)
    return "null," * missing if missing <= _MAX_MISSING else ""


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
