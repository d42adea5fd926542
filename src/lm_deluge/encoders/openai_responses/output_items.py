"""The output items of the Responses API: the frames of their start, their deltas and their end."""

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
Frames: TypeAlias = list[tuple[str, JSON]]  # types without the prefix `response.`, and fields

# OpenAI sends -9999 for tokens outside the most likely ones; JSON has no -Infinity, so it also replaces that.
_LEAST_LOGPROB = -9999.0


class Item:
    """An item of the output.

    Attributes:
        kind: The type of the item in the API.
        prefix: The prefix of its id.
        index: Its position in the output, set when the item is added.
    """

    kind = ""
    prefix = ""

    def __init__(self) -> None:
        self.index = 0

    @property
    def id(self) -> str:
        """A generated id, because events have no id of an item."""
        return f"{self.prefix}_{self.index}"

    @property
    def address(self) -> JSON:
        """The fields that identify the item in each of its frames."""
        return {"item_id": self.id, "output_index": self.index}

    def initial(self) -> JSON:
        """Return the item as its first frame has it."""
        raise NotImplementedError

    def end(self) -> Frames:
        """Return the frames that end the content of the item."""
        return []

    def done(self, rest: JSON | None) -> JSON:
        """Return the complete item; `rest` are fields from the opaque data after it."""
        raise NotImplementedError


class MessageItem(Item):
    """Text and refusals."""

    kind = "message"
    prefix = "msg"

    def __init__(self) -> None:
        super().__init__()
        self.text_start = 0  # position of the open text part in the text of the response
        self._content: list[JSON] = []
        self._texts: list[str] = []
        self._is_open = False

    def initial(self) -> JSON:
        """Return the item as its first frame has it."""
        return {"id": self.id, "type": "message", "status": "in_progress", "role": "assistant", "content": []}

    @property
    def _at(self) -> JSON:
        return {**self.address, "content_index": len(self._content) - 1}

    def _open(self, part: JSON) -> Frames:
        if self._is_open and self._content[-1]["type"] == part["type"]:
            return []
        frames = self.end()
        self._is_open = True
        self._content.append(part)
        self._texts = []
        return [*frames, ("content_part.added", {**self._at, "part": {**part}})]

    def open_text(self, start: int) -> Frames:
        """Open a text part, unless one is open; `start` is its position in the text of the response."""
        frames = self._open({"type": "output_text", "annotations": [], "logprobs": [], "text": ""})
        if frames:
            self.text_start = start
        return frames

    def add_text(self, event: TextDelta, start: int) -> Frames:
        """Return the frames of a text delta."""
        frames = self.open_text(start)
        self._texts.append(event.text)
        logprobs = logprobs_of(event.logprobs)
        self._content[-1]["logprobs"] += logprobs
        return [*frames, ("output_text.delta", {**self._at, "delta": event.text, "logprobs": logprobs})]

    def add_refusal(self, event: RefusalDelta) -> Frames:
        """Return the frames of a refusal delta."""
        frames = self._open({"type": "refusal", "refusal": ""})
        self._texts.append(event.text)
        return [*frames, ("refusal.delta", {**self._at, "delta": event.text})]

    def add_annotation(self, annotation: JSON) -> Frames:
        """Return the frame of a citation in the open text part."""
        known = self._content[-1]["annotations"]
        known.append(annotation)
        fields = {**self._at, "annotation_index": len(known) - 1, "annotation": annotation}
        return [("output_text.annotation.added", fields)]

    def end(self) -> Frames:
        """Return the frames that end the content of the item."""
        if not self._is_open:
            return []
        self._is_open = False
        part = self._content[-1]
        text = "".join(self._texts)
        frames: Frames = []
        if part["type"] == "refusal":
            part["refusal"] = text
            frames.append(("refusal.done", {**self._at, "refusal": text}))
        else:
            part["text"] = text
            frames.append(("output_text.done", {**self._at, "text": text, "logprobs": part["logprobs"]}))
        return [*frames, ("content_part.done", {**self._at, "part": part})]

    def done(self, rest: JSON | None) -> JSON:
        """Return the complete item."""
        return {**self.initial(), "status": "completed", "content": self._content, **(rest or {})}


class ReasoningItem(Item):
    """Reasoning, shown as its summary."""

    kind = "reasoning"
    prefix = "rs"

    def __init__(self) -> None:
        super().__init__()
        self._texts: list[str] = []

    @property
    def _at(self) -> JSON:
        return {**self.address, "summary_index": 0}

    def initial(self) -> JSON:
        """Return the item as its first frame has it."""
        return {"id": self.id, "type": "reasoning", "summary": []}

    def add(self, event: ReasoningDelta) -> Frames:
        """Return the frames of a reasoning delta."""
        frames: Frames = []
        if not self._texts:
            part = {"type": "summary_text", "text": ""}
            frames.append(("reasoning_summary_part.added", {**self._at, "part": part}))
        self._texts.append(event.text)
        return [*frames, ("reasoning_summary_text.delta", {**self._at, "delta": event.text})]

    @property
    def _part(self) -> JSON:
        return {"type": "summary_text", "text": "".join(self._texts)}

    def end(self) -> Frames:
        """Return the frames that end the content of the item."""
        part = self._part
        return [
            ("reasoning_summary_text.done", {**self._at, "text": part["text"]}),
            ("reasoning_summary_part.done", {**self._at, "part": part}),
        ]

    def done(self, rest: JSON | None) -> JSON:
        """Return the complete item. `rest` with a type is one already; without, it has further fields."""
        if rest and "type" in rest:
            return rest
        return {**self.initial(), "summary": [self._part], **(rest or {})}


class CallItem(Item):
    """A call of a tool that the client runs."""

    def __init__(self, started: ToolCallStarted) -> None:
        super().__init__()
        self.fragments: list[str] = []
        self._started = started
        self.kind = "custom_tool_call" if started.custom else "function_call"
        self.prefix = "ctc" if started.custom else "fc"
        self._field = "input" if started.custom else "arguments"
        self._event = "custom_tool_call_input" if started.custom else "function_call_arguments"

    def initial(self) -> JSON:
        """Return the item as its first frame has it."""
        started = self._started
        head = {"id": self.id, "type": self.kind, "status": "in_progress"}
        return {**head, "call_id": started.id, "name": started.name, self._field: ""}

    def add(self, fragment: str) -> Frames:
        """Return the frame of a fragment of arguments."""
        self.fragments.append(fragment)
        return [(f"{self._event}.delta", {**self.address, "delta": fragment})]

    def end(self) -> Frames:
        """Return the frames that end the content of the item."""
        return [
            (f"{self._event}.done", {**self.address, "name": self._started.name, self._field: "".join(self.fragments)})
        ]

    def done(self, rest: JSON | None) -> JSON:
        """Return the complete item."""
        return {**self.initial(), "status": "completed", self._field: "".join(self.fragments), **(rest or {})}


class ImageItem(Item):
    """A generated image."""

    kind = "image_generation_call"
    prefix = "ig"

    def __init__(self, event: MediaDelta) -> None:
        super().__init__()
        self._event = event

    def initial(self) -> JSON:
        """Return the item as its first frame has it."""
        return {"id": self._event.id or self.id, "type": self.kind, "status": "in_progress", "result": None}

    def done(self, rest: JSON | None) -> JSON:
        """Return the complete item."""
        output_format = self._event.media_type.removeprefix("image/")
        whole = {"status": "completed", "output_format": output_format, "result": self._event.data}
        return rest or {**self.initial(), **whole}


def annotation_of(citation: Citation, text_start: int) -> JSON | None:
    """Return the annotation of a citation, None if the API has none for it. Positions count from `text_start`."""
    raw = citation.raw
    if raw is not None and isinstance(raw.get("type"), str):
        return raw
    if not citation.url:
        return None
    start, end = (None if at is None else at - text_start for at in (citation.start, citation.end))
    fields = {"title": citation.title, "url": citation.url, "start_index": start, "end_index": end}
    return {"type": "url_citation", **{name: value for name, value in fields.items() if value is not None}}


def logprobs_of(tokens: tuple[TokenLogprob, ...]) -> list[JSON]:
    """Return the JSON of tokens with their log probabilities."""
    return [{**_logprob(token), "top_logprobs": [_logprob(other) for other in token.top_logprobs]} for token in tokens]


def _logprob(token: Any) -> JSON:
    return {"token": token.token, "logprob": max(token.logprob, _LEAST_LOGPROB), "bytes": token.bytes}


def usage_of(usage: Usage) -> JSON:
    """Return the JSON of usage.

    The details are required fields, so an unknown count is 0: Codex 0.171 takes a response without `cached_tokens` for
    one that broke off.
    """
    read = {"cached_tokens": usage.cache_read_tokens or 0, "cache_write_tokens": usage.cache_write_tokens or 0}
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": read,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.total_tokens,
    }
