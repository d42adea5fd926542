"""Convert the responses of text completion models, each in its vendor's format.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from lm_deluge.adapters.bedrock_converse.usage import read_metrics
from lm_deluge.adapters.body_decoder import in_band_error, not_json
from lm_deluge.adapters.snapshot import SNAPSHOT_DIFFERS, StreamedText, warn_once
from lm_deluge.adapters.token_counts import add_usage
from lm_deluge.adapters.typed_payload import Handlers, TypedPayload
from lm_deluge.errors import ProtocolError
from lm_deluge.events import Citation, Event, FinishReason, TextDelta
from lm_deluge.usage import Usage
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError, SkipReport, TolerantDecoder, convert_tolerantly

__all__ = ["TextPayload"]

JSON = dict[str, Any]


class _Chunk(msgspec.Struct, gc=False):
    """The fields of all vendors; no name has two meanings."""

    index: int | None = None  # of the answer, if there are several: Cohere's num_generations
    outputText: str | None = None  # noqa: N815 - Titan
    completionReason: str | None = None  # noqa: N815
    totalOutputTextTokenCount: float | None = None  # noqa: N815
    inputTextTokenCount: float | None = None  # noqa: N815
    tokenCount: float | None = None  # noqa: N815
    results: list[Any] | None = None
    generation: str | None = None  # Llama
    prompt_token_count: int | None = None
    generation_token_count: int | None = None
    stop_reason: str | None = None
    completion: str | None = None  # Claude's first models
    outputs: list[Any] | None = None  # Mistral
    choices: list[Any] | None = None  # DeepSeek
    text: str | None = None  # Cohere
    event_type: str | None = None
    finish_reason: str | None = None
    generation_id: str | None = None
    generations: list[Any] | None = None
    citations: list[Any] | None = None
    tool_calls: list[Any] | None = None
    response: JSON | None = None  # the whole response, in Cohere's last chunk
    error: Any = None
    message: Any = None
    metrics: JSON | None = msgspec.field(default=None, name="amazon-bedrock-invocationMetrics")
    guardrail: str | None = msgspec.field(default=None, name="amazon-bedrock-guardrailAction")


class _Call(msgspec.Struct, gc=False):
    name: str | None = None
    parameters: Any = None


class _Source(msgspec.Struct, gc=False):
    start: int | None = None
    end: int | None = None


_CHUNKS = TolerantDecoder(_Chunk)
_MAX_DEPTH = 2  # responses nest one level (`results`, `outputs`, ...); the second is slack that still bounds recursion


class TextPayload(TypedPayload):
    """The state machine of one response.

    The response is complete with its stop reason, or with Titan's total token count, which only the last chunk has.
    Bedrock's metrics are in the last chunk or in a chunk after it.
    """

    handlers: ClassVar[Handlers] = {}
    finish_reasons: ClassVar[Mapping[str, FinishReason]] = {
        "FINISH": "stop",
        "FINISHED": "stop",
        "COMPLETE": "stop",
        "STOP_CRITERIA_MET": "stop",
        "STOP_SEQUENCE": "stop",
        "stop": "stop",
        "stop_sequence": "stop",
        "LENGTH": "length",
        "MAX_TOKENS": "length",
        "length": "length",
        "max_tokens": "length",
        "tool_calls": "tool_calls",
        "CONTENT_FILTERED": "content_filter",
        "ERROR_TOXIC": "content_filter",
        "ERROR_LIMIT": "length",
        "ERROR": "error",
        "USER_CANCEL": "error",
    }

    def __init__(self, provider: str) -> None:
        super().__init__(provider)
        self._is_last = False
        self._is_blocked = False
        self._text = StreamedText()
        self._calls: list[Any] = []
        self._sources: list[Any] = []

    @property
    def is_complete(self) -> bool:
        """Whether the last chunk with text was received."""
        return self._is_last

    def handle(self, frame: ServerSentEvent, events: list[Event]) -> None:
        """Handle one chunk."""
        if self.is_finished:
            self.ignored += 1
            return
        try:
            chunk = _CHUNKS.decode(frame.data, self)
        except NotJSONError:
            if not self.is_complete:
                raise not_json(frame) from None
            self.ignored += 1
            return
        if chunk is not None:
            self._add_chunk(chunk, frame, events)

    def read_document(self, body: bytes, events: list[Event]) -> None:
        """Handle a response that is not streamed.

        Raises:
            ProtocolError: The body is not a response of a known format.
            APIError: The body is an error document.
        """
        self.handle(ServerSentEvent(body), events)
        if not self.is_complete:
            raise ProtocolError("the response is JSON, but not in a known model's format", reason="order", excerpt=body)
        if not self.is_finished:
            self.end(events)

    def finish(self, events: list[Event]) -> None:
        """Finish a complete response without Bedrock's metrics. The format has no end mark, so this is no warning."""
        self.end(events)

    def _add_chunk(self, chunk: _Chunk, frame: ServerSentEvent, events: list[Event]) -> None:
        if chunk.error:
            self.fail(in_band_error(frame))
            return
        if chunk.guardrail == "INTERVENED":
            self._is_blocked = True
        if chunk.index:  # our requests ask for one answer; others are ignored, as in other APIs
            self.ignored += 1
        else:
            self._add_content(chunk, events)
        if chunk.metrics is not None:
            self._report(read_metrics(chunk.metrics), events)
        elif chunk.results is not None or chunk.generation_token_count:
            self._count_document(chunk, events)
        if self._is_last and chunk.metrics is not None:
            self.end(events)

    def _add_content(self, chunk: _Chunk, events: list[Event], depth: int = 0) -> None:
        """Add the text and the stop reason of a chunk, or of the first answer in a list inside the chunk."""
        is_summary = chunk.event_type == "stream-end"
        if is_summary:
            self._reconcile(chunk, events)
        text = chunk.outputText or chunk.generation or chunk.completion or chunk.text
        reason = chunk.completionReason or chunk.stop_reason or chunk.finish_reason
        nested = chunk.results or chunk.outputs or chunk.choices or chunk.generations
        known = _is_known(chunk)
        if known:
            self.start(events, chunk.generation_id)
        if text and not is_summary:
            self._text.add(text)
            events.append(TextDelta(text))
        if not is_summary:
            self._add_parts(chunk, events)
        if reason and self.reason is None:
            self.reason = reason
        self._is_last = self._is_last or reason is not None or chunk.totalOutputTextTokenCount is not None
        inner = self._first_of(nested or [], self)
        if inner is not None and depth < _MAX_DEPTH:
            self._add_content(inner, events, depth + 1)
        elif not known:
            self.ignored += 1

    @staticmethod
    def _first_of(answers: list[Any], report: SkipReport | None = None) -> _Chunk | None:
        """Return the answer with index 0, or without an index, among the answers of a chunk."""
        found = (convert_tolerantly(each, _Chunk, report) for each in answers)
        return next((each for each in found if each is not None and not each.index), None)

    def _add_parts(self, chunk: _Chunk, events: list[Event]) -> None:
        for call in chunk.tool_calls or ():
            self._add_call(call, events)
        for source in chunk.citations or ():
            self._add_citation(source, events)

    def _reconcile(self, chunk: _Chunk, events: list[Event]) -> None:
        """Compare the whole response in Cohere's last chunk with the streamed content."""
        found = None if chunk.response is None else convert_tolerantly(chunk.response, _Chunk, self)
        whole = found or chunk
        self.start(events, whole.generation_id)
        rest = self._text.rest_of(whole.text or "")
        if rest is None:
            warn_once(self.warnings, SNAPSHOT_DIFFERS)
        elif rest:
            self._text.add(rest)
            events.append(TextDelta(rest))
        for streamed, snapshot, add in (
            (self._calls, whole.tool_calls or [], self._add_call),
            (self._sources, whole.citations or [], self._add_citation),
        ):
            if snapshot[: len(streamed)] == streamed:
                for raw in snapshot[len(streamed) :]:
                    add(raw, events)
            elif snapshot:
                warn_once(self.warnings, SNAPSHOT_DIFFERS)

    def _add_call(self, raw: Any, events: list[Event]) -> None:
        self._calls.append(raw)
        call = convert_tolerantly(raw, _Call, self)
        if call is None:
            return
        if not call.name:
            self.ignored += 1
            return
        key = object()
        self.calls.start(events, key, "", call.name)
        self.calls.add(events, key, msgspec.json.encode(call.parameters or {}).decode())
        self.calls.finish(events, key)

    def _add_citation(self, raw: Any, events: list[Event]) -> None:
        self._sources.append(raw)
        if type(raw) is dict:  # nearly always, and a host may send citations in every chunk
            start, end = raw.get("start"), raw.get("end")
            if type(start) is int and type(end) is int:
                events.append(Citation(start=start, end=end, raw=raw))
                return
        found = convert_tolerantly(raw, _Source, self)
        if found is not None:
            events.append(Citation(start=found.start, end=found.end, raw=raw))

    def _count_document(self, chunk: _Chunk, events: list[Event]) -> None:
        """Report the counts in a response that is not streamed; in a stream Bedrock's metrics follow."""
        if not self._is_last:
            return
        inner = self._first_of(chunk.results or []) or _Chunk()
        counts = {
            "inputTokenCount": chunk.inputTextTokenCount or chunk.prompt_token_count,
            "outputTokenCount": inner.tokenCount or chunk.generation_token_count,
        }
        known = {name: count for name, count in counts.items() if count is not None}
        if known:
            self._report(read_metrics(known), events)

    def _report(self, usage: Usage | None, events: list[Event]) -> None:
        self.start(events)
        add_usage(usage, events)

    def finish_reason(self) -> FinishReason:
        """Return the finish reason. A response blocked by a guardrail has no stop reason of its own."""
        return "content_filter" if self.reason is None and self._is_blocked else super().finish_reason()


def _is_known(chunk: _Chunk) -> bool:
    texts = (chunk.outputText, chunk.generation, chunk.completion, chunk.text, chunk.event_type)
    nested = (chunk.results, chunk.outputs, chunk.choices, chunk.generations)
    reasons = (chunk.completionReason, chunk.stop_reason, chunk.finish_reason)
    return any(value is not None for value in (*texts, *nested, *reasons))
