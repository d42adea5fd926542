"""Encode responses of Gemini's `generateContent`: the inverse of the adapter of the same name.

https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse

Decoding an encoded response gives the same events, except for what this API cannot express:

- A call is written whole when it is finished, without a generated id; usage is in the last chunk.
- A signature that arrives during a call is written on the call, any other on an empty part, as in Gemini's streams.
- A refusal is text. Ids and transcripts of audio, bytes of tokens, and opaque data of other kinds are left out.
- Citations with a position in the text are grounding metadata; others are citation metadata, which is decoded
  first in a response that is not streamed.
- `tool_calls` becomes `STOP`, `refusal` `SAFETY`, `pause` `MAX_TOKENS` and `error` `OTHER`; a raw finish reason in
  upper case is Google's own and is kept.

A truncated response has no `ResponseFinished`, so it gets no finish reason, which is the only mark of an end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import msgspec

from lm_deluge.encoders.encoder import Encoder, Endpoint, StreamWriter
from lm_deluge.encoders.event_writer import EventHandlers, EventWriter
from lm_deluge.encoders.gemini_generate.fields import encode_error, encode_stream_error
from lm_deluge.encoders.gemini_generate.request import parse_request
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
    TokenLogprob,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.usage import Usage

__all__ = ["ENCODER", "encode_response", "encode_stream"]

JSON = dict[str, Any]

_FINISH_REASONS: dict[FinishReason, str] = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "content_filter": "SAFETY",
    "refusal": "SAFETY",
    "pause": "MAX_TOKENS",
    "error": "OTHER",
}
_IS_GOOGLE_REASON = str.isupper
_WHOLE_PARTS = ("executable_code", "code_execution_result", "tool_call", "tool_response", "thought_media")


def encode_stream(events: Iterable[Event], *, created: int = 0, include_usage: bool = True) -> Iterator[bytes]:
    """Yield the frames of a streamed response, each as soon as the events that complete it are read.

    Usage is always reported; `include_usage` and `created` have no effect.
    """
    yield from map(_frame, _ChunkWriter().write_all(events))


def _frame(chunk: JSON) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\r\n\r\n"


def open_stream(*, created: int, include_usage: bool) -> StreamWriter:
    """Return a writer of one streamed response; the arguments are those of `encode_stream`."""
    return StreamWriter(_ChunkWriter(), _frame, encode_stream_error)


def encode_response(events: Iterable[Event], *, created: int = 0) -> bytes:
    """Return the joined chunks of a stream as one JSON document; a truncated response has no finish reason."""
    parts: list[JSON] = []
    joined: JSON = {"content": {"parts": parts, "role": "model"}, "index": 0}
    body: JSON = {"candidates": [joined]}
    for chunk in _ChunkWriter().write_all(events):
        candidate: JSON = chunk.pop("candidates")[0]
        for part in candidate.pop("content")["parts"]:
            _join_part(parts, part)
        _join(joined, candidate)
        body |= chunk
    return msgspec.json.encode(body)


def _join_part(parts: list[JSON], part: JSON) -> None:
    """Append a part; consecutive text is joined into one part."""
    last = parts[-1] if parts else {}
    if set(last) == set(part) and set(part) <= {"text", "thought"}:
        last["text"] += part["text"]
    else:
        parts.append(part)


def _join(whole: JSON, more: JSON) -> None:
    """Join the fields of a candidate: lists are concatenated, and indices into them are shifted."""
    for name, value in more.items():
        previous = whole.get(name)
        if name == "groundingMetadata" and previous is not None:
            offset = len(previous.get("groundingChunks", ()))
            for support in value.get("groundingSupports", ()):
                support["groundingChunkIndices"] = [index + offset for index in support["groundingChunkIndices"]]
        if isinstance(previous, dict) and isinstance(value, dict):
            _join(previous, value)
        elif isinstance(previous, list) and isinstance(value, list):
            previous += value
        else:
            whole[name] = value


class _ChunkWriter(EventWriter[JSON]):
    """State of one response."""

    def __init__(self) -> None:
        super().__init__()
        self._head: JSON = {}
        self._usage: Usage | None = None
        self._signatures: dict[int, str] = {}
        self._open: int | None = None
        self._text: list[str] = []
        self._suggestions = ""

    def start(self, event: ResponseStarted) -> list[JSON]:
        names = {"modelVersion": event.model, "responseId": event.response_id}
        self._head = {name: value for name, value in names.items() if value is not None}
        return []

    def _chunk(self, *parts: JSON, **fields: Any) -> list[JSON]:
        candidate = {"content": {"parts": list(parts), "role": "model"}, "index": 0, **fields}
        return [{"candidates": [candidate], **self._head}]

    def add_text(self, event: TextDelta | RefusalDelta) -> list[JSON]:
        self._text.append(event.text)
        parts = [{"text": event.text}] if event.text else []
        return self._chunk(*parts, **({"logprobsResult": _logprobs(event.logprobs)} if event.logprobs else {}))

    def add_reasoning(self, event: ReasoningDelta) -> list[JSON]:
        return self._chunk({"text": event.text, "thought": True})

    def start_call(self, event: ToolCallStarted) -> list[JSON]:
        self._open = event.index
        return []

    def finish_call(self, event: ToolCallFinished) -> list[JSON]:
        arguments = event.arguments
        if not isinstance(arguments, dict):
            arguments = {"input": event.arguments_text}
        call: JSON = {"name": event.name, "args": arguments}
        if event.id != f"call_{event.index}":
            call = {"id": event.id, **call}
        part: JSON = {"functionCall": call}
        if event.index in self._signatures:
            part["thoughtSignature"] = self._signatures.pop(event.index)
        self._open = None if self._open == event.index else self._open
        return self._chunk(part)

    def add_opaque(self, event: ProviderPart) -> list[JSON]:
        data = event.data
        if event.kind == "search_suggestions":
            self._suggestions = str(data)
        elif event.kind == "thought_signature" and isinstance(data, str):
            if self._open is None:
                return self._chunk({"text": "", "thoughtSignature": data})
            self._signatures[self._open] = data
        elif isinstance(data, dict) and event.kind in (*_WHOLE_PARTS, "thought_signature"):
            return self._chunk(dict(data))
        return []

    def add_media(self, event: MediaDelta) -> list[JSON]:
        if event.url is not None:
            return self._chunk({"fileData": {"mimeType": event.media_type, "fileUri": event.url}})
        return self._chunk({"inlineData": {"mimeType": event.media_type, "data": event.data}})

    def add_citation(self, event: Citation) -> list[JSON]:
        source = {name: value for name, value in (("uri", event.url), ("title", event.title)) if value is not None}
        if not source:
            return []
        if event.start is None or event.end is None:
            return self._chunk(citationMetadata={"citationSources": [source]})
        text = "".join(self._text)
        segment = {
            "startIndex": len(text[: event.start].encode("utf-8", "replace")),
            "endIndex": len(text[: event.end].encode("utf-8", "replace")),
        }
        support = {"segment": segment, "groundingChunkIndices": [0]}
        return self._chunk(groundingMetadata={"groundingChunks": [{"web": source}], "groundingSupports": [support]})

    def keep_usage(self, event: UsageReported) -> list[JSON]:
        self._usage = event.usage
        return []

    def finish(self, event: ResponseFinished) -> list[JSON]:
        raw = event.raw_finish_reason or ""
        reason = raw if _IS_GOOGLE_REASON(raw) else _FINISH_REASONS[event.finish_reason]
        fields: JSON = {"finishReason": reason}
        if self._suggestions:
            fields["groundingMetadata"] = {"searchEntryPoint": {"renderedContent": self._suggestions}}
        chunks = self._chunk(**fields)
        if self._usage is not None:
            chunks[0]["usageMetadata"] = _usage(self._usage)
        return chunks

    HANDLED: ClassVar[EventHandlers] = {
        ResponseStarted: start,
        TextDelta: add_text,
        ReasoningDelta: add_reasoning,
        RefusalDelta: add_text,
        ToolCallStarted: start_call,
        ToolCallFinished: finish_call,
        Citation: add_citation,
        MediaDelta: add_media,
        ProviderPart: add_opaque,
        UsageReported: keep_usage,
        ResponseFinished: finish,
    }
    IGNORED = frozenset(
        {
            ToolCallDelta,  # a call is one part with all of its arguments, written by finish_call
            Attempt,  # a retry of this library; no wire API reports one
        }
    )


def _usage(usage: Usage) -> JSON:
    counts = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": max(usage.output_tokens - (usage.reasoning_tokens or 0), 0),
        "totalTokenCount": usage.total_tokens,
        "thoughtsTokenCount": usage.reasoning_tokens,
        "cachedContentTokenCount": usage.cache_read_tokens,
    }
    return {name: value for name, value in counts.items() if value is not None}


def _logprobs(logprobs: Iterable[TokenLogprob]) -> JSON:
    tokens = list(logprobs)
    tops = [[{"token": top.token, "logProbability": top.logprob} for top in token.top_logprobs] for token in tokens]
    return {
        "chosenCandidates": [{"token": token.token, "logProbability": token.logprob} for token in tokens],
        "topCandidates": [{"candidates": top} for top in tops],
    }


_VERTEX = r"(/projects/[^/]+/locations/[^/]+)?/publishers/google"
_MODEL = rf"(/v1beta1|/v1beta|/v1alpha|/v1)?({_VERTEX})?/(models|tunedModels)/(?P<model>[^:]+)"

ENCODER = Encoder(
    name="gemini-generate",
    parse_request=parse_request,
    encode_stream=encode_stream,
    encode_response=encode_response,
    encode_error=encode_error,
    encode_stream_error=encode_stream_error,
    open_stream=open_stream,
    routes=(
        Endpoint(f"{_MODEL}:streamGenerateContent", is_streamed=True),
        Endpoint(f"{_MODEL}:generateContent", is_streamed=False),
    ),
    stream_type="text/event-stream",
)
