"""Answers of the Responses API, written: the inverse of the adapter of that name.

https://platform.openai.com/docs/api-reference/responses-streaming

Read again, an answer has the same events, but for what this API has no place for:

- Ids and names of the answer are texts: one that is missing comes back as none.
- Every piece of reasoning is an item, so an opaque part stands behind it even where there was none before; the same
  holds for generated images. Items are ended by the event that follows them, as opaque data may be the rest of them.
- Usage is reported once, at the end, in OpenAI's shape and without the mark `estimated`.
- `pause` is `completed`, and so are refusals.
- Attempts, warnings, generated sound, images by URL, sources that are neither URLs nor the API's own, and opaque data
  of other kinds than this API knows are left out.

An answer that was cut has no `ResponseFinished`, so nothing ends it: a terminal event is never made up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import msgspec

from lm_deluge.encoders.encoder import Encoder, Endpoint
from lm_deluge.encoders.event_writer import EventHandlers, EventWriter
from lm_deluge.encoders.openai_chat.errors import encode_error
from lm_deluge.encoders.openai_responses.output_items import (
    JSON,
    CallItem,
    ImageItem,
    Item,
    MessageItem,
    ReasoningItem,
    annotation_of,
    usage_of,
)
from lm_deluge.encoders.openai_responses.request import WHOLE_ITEMS, parse_request
from lm_deluge.errors import APIError
from lm_deluge.events import (
    Attempt,
    Citation,
    Event,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.usage import Usage
from lm_deluge.wire.sse import encode_sse

__all__ = ["ENCODER", "encode_response", "encode_stream"]

# Why an answer is incomplete, by our words.
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_STATUSES = ("completed", "incomplete", "failed")

# Opaque data that are items for themselves.
_KNOWN = {*WHOLE_ITEMS, "reasoning", "output_item"}


def encode_stream(events: Iterable[Event], *, created: int = 0, include_usage: bool = True) -> Iterator[bytes]:
    """Yield the frames of a streamed answer, each as soon as its events went in.

    Args:
        events: The answer.
        created: When it was asked for, in seconds since 1970.
        include_usage: Of no meaning here: usage is always a part of the last frame.
    """
    writer = _Writer(created)
    yield from writer.write_all(events)
    yield from writer.settle()


def encode_response(events: Iterable[Event], *, created: int = 0) -> bytes:
    """Return the answer in one piece: what the last frame of a stream repeats. One that was cut is in progress."""
    writer = _Writer(created)
    for event in events:
        writer.write(event)
    writer.settle()
    return msgspec.json.encode(writer.response())


def encode_stream_error(error: APIError) -> bytes:
    """Write the frame by which a stream fails after it began."""
    inner: JSON = msgspec.json.decode(encode_error(error))["error"]
    return encode_sse(msgspec.json.encode({"type": "error", "error": inner}), event="error")


class _Writer(EventWriter[bytes]):
    """The state behind one answer. An item that is complete stays open until the next event: it may be its rest."""

    def __init__(self, created: int) -> None:
        super().__init__()
        self._created = created
        self._number = 0
        self._started = ResponseStarted()
        self._output: list[JSON] = []
        self._open: Item | None = None
        self._calls: dict[int, CallItem] = {}
        self._usage: Usage | None = None
        self._status = "in_progress"
        self._detail: str | None = None
        self._length = 0  # of the answer's text

    def response(self, *, is_begin: bool = False) -> JSON:
        """Return the answer as it is now."""
        detail = self._detail
        return {
            "id": self._started.response_id or "",
            "object": "response",
            "created_at": self._created,
            "status": self._status,
            "background": False,
            "error": None,
            "incomplete_details": None if detail is None else {"reason": detail},
            "instructions": None,
            "metadata": {},
            "model": self._started.model or "",
            "output": [] if is_begin else self._output,
            "parallel_tool_calls": True,
            "temperature": None,
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            "usage": None if self._usage is None else usage_of(self._usage),
        }

    def _frame(self, kind: str, fields: JSON) -> bytes:
        data = msgspec.json.encode({"type": kind, "sequence_number": self._number, **fields})
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def _frames(self, pieces: Iterable[tuple[str, JSON]]) -> list[bytes]:
        return [self._frame(f"response.{kind}", fields) for kind, fields in pieces]

    def start(self, event: ResponseStarted) -> list[bytes]:
        self._started = event
        body = self.response(is_begin=True)
        return self._frames([("created", {"response": body}), ("in_progress", {"response": body})])

    def _begin(self, item: Item) -> list[bytes]:
        """Put an item behind all others."""
        item.index = len(self._output)
        self._output.append(item.begun())
        return self._frames([("output_item.added", {"output_index": item.index, "item": item.begun()})])

    def _end(self, item: Item, rest: JSON | None = None) -> list[bytes]:
        frames = self._frames(item.end())
        self._output[item.index] = item.done(rest)
        return frames + self._frames(
            [("output_item.done", {"output_index": item.index, "item": self._output[item.index]})]
        )

    def settle(self, rest: JSON | None = None) -> list[bytes]:
        """End the item that is open; `rest` is what opaque data add to it."""
        item, self._open = self._open, None
        return [] if item is None else self._end(item, rest)

    def _take(self, kind: type[Item]) -> list[bytes]:
        """Have an item of a kind open."""
        if type(self._open) is kind:
            return []
        frames = self.settle()
        item = kind()
        frames += self._begin(item)
        self._open = item
        return frames

    def add_text(self, event: TextDelta) -> list[bytes]:
        frames = self._take(MessageItem)
        assert isinstance(self._open, MessageItem)  # noqa: S101 - taken
        frames += self._frames(self._open.add_text(event, self._length))
        self._length += len(event.text)
        return frames

    def add_refusal(self, event: RefusalDelta) -> list[bytes]:
        frames = self._take(MessageItem)
        assert isinstance(self._open, MessageItem)  # noqa: S101 - taken
        return frames + self._frames(self._open.add_refusal(event))

    def add_citation(self, event: Citation) -> list[bytes]:
        frames = self._take(MessageItem)
        assert isinstance(self._open, MessageItem)  # noqa: S101 - taken
        frames += self._frames(self._open.open_text(self._length))
        annotation = annotation_of(event, self._open.text_start)
        return frames if annotation is None else frames + self._frames(self._open.add_annotation(annotation))

    def add_reasoning(self, event: ReasoningDelta) -> list[bytes]:
        frames = self._take(ReasoningItem)
        assert isinstance(self._open, ReasoningItem)  # noqa: S101 - taken
        return frames + self._frames(self._open.add(event))

    def start_call(self, event: ToolCallStarted) -> list[bytes]:
        frames = self.settle()
        item = CallItem(event)
        self._calls[event.index] = item
        return frames + self._begin(item)

    def add_arguments(self, event: ToolCallDelta) -> list[bytes]:
        item = self._calls.get(event.index)
        return self.settle() + (self._frames(item.add(event.arguments)) if item is not None else [])

    def finish_call(self, event: ToolCallFinished) -> list[bytes]:
        frames = self.settle()
        item = self._calls.pop(event.index, None)
        if item is None:  # answers that were never streamed bring calls whole
            frames += self.start_call(ToolCallStarted(event.index, event.id, event.name, event.custom))
            item = self._calls.pop(event.index)
        if event.arguments_text and not item.pieces:
            frames += self._frames(item.add(event.arguments_text))
        self._open = item
        return frames

    def add_media(self, event: MediaDelta) -> list[bytes]:
        frames = self.settle()
        if event.media_type.startswith("image/") and event.data:
            item = ImageItem(event)
            frames += self._begin(item)
            self._open = item
        return frames

    def add_opaque(self, event: ProviderPart) -> list[bytes]:
        data = event.data
        if not isinstance(data, dict):
            return self.settle()
        if self._open is not None and self._open.kind == event.kind:
            return self.settle(data)
        frames = self.settle()
        if event.kind not in _KNOWN or not isinstance(data.get("type"), str):
            return frames
        index = len(self._output)
        self._output.append(data)
        place = {"output_index": index, "item": data}
        return frames + self._frames([("output_item.added", place), ("output_item.done", place)])

    def keep_usage(self, event: UsageReported) -> list[bytes]:
        self._usage = event.usage
        return []

    def finish(self, event: ResponseFinished) -> list[bytes]:
        frames = self.settle()
        raw = event.raw_finish_reason
        detail = _INCOMPLETE.get(event.finish_reason)
        own = "failed" if event.finish_reason == "error" else "completed" if detail is None else "incomplete"
        self._status = raw if raw in _STATUSES else own
        self._detail = detail if self._status == "incomplete" else None
        return frames + self._frames([(self._status, {"response": self.response()})])

    HANDLED: ClassVar[EventHandlers] = {
        ResponseStarted: start,
        TextDelta: add_text,
        ReasoningDelta: add_reasoning,
        RefusalDelta: add_refusal,
        ToolCallStarted: start_call,
        ToolCallDelta: add_arguments,
        ToolCallFinished: finish_call,
        Citation: add_citation,
        MediaDelta: add_media,
        ProviderPart: add_opaque,
        UsageReported: keep_usage,
        ResponseFinished: finish,
    }
    IGNORED = frozenset({Attempt})  # a retry of this library; no wire API reports one
    IMPLICIT_START = True


ENCODER = Encoder(
    name="openai-responses",
    parse_request=parse_request,
    encode_stream=encode_stream,
    encode_response=encode_response,
    encode_error=encode_error,
    encode_stream_error=encode_stream_error,
    # With and without the version, as base URLs come in both forms; Azure's has one more word in it.
    routes=(Endpoint(r"(/openai)?(/v1)?/responses"),),
    id_prefix="resp_",
)
