"""An answer in the cell of a notebook: as Markdown, and as plain text for viewers that show none."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

from lm_deluge.client.notebook.cell import Loop, PacedCell, show_no_result
from lm_deluge.client.notebook.safe_markdown import code_span, fence, safe_line, safe_markdown, without_controls
from lm_deluge.errors import DelugeError
from lm_deluge.events import (
    Attempt,
    Citation,
    Event,
    MediaDelta,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    RoundStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    ToolResult,
)
from lm_deluge.response import APIResponse

__all__ = ["AnswerCell", "AnswerParts"]

_MOST_SHOWN = 300
"""Characters shown of the arguments or the result of a tool call: about three lines. The response has all of them."""


class _Block(Protocol):
    """A part of what is shown."""

    def markdown(self, *, is_newest: bool) -> str:
        """Return the part as Markdown without effects."""
        ...

    def plain(self) -> str:
        """Return the part as plain text."""
        ...


class _Text:
    """Text of the answer; `is_json`: that of a typed answer."""

    def __init__(self, *, is_json: bool) -> None:
        self.pieces: list[str] = []
        self._is_json = is_json

    def markdown(self, *, is_newest: bool) -> str:
        text = self._joined()
        return fence(without_controls(text), "json") if self._is_json else safe_markdown(text)

    def plain(self) -> str:
        return without_controls(self._joined())

    def _joined(self) -> str:
        self.pieces[:] = ["".join(self.pieces)]
        return self.pieces[0]


class _Reasoning(_Text):
    """The reasoning: open while it grows, then folded."""

    def __init__(self) -> None:
        super().__init__(is_json=False)

    def markdown(self, *, is_newest: bool) -> str:
        opening = "<details open>" if is_newest else "<details>"
        inner = super().markdown(is_newest=is_newest)
        return f"{opening}<summary>Reasoning</summary>\n\n{inner}\n\n</details>"

    def plain(self) -> str:
        return "\n".join(f"> {line}" for line in super().plain().split("\n"))


class _Call:
    """A tool call, and its result once it is known."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.arguments: list[str] = []
        self.result: ToolResult | None = None

    def markdown(self, *, is_newest: bool) -> str:
        return f"**Tool** {code_span(f'{self.name}({self._shown_arguments()})')}{self._outcome(code_span)}"

    def plain(self) -> str:
        return without_controls(f"Tool {self.name}({self._shown_arguments()}){self._outcome(str)}")

    def _shown_arguments(self) -> str:
        return _short("".join(self.arguments))

    def _outcome(self, style: Callable[[str], str]) -> str:
        if self.result is None:
            return ""
        if self.result.error is not None:
            return f" failed: {style(_short(self.result.error))}"
        return f" → {style(_short(self.result.result))}"


class _Note:
    """A line about the answer, from the library."""

    def __init__(self, title: str, text: str = "") -> None:
        self._title = title
        self._text = text

    def markdown(self, *, is_newest: bool) -> str:
        rest = f": {safe_line(self._text)}" if self._text else ""
        return f"> **{safe_line(self._title)}**{rest}"

    def plain(self) -> str:
        return f"[{self._title}: {without_controls(self._text)}]" if self._text else f"[{self._title}]"


class _Sources:
    """The pages that the answer cites, each once."""

    def __init__(self) -> None:
        self._titles: dict[str, str] = {}

    def add(self, event: Citation) -> None:
        address = event.url or event.title
        if address:
            self._titles.setdefault(address, event.title or address)

    def markdown(self, *, is_newest: bool) -> str:
        links = [safe_markdown(f"[{re.sub(r'[][]', ' ', title)}]({url})") for url, title in self._titles.items()]
        return f"Sources: {', '.join(links)}" if links else ""

    def plain(self) -> str:
        return f"Sources: {', '.join(map(without_controls, self._titles))}" if self._titles else ""


class AnswerParts:
    """The parts of an answer, in order, from its events.

    Args:
        is_json: The answer is a typed one, whose text is JSON.
    """

    def __init__(self, *, is_json: bool = False) -> None:
        self._is_json = is_json
        self._blocks: list[_Block] = []
        self._round_at = 0  # where the blocks of this round start
        self._calls: dict[str, _Call] = {}  # by id
        self._by_index: dict[int, _Call] = {}
        self._media: set[tuple[str, str | None]] = set()
        self._sources = _Sources()
        self._finished: ResponseFinished | None = None
        self._added_by: dict[type, Callable[[Any], None]] = {
            TextDelta: self._add_text,
            RefusalDelta: self._add_text,
            ReasoningDelta: self._add_reasoning,
            ToolCallStarted: self._start_call,
            ToolCallDelta: self._add_arguments,
            ToolResult: self._add_result,
            MediaDelta: self._add_media,
            Citation: self._add_citation,
            RoundStarted: self._start_round,
            Attempt: self._restart,
            ResponseFinished: self._finish,
        }

    def add_all(self, events: list[Event]) -> None:
        """Add events, in order."""
        for event in events:
            add = self._added_by.get(type(event))
            if add is not None:
                add(event)

    def end(self, error: BaseException | None) -> None:
        """Add why the answer is not whole, if it is not."""
        if isinstance(error, DelugeError):
            self._note(type(error).__name__, error.message)
        elif error is not None or self._finished is None:
            self._note("Interrupted", "the answer is incomplete")
        elif self._finished.finish_reason not in ("stop", "tool_calls"):
            self._note("Incomplete", f"the answer ended with finish reason {self._finished.finish_reason}")
        elif not self._blocks:
            self._note("The answer is empty")

    def content(self) -> dict[str, str]:
        """Return the answer so far by MIME type."""
        blocks = [*self._blocks, self._sources]
        newest = self._blocks[-1] if self._blocks else None
        return {
            "text/markdown": _joined([block.markdown(is_newest=block is newest) for block in blocks]),
            "text/plain": _joined([block.plain() for block in blocks]),
        }

    def _note(self, title: str, text: str = "") -> None:
        self._blocks.append(_Note(title, text))

    def _add_text(self, event: TextDelta | RefusalDelta) -> None:
        self._write(event.text)

    def _write(self, text: str) -> None:
        newest = self._blocks[-1] if len(self._blocks) > self._round_at else None
        if type(newest) is not _Text:
            newest = _Text(is_json=self._is_json)
            self._blocks.append(newest)
        newest.pieces.append(text)

    def _add_reasoning(self, event: ReasoningDelta) -> None:
        newest = self._blocks[-1] if len(self._blocks) > self._round_at else None
        if not isinstance(newest, _Reasoning):
            newest = _Reasoning()
            self._blocks.append(newest)
        newest.pieces.append(event.text)

    def _start_call(self, event: ToolCallStarted) -> None:
        call = self._calls[event.id] = self._by_index[event.index] = _Call(event.name)
        self._blocks.append(call)

    def _add_arguments(self, event: ToolCallDelta) -> None:
        self._by_index[event.index].arguments.append(event.arguments)

    def _add_result(self, event: ToolResult) -> None:
        call = self._calls.get(event.call_id)
        if call is None:
            call = _Call(event.name)
            self._blocks.append(call)
        call.result = event

    def _add_media(self, event: MediaDelta) -> None:
        if event.transcript:
            self._write(event.transcript)
        elif (event.media_type, event.id) not in self._media:
            self._media.add((event.media_type, event.id))
            self._note(event.media_type, "in the parts of the response")

    def _add_citation(self, event: Citation) -> None:
        self._sources.add(event)

    def _start_round(self, event: RoundStarted) -> None:
        self._round_at = len(self._blocks)

    def _restart(self, event: Attempt) -> None:
        if event.goes_on or len(self._blocks) == self._round_at:
            return
        del self._blocks[self._round_at :]
        self._sources, self._media = _Sources(), set()
        self._note("The answer starts again", f"after {event.error}")
        self._round_at = len(self._blocks)

    def _finish(self, event: ResponseFinished) -> None:
        self._finished = event


def _joined(blocks: list[str]) -> str:
    return "\n\n".join(block for block in blocks if block)


def _short(text: str) -> str:
    line = " ".join(text[: 2 * _MOST_SHOWN].split())
    return line if len(line) <= _MOST_SHOWN and len(text) <= 2 * _MOST_SHOWN else f"{line[:_MOST_SHOWN]}…"


class AnswerCell:
    """Shows a stream in one output of a cell, at most ten times a second. It raises nothing.

    Args:
        is_json: The answer is a typed one, whose text is JSON.
        loop: Has the clock and the timer; by default the running loop.
    """

    def __init__(self, *, is_json: bool = False, loop: Loop | None = None) -> None:
        self._parts = AnswerParts(is_json=is_json)
        self._cell = PacedCell(self._parts.content, loop)

    def feed(self, events: list[Event]) -> None:
        """Show the events of one read."""
        self._parts.add_all(events)
        self._cell.refresh()

    def end(self, error: BaseException | None) -> None:
        """Show the whole answer, and why it is not complete if it is not."""
        self._parts.end(error)
        self._cell.close()

    def return_response(self, response: APIResponse) -> APIResponse:
        """Return the response; the cell does not show it once more as its result."""
        show_no_result(response)
        return response
