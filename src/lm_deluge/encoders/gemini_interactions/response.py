"""Encode responses of Gemini's Interactions API: the inverse of the adapter of the same name.

https://ai.google.dev/gemini-api/docs/interactions

Decoding an encoded response gives the same events, except for what this API cannot express:

- Calls whose fragments interleave are steps that are open at the same time. The arguments `{}` are decoded as empty.
  Usage is reported last.
- A refusal is text. Log probabilities, ids and transcripts of audio, and opaque data of other kinds are left out.
- Positions of citations count in the whole text.
- `content_filter` and `pause` become `incomplete`, `refusal` becomes `completed`.

A truncated response has no `ResponseFinished`, so it gets no `interaction.completed`, which marks a complete response.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec

from lm_deluge.encoders.encoder import Encoder, Endpoint
from lm_deluge.encoders.event_writer import EventHandlers, EventWriter
from lm_deluge.encoders.gemini_generate.fields import encode_error
from lm_deluge.encoders.gemini_interactions.request import parse_request
from lm_deluge.errors import APIError
from lm_deluge.events import (
    Attempt,
    Citation,
    Event,
    FinishReason,
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

JSON = dict[str, Any]

_STATUSES: dict[FinishReason, str] = {
    "stop": "completed",
    "length": "incomplete",
    "tool_calls": "requires_action",
    "content_filter": "incomplete",
    "refusal": "completed",
    "pause": "incomplete",
    "error": "failed",
}
_API_STATUSES = {*_STATUSES.values(), "cancelled", "budget_exceeded", "requires_continuation", "idle"}
_SERVER_STEPS = ("_call", "_result")
_MEDIA = ("image", "audio", "video")


def encode_stream(events: Iterable[Event], *, created: int = 0, include_usage: bool = True) -> Iterator[bytes]:
    """Yield the frames of a streamed response, each as soon as the events that complete it are read.

    Usage is always reported; `include_usage` has no effect.
    """
    writer = _EventWriter(created)
    for each in writer.write_all(events):
        yield _frame(each)
    if writer.is_finished:
        yield b"event: done\ndata: [DONE]\n\n"


def encode_response(events: Iterable[Event], *, created: int = 0) -> bytes:
    """Return the response as one JSON document, with the deltas of each step joined."""
    steps: list[JSON] = []
    interaction: JSON = {}
    for each in _EventWriter(created).write_all(events):
        interaction |= each.get("interaction", {})
        if each["event_type"] == "step.start":
            steps.append(dict(each["step"]))
        elif each["event_type"] == "step.delta":
            _add_delta(steps[each["index"]], each["delta"])
    for step in steps:
        if "arguments_text" in step:
            step["arguments"] = _arguments(step.pop("arguments_text"))
    return msgspec.json.encode({**interaction, "steps": steps})


def _add_delta(step: JSON, delta: JSON) -> None:
    """Add a delta to its step."""
    kind = delta["type"]
    if kind == "arguments_delta":
        step["arguments_text"] = step.get("arguments_text", "") + delta["arguments"]
    elif kind == "thought_signature":
        step["signature"] = delta["signature"]
    elif kind == "thought_summary":
        step.setdefault("summary", []).append(delta["content"])
    elif kind == "text_annotation_delta":
        contents = step.setdefault("content", [])
        if not contents or contents[-1]["type"] != "text":
            contents.append({"type": "text", "text": ""})
        contents[-1].setdefault("annotations", []).extend(delta["annotations"])
    else:
        _add_output(step.setdefault("content", []), delta)


def _add_output(contents: list[JSON], delta: JSON) -> None:
    last = contents[-1] if contents else {}
    if last.get("type") == delta["type"] == "text" and "annotations" not in last:
        last["text"] += delta["text"]
    else:
        contents.append(dict(delta))


def _arguments(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text  # invalid JSON stays the model's text


def _frame(event: JSON) -> bytes:
    return encode_sse(msgspec.json.encode(event), event=event["event_type"])


class _EventWriter(EventWriter[JSON]):
    """State of one response, including its open step."""

    def __init__(self, created: int) -> None:
        super().__init__()
        self.is_finished = False
        self._created = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._interaction: JSON = {"id": "", "object": "interaction", "model": ""}
        self._index = -1
        self._open = ""  # type of the open step, or empty
        self._open_index = -1  # its index
        self._calls: dict[
            int, tuple[int, bool]
        ] = {}  # index of the step of each open call, and whether it has arguments
        self._usage: Usage | None = None
        self._text: list[str] = []

    def start(self, event: ResponseStarted) -> list[JSON]:
        names = {"id": event.response_id or "", "model": event.model or ""}
        self._interaction |= names
        status = {**self._interaction, "status": "in_progress"}
        return [{"event_type": "interaction.created", "interaction": status}]

    def _begin(self, kind: str, **fields: Any) -> list[JSON]:
        """Return the events that close the open step and open a new one."""
        closed = self._close()
        self._index += 1
        self._open, self._open_index = kind, self._index
        step = {"type": kind, **fields}
        return [*closed, {"event_type": "step.start", "index": self._index, "step": step}]

    def _close(self) -> list[JSON]:
        if not self._open:
            return []
        self._open = ""
        return [_stop(self._open_index)]

    def _delta(self, kind: str, delta: JSON) -> list[JSON]:
        opening = [] if self._open == kind else self._begin(kind)
        return [*opening, {"event_type": "step.delta", "index": self._open_index, "delta": delta}]

    def add_text(self, event: TextDelta | RefusalDelta) -> list[JSON]:
        self._text.append(event.text)
        return self._delta("model_output", {"type": "text", "text": event.text}) if event.text else []

    def add_reasoning(self, event: ReasoningDelta) -> list[JSON]:
        content = {"type": "text", "text": event.text}
        return self._delta("thought", {"type": "thought_summary", "content": content})

    def start_call(self, event: ToolCallStarted) -> list[JSON]:
        closed = self._close()
        self._index += 1
        self._calls[event.index] = self._index, False
        step = {"type": "function_call", "id": event.id, "name": event.name, "arguments": {}}
        return [*closed, {"event_type": "step.start", "index": self._index, "step": step}]

    def add_arguments(self, event: ToolCallDelta) -> list[JSON]:
        if event.index not in self._calls:
            return []
        index, _ = self._calls[event.index]
        self._calls[event.index] = index, True
        delta = {"type": "arguments_delta", "arguments": event.arguments}
        return [{"event_type": "step.delta", "index": index, "delta": delta}]

    def finish_call(self, event: ToolCallFinished) -> list[JSON]:
        frames = []
        if event.index not in self._calls:
            frames += self.start_call(ToolCallStarted(event.index, event.id, event.name))
        if event.arguments_text and not self._calls[event.index][1]:
            frames += self.add_arguments(ToolCallDelta(event.index, event.arguments_text))
        return [*frames, _stop(self._calls.pop(event.index)[0])]

    def add_opaque(self, event: ProviderPart) -> list[JSON]:
        if event.kind == "thought_signature" and isinstance(event.data, str):
            delta = {"type": "thought_signature", "signature": event.data}
            return [*self._delta("thought", delta), *self._close()]
        if event.kind.endswith(_SERVER_STEPS) and isinstance(event.data, dict):
            fields = {name: value for name, value in event.data.items() if name != "type"}
            return [*self._begin(event.kind, **fields), *self._close()]
        return []

    def add_media(self, event: MediaDelta) -> list[JSON]:
        kind = event.media_type.partition("/")[0]
        source = {"data": event.data} if event.url is None else {"uri": event.url}
        delta = {"type": kind if kind in _MEDIA else "document", "mime_type": event.media_type, **source}
        return self._delta("model_output", delta)

    def add_citation(self, event: Citation) -> list[JSON]:
        if not event.url and not event.title:
            return []
        text = "".join(self._text)
        annotation: JSON = {"type": "url_citation", "url": event.url, "title": event.title}
        if event.start is not None and event.end is not None:
            annotation["start_index"] = len(text[: event.start].encode("utf-8", "replace"))
            annotation["end_index"] = len(text[: event.end].encode("utf-8", "replace"))
        known = {name: value for name, value in annotation.items() if value is not None}
        return self._delta("model_output", {"type": "text_annotation_delta", "annotations": [known]})

    def keep_usage(self, event: UsageReported) -> list[JSON]:
        self._usage = event.usage
        return []

    def finish(self, event: ResponseFinished) -> list[JSON]:
        self.is_finished = True
        raw = event.raw_finish_reason or ""
        interaction = {
            **self._interaction,
            "status": raw if raw in _API_STATUSES else _STATUSES[event.finish_reason],
            "created": self._created,
            "updated": self._created,
        }
        if self._usage is not None:
            interaction["usage"] = _usage(self._usage)
        calls = [_stop(index) for index, _ in self._calls.values()]
        return [*self._close(), *calls, {"event_type": "interaction.completed", "interaction": interaction}]

    HANDLED: ClassVar[EventHandlers] = {
        ResponseStarted: start,
        TextDelta: add_text,
        RefusalDelta: add_text,
        ReasoningDelta: add_reasoning,
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


def _stop(index: int) -> JSON:
    return {"event_type": "step.stop", "index": index}


def _usage(usage: Usage) -> JSON:
    counts = {
        "total_tokens": usage.total_tokens,
        "total_input_tokens": usage.input_tokens,
        "total_cached_tokens": usage.cache_read_tokens,
        "total_output_tokens": max(usage.output_tokens - (usage.reasoning_tokens or 0), 0),
        "total_thought_tokens": usage.reasoning_tokens,
    }
    return {name: value for name, value in counts.items() if value is not None}


def encode_stream_error(error: APIError) -> bytes:
    """Return the event that reports an error in a started stream."""
    fields = msgspec.json.decode(encode_error(error))["error"]
    inner = {"code": fields["status"].lower(), "message": fields["message"]}
    return encode_sse(msgspec.json.encode({"event_type": "error", "error": inner}), event="error")


ENCODER = Encoder(
    name="gemini-interactions",
    parse_request=parse_request,
    encode_stream=encode_stream,
    encode_response=encode_response,
    encode_error=encode_error,
    encode_stream_error=encode_stream_error,
    routes=(Endpoint(r"(/v1beta1|/v1beta|/v1alpha|/v1)?/interactions"),),
    stream_type="text/event-stream",
    id_prefix="v1_",
)
