"""Convert the chunks of Gemini's `generateContent`.

The stream has no end mark: a response is complete with its finish reason and ends with the body. Some hosts send `STOP`
in every chunk, so chunks after a finish reason are still read.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lm_deluge.adapters.body_decoder import in_band_error, maybe_error_document, not_json
from lm_deluge.adapters.gemini_generate.citations import CitationCollector, CitationMetadata, GroundingMetadata
from lm_deluge.adapters.gemini_generate.partial_arguments import ArgumentsWriter, PartialArgument
from lm_deluge.adapters.gemini_generate.usage import maybe_read_usage
from lm_deluge.adapters.payload_state import PayloadState
from lm_deluge.adapters.token_counts import add_usage
from lm_deluge.adapters.tool_call_fragments import KeyedCalls
from lm_deluge.errors import ContentFilterError
from lm_deluge.events import (
    Event,
    FinishReason,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    TokenLogprob,
    TopLogprob,
)
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError, TolerantDecoder

__all__ = ["OPAQUE_FIELDS", "GeminiPayload"]

# Parts of tools that Google runs: field on the wire -> kind of the opaque data that is sent back.
OPAQUE_FIELDS = {
    "executableCode": "executable_code",
    "codeExecutionResult": "code_execution_result",
    "toolCall": "tool_call",
    "toolResponse": "tool_response",
}


class _FunctionCall(msgspec.Struct, gc=False, rename="camel"):
    id: str | None = None
    name: str | None = None
    args: Any = None
    partial_args: list[PartialArgument] | None = None
    will_continue: bool | None = None


class _Blob(msgspec.Struct, gc=False, rename="camel"):
    mime_type: str | None = None
    data: str | None = None
    file_uri: str | None = None


class _Part(msgspec.Struct, gc=False, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _FunctionCall | None = None
    inline_data: _Blob | None = None
    file_data: _Blob | None = None
    executable_code: Any = None
    code_execution_result: Any = None
    tool_call: Any = None
    tool_response: Any = None


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] | None = None


class _Token(msgspec.Struct, gc=False, rename="camel"):
    token: str = ""
    log_probability: float = 0.0


class _TopTokens(msgspec.Struct, gc=False):
    candidates: list[_Token] | None = None


class _Logprobs(msgspec.Struct, gc=False, rename="camel"):
    chosen_candidates: list[_Token] | None = None
    top_candidates: list[_TopTokens] | None = None


class _Candidate(msgspec.Struct, gc=False, rename="camel"):
    index: int | None = None
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    logprobs_result: _Logprobs | None = None
    grounding_metadata: GroundingMetadata | None = None
    citation_metadata: CitationMetadata | None = None


class _Feedback(msgspec.Struct, gc=False, rename="camel"):
    block_reason: str | None = None
    block_reason_message: str | None = None


class _Chunk(msgspec.Struct, gc=False, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: dict[str, Any] | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Any = None


_DECODER = TolerantDecoder(_Chunk)
_decode_typed = _DECODER.decode_typed

# https://ai.google.dev/api/generate-content#FinishReason and the SDK's types (google-genai 3.6).
_FINISH_REASONS: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",  # resuming needs a continuation token, which our requests do not have
    **dict.fromkeys(
        [
            *("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR"),
            *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "ESCALATION"),
            "PUP_LIMITED_DISABLED",
        ],
        "content_filter",
    ),
    **dict.fromkeys(
        [
            *("OTHER", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"),
            *("MISSING_THOUGHT_SIGNATURE", "MALFORMED_RESPONSE", "IMAGE_OTHER", "NO_IMAGE"),
        ],
        "error",
    ),
}
_UNSPECIFIED = "FINISH_REASON_UNSPECIFIED"


class GeminiPayload(PayloadState):
    """The state machine of one response. A response that is not streamed is handled as a stream of one chunk."""

    def __init__(self, provider: str) -> None:
        super().__init__()
        self.is_started = False
        self._provider = provider
        self._reason: str | None = None
        self._details: dict[str, Any] | None = None
        self._calls = KeyedCalls()
        self._number = 0  # count of calls; also the key of the last call
        self._open: tuple[str, ArgumentsWriter] | None = None  # name and arguments of the unfinished call
        self._citations = CitationCollector(self)
        self._warnings: list[str] = []

    @property
    def is_complete(self) -> bool:
        """Whether a finish reason was received."""
        return self._reason is not None

    def handle_plain(self, payloads: list[bytes], events: list[Event]) -> None:
        """Handle the data of frames without a type, all from one read."""
        for data in payloads:
            if not self.is_finished:
                try:
                    chunk = _decode_typed(data)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    pass
                else:
                    if chunk.candidates and not chunk.error:
                        self._add_chunk(chunk, events)
                        continue
            self.handle(ServerSentEvent(data), events)

    def handle(self, frame: ServerSentEvent, events: list[Event]) -> None:
        """Handle one frame."""
        if self.is_finished or not frame.data.strip() or frame.data.strip() == b"[DONE]":
            self.ignored += 1
            return
        try:
            chunk = _DECODER.decode(frame.data, self)
        except NotJSONError:
            if frame.event != "error" and not self.is_complete:
                raise not_json(frame) from None
            chunk = _Chunk(error=frame.text)
        if chunk is None:
            return
        is_empty = chunk.candidates is None and chunk.prompt_feedback is None and chunk.usage_metadata is None
        if chunk.error or frame.event == "error" or (is_empty and maybe_error_document(frame.data)):
            if not self.is_complete:
                raise in_band_error(frame)
            self._warnings.append("error_after_finish")
        else:
            self._add_chunk(chunk, events)

    def finish(self, events: list[Event]) -> None:
        """Finish the response."""
        self._end_call(events)
        self._citations.finish(events)
        if self._citations.search_suggestions:
            # Google requires apps to display these with a grounded answer: https://ai.google.dev/gemini-api/docs/google-search
            events.append(ProviderPart(self._provider, "search_suggestions", self._citations.search_suggestions))
        self.is_finished = True
        reason = self._finish_reason()
        warnings = (*self._warnings, *self.type_warnings())
        events.append(ResponseFinished(reason, self._reason, warnings, self._details))

    def _finish_reason(self) -> FinishReason:
        reason = _FINISH_REASONS.get(self._reason or "")
        if reason is None:
            self._warnings.append("unknown_finish_reason")
        return "tool_calls" if reason in (None, "stop") and self._calls.has_calls else reason or "stop"

    def _add_chunk(self, chunk: _Chunk, events: list[Event]) -> None:
        candidate = None
        for each in chunk.candidates or ():
            if not each.index:  # our requests ask for one candidate; others are ignored
                candidate = each
                break
        feedback = chunk.prompt_feedback
        if candidate is None and feedback is None and chunk.usage_metadata is None:
            self.ignored += 1
            return
        if not self.is_started:
            self.is_started = True
            events.append(ResponseStarted(chunk.response_id or None, chunk.model_version or None))
        if candidate is not None:
            self._add_candidate(candidate, events)
        if chunk.usage_metadata is not None:
            add_usage(maybe_read_usage(chunk.usage_metadata, searches=len(self._citations.searches)), events)
        if feedback is not None and feedback.block_reason and candidate is None and not self.is_complete:
            raise _blocked(feedback)

    def _add_candidate(self, candidate: _Candidate, events: list[Event]) -> None:
        logprobs = _read_logprobs(candidate.logprobs_result) if candidate.logprobs_result is not None else ()
        for part in (candidate.content.parts if candidate.content is not None else None) or ():
            if logprobs and part.text and not part.thought:
                self._emit_text(part.text, events, logprobs)
                logprobs = ()
                self._emit_signature(part, events)
            else:
                self._add_part(part, events)
        if logprobs:
            events.append(TextDelta("", logprobs))
        if candidate.citation_metadata is not None:
            self._citations.add_citations(candidate.citation_metadata, events)
        if candidate.grounding_metadata is not None:
            self._citations.add_grounding(candidate.grounding_metadata, events)
        if candidate.finish_reason and candidate.finish_reason != _UNSPECIFIED:
            self._reason = candidate.finish_reason
            if candidate.finish_message:
                self._details = {"finishMessage": candidate.finish_message}

    def _emit_text(self, text: str, events: list[Event], logprobs: tuple[TokenLogprob, ...] = ()) -> None:
        self._citations.add_text(text)
        events.append(TextDelta(text, logprobs))

    def _add_part(self, part: _Part, events: list[Event]) -> None:
        if part.text:
            if part.thought:
                events.append(ReasoningDelta(part.text))
            else:
                self._emit_text(part.text, events)
        elif part.function_call is not None:
            self._add_call(part.function_call, part, events)
            return
        elif not self._add_data(part, events):
            self._keep_signed_part(part, events)
            return
        if part.thought_signature:
            self._emit_signature(part, events)

    def _add_data(self, part: _Part, events: list[Event]) -> bool:
        """Handle media or opaque data; return whether the part has any."""
        blob = part.inline_data or part.file_data
        if blob is None:
            return self._add_opaque(part, events)
        self._add_blob(blob, part, events)
        return True

    def _emit_signature(self, part: _Part, events: list[Event]) -> None:
        if part.thought_signature:
            events.append(ProviderPart(self._provider, "thought_signature", part.thought_signature))

    def _keep_signed_part(self, part: _Part, events: list[Event]) -> None:
        """Emit the signature of an otherwise empty part, which must be sent back on an equally empty part."""
        if part.thought_signature:
            whole = {"text": "", "thoughtSignature": part.thought_signature}
            if part.thought:
                whole["thought"] = True  # type: ignore[assignment]
            events.append(ProviderPart(self._provider, "thought_signature", whole))

    def _add_blob(self, blob: _Blob, part: _Part, events: list[Event]) -> None:
        field = "inlineData" if part.inline_data is not None else "fileData"
        if part.thought:
            # A draft image made while thinking: https://ai.google.dev/gemini-api/docs/image-generation#thinking-process
            fields = {"mimeType": blob.mime_type, "data": blob.data, "fileUri": blob.file_uri}
            content = {name: value for name, value in fields.items() if value is not None}
            events.append(ProviderPart(self._provider, "thought_media", {field: content, "thought": True}))
        elif blob.data or blob.file_uri:
            events.append(MediaDelta(blob.mime_type or "application/octet-stream", blob.data or "", blob.file_uri))

    def _add_opaque(self, part: _Part, events: list[Event]) -> bool:
        values = (part.executable_code, part.code_execution_result, part.tool_call, part.tool_response)
        for (field, kind), value in zip(OPAQUE_FIELDS.items(), values, strict=True):
            if value is not None:
                events.append(ProviderPart(self._provider, kind, {field: value}))
                return True
        return False

    def _add_call(self, call: _FunctionCall, part: _Part, events: list[Event]) -> None:
        """Handle a complete call, the start of a call, a piece of its arguments, or an empty end."""
        is_continued = self._open is not None and (
            not call.name or (call.name == self._open[0] and bool(call.partial_args))
        )
        if not is_continued:
            if not call.name:
                self.ignored += 1
                self._keep_signed_part(part, events)
                return
            self._end_call(events)
            self._number += 1
            self._calls.start(events, self._number, call.id or "", call.name)
            self._open = (call.name, ArgumentsWriter())
        self._emit_signature(part, events)
        if call.args is not None and not self._calls.has_text(self._number):
            self._calls.add(events, self._number, msgspec.json.encode(call.args).decode())
        elif self._open is not None:
            for piece in call.partial_args or ():
                self._calls.add(events, self._number, self._open[1].add(piece))
        if not call.will_continue:
            self._end_call(events)

    def _end_call(self, events: list[Event]) -> None:
        if self._open is not None:
            self._calls.add(events, self._number, self._open[1].close())
            self._calls.finish(events, self._number)
            self._open = None


def _blocked(feedback: _Feedback) -> ContentFilterError:
    """Return the error for a blocked prompt, to which the API responds without any candidate."""
    reason = f": {feedback.block_reason_message[:500]}" if feedback.block_reason_message else ""
    return ContentFilterError(
        f"the prompt was blocked by {feedback.block_reason}{reason}",
        code=feedback.block_reason,
        hint="Reword the prompt, or set safetySettings in extra_body.",
        billed="maybe",
    )


def _read_logprobs(found: _Logprobs) -> tuple[TokenLogprob, ...]:
    tops = found.top_candidates or []
    chosen = found.chosen_candidates or []
    return tuple(
        TokenLogprob(token.token, token.log_probability, None, _tops(tops[position : position + 1]))
        for position, token in enumerate(chosen)
    )


def _tops(found: list[_TopTokens]) -> tuple[TopLogprob, ...]:
    return tuple(TopLogprob(each.token, each.log_probability) for top in found for each in top.candidates or ())
