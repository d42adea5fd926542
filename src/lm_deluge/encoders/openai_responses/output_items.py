"""The items of an answer of the Responses API, as they grow: what is said when each begins, goes on and ends."""

from __future__ import annotations

from typing import Any, TypeAlias

from lm_deluge.events import (
    Citation,
    MediaDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TokenLogprob,
    ToolCallStarted,
)
from lm_deluge.usage import Usage

__all__ = [
    "JSON",
    "CallItem",
    "ImageItem",
    "Item",
    "MessageItem",
    "ReasoningItem",
    "annotation_of",
    "usage_of",
]

JSON = dict[str, Any]
Frames: TypeAlias = list[tuple[str, JSON]]  # types without their common prefix, and fields

# What OpenAI writes for a token that is not among the likeliest; JSON has no infinity.
_LEAST_LOGPROB = -9999.0


class Item:
    """An item of the output.

    Attributes:
        kind: What the API calls it.
        index: Its place in the output, known once it has begun.
    """

    kind = ""
    prefix = ""

    def __init__(self) -> None:
        self.index = 0

    @property
    def id(self) -> str:
        """An id: made up, as events have none."""
        return f"{self.prefix}_{self.index}"

    @property
    def place(self) -> JSON:
        """What every frame of the item says of where it belongs."""
        return {"item_id": self.id, "output_index": self.index}

    def begun(self) -> JSON:
        """Return the item as it begins."""
        raise NotImplementedError

    def end(self) -> Frames:
        """Return what ends its pieces."""
        return []

    def done(self, rest: JSON | None) -> JSON:
        """Return the whole item; `rest` is the opaque data that stood behind it."""
        raise NotImplementedError


class MessageItem(Item):
    """Text and refusals."""

    kind = "message"
    prefix = "msg"

    def __init__(self) -> None:
        super().__init__()
        self.text_start = 0  # of the open piece, in the answer's text
        self._content: list[JSON] = []
        self._pieces: list[str] = []
        self._is_open = False

    def begun(self) -> JSON:
        """Return the item as it begins."""
        return {"id": self.id, "type": "message", "status": "in_progress", "role": "assistant", "content": []}

    @property
    def _at(self) -> JSON:
        return {**self.place, "content_index": len(self._content) - 1}

    def _open(self, piece: JSON) -> Frames:
        if self._is_open and self._content[-1]["type"] == piece["type"]:
            return []
        frames = self.end()
        self._is_open = True
        self._content.append(piece)
        self._pieces = []
        return [*frames, ("content_part.added", {**self._at, "part": {**piece}})]

    def open_text(self, start: int) -> Frames:
        """Have a piece of text open; it begins at `start` of the answer's text."""
        frames = self._open({"type": "output_text", "annotations": [], "logprobs": [], "text": ""})
        if frames:
            self.text_start = start
        return frames

    def add_text(self, event: TextDelta, start: int) -> Frames:
        """Say a piece of text."""
        frames = self.open_text(start)
        self._pieces.append(event.text)
        logprobs = logprobs_of(event.logprobs)
        self._content[-1]["logprobs"] += logprobs
        return [*frames, ("output_text.delta", {**self._at, "delta": event.text, "logprobs": logprobs})]

    def add_refusal(self, event: RefusalDelta) -> Frames:
        """Say a piece of a refusal."""
        frames = self._open({"type": "refusal", "refusal": ""})
        self._pieces.append(event.text)
        return [*frames, ("refusal.delta", {**self._at, "delta": event.text})]

    def add_annotation(self, annotation: JSON) -> Frames:
        """Name a source of the open piece of text."""
        known = self._content[-1]["annotations"]
        known.append(annotation)
        fields = {**self._at, "annotation_index": len(known) - 1, "annotation": annotation}
        return [("output_text.annotation.added", fields)]

    def end(self) -> Frames:
        """Return what ends its pieces."""
        if not self._is_open:
            return []
        self._is_open = False
        piece = self._content[-1]
        text = "".join(self._pieces)
        frames: Frames = []
        if piece["type"] == "refusal":
            piece["refusal"] = text
            frames.append(("refusal.done", {**self._at, "refusal": text}))
        else:
            piece["text"] = text
            frames.append(("output_text.done", {**self._at, "text": text, "logprobs": piece["logprobs"]}))
        return [*frames, ("content_part.done", {**self._at, "part": piece})]

    def done(self, rest: JSON | None) -> JSON:
        """Return the whole item."""
        return {**self.begun(), "status": "completed", "content": self._content, **(rest or {})}


class ReasoningItem(Item):
    """Reasoning, shown as its summary."""

    kind = "reasoning"
    prefix = "rs"

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[str] = []

    @property
    def _at(self) -> JSON:
        return {**self.place, "summary_index": 0}

    def begun(self) -> JSON:
        """Return the item as it begins."""
        return {"id": self.id, "type": "reasoning", "summary": []}

    def add(self, event: ReasoningDelta) -> Frames:
        """Say a piece of it."""
        frames: Frames = []
        if not self._pieces:
            part = {"type": "summary_text", "text": ""}
            frames.append(("reasoning_summary_part.added", {**self._at, "part": part}))
        self._pieces.append(event.text)
        return [*frames, ("reasoning_summary_text.delta", {**self._at, "delta": event.text})]

    @property
    def _part(self) -> JSON:
        return {"type": "summary_text", "text": "".join(self._pieces)}

    def end(self) -> Frames:
        """Return what ends its pieces."""
        part = self._part
        return [
            ("reasoning_summary_text.done", {**self._at, "text": part["text"]}),
            ("reasoning_summary_part.done", {**self._at, "part": part}),
        ]

    def done(self, rest: JSON | None) -> JSON:
        """Return the whole item."""
        return rest or {**self.begun(), "summary": [self._part]}


class CallItem(Item):
    """A call of a tool of the client."""

    def __init__(self, started: ToolCallStarted) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self._started = started
        self.kind = "custom_tool_call" if started.custom else "function_call"
        self.prefix = "ctc" if started.custom else "fc"
        self._field = "input" if started.custom else "arguments"
        self._event = "custom_tool_call_input" if started.custom else "function_call_arguments"

    def begun(self) -> JSON:
        """Return the item as it begins."""
        started = self._started
        head = {"id": self.id, "type": self.kind, "status": "in_progress"}
        return {**head, "call_id": started.id, "name": started.name, self._field: ""}

    def add(self, fragment: str) -> Frames:
        """Say a piece of its arguments."""
        self.pieces.append(fragment)
        return [(f"{self._event}.delta", {**self.place, "delta": fragment})]

    def end(self) -> Frames:
        """Return what ends its pieces."""
        return [(f"{self._event}.done", {**self.place, "name": self._started.name, self._field: "".join(self.pieces)})]

    def done(self, rest: JSON | None) -> JSON:
        """Return the whole item."""
        return {**self.begun(), "status": "completed", self._field: "".join(self.pieces), **(rest or {})}


class ImageItem(Item):
    """An image that was generated."""

    kind = "image_generation_call"
    prefix = "ig"

    def __init__(self, event: MediaDelta) -> None:
        super().__init__()
        self._event = event

    def begun(self) -> JSON:
        """Return the item as it begins."""
        return {"id": self._event.id or self.id, "type": self.kind, "status": "in_progress", "result": None}

    def done(self, rest: JSON | None) -> JSON:
        """Return the whole item."""
        output_format = self._event.media_type.removeprefix("image/")
        whole = {"status": "completed", "output_format": output_format, "result": self._event.data}
        return rest or {**self.begun(), **whole}


def annotation_of(citation: Citation, text_start: int) -> JSON | None:
    """Return a source as the API writes it, or None where it has no words for it; places count from `text_start`."""
    raw = citation.raw
    if raw is not None and isinstance(raw.get("type"), str):
        return raw
    if not citation.url:
        return None
    start, end = (None if at is None else at - text_start for at in (citation.start, citation.end))
    fields = {"title": citation.title, "url": citation.url, "start_index": start, "end_index": end}
    return {"type": "url_citation", **{name: value for name, value in fields.items() if value is not None}}


def logprobs_of(tokens: tuple[TokenLogprob, ...]) -> list[JSON]:
    """Return log probabilities as the API writes them."""
    return [{**_logprob(token), "top_logprobs": [_logprob(other) for other in token.top_logprobs]} for token in tokens]


def _logprob(token: Any) -> JSON:
    return {"token": token.token, "logprob": max(token.logprob, _LEAST_LOGPROB), "bytes": token.bytes}


def usage_of(usage: Usage) -> JSON:
    """Return usage as the API writes it; what is not known is left out."""
    read = {"cached_tokens": usage.cache_read_tokens, "cache_write_tokens": usage.cache_write_tokens}
    written = {"reasoning_tokens": usage.reasoning_tokens}
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {name: count for name, count in read.items() if count is not None},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {name: count for name, count in written.items() if count is not None},
        "total_tokens": usage.total_tokens,
    }
