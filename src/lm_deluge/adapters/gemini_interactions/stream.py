"""Convert the events of Gemini's Interactions API.

https://ai.google.dev/gemini-api/docs/interactions, and the types of google-genai 3.6 (read 2026-11). A response is a
list of steps: thoughts, model output, function calls, and calls and results of tools that Google runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec

from lm_deluge.adapters.body_decoder import in_band_error
from lm_deluge.adapters.errors import classify_in_band
from lm_deluge.adapters.gemini_generate.citations import CitationCollector
from lm_deluge.adapters.snapshot import SNAPSHOT_DIFFERS, StreamedText, is_same_json, warn_once
from lm_deluge.adapters.token_counts import Count, complete_counts, read_counts
from lm_deluge.adapters.typed_payload import Handlers, TypedPayload
from lm_deluge.errors import ProtocolError
from lm_deluge.events import Event, FinishReason, MediaDelta, ProviderPart, ReasoningDelta, TextDelta, UsageReported
from lm_deluge.usage import Usage
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import TolerantDecoder

__all__ = ["Interaction", "InteractionsPayload", "check_document"]

JSON = dict[str, Any]


class Interaction(msgspec.Struct, gc=False):
    """An interaction, complete or partial as in an event."""

    id: str | None = None
    model: str | None = None
    status: str | None = None
    usage: JSON | None = None
    steps: list[Any] | None = None
    errors: list[Any] | None = None
    error: Any = None


class _Metadata(msgspec.Struct, gc=False):
    usage: JSON | None = None
    total_usage: JSON | None = None


class _Event(msgspec.Struct, gc=False):
    index: int | None = None
    step: JSON | None = None
    delta: JSON | None = None
    interaction: Interaction | None = None
    metadata: _Metadata | None = None
    usage: JSON | None = None


class _Counts(msgspec.Struct, gc=False):
    total_input_tokens: Count = None
    total_tool_use_tokens: Count = None
    total_output_tokens: Count = None
    total_thought_tokens: Count = None
    total_cached_tokens: Count = None
    total_tokens: Count = None


_EVENT = TolerantDecoder(_Event)
_MEDIA_TYPES = {"image": "image/*", "audio": "audio/*", "video": "video/*", "document": "application/octet-stream"}
_UNFINISHED = ("in_progress", "queued")


class _StreamedStep:
    """A step as far as it is streamed, to be compared with the same step of the completed interaction."""

    __slots__ = ("has_signature", "id", "kind", "text")

    def __init__(self, step: JSON) -> None:
        self.kind = step.get("type")
        self.id = step.get("id")
        self.text = StreamedText()  # of the output or the thought, or the arguments of a finished call
        self.has_signature = False


class InteractionsPayload(TypedPayload):
    """The state machine of one response, streamed or not."""

    # After `requires_continuation` the caller must send a continuation token, through extra_body.
    finish_reasons: ClassVar[Mapping[str, FinishReason]] = {
        "completed": "stop",
        "idle": "stop",
        "requires_action": "tool_calls",
        "incomplete": "length",
        "budget_exceeded": "length",
        "requires_continuation": "length",
        "failed": "error",
        "cancelled": "error",
    }

    def __init__(self, provider: str) -> None:
        super().__init__(provider)
        self._steps: dict[int, JSON] = {}  # unfinished steps by index
        self._pieces: dict[int, dict[str, list[str]]] = {}  # of the text fields of unfinished steps, to be joined
        self._streamed: dict[int, _StreamedStep] = {}
        self._citations = CitationCollector(self)

    def read_interaction(self, interaction: Interaction, events: list[Event]) -> None:
        """Handle a complete interaction."""
        self.start(events, interaction.id, interaction.model)
        for index, step in enumerate(self.objects_of(interaction.steps or [])):
            self.start_step(_Event(index=index, step=step), events)
            self.stop_step(_Event(index=index), events)
        self.complete(_Event(interaction=interaction), events, is_document=True)

    def on_created(self, event: _Event, events: list[Event]) -> None:
        """Handle the first event."""
        interaction = event.interaction or Interaction()
        self.start(events, interaction.id, interaction.model)
        self._count(event, events)

    def on_status(self, event: _Event, events: list[Event]) -> None:
        """Handle a status update, of which only the usage matters."""
        self._count(event, events)

    def start_step(self, event: _Event, events: list[Event]) -> None:
        """Start a step. In a stream it mostly has only a type; in a complete interaction it has all its content."""
        self.start(events)
        index, step = event.index or 0, dict(event.step or {})
        self._close(index, events)
        self._steps[index] = step
        self._streamed[index] = _StreamedStep(step)
        kind = self.text_of(step, "type")
        if kind == "function_call":
            self.calls.start(events, index, self.text_of(step, "id"), self.text_of(step, "name"))
        elif kind == "thought":
            for content in self.list_of(step, "summary"):
                self._apply({"type": "thought_summary", "content": content}, step, events, index)
            step.pop("summary", None)
        elif kind == "model_output":
            for content in self.objects_of(self.list_of(step, "content")):
                self._apply(content, step, events, index)
            step.pop("content", None)
        self._count(event, events)

    def add_delta(self, event: _Event, events: list[Event]) -> None:
        """Handle a delta of a step."""
        index, delta = event.index or 0, event.delta
        if delta is not None:
            if not self._is_started:
                self.start(events)
            step = self._steps.get(index)
            if step is None:
                step = self._steps[index] = {"type": "model_output"}
                self._streamed[index] = _StreamedStep(step)
            text = delta.get("text")
            if text and type(text) is str and delta.get("type") == "text":  # nearly all deltas
                self._citations.add_text(text)
                self._streamed[index].text.add(text)
                events.append(TextDelta(text))
                if "annotations" in delta:
                    self.add_annotations(delta, index, events)
            else:
                self._apply(delta, step, events, index)
        if event.usage is not None or event.metadata is not None:
            self._count(event, events)

    def stop_step(self, event: _Event, events: list[Event]) -> None:
        """Finish a step."""
        self._close(event.index or 0, events)
        self._count(event, events)

    def complete(self, event: _Event, events: list[Event], *, is_document: bool = False) -> None:
        """Finish the response with the interaction's status, unless it still runs in the background.

        Raises:
            APIError: The interaction failed.
        """
        interaction = event.interaction or Interaction()
        self._count(_Event(usage=interaction.usage), events)
        failures = [*(interaction.errors or ()), *([interaction.error] if interaction.error else [])]
        if interaction.status == "failed" and failures:
            error = classify_in_band({"error": failures[0]})
            error.billed = "maybe"
            self.fail(error)
        if interaction.status and interaction.status not in _UNFINISHED:
            self.start(events, interaction.id, interaction.model)
            if interaction.steps and not is_document:
                self._reconcile(interaction.steps, events)
            self.reason = interaction.status
            self.end(events)

    def end(self, events: list[Event]) -> None:
        """Finish the response and its unfinished steps."""
        for index in list(self._steps):
            self._close(index, events)
        super().end(events)

    def _reconcile(self, steps: list[Any], events: list[Event]) -> None:
        """Compare the steps of the completed interaction with the streamed ones. Google leaves them out."""
        new = 1 + max(self._streamed, default=-1)
        for position, step in enumerate(self.objects_of(steps)):
            index = self._streamed_index(position, step)
            if index is None:
                index, new = new, new + 1
                self.start_step(_Event(index=index, step=step), events)
            elif step.get("type") in _SNAPSHOTS:
                self._end_text(index, step, events)
            elif step.get("type") == "function_call":
                self._end_arguments(index, step, events)

    def _streamed_index(self, position: int, step: JSON) -> int | None:
        kind, step_id = step.get("type"), step.get("id")
        with_id = (
            index for index, each in self._streamed.items() if step_id and (each.id, each.kind) == (step_id, kind)
        )
        at_index = self._streamed.get(position)
        is_same = at_index is not None and at_index.kind == kind and (not at_index.id or at_index.id == step_id)
        return next(with_id, position if is_same else None)

    def _end_text(self, index: int, step: JSON, events: list[Event]) -> None:
        kind, streamed = step["type"], self._streamed[index]
        field, event = _SNAPSHOTS[kind]
        found = self.objects_of(self.list_of(step, field))
        parts = [part for part in found if part.get("type", "text") == "text"]
        rest = streamed.text.rest_of("".join([self.text_of(part, "text") for part in parts]))
        if rest is None:
            warn_once(self.warnings, SNAPSHOT_DIFFERS)
        elif rest:
            streamed.text.add(rest)
            if kind == "model_output":
                self._citations.add_text(rest)
            events.append(event(rest))
        for part in parts:
            self.add_annotations(part, index, events)
        if step.get("signature") and not streamed.has_signature and index not in self._steps:
            streamed.has_signature = True
            events.append(ProviderPart(self.provider, "thought_signature", step["signature"]))

    def _end_arguments(self, index: int, step: JSON, events: list[Event]) -> None:
        arguments = step.get("arguments")
        whole = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
        is_open = self.calls.is_open(index)
        text = self.calls.text(index) if is_open else str(self._streamed[index].text)
        if not text and is_open:
            self._steps[index]["arguments"] = arguments
        elif is_open and whole.startswith(text):
            self.calls.add(events, index, whole[len(text) :])
        elif arguments and not is_same_json(text or "{}", whole):
            warn_once(self.warnings, SNAPSHOT_DIFFERS)

    def _apply(self, delta: JSON, step: JSON, events: list[Event], index: int) -> None:
        before = len(events)
        self._add_any(delta, step, events, index)
        for position in range(before, len(events)):
            event = events[position]
            if isinstance(event, TextDelta | ReasoningDelta):
                self._streamed[index].text.add(event.text)

    def _add_any(self, delta: JSON, step: JSON, events: list[Event], index: int) -> None:
        kind = delta.get("type")
        if kind == "text":
            self._add_text(delta, events)
        elif kind == "arguments_delta":
            self.calls.add(events, index, self.text_of(delta, "arguments"))
        elif isinstance(kind, str) and kind in _DELTAS:
            _DELTAS[kind](self, delta, index, events)
        elif step.get("type") not in ("model_output", "thought", "function_call"):
            self._merge(index, step, delta)
        else:
            self.ignored += 1

    def _add_text(self, delta: JSON, events: list[Event]) -> None:
        text = self.text_of(delta, "text")
        if text:
            self._citations.add_text(text)
            events.append(TextDelta(text))
        if "annotations" in delta:
            self.add_annotations(delta, 0, events)

    def add_annotations(self, delta: JSON, index: int, events: list[Event]) -> None:
        """Handle a delta with annotations."""
        for annotation in self.list_of(delta, "annotations"):
            self._citations.add_annotation(annotation, events)

    def add_summary(self, delta: JSON, index: int, events: list[Event]) -> None:
        """Handle a delta with a thought summary."""
        content = delta.get("content")
        if not isinstance(content, dict):
            self.skip_value(content)
            return
        text = self.text_of(content, "text")
        if text:
            events.append(ReasoningDelta(text))

    def add_signature(self, delta: JSON, index: int, events: list[Event]) -> None:
        """Append to the signature of a thought; the API also sends empty signatures."""
        self._append(index, "signature", self.text_of(delta, "signature"))

    def _append(self, index: int, name: str, text: str) -> None:
        """Append to a text field of a step. The pieces are joined once, at the end of the step."""
        fields = self._pieces.setdefault(index, {})
        if name not in fields:
            fields[name] = [self.text_of(self._steps[index], name)]
        fields[name].append(text)

    def _merge(self, index: int, step: JSON, delta: JSON) -> None:
        """Merge a delta of a server tool into its step: strings and lists are appended, objects merged."""
        for name, value in delta.items():
            known = step.get(name)
            if name == "type":
                continue
            if isinstance(known, str) and isinstance(value, str):
                self._append(index, name, value)
            elif isinstance(known, list) and isinstance(value, list):
                known += value
            elif isinstance(known, dict) and isinstance(value, dict):
                known |= value
            else:
                self._pieces.get(index, {}).pop(name, None)
                step[name] = value

    def add_media(self, delta: JSON, index: int, events: list[Event]) -> None:
        """Handle a generated image, audio, video or document."""
        data, uri = self.text_of(delta, "data"), self.text_of(delta, "uri")
        if data or uri:
            media_type = self.text_of(delta, "mime_type") or _MEDIA_TYPES[delta["type"]]
            events.append(MediaDelta(media_type, data, uri or None))

    def _close(self, index: int, events: list[Event]) -> None:
        """Finish a step and append the events that need all of its data."""
        step = self._steps.pop(index, None)
        if step is None:
            return
        step |= {name: "".join(pieces) for name, pieces in self._pieces.pop(index, {}).items()}
        kind = step.get("type") if isinstance(step.get("type"), str) else ""
        if kind == "function_call":
            arguments = step.get("arguments")
            if arguments and not self.calls.has_text(index):
                text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
                self.calls.add(events, index, text)
            self._streamed[index].text.add(self.calls.text(index))
            self.calls.finish(events, index)
        elif kind in ("thought", "model_output"):
            if step.get("signature"):
                self._streamed[index].has_signature = True
                events.append(ProviderPart(self.provider, "thought_signature", step["signature"]))
        elif isinstance(kind, str):
            events.append(ProviderPart(self.provider, kind, step))

    def _count(self, event: _Event, events: list[Event]) -> None:
        raw = event.usage
        if not raw and event.metadata is not None:
            raw = event.metadata.total_usage or event.metadata.usage
        usage = _read_usage(raw) if raw else None
        if usage is not None:
            self.start(events)
            events.append(UsageReported(usage))

    handlers: ClassVar[Handlers] = {}


_DELTAS: dict[Any, Callable[[InteractionsPayload, JSON, int, list[Event]], None]] = {
    "thought_summary": InteractionsPayload.add_summary,
    "thought_signature": InteractionsPayload.add_signature,
    "text_annotation_delta": InteractionsPayload.add_annotations,
    **dict.fromkeys(_MEDIA_TYPES, InteractionsPayload.add_media),
}

# Fields with the whole text of a step, and the event for it.
_SNAPSHOTS: dict[Any, tuple[str, Callable[[str], Event]]] = {
    "model_output": ("content", TextDelta),
    "thought": ("summary", ReasoningDelta),
}

InteractionsPayload.handlers = {
    "interaction.created": (_EVENT, InteractionsPayload.on_created),
    "interaction.start": (_EVENT, InteractionsPayload.on_created),
    "interaction.status_update": (_EVENT, InteractionsPayload.on_status),
    "step.start": (_EVENT, InteractionsPayload.start_step),
    "step.delta": (_EVENT, InteractionsPayload.add_delta),
    "step.stop": (_EVENT, InteractionsPayload.stop_step),
    "interaction.completed": (_EVENT, InteractionsPayload.complete),
    "interaction.cancelled": (_EVENT, InteractionsPayload.complete),
}


def check_document(interaction: Interaction | None, body: bytes) -> Interaction:
    """Return the decoded interaction after checking it.

    Raises:
        APIError: The body is an error.
        ProtocolError: The body is not an interaction.
    """
    if interaction is not None and interaction.status is not None:
        return interaction
    if interaction is not None and interaction.error:
        raise in_band_error(ServerSentEvent(body))
    raise ProtocolError("the response is JSON, but not an interaction", reason="order", excerpt=body, billed="maybe")


def _read_usage(raw: JSON) -> Usage | None:
    counts = read_counts(raw, _Counts)
    sent = _plus(counts.total_input_tokens, counts.total_tool_use_tokens)
    output = _plus(counts.total_output_tokens, counts.total_thought_tokens)
    known = complete_counts(sent, output, counts.total_tokens)
    if known is None:
        return None
    return Usage(
        raw=raw,
        input_tokens=known[0],
        output_tokens=known[1],
        estimated=known[2],
        cache_read_tokens=counts.total_cached_tokens,
        reasoning_tokens=counts.total_thought_tokens,
    )


def _plus(one: int | None, other: int | None) -> int | None:
    return one if other is None else (one or 0) + other
