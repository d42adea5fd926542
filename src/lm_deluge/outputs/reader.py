"""Reads a typed answer while its text arrives: the values that are complete and valid, and the object so far. Pure."""

from __future__ import annotations

from typing import Any, TypeAlias

from lm_deluge.errors import InvalidJSONError, InvalidValueError, ProtocolError
from lm_deluge.events import FinishReason
from lm_deluge.outputs.answer_type import WRAPPER, AnswerType, Path
from lm_deluge.outputs.snapshots import Snapshots
from lm_deluge.response import OutputValue
from lm_deluge.wire.json_in_text import IN_FENCE, SECOND_VALUE, TEXT_AFTER, TEXT_BEFORE, JSONInText
from lm_deluge.wire.partial_json import IncrementalParser

__all__ = ["OUTPUT_WARNINGS", "Field", "OutputReader", "Problem"]

Field: TypeAlias = tuple[Path, Any]
"""A path, and the value there: complete, valid and an instance of its type."""
Problem: TypeAlias = tuple[Path, str]
"""A path, and what is wrong there."""

_WARNINGS = {
    IN_FENCE: "json_in_fence",
    TEXT_BEFORE: "text_before_json",
    TEXT_AFTER: "text_after_json",
    SECOND_VALUE: "second_json",
}
_DUPLICATE = "duplicate_keys"
OUTPUT_WARNINGS = (*_WARNINGS.values(), _DUPLICATE)
"""The warnings about the text of a typed answer."""

# Where an answer without an object, or with half of one, comes from.
_NO_OBJECT: dict[FinishReason | None, str] = {
    "refusal": "the model refused to answer",
    "content_filter": "the content filter stopped the answer",
    "length": "the answer reached the token limit",
}


class OutputReader:
    """Reads the text of one answer.

    Args:
        kind: The type of the answer.
        stops_early: Whether the first invalid value ends the reading; otherwise the whole object is judged at its end.

    Attributes:
        fields: What the last `feed` completed, without the whole object; a container comes after its parts.
        problems: Why the answer is not valid; empty while it may still be.
        output: The whole object, once it is complete and valid.
    """

    def __init__(self, kind: AnswerType, *, stops_early: bool = True) -> None:
        self.fields: list[Field] = []
        self.problems: list[Problem] = []
        self.output: OutputValue | None = None
        self._kind = kind
        self._stops_early = stops_early
        self._finder = JSONInText("{")
        self._parser = IncrementalParser()
        self._snapshots = Snapshots(self._parser)
        self._is_broken = False  # the text is not JSON

    @property
    def is_ended(self) -> bool:
        """Whether more text cannot make the answer valid."""
        return bool(self.problems) and (self._stops_early or self._is_broken)

    def feed(self, text: str) -> bool:
        """Read more text; return whether the object changed."""
        self.fields = []
        if self.is_ended:
            return False
        piece = self._finder.feed(text)
        if not piece:
            return False
        try:
            self._parser.feed(piece)
        except ProtocolError as error:
            self._judge_all()
            self._break(error)
        else:
            self._judge_all()
        return True

    def close(self, reason: FinishReason | None) -> None:
        """End the text: note why there is no valid object, if there is none.

        Args:
            reason: The finish reason of the answer.
        """
        self._finder.close()
        if self.output is not None or self.problems:
            return
        why = _NO_OBJECT.get(reason, "the answer ended")
        if not self._finder.is_found:
            self.problems.append(((), f"{why}: there is no JSON object in it"))
        else:
            path = self._own_path(self._parser.open_path or ())
            self.problems.append((path or (), f"{why} before this value was complete"))

    def snapshot(self) -> Any:
        """Return the object so far, as plain data that does not change; None before anything of it is visible."""
        found = self._snapshots.take()
        if self._kind.is_wrapped:
            return found.get(WRAPPER) if isinstance(found, dict) else None
        return found

    @property
    def warnings(self) -> tuple[str, ...]:
        """What surrounds the object, and other irregularities; complete after `close`."""
        found = [_WARNINGS[each] for each in self._finder.warnings]
        return (*found, _DUPLICATE) if self._parser.has_duplicate_keys else tuple(found)

    def _break(self, error: ProtocolError) -> None:
        self._is_broken = True
        if not self.problems:
            path = self._own_path(self._parser.open_path or ()) or ()
            is_json = not isinstance(error, InvalidJSONError)
            self.problems.append((path, error.message if is_json else f"not valid JSON: {error.message}"))

    def _own_path(self, path: Path) -> Path | None:
        """Return the path without that of the wrapper; None for the wrapper itself, and for what stands beside it."""
        if not self._kind.is_wrapped:
            return path
        return path[1:] if path[:1] == (WRAPPER,) else None

    def _judge_all(self) -> None:
        for whole_path, value in self._parser.completed:
            path = self._own_path(whole_path)
            if path is None:
                if not whole_path and self.output is None and not self.problems:
                    self.problems.append(((), f"the property {WRAPPER!r} is missing"))
            elif path:
                self._judge(path, value)
            else:
                self._judge_root(value)
            if self.problems and self._stops_early:
                return

    def _judge(self, path: Path, value: Any) -> None:
        shape = self._kind.shape_at(path)
        if value is None and shape.is_optional:
            return  # in place of a value that is missing
        try:
            self.fields.append((path, shape.check(value)))
        except InvalidValueError as error:
            if self._stops_early:
                self.problems += [((*path, *inner), text) for inner, text in error.problems]

    def _judge_root(self, value: Any) -> None:
        try:
            self.output = OutputValue(self._kind.shape.cleaned(value), self._kind.validate(value))
        except InvalidValueError as error:
            self.problems += error.problems
