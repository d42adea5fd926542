"""The parts of an answer as the page shows them, made from its events. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from lm_deluge.events import (
    Attempt,
    Citation,
    Event,
    ReasoningDelta,
    RefusalDelta,
    RoundStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolResult,
)

__all__ = ["ShownParts"]

JSON = dict[str, Any]

_HALF = re.compile("[\ud800-\udfff]")


class _Growing:
    """A part whose text grows."""

    def __init__(self, part: JSON, field: str) -> None:
        self.part = part
        self._field = field
        self._pieces: list[str] = []

    def add(self, text: str) -> None:
        """Add a piece of text."""
        self._pieces.append(text)

    def fields(self) -> JSON:
        """Return the part with all of its text."""
        if self._pieces:
            self._pieces = [_whole("".join(self._pieces))]
            if not isinstance(self.part[self._field], dict | list):
                self.part[self._field] = self._pieces[0]
        return dict(self.part)


def _whole(text: str) -> str:
    """Return a text with whole characters only: the halves of one may come in two pieces, or one of them never."""
    if _HALF.search(text) is None:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class ShownParts:
    """The parts of an answer: text, reasoning, tool calls with their results, and sources, in order."""

    def __init__(self) -> None:
        self._parts: list[_Growing] = []
        self._calls: dict[int, _Growing] = {}  # by the index of the call
        self._sources: dict[str, str | None] = {}  # titles by URL; at the end, as they would cut paragraphs of text
        self._before: tuple[int, int] = (0, 0)  # numbers of parts and sources before this round of an agent loop

    def add_all(self, events: Iterable[Event]) -> None:
        """Add events, in order."""
        for event in events:
            fold = self._FOLDS.get(type(event))
            if fold is not None:
                fold(self, event)

    def parts(self) -> list[JSON]:
        """Return the parts so far."""
        sources = [{"type": "source", "url": url, "title": title} for url, title in self._sources.items()]
        return [*(part.fields() for part in self._parts), *sources]

    def text(self) -> str:
        """Return the text of the answer so far, without reasoning and tools."""
        return "\n".join(part["text"] for part in self.parts() if part["type"] == "text")

    def _add_piece(self, kind: str, text: str) -> None:
        if not text:
            return
        if not self._parts or self._parts[-1].part["type"] != kind:
            self._parts.append(_Growing({"type": kind, "text": ""}, "text"))
        self._parts[-1].add(text)

    def _add_text(self, event: TextDelta | RefusalDelta) -> None:
        self._add_piece("text", event.text)

    def _add_reasoning(self, event: ReasoningDelta) -> None:
        self._add_piece("reasoning", event.text)

    def _start_call(self, event: ToolCallStarted) -> None:
        fields = {"type": "tool", "id": event.id, "name": event.name, "arguments": "", "result": None, "error": None}
        self._calls[event.index] = part = _Growing(fields, "arguments")
        self._parts.append(part)

    def _add_arguments(self, event: ToolCallDelta) -> None:
        self._calls[event.index].add(event.arguments)

    def _finish_call(self, event: ToolCallFinished) -> None:
        part = self._calls[event.index].part
        part["id"] = event.id
        if isinstance(event.arguments, dict | list):
            part["arguments"] = event.arguments

    def _add_result(self, event: ToolResult) -> None:
        found = next((each.part for each in reversed(self._parts) if each.part.get("id") == event.call_id), None)
        if found is not None:
            found["result"], found["error"] = _whole(event.result), event.error

    def _add_source(self, event: Citation) -> None:
        if event.url is not None:
            self._sources.setdefault(event.url, event.title)

    def _start_round(self, _event: RoundStarted) -> None:
        self._before = (len(self._parts), len(self._sources))

    def _restart(self, event: Attempt) -> None:
        """Drop what an attempt has left that is void: deltas of its own round only."""
        if not event.goes_on:
            parts, sources = self._before
            del self._parts[parts:]
            self._sources = dict([*self._sources.items()][:sources])

    _FOLDS: ClassVar[dict[type, Callable[[ShownParts, Any], None]]] = {
        TextDelta: _add_text,
        RefusalDelta: _add_text,
        ReasoningDelta: _add_reasoning,
        ToolCallStarted: _start_call,
        ToolCallDelta: _add_arguments,
        ToolCallFinished: _finish_call,
        ToolResult: _add_result,
        Citation: _add_source,
        RoundStarted: _start_round,
        Attempt: _restart,
    }
