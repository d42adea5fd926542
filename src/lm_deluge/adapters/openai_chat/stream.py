"""Decode the chunks of Chat Completions into events."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from lm_deluge.adapters.body_decoder import in_band_error, not_json
from lm_deluge.adapters.errors import classify_in_band
from lm_deluge.adapters.openai_chat.reasoning_details import ReasoningDetails
from lm_deluge.adapters.openai_chat.usage import read_usage
from lm_deluge.adapters.payload_state import PayloadState
from lm_deluge.adapters.raw_usage import merge_usage
from lm_deluge.adapters.token_counts import add_usage
from lm_deluge.adapters.tool_call_fragments import ToolCallAssembler
from lm_deluge.errors import ProtocolError
from lm_deluge.events import (
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
)
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError, TolerantDecoder, convert_tolerantly

__all__ = ["ChatPayload"]


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _Custom(msgspec.Struct, gc=False):
    name: str | None = None
    input: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    custom: _Custom | None = None


class _Audio(msgspec.Struct, gc=False):
    id: str | None = None
    data: str | None = None
    transcript: str | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    reasoning_text: str | None = None
    thinking: Any = None
    reasoning_details: list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None
    annotations: list[Any] | None = None
    audio: _Audio | None = None
    images: list[Any] | None = None
    executed_tools: list[Any] | None = None


class _Logprobs(msgspec.Struct, gc=False):
    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    delta: _Delta | None = None
    message: _Delta | None = None
    text: Any = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    usage: dict[str, Any] | None = None


class _GroqExtra(msgspec.Struct, gc=False):
    usage: dict[str, Any] | None = None


class _Chunk(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    object: str | None = None
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    x_groq: _GroqExtra | None = None
    error: Any = None
    detail: Any = None
    citations: list[Any] | None = None
    search_results: list[Any] | None = None
    service_tier: str | None = None


_DECODER = TolerantDecoder(_Chunk)
_decode_typed = _DECODER.decode_typed


class _PlainDelta(msgspec.Struct, gc=False):
    content: Annotated[str, msgspec.Meta(min_length=1)]
    reasoning_content: None = None
    reasoning: None = None
    reasoning_text: None = None
    thinking: None = None
    reasoning_details: None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None
    annotations: None = None
    audio: None = None
    images: None = None
    executed_tools: None = None


class _PlainChoice(msgspec.Struct, gc=False):
    delta: _PlainDelta
    index: Literal[0] = 0
    finish_reason: None = None
    stop_reason: None = None  # Mistral's name of it at Bedrock
    logprobs: None = None
    usage: None = None


class _PlainChunk(msgspec.Struct, gc=False):
    """A chunk with text, and at most usage and sources beside it: decoding fails if any other field has a value.

    Fast path: nearly all chunks are of this kind, and msgspec checks them without Python code.
    """

    choices: tuple[_PlainChoice]
    id: str | None = None  # read to notice a wrong type, as the other path does
    model: str | None = None
    object: str | None = None
    usage: dict[str, Any] | None = None
    x_groq: None = None
    error: None = None
    detail: None = None
    citations: list[Any] | None = None
    search_results: list[Any] | None = None
    service_tier: str | None = None


_decode_plain = msgspec.json.Decoder(_PlainChunk).decode

_FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "refusal",
}

# Finish reasons of responses that failed midway; `insufficient_system_resource` is DeepSeek's, in its documentation.
_FAILURES = {"error", "insufficient_system_resource", "abort", "cancelled"}


class ChatPayload(PayloadState):
    """State machine for one stream of chunks.

    The response is complete after the finish reason of the first candidate, or the end mark `[DONE]`. It is finished
    only after the mark or the end of the body, because usage comes between the finish reason and the mark.
    """

    def __init__(self, provider: str) -> None:
        super().__init__()
        self._provider = provider
        self._is_started = False
        self._reason: str | None = None
        self._is_marked = False
        self._usage: dict[str, Any] | None = None
        self._tier: str | None = None
        # Created on first use: most responses have none, and thousands of streams may be open at once.
        self._calls: ToolCallAssembler | None = None
        self._details: ReasoningDetails | None = None
        self._sources: set[str] | None = None
        self._last_sources: list[Any] | None = None
        self._has_refusal = False
        self._has_plain_reasoning = False
        self._warnings: tuple[str, ...] = ()
        self._is_plain = False  # the last chunk had text only, so try the fast path for the next chunk

    @property
    def has_calls(self) -> bool:
        """Whether any tool call was received."""
        return self._calls is not None and self._calls.has_calls

    @property
    def has_usage(self) -> bool:
        """Whether usage with counts was received."""
        return self._usage is not None and read_usage(self._usage) is not None

    @property
    def is_complete(self) -> bool:
        """Whether the finish reason or the end mark was received."""
        return self._reason is not None or self._is_marked

    def handle_plain(self, payloads: list[bytes], events: list[Event]) -> None:
        """Decode the data of frames without an event type, all from one read."""
        for data in payloads:
            if self._is_plain:
                try:
                    chunk = _decode_plain(data)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    self._is_plain = False
                else:
                    events.append(TextDelta(chunk.choices[0].delta.content))
                    if chunk.usage or chunk.citations or chunk.search_results or chunk.service_tier:
                        self._add_extras(chunk, events)
                    continue
            self.handle(ServerSentEvent(data), events)

    def handle(self, frame: ServerSentEvent, events: list[Event]) -> None:
        """Decode one frame; append its events."""
        data = frame.data
        if self.is_finished:
            self.ignored += 1
        elif data[:1] in b"[ " and data.strip() == b"[DONE]":
            self._end_at_mark(events)
        elif data.strip():
            chunk = self._decoded(frame)
            if chunk is not None:
                self._add_chunk(chunk, events)

    def finish(self, events: list[Event]) -> None:
        """Close a response that has a finish reason but no end mark."""
        self._warnings += ("no_done",)
        self._end(events)

    def finish_document(self, events: list[Event]) -> None:
        """Close a plain response, which never has an end mark."""
        self._end(events)

    def _decoded(self, frame: ServerSentEvent) -> _Chunk | None:
        try:
            chunk: _Chunk | None = _decode_typed(frame.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            chunk = self._decoded_tolerantly(frame)
        if chunk is None:
            return None
        if chunk.error or chunk.detail or frame.event == "error" or chunk.object == "error":
            if not self.is_complete:
                raise in_band_error(frame)
            self._warnings += ("error_after_finish",)
            return None
        return chunk

    def _decoded_tolerantly(self, frame: ServerSentEvent) -> _Chunk | None:
        try:
            return _DECODER.decode(frame.data, self)
        except NotJSONError:
            if frame.event != "error" and not self.is_complete:
                raise not_json(frame) from None
            return _Chunk(error=frame.text)

    def _add_chunk(self, chunk: _Chunk, events: list[Event]) -> None:
        choices = chunk.choices
        if not self._is_started and _has_content(chunk):
            self._is_started = True
            events.append(ResponseStarted(chunk.id or None, chunk.model or None))
        if choices:
            for choice in choices:
                # Skip further candidates (n > 1): only a user's `extra_body` can request them.
                if not choice.index:
                    self._add_choice(choice, events)
        self._add_extras(chunk, events)

    def _add_extras(self, chunk: _Chunk | _PlainChunk, events: list[Event]) -> None:
        """Decode what a chunk has beside its choices."""
        self._tier = chunk.service_tier or self._tier
        if chunk.usage is not None:
            self._add_usage(chunk.usage, events)
        elif chunk.x_groq is not None:
            self._add_usage(chunk.x_groq.usage, events)
        if chunk.citations is not None or chunk.search_results is not None:
            self._add_sources([*(chunk.search_results or ()), *(chunk.citations or ())], events)

    def _add_choice(self, choice: _Choice, events: list[Event]) -> None:
        delta = choice.delta or choice.message
        if delta is None:
            if isinstance(choice.text, str):
                if choice.text:
                    events.append(TextDelta(choice.text))
            elif choice.text is not None:
                self.skip_value(choice.text)
        else:
            self._is_plain = bool(delta.content) and isinstance(delta.content, str) and choice.logprobs is None
            self._add_delta(delta, choice.logprobs, events)
        if choice.usage is not None:  # Moonshot reports usage inside the choice
            self._add_usage(choice.usage, events)
        if choice.finish_reason and self._reason is None:
            self._set_reason(choice.finish_reason)

    def add_piece(self, piece: Any, events: list[Event]) -> None:
        """Decode a typed piece of content: text, or thinking, which may contain a list of pieces (Mistral's models)."""
        if isinstance(piece, str):
            events.append(TextDelta(piece))
            return
        if not isinstance(piece, dict):
            self.skip_value(piece)
            return
        kind = piece.get("type")
        text = self._joined_text(piece.get("thinking") or piece.get("text"))
        if text:
            events.append(ReasoningDelta(text) if kind in ("thinking", "reasoning") else TextDelta(text))

    def _add_delta(self, delta: _Delta, logprobs: _Logprobs | None, events: list[Event]) -> None:
        self._add_reasoning(delta, events)
        content = delta.content
        if isinstance(content, list):
            for piece in content:
                self.add_piece(piece, events)
            content = None
        of_text = tuple(logprobs.content or ()) if logprobs else ()
        if content or of_text:
            events.append(TextDelta(content or "", of_text))
        of_refusal = tuple(logprobs.refusal or ()) if logprobs else ()
        if delta.refusal or of_refusal:
            self._has_refusal = True
            events.append(RefusalDelta(delta.refusal or "", of_refusal))
        for call in delta.tool_calls or ():
            self.add_tool_call(call, events)
        if delta.function_call is not None:
            self.add_tool_call(_ToolCall(index=0, function=delta.function_call), events)
        if delta.annotations:
            self._add_sources(delta.annotations, events)
        if delta.audio or delta.images or delta.executed_tools:
            self._add_media(delta, events)

    def _add_reasoning(self, delta: _Delta, events: list[Event]) -> None:
        plain = delta.reasoning_content or delta.reasoning or delta.reasoning_text or delta.thinking
        text = self._joined_text(plain) if plain else ""
        self._has_plain_reasoning = self._has_plain_reasoning or bool(text)
        pieces = self._detailed(delta.reasoning_details) if delta.reasoning_details else ()
        if not self._has_plain_reasoning:
            # The details repeat the text of the plain field; some hosts send only the details.
            text = "".join(pieces)
        if text:
            events.append(ReasoningDelta(text))

    def _detailed(self, pieces: list[Any]) -> list[str]:
        details = self._details = self._details or ReasoningDetails()
        return [details.add(piece) for piece in pieces]

    def add_tool_call(self, call: _ToolCall, events: list[Event]) -> None:
        """Decode a fragment of a tool call."""
        function = call.function or _Function()
        arguments = function.arguments
        if arguments is not None and not isinstance(arguments, str):
            # Some servers send the arguments as an object, not as text.
            arguments = msgspec.json.encode(arguments).decode()
        custom = call.custom
        calls = self._calls = self._calls or ToolCallAssembler()
        calls.add(
            events,
            key=call.index,
            call_id=call.id or "",
            name=(custom.name if custom else function.name) or "",
            arguments=(custom.input if custom else arguments) or "",
            custom=custom is not None,
        )

    def _add_media(self, delta: _Delta, events: list[Event]) -> None:
        audio = delta.audio
        if audio is not None and (audio.data or audio.transcript):
            # Streamed audio is always 16-bit PCM: https://platform.openai.com/docs/guides/audio
            events.append(MediaDelta("audio/pcm", audio.data or "", id=audio.id, transcript=audio.transcript))
        for image in delta.images or ():
            found = convert_tolerantly(image, _Image, self)
            url = found.image_url.url if found and found.image_url else ""
            if not url:
                self.ignored += 1
                continue
            head, _, data = url.partition(";base64,")
            is_inline = url.startswith("data:")
            media_type = head[5:] if is_inline else "image/*"
            events.append(MediaDelta(media_type, data if is_inline else "", None if is_inline else url))
        if delta.executed_tools:
            events.append(ProviderPart(self._provider, "executed_tools", delta.executed_tools))

    def _add_sources(self, sources: list[Any], events: list[Event]) -> None:
        if sources == self._last_sources:  # some hosts repeat all sources in each chunk
            return
        self._last_sources = sources
        known = self._sources = set() if self._sources is None else self._sources
        for source in sources:
            raw = {"url": source} if isinstance(source, str) else source
            if not isinstance(raw, dict):
                self.skip_value(raw)
                continue
            inner = raw.get("url_citation") if isinstance(raw.get("url_citation"), dict) else raw
            found = convert_tolerantly(inner, _Source, self) or _Source()
            key = f"{found.url} {found.start_index} {found.end_index}"
            if found.url and key not in known:
                known.add(key)
                events.append(Citation(found.url, found.title, found.start_index, found.end_index, raw))

    def _joined_text(self, value: Any) -> str:
        """Return the text of a field that some hosts send as a string, others as a list of pieces."""
        if isinstance(value, str):
            return value
        if isinstance(value, dict):
            return self._joined_text(value.get("text") or value.get("content"))
        if isinstance(value, list):
            return "".join([self._joined_text(item) for item in value])
        self.skip_value(value)
        return ""

    def _add_usage(self, raw: dict[str, Any] | None, events: list[Event]) -> None:
        if raw:
            self._usage = merge_usage(self._usage, raw)
            add_usage(read_usage(self._usage, self._tier), events)

    def _set_reason(self, reason: str) -> None:
        if reason in _FAILURES:
            error = classify_in_band({"message": f"the answer broke off: {reason}", "code": reason})
            error.billed = "maybe"
            raise error
        self._reason = reason

    def _end_at_mark(self, events: list[Event]) -> None:
        if not self._is_started:
            raise ProtocolError("the stream has an end mark but no data before it", reason="order")
        self._is_marked = True
        self._end(events)

    def _end(self, events: list[Event]) -> None:
        self.is_finished = True
        self._is_plain = False
        if self._calls is not None:
            self._calls.finish(events)
        details = None if self._details is None else self._details.joined()
        if details:
            events.append(ProviderPart(self._provider, "reasoning_details", details))
        reason = self._finish_reason()
        events.append(ResponseFinished(reason, self._reason, (*self._warnings, *self.type_warnings())))

    def _finish_reason(self) -> FinishReason:
        reason = _FINISH_REASONS.get(self._reason or "stop")
        if self._reason is None:
            self._warnings += ("no_finish_reason",)
        if reason is None:
            self._warnings += ("unknown_finish_reason",)
        if reason in (None, "stop"):
            # Some hosts send "stop" although the model called a tool or refused.
            return "tool_calls" if self.has_calls else "refusal" if self._has_refusal else "stop"
        return reason


def _has_content(chunk: _Chunk) -> bool:
    return bool(chunk.id or chunk.choices or chunk.usage or chunk.x_groq or chunk.citations or chunk.search_results)


class _ImageURL(msgspec.Struct, gc=False):
    url: str = ""


class _Image(msgspec.Struct, gc=False):
    image_url: _ImageURL | None = None


class _Source(msgspec.Struct, gc=False):
    url: str | None = None
    title: str | None = None
    start_index: int | None = None
    end_index: int | None = None
