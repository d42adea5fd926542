"""Decode the chunks of Chat Completions into events."""

from __future__ import annotations

from typing import Any

import msgspec

from lm_deluge.adapters.body_decoder import check_end, in_band_error, maybe_error_document, not_json
from lm_deluge.adapters.errors import classify_in_band
from lm_deluge.adapters.openai_chat.chunk_fields import (
    FAILURES,
    FINISH_REASONS,
    Choice,
    ChoiceDelta,
    Chunk,
    Function,
    Logprobs,
    ToolCall,
    decode_plain,
    decode_tolerantly,
    decode_typed,
    finish_word,
    image_source,
    read_logprobs,
    read_source,
    thought_signature,
)
from lm_deluge.adapters.openai_chat.opaque_fields import REASONING_DETAILS, REASONING_ITEM, THOUGHT_SIGNATURE
from lm_deluge.adapters.openai_chat.reasoning_details import ReasoningDetails, SignedReasoning
from lm_deluge.adapters.openai_chat.usage import read_usage
from lm_deluge.adapters.payload_state import PayloadState
from lm_deluge.adapters.raw_usage import merge_usage
from lm_deluge.adapters.tool_call_fragments import ToolCallAssembler
from lm_deluge.errors import APIError, ProtocolError
from lm_deluge.events import (
    Event,
    FinishReason,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    UsageReported,
)
from lm_deluge.wire.sse import ServerSentEvent
from lm_deluge.wire.tolerant_json import NotJSONError

__all__ = ["ChatPayload"]


class ChatPayload(PayloadState):
    """State machine for one stream of chunks.

    The response is complete after the finish reason of the first candidate, or the end mark `[DONE]`. It is finished
    only after the mark or the end of the body, because usage comes between the finish reason and the mark. The mark
    alone is no end: servers send it after a stream that they broke off, too.

    Args:
        owner: Owner of the opaque data: the call's `provider.opaque_owner`.
        has_finish_reasons: Whether a complete answer has a finish reason or usage; otherwise the mark ends it.

    Attributes:
        is_complete: Whether the finish reason or the end mark was received.
    """

    def __init__(self, owner: str, *, has_finish_reasons: bool = True) -> None:
        super().__init__()
        self._owner = owner
        self._has_finish_reasons = has_finish_reasons
        self._is_started = False
        self._reason: str | None = None
        self._has_choices = False
        self._has_blank_reason = False  # the last chunk had an empty finish reason and nothing else (xAI)
        self.is_complete = False
        self._usage: dict[str, Any] | None = None
        self._reported: UsageReported | None = None  # the last event of the usage
        self._tier: str | None = None
        # Created on first use: most responses have none, and thousands of streams may be open at once.
        self._calls: ToolCallAssembler | None = None
        self._details: ReasoningDetails | None = None
        self._item: SignedReasoning | None = None
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

    def handle_plain(self, payloads: list[bytes], events: list[Event]) -> None:
        """Decode the data of frames without an event type, all from one read."""
        for data in payloads:
            if self._is_plain:
                try:
                    chunk = decode_plain(data)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    self._is_plain = False
                else:
                    content = chunk.choices[0].delta.content
                    if type(content) is str:
                        events.append(TextDelta(content))
                    else:
                        self._add_pieces(content, events)
                    if chunk.service_tier:
                        self._tier = chunk.service_tier
                    if chunk.usage:
                        self._add_usage(chunk.usage, events)
                    if chunk.citations or chunk.search_results:
                        self._add_sources(chunk.search_results, chunk.citations, events)
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
                self._check_error(chunk, frame, events)
                self._add_chunk(chunk, events)

    def finish(self, events: list[Event]) -> None:
        """Close a response that has a finish reason but no end mark."""
        self._warnings += ("no_done",)
        self._end(events)

    def read_document(self, body: bytes, events: list[Event]) -> None:
        """Decode a plain response as a stream of one chunk whose delta is the message. It never has an end mark.

        Raises:
            ProtocolError: The document is no chat completion.
            TruncatedError: The response has neither a finish reason nor usage.
            APIError: The document is, or contains, an error.
        """
        self.handle(ServerSentEvent(body), events)
        if not self._has_choices:
            error = maybe_error_document(body)
            raise error or ProtocolError(
                "the answer is JSON, but not a chat completion", reason="order", excerpt=body, billed="maybe"
            )
        if not self.is_finished:
            self.finish_document(events)

    def finish_document(self, events: list[Event]) -> None:
        """Close a response whose body has no end mark.

        Raises:
            TruncatedError: The response has neither a finish reason nor usage.
        """
        self._check_end("the answer has neither a finish reason nor usage")
        self._end(events)

    def _decoded(self, frame: ServerSentEvent) -> Chunk | None:
        try:
            chunk: Chunk = decode_typed(frame.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._decoded_tolerantly(frame)
        return chunk

    def _decoded_tolerantly(self, frame: ServerSentEvent) -> Chunk | None:
        try:
            chunk = decode_tolerantly(frame.data, self)
        except NotJSONError:
            if frame.event == "error":
                raise in_band_error(frame) from None
            if not self.is_complete:
                raise not_json(frame) from None
            self._warnings += ("error_after_finish",)
            return None
        if chunk is None:
            error = maybe_error_document(frame.data)  # Google sends a list
            if error is not None:
                raise error
        return chunk

    def _check_error(self, chunk: Chunk, frame: ServerSentEvent, events: list[Event]) -> None:
        """Raise the error in a chunk, also after the finish reason. Text and usage beside it are kept.

        Raises:
            APIError: The chunk contains an error.
        """
        choices = chunk.choices or ()
        error: APIError | None = None
        if chunk.is_error or frame.event == "error":
            error = in_band_error(frame)
        elif choices:
            for choice in choices:
                if choice.error and error is None:
                    error = _broken_off({"error": choice.error})
        elif chunk.usage is None and chunk.choices is None:
            error = maybe_error_document(frame.data)
        if error is not None:
            for choice in choices:
                choice.finish_reason = None
            if choices or chunk.usage:
                self._add_chunk(chunk, events)
            raise error

    def _add_chunk(self, chunk: Chunk, events: list[Event]) -> None:
        choices = chunk.choices
        failure: APIError | None = None
        if not self._is_started and _has_content(chunk):
            self._is_started = True
            events.append(ResponseStarted(chunk.id or None, chunk.model or None))
        if choices:
            for choice in choices:
                # Skip further candidates (n > 1): only a user's `extra_body` can request them.
                if not choice.index:
                    self._has_choices = True
                    failure = self._add_choice(choice, events)
        self._add_extras(chunk, events)
        if failure is not None:
            raise failure

    def _add_extras(self, chunk: Chunk, events: list[Event]) -> None:
        """Decode what a chunk has beside its choices."""
        self._tier = chunk.service_tier or self._tier
        if chunk.usage is not None:
            self._add_usage(chunk.usage, events)
        elif chunk.x_groq is not None:
            self._add_usage(chunk.x_groq.usage, events)
        if chunk.citations is not None or chunk.search_results is not None:
            self._add_sources(chunk.search_results, chunk.citations, events)

    def _add_choice(self, choice: Choice, events: list[Event]) -> APIError | None:
        """Decode a candidate; return the error if its finish reason is a failure."""
        before = len(events)
        delta = choice.delta or choice.message
        if delta is None:
            if isinstance(choice.text, str):
                if choice.text:
                    events.append(TextDelta(choice.text))
            elif choice.text is not None:
                self.skip_value(choice.text)
        else:
            self._add_delta(delta, choice.logprobs, events)
            is_plain = bool(delta.content) and choice.logprobs is None and choice.finish_reason is None
            self._is_plain = is_plain and self._item is None
        # Other hosts send an empty finish reason with each piece of text; in a plain response it is the end.
        is_alone = choice.message is not None or len(events) == before
        self._has_blank_reason = choice.finish_reason == "" and is_alone
        if choice.usage is not None:  # Moonshot reports usage inside the choice
            self._add_usage(choice.usage, events)
        if not choice.finish_reason or self._reason is not None:
            return None
        if finish_word(choice.finish_reason) in FAILURES:
            reason = choice.finish_reason
            return _broken_off({"message": f"the answer broke off: {reason}", "code": finish_word(reason)})
        self._reason = choice.finish_reason
        self.is_complete = True
        return None

    def add_piece(self, piece: Any, events: list[Event]) -> None:
        """Decode a typed piece of content: text, or thinking, which may contain a list of pieces (Mistral's models)."""
        if isinstance(piece, str):
            self._end_item(events)
            events.append(TextDelta(piece))
            return
        if not isinstance(piece, dict):
            self.skip_value(piece)
            return
        is_reasoning = piece.get("type") in ("thinking", "reasoning")
        if is_reasoning and isinstance(piece.get("summary"), list):
            self._item = self._item or SignedReasoning()
            text = self._item.add(piece)
        else:
            text = self._joined_text(piece.get("thinking") or piece.get("text"))
        if text:
            if not is_reasoning:
                self._end_item(events)
            events.append(ReasoningDelta(text) if is_reasoning else TextDelta(text))

    def _add_pieces(self, pieces: str | list[Any], events: list[Event]) -> None:
        for piece in pieces:
            self.add_piece(piece, events)
        self._is_plain = self._is_plain and self._item is None  # text after signed reasoning ends it

    def _end_item(self, events: list[Event]) -> None:
        """Append the opaque data of the reasoning before the text or tool call that follows."""
        if self._item is not None:
            events.append(ProviderPart(self._owner, REASONING_ITEM, self._item.joined()))
            self._item = None

    def _add_delta(self, delta: ChoiceDelta, logprobs: Logprobs | None, events: list[Event]) -> None:
        self._add_reasoning(delta, events)
        content = delta.content
        if isinstance(content, list):
            self._add_pieces(content, events)
            content = None
        if self._item is not None and (content or delta.tool_calls or delta.refusal):
            self._end_item(events)
        of_text, of_refusal = read_logprobs(logprobs)
        if content or of_text:
            events.append(TextDelta(content or "", of_text))
        if delta.refusal or of_refusal:
            self._has_refusal = True
            events.append(RefusalDelta(delta.refusal or "", of_refusal))
        self._add_parts(delta, events)

    def _add_parts(self, delta: ChoiceDelta, events: list[Event]) -> None:
        for call in delta.tool_calls or ():
            self.add_tool_call(call, events)
        if delta.function_call is not None:
            self.add_tool_call(ToolCall(index=0, function=delta.function_call), events)
        if delta.annotations:
            self._add_sources(None, delta.annotations, events)
        signature = thought_signature(delta.extra_content)
        if signature is not None and not delta.tool_calls:
            events.append(ProviderPart(self._owner, THOUGHT_SIGNATURE, signature))
        if delta.audio or delta.images or delta.executed_tools:
            self._add_media(delta, events)

    def _add_reasoning(self, delta: ChoiceDelta, events: list[Event]) -> None:
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

    def add_tool_call(self, call: ToolCall, events: list[Event]) -> None:
        """Decode a fragment of a tool call."""
        function = call.function or Function()
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
            opaque=self._opaque_of(call),
        )

    def _opaque_of(self, call: ToolCall) -> Event | None:
        signature = thought_signature(call.extra_content)
        return None if signature is None else ProviderPart(self._owner, THOUGHT_SIGNATURE, signature)

    def _add_media(self, delta: ChoiceDelta, events: list[Event]) -> None:
        audio = delta.audio
        if audio is not None and (audio.data or audio.transcript):
            # Streamed audio is always 16-bit PCM: https://platform.openai.com/docs/guides/audio
            events.append(MediaDelta("audio/pcm", audio.data or "", id=audio.id, transcript=audio.transcript))
        for image in delta.images or ():
            url = image_source(image, self)
            if not url:
                self.ignored += 1
                continue
            head, _, data = url.partition(";base64,")
            is_inline = url.startswith("data:")
            media_type = head[5:] if is_inline else "image/*"
            events.append(MediaDelta(media_type, data if is_inline else "", None if is_inline else url))
        if delta.executed_tools:
            events.append(ProviderPart(self._owner, "executed_tools", delta.executed_tools))

    def _add_sources(self, results: list[Any] | None, cited: list[Any] | None, events: list[Event]) -> None:
        sources = [*results, *(cited or ())] if results else cited or []
        if sources == self._last_sources:  # some hosts repeat all sources in each chunk
            return
        self._last_sources = sources
        known = self._sources = set() if self._sources is None else self._sources
        for source in sources:
            found = read_source(source, self)
            key = None if found is None else f"{found.url} {found.start} {found.end}"
            if found is not None and key is not None and key not in known:
                known.add(key)
                events.append(found)

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
        if not raw:
            return
        reported = self._reported
        if reported is not None and raw == reported.usage.raw and self._tier == reported.usage.service_tier:
            events.append(reported)  # some hosts repeat the same usage in each chunk
            return
        self._usage = merge_usage(self._usage, raw)
        usage = read_usage(self._usage, self._tier)
        self._reported = None if usage is None else UsageReported(usage)
        if self._reported is not None:
            events.append(self._reported)

    def _end_at_mark(self, events: list[Event]) -> None:
        self._check_end("the stream ended with neither a finish reason nor usage")
        self.is_complete = True
        self._end(events)

    def _check_end(self, message: str) -> None:
        """Check that the answer is complete.

        Raises:
            TruncatedError: Nothing shows that the model finished.
        """
        is_enough = self._has_blank_reason or (self._is_started and not self._has_finish_reasons)
        # Some hosts send usage of zeros with the first chunk.
        counts = [count for count in (self._usage or {}).values() if isinstance(count, int | float) and count > 0]
        check_end(self._reason, counts, is_enough, message=message)

    def _end(self, events: list[Event]) -> None:
        self.is_finished = True
        self._is_plain = False
        self._end_item(events)
        if self._calls is not None:
            self._calls.finish(events)
        details = None if self._details is None else self._details.joined()
        if details:
            events.append(ProviderPart(self._owner, REASONING_DETAILS, details))
        reason = self._finish_reason()
        events.append(ResponseFinished(reason, self._reason, (*self._warnings, *self.type_warnings())))

    def _finish_reason(self) -> FinishReason:
        reason = FINISH_REASONS.get(finish_word(self._reason or "stop"))
        if self._reason is None:
            self._warnings += ("no_finish_reason",)
        if reason is None:
            self._warnings += ("unknown_finish_reason",)
        if reason in (None, "stop"):
            # Some hosts send "stop" although the model called a tool or refused.
            return "tool_calls" if self.has_calls else "refusal" if self._has_refusal else "stop"
        return reason


def _broken_off(payload: dict[str, Any]) -> APIError:
    error = classify_in_band(payload)
    error.billed = "maybe"
    return error


def _has_content(chunk: Chunk) -> bool:
    return bool(chunk.id or chunk.choices or chunk.usage or chunk.x_groq or chunk.citations or chunk.search_results)
