"""The response of a call, and the builder that folds events into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from lm_deluge import errors
from lm_deluge.errors import DelugeError
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
    RoundStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolProgress,
    ToolResult,
    UsageReported,
)
from lm_deluge.growing_parts import AudioPieces, CallPieces, TextPieces, WholePart, decode_base64
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    ImagePart,
    ProviderDataPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
)
from lm_deluge.usage import Usage

__all__ = ["APIResponse", "OutputValue", "ResponseBuilder", "StreamStats"]

_MOST_DETAILS = 500  # characters: an explanation may quote the malformed call, which has no limit


class StreamStats(msgspec.Struct, frozen=True, kw_only=True):
    """Timing and volume of a stream. Times are seconds; None where the stream did not reach that point.

    Attributes:
        attempts: Number of requests sent.
        bytes_received: Bytes of the body as received, before decompression.
        time_to_headers: From sending the successful request until its status line arrived.
        time_to_first_token: From the start of the call, waits and retries included, to the first delta.
        duration: From the start of the call to its end, or until now.
        reads: Number of reads from the socket that returned data.
        gap_mean: Mean time between two reads that contained deltas.
        gap_max: The longest such time.
        output_tokens: Generated tokens as the provider reported them, otherwise estimated.
        tokens_per_second: Generation rate, measured from the first token.
        ignored: Number of frames and events of unknown types, or received after the end.
    """

    attempts: int = 0
    bytes_received: int = 0
    time_to_headers: float | None = None
    time_to_first_token: float | None = None
    duration: float | None = None
    reads: int = 0
    gap_mean: float | None = None
    gap_max: float | None = None
    output_tokens: int = 0
    tokens_per_second: float | None = None
    ignored: int = 0


class OutputValue(msgspec.Struct, frozen=True):
    """The object of a typed answer.

    Attributes:
        data: It as JSON data.
        value: It as an instance of its type; the same as `data` for a JSON schema, and for an answer that broke off.
    """

    data: Any
    value: Any


class APIResponse(msgspec.Struct, kw_only=True):
    """The response of a call, complete or partial.

    Attributes:
        id: Position of the prompt in a batch; 0 for a single call.
        model_internal: Our name of the model that was called.
        model_external: The name of the model that answered, as the provider reports it.
        content: The answer as a message, ready to be added to the conversation.
        usage: Token counts; None where unknown. `usage.estimated` marks counts that the provider did not report.
        cost: US dollars; None for models without a price, 0 for answers from the local cache.
        finish_reason: Why the answer ended; None if it is not finished.
        raw_finish_reason: The finish reason in the provider's own words.
        finish_details: What the provider adds to the finish reason, in its own structure: the category and the
            explanation of a refusal, for example.
        status_code: HTTP status, None if no response arrived.
        request_id: The provider's id of the request, from the response's headers.
        response_id: The provider's id of the answer.
        citations: Sources that the answer cites.
        error: The error that ended the call, None for a success. An answer whose finish reason is `error` has one, too.
        stats: Timing and volume of the stream.
        warnings: Irregularities that are not errors, for example `no_done` for a missing end mark.
        local_cache_hit: The answer is from the local cache: nothing was sent, and `usage` is that of the original call.
        output_value: The object of a call with `output=`, as JSON data and as an instance of its type; None without.
        conversation: Of an agent loop: the prompt, and all answers and results so far, ready for the next turn or to be
            saved. It is valid after errors and cancellations, too. None for a single answer.
        rounds: Of an agent loop: the answer of each round, with its own usage and cost; `content` is that of the last
            round, `usage`, `cost` and `stats` are sums.
        pending: Of an agent loop that paused: the calls that wait for a decision.

    Example:
        >>> response = await client.stream("Name a color")
        >>> print(response.completion, response.usage.total_tokens, response.finish_reason)
    """

    id: int = 0
    model_internal: str = ""
    model_external: str | None = None
    content: Message = msgspec.field(default_factory=lambda: Message("assistant"))
    usage: Usage | None = None
    cost: float | None = None
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    finish_details: dict[str, Any] | None = None
    status_code: int | None = None
    request_id: str | None = None
    response_id: str | None = None
    citations: tuple[Citation, ...] = ()
    error: Any = None
    stats: StreamStats | None = None
    warnings: tuple[str, ...] = ()
    local_cache_hit: bool = False
    output_value: OutputValue | None = None
    conversation: Conversation | None = None
    rounds: tuple[APIResponse, ...] = ()
    pending: tuple[ToolCallPart, ...] = ()

    @property
    def output(self) -> Any:
        """The object of a call with `output=`, as an instance of its type; None without `output=`.

        Before the end of the stream, and in the `partial` of an error, it is the object so far, as plain data. In a
        response that `from_dict` restored it is plain data, too.

        Raises:
            OutputError: The answer is not such an object; it is also the `error` of the response.
        """
        if isinstance(self.error, errors.OutputError):
            raise self.error
        return None if self.output_value is None else self.output_value.value

    @property
    def completion(self) -> str:
        """All text of the answer."""
        return self.content.completion

    @property
    def thinking(self) -> str:
        """All reasoning text that the provider disclosed."""
        return self.content.thinking

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The tool calls of the answer, in order."""
        return self.content.tool_calls

    @property
    def is_error(self) -> bool:
        """Whether the call failed. The parts received before the failure are kept in `content`."""
        return self.error is not None

    @property
    def error_message(self) -> str | None:
        """The full text of the error, None for a success."""
        return None if self.error is None else str(self.error)

    def to_dict(self) -> dict[str, Any]:
        """Return the response as data that can be encoded as JSON."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name not in _CONVERTED}
        data: dict[str, Any] = msgspec.to_builtins(fields)
        if self.output_value is not None:
            data["output"] = self.output_value.data
        if self.conversation is not None:  # of an agent loop; the records of single answers stay as small as they are
            data["conversation"] = msgspec.to_builtins(self.conversation.messages)
            data["rounds"] = [answer.to_dict() for answer in self.rounds]
            data["pending"] = msgspec.to_builtins(self.pending)
        data["error"] = self.error.to_dict() if isinstance(self.error, DelugeError) else None
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> APIResponse:
        """Return the response that `to_dict` encoded. An error is restored with its class, but without its cause."""
        fields = {name: value for name, value in data.items() if name not in _CONVERTED}
        response = msgspec.convert(fields, cls)
        if data.get("output") is not None:
            response.output_value = OutputValue(data["output"], data["output"])
        if data.get("conversation") is not None:
            response.conversation = Conversation(msgspec.convert(data["conversation"], list[Message]))
            response.rounds = tuple(cls.from_dict(answer) for answer in data["rounds"])
            response.pending = msgspec.convert(data["pending"], tuple[ToolCallPart, ...])
        if data.get("error"):
            response.error = _error_from_dict(data["error"])
        return response


_CONVERTED = frozenset({"error", "output_value", "conversation", "rounds", "pending"})


def _error_from_dict(data: dict[str, Any]) -> DelugeError:
    known = {name: getattr(errors, name) for name in errors.__all__}
    kind: type[DelugeError] = known.get(data.get("type", ""), DelugeError)
    error = kind(data.get("message", ""))
    for name, value in {**data, "type": data.get("provider_type")}.items():
        if name in vars(error):
            setattr(error, name, _as_tuples(value))
    return error


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


class ResponseBuilder:
    """Folds events into a response. Streamed, plain, cached and replayed answers all use it."""

    def __init__(self) -> None:
        self._open: list[TextPieces | CallPieces | AudioPieces | WholePart] = []
        self._calls: dict[int, CallPieces] = {}
        self._text: TextPieces | None = None  # the last item of `_open`, if it is text of the answer
        self._opaque: dict[tuple[str, str], WholePart] = {}  # by kind and id
        self._citations: list[Citation] = []
        self.started: ResponseStarted | None = None
        self.finished: ResponseFinished | None = None
        self.usage: Usage | None = None
        self.has_deltas = False
        self.withheld = 0  # characters that filters left out or hold back
        self.is_holding = False  # filters hold back text that may follow
        self.is_cut = False  # filters ended the answer before the provider did

    def add_all(self, events: Iterable[Event]) -> None:
        """Add events in order."""
        for event in events:
            text = self._text
            if text is not None and type(event) is TextDelta and not event.logprobs:
                text.pieces.append(event.text)
            else:
                self.add(event)
        text = self._text
        if text is not None and len(text.pieces) >= text.most:
            text.fold()

    def add(self, event: Event) -> None:
        """Add one event."""
        _FOLDS[type(event)](self, event)

    def _add_text(self, event: TextDelta | ReasoningDelta | RefusalDelta) -> None:
        self.has_deltas = True
        kind = _TEXT_KINDS[type(event)]
        last = self._open[-1] if self._open else None
        if not isinstance(last, TextPieces) or last.kind is not kind:
            last = TextPieces(kind)
            self._open.append(last)
        last.pieces.append(event.text)
        if len(last.pieces) >= last.most:
            last.fold()
        self._text = last if kind is TextPart else None
        if isinstance(event, TextDelta) and event.logprobs:
            last.logprobs = last.logprobs or []
            last.logprobs.extend(event.logprobs)

    def _append(self, pieces: CallPieces | AudioPieces | WholePart) -> None:
        self.has_deltas = True
        self._text = None
        self._open.append(pieces)

    def _start_call(self, event: ToolCallStarted) -> None:
        self._calls[event.index] = CallPieces(event)
        self._append(self._calls[event.index])

    def _add_arguments(self, event: ToolCallDelta) -> None:
        self._calls[event.index].pieces.append(event.arguments)

    def _finish_call(self, event: ToolCallFinished) -> None:
        self._calls[event.index].finished = event

    def _add_media(self, event: MediaDelta) -> None:
        if not event.media_type.startswith("audio/"):
            media = Media(media_type=event.media_type, data=decode_base64(event.data) or None, url=event.url)
            self._append(WholePart(ImagePart(media)))
            return
        last = self._open[-1] if self._open else None
        if not isinstance(last, AudioPieces):
            last = AudioPieces(event)
            self._append(last)
        last.add(event)

    def _add_provider_part(self, event: ProviderPart) -> None:
        part = WholePart(ProviderDataPart(event.provider, event.kind, event.data))
        known = event.data.get("id") if isinstance(event.data, dict) else None
        if isinstance(known, str) and known:
            before = self._opaque.get((event.kind, known))
            if before is not None and before.extend(event):
                return
            self._opaque[event.kind, known] = part
        self._append(part)

    def _add_citation(self, event: Citation) -> None:
        self._citations.append(event)

    def _report_usage(self, event: UsageReported) -> None:
        self.usage = event.usage

    def _start(self, event: ResponseStarted) -> None:
        self.started = event

    def _finish(self, event: ResponseFinished) -> None:
        self.finished = event

    def _restart(self, event: Attempt) -> None:
        """Discard everything received from earlier attempts, unless the new attempt continues the answer."""
        if event.goes_on:
            return
        self._open, self._calls, self._text, self._citations, self.usage = [], {}, None, [], None
        self._opaque = {}

    def _start_round(self, event: RoundStarted) -> None:
        """Discard the answer of the round before; usage covers all rounds, and indexes of calls go on."""
        self._open, self._text, self._citations, self._opaque = [], None, [], {}
        self.started = ResponseStarted(event.response_id, event.model)

    def _skip(self, event: ToolProgress | ToolResult) -> None:
        """Ignore the event: results are no part of an answer, but of the conversation."""

    @property
    def output_characters(self) -> int:
        """Characters of text, reasoning and arguments that were generated so far, the basis of token estimates."""
        characters = self.withheld
        for item in self._open:
            if isinstance(item, TextPieces | CallPieces):
                characters += item.count()
        return characters

    def response(self, model_internal: str = "") -> APIResponse:
        """Return the response so far; it is complete after `ResponseFinished` was added."""
        started, finished = self.started, self.finished
        warnings = finished.warnings if finished is not None else ()
        if self.is_holding:
            warnings += ("withheld_text",)
        return APIResponse(
            model_internal=model_internal,
            model_external=started.model if started else None,
            response_id=started.response_id if started else None,
            content=Message("assistant", tuple([item.part() for item in self._open])),
            usage=self.usage,
            finish_reason=finished.finish_reason if finished else None,
            raw_finish_reason=finished.raw_finish_reason if finished else None,
            finish_details=finished.finish_details if finished else None,
            citations=tuple(self._citations),
            error=_error_at_end(finished),
            warnings=warnings,
        )


def _error_at_end(finished: ResponseFinished | None) -> DelugeError | None:
    """Return the error of an answer that the provider ended because of a failure, of a malformed call for example."""
    if finished is None or finished.finish_reason != "error":
        return None
    reason = finished.raw_finish_reason
    details = (finished.finish_details or {}).get("finishMessage")  # Google's explanation
    message = "the provider ended the answer because of a failure" + (f": {reason}" if reason else "")
    return errors.ServerError(
        f"{message} ({details[:_MOST_DETAILS]})" if isinstance(details, str) else message,
        code=reason,
        hint="Send the request again, or change the prompt or the tools.",
        billed="maybe",
    )


_TEXT_KINDS: dict[type, type[TextPart | ReasoningPart | RefusalPart]] = {
    TextDelta: TextPart,
    ReasoningDelta: ReasoningPart,
    RefusalDelta: RefusalPart,
}

_FOLDS: dict[type, Callable[[ResponseBuilder, Any], None]] = {
    ResponseStarted: ResponseBuilder._start,
    TextDelta: ResponseBuilder._add_text,
    ReasoningDelta: ResponseBuilder._add_text,
    RefusalDelta: ResponseBuilder._add_text,
    ToolCallStarted: ResponseBuilder._start_call,
    ToolCallDelta: ResponseBuilder._add_arguments,
    ToolCallFinished: ResponseBuilder._finish_call,
    Citation: ResponseBuilder._add_citation,
    MediaDelta: ResponseBuilder._add_media,
    ProviderPart: ResponseBuilder._add_provider_part,
    UsageReported: ResponseBuilder._report_usage,
    Attempt: ResponseBuilder._restart,
    ToolProgress: ResponseBuilder._skip,
    ToolResult: ResponseBuilder._skip,
    RoundStarted: ResponseBuilder._start_round,
    ResponseFinished: ResponseBuilder._finish,
}
