"""Encode responses of the Responses API: the inverse of the adapter of the same name.

https://platform.openai.com/docs/api-reference/responses-streaming

Decoding an encoded response gives the same events, except for what this API cannot express:

- The id and the model of the response are required strings: a missing one is decoded as None.
- Reasoning and generated images are items, so each is decoded with an opaque part after it, even if the encoded
  response had none. The event after an item ends it, because that event may be opaque data with fields of the item.
- Usage is reported once, at the end, in OpenAI's format and without the flag `estimated`; an unknown count of
  cached, written or reasoning tokens is 0, because all three are required.
- `pause` and refusals become `completed`.
- Attempts, warnings, generated audio, images by URL, citations without a URL that are not in this API's format, and
  opaque data of kinds that this API does not have are left out.

A truncated response has no `ResponseFinished`, so nothing ends it: the encoder never invents a terminal event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import msgspec

from lm_deluge.encoders.encoder import Encoder, Endpoint, StreamWriter
from lm_deluge.encoders.event_writer import EventHandlers, EventWriter
from lm_deluge.encoders.openai_chat.errors import encode_error, error_type_and_code
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

# The reason in `incomplete_details` for each finish reason.
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_STATUSES = ("completed", "incomplete", "failed")

# Kinds of opaque data that are whole items.
_WHOLE_KINDS = {*WHOLE_ITEMS, "reasoning", "output_item"}


def encode_stream(events: Iterable[Event], *, created: int = 0, include_usage: bool = True) -> Iterator[bytes]:
    """Yield the frames of a streamed response, each as soon as the events that complete it are read.

    Args:
        events: The response.
        created: Time of the request, in seconds since 1970.
        include_usage: Has no effect: usage is always in the last frame.
    """
    writer = _Writer(created)
    yield from writer.write_all(events)
    yield from writer.close_item()


def encode_response(events: Iterable[Event], *, created: int = 0) -> bytes:
    """Return the response object that the last frame of a stream contains; a truncated response is in progress."""
    writer = _Writer(created)
    for event in events:
        writer.write(event)
    writer.close_item()
    return msgspec.json.encode(writer.response())


def encode_stream_error(error: APIError) -> bytes:
    """Return the frame that reports an error after the start of a stream."""
    inner: JSON = msgspec.json.decode(encode_error(error))["error"]
    return encode_sse(msgspec.json.encode({"type": "error", "error": inner}), event="error")


def open_stream(*, created: int, include_usage: bool) -> StreamWriter:
    """Return a writer of one streamed response; the arguments are those of `encode_stream`."""
    writer = _Writer(created)
    return StreamWriter(writer, bytes, writer.fail)


class _Writer(EventWriter[bytes]):
    """State of one response. A complete item stays open until the next event, which may hold further fields of it."""

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
        self._length = 0  # characters of all text deltas so far

    def response(self, *, is_start: bool = False) -> JSON:
        """Return the response object in its current state."""
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
            "output": [] if is_start else self._output,
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

    def _frames(self, named_fields: Iterable[tuple[str, JSON]]) -> list[bytes]:
        return [self._frame(f"response.{kind}", fields) for kind, fields in named_fields]

    def start(self, event: ResponseStarted) -> list[bytes]:
        self._started = event
        body = self.response(is_start=True)
        return self._frames([("created", {"response": body}), ("in_progress", {"response": body})])

    def _append(self, item: Item) -> list[bytes]:
        """Append an item to the output."""
        item.index = len(self._output)
        self._output.append(item.initial())
        return self._frames([("output_item.added", {"output_index": item.index, "item": item.initial()})])

    def _end(self, item: Item, rest: JSON | None = None) -> list[bytes]:
        frames = self._frames(item.end())
        self._output[item.index] = item.done(rest)
        return frames + self._frames(
            [("output_item.done", {"output_index": item.index, "item": self._output[item.index]})]
        )

    def close_item(self, rest: JSON | None = None) -> list[bytes]:
        """End the open item, if any; `rest` are fields that opaque data add to the item."""
        item, self._open = self._open, None
        return [] if item is None else self._end(item, rest)

    def _ensure_open(self, kind: type[Item]) -> list[bytes]:
        """Open an item of a kind, unless one is open."""
        if type(self._open) is kind:
            return []
        frames = self.close_item()
        item = kind()
        frames += self._append(item)
        self._open = item
        return frames

    def add_text(self, event: TextDelta) -> list[bytes]:
        frames = self._ensure_open(MessageItem)
        assert isinstance(self._open, MessageItem)  # noqa: S101 - opened above
        frames += self._frames(self._open.add_text(event, self._length))
        self._length += len(event.text)
        return frames

    def add_refusal(self, event: RefusalDelta) -> list[bytes]:
        frames = self._ensure_open(MessageItem)
        assert isinstance(self._open, MessageItem)  # noqa: S101 - opened above
        return frames + self._frames(self._open.add_refusal(event))

    def add_citation(self, event: Citation) -> list[bytes]:
        frames = self._ensure_open(MessageItem)
        assert isinstance(self._open, MessageItem)  # noqa: S101 - opened above
        frames += self._frames(self._open.open_text(self._length))
        annotation = annotation_of(event, self._open.text_start)
        return frames if annotation is None else frames + self._frames(self._open.add_annotation(annotation))

    def add_reasoning(self, event: ReasoningDelta) -> list[bytes]:
        frames = self._ensure_open(ReasoningItem)
        assert isinstance(self._open, ReasoningItem)  # noqa: S101 - opened above
        return frames + self._frames(self._open.add(event))

    def start_call(self, event: ToolCallStarted) -> list[bytes]:
        frames = self.close_item()
        item = CallItem(event)
        self._calls[event.index] = item
        return frames + self._append(item)

    def add_arguments(self, event: ToolCallDelta) -> list[bytes]:
        item = self._calls.get(event.index)
        return self.close_item() + (self._frames(item.add(event.arguments)) if item is not None else [])

    def finish_call(self, event: ToolCallFinished) -> list[bytes]:
        frames = self.close_item()
        item = self._calls.pop(event.index, None)
        if item is None:  # a response that was not streamed has complete calls only
            frames += self.start_call(ToolCallStarted(event.index, event.id, event.name, event.custom))
            item = self._calls.pop(event.index)
        if event.arguments_text and not item.fragments:
            frames += self._frames(item.add(event.arguments_text))
        self._open = item
        return frames

    def add_media(self, event: MediaDelta) -> list[bytes]:
        frames = self.close_item()
        if event.media_type.startswith("image/") and event.data:
            item = ImageItem(event)
            frames += self._append(item)
            self._open = item
        return frames

    def add_opaque(self, event: ProviderPart) -> list[bytes]:
        data = event.data
        if not isinstance(data, dict):
            return self.close_item()
        if self._open is not None and self._open.kind == event.kind:
            return self.close_item(data)
        frames = self.close_item()
        if event.kind not in _WHOLE_KINDS or not isinstance(data.get("type"), str):
            return frames
        index = len(self._output)
        self._output.append(data)
        fields = {"output_index": index, "item": data}
        return frames + self._frames([("output_item.added", fields), ("output_item.done", fields)])

    def keep_usage(self, event: UsageReported) -> list[bytes]:
        self._usage = event.usage
        return []

    def finish(self, event: ResponseFinished) -> list[bytes]:
        frames = self.close_item()
        raw = event.raw_finish_reason
        detail = _INCOMPLETE.get(event.finish_reason)
        default = "failed" if event.finish_reason == "error" else "completed" if detail is None else "incomplete"
        self._status = raw if raw in _STATUSES else default
        self._detail = detail if self._status == "incomplete" else None
        return frames + self._frames([(self._status, {"response": self.response()})])

    def fail(self, error: APIError) -> bytes:
        """Return the frames that end the response as failed.

        Clients ignore the frame `error` (Codex 0.171) or hand it over as an ordinary event (openai 3.3); all of them
        read `response.failed`.
        """
        frames = [] if self._has_start else [*self.write(ResponseStarted())]
        frames += self.close_item()
        self._status = "failed"
        kind, code = error_type_and_code(error)
        fields = {**self.response(), "error": {"code": code or kind, "message": error.message}}
        return b"".join([*frames, self._frame("response.failed", {"response": fields})])

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
    open_stream=open_stream,
    # With and without the version, because clients configure base URLs in both forms; Azure puts /openai in front.
    routes=(Endpoint(r"(/openai)?(/v1)?/responses"),),
    id_prefix="resp_",
)
