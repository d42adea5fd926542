"""The answer, and the one fold that makes it out of events."""

from __future__ import annotations

import base64
import binascii
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
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    ImagePart,
    Part,
    ProviderDataPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
)
from lm_deluge.usage import Usage

__all__ = ["APIResponse", "ResponseBuilder", "StreamStats"]

_SMALL_PIECES = 128


class StreamStats(msgspec.Struct, frozen=True, kw_only=True):
    """How a stream went. Times are seconds; None where it did not come so far.

    Attributes:
        attempts: Requests sent.
        bytes_received: Bytes of the body as they came, before any decompression.
        time_to_headers: From sending the request that was answered until its status line.
        time_to_first_token: From the start of the call, waits and retries included, to the first delta.
        duration: From the start of the call to its end, or until now.
        reads: How often the socket had something.
        gap_mean: Mean time between two reads that brought deltas.
        gap_max: The longest such time.
        output_tokens: Tokens generated, as far as reported; else estimated.
        tokens_per_second: Of the time after the first token.
        ignored: Frames and events that nothing is known of, or that came after the end.
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


class APIResponse(msgspec.Struct, kw_only=True):
    """An answer, complete or partial.

    Attributes:
        id: Position in a batch; 0 for a single call.
        model_internal: Our name of the model that was asked.
        model_external: The name that the provider gives to what answered.
        content: The answer as a message, ready to be added to the conversation.
        usage: Tokens; None where nothing is known, `estimated` where the provider did not say.
        cost: US dollars, None for models without a price; 0 for what came from the local cache.
        finish_reason: Why it ended; None while it has not.
        raw_finish_reason: The provider's own word.
        status_code: HTTP status, None where no answer came.
        request_id: The provider's id of the request, from its headers.
        response_id: The provider's id of the answer.
        citations: Sources that the answer names.
        error: What ended it, None for a success.
        stats: How the stream went.
        warnings: What was odd and is no error, `no_done` for a missing end mark for example.
        local_cache_hit: It came from the local cache: nothing was sent, and `usage` is what it once took.
    """

    id: int = 0
    model_internal: str = ""
    model_external: str | None = None
    content: Message = Message("assistant")
    usage: Usage | None = None
    cost: float | None = None
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    status_code: int | None = None
    request_id: str | None = None
    response_id: str | None = None
    citations: tuple[Citation, ...] = ()
    error: Any = None
    stats: StreamStats | None = None
    warnings: tuple[str, ...] = ()
    local_cache_hit: bool = False

    @property
    def completion(self) -> str:
        """All text of the answer."""
        return self.content.completion

    @property
    def thinking(self) -> str:
        """All reasoning that the provider showed."""
        return self.content.thinking

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The tools that the model wants to be called."""
        return self.content.tool_calls

    @property
    def is_error(self) -> bool:
        """Whether the call failed; what was received before is kept all the same."""
        return self.error is not None

    @property
    def error_message(self) -> str | None:
        """What the error says, None for a success."""
        return None if self.error is None else str(self.error)

    def to_dict(self) -> dict[str, Any]:
        """Return the response as data that fits into JSON."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name != "error"}
        data: dict[str, Any] = msgspec.to_builtins(fields)
        data["error"] = self.error.to_dict() if isinstance(self.error, DelugeError) else None
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> APIResponse:
        """Build the response that `to_dict` described; an error comes back as its class, without its cause."""
        response = msgspec.convert({**data, "error": None}, cls)
        if data.get("error"):
            response.error = _error_from_dict(data["error"])
        return response


def _error_from_dict(data: dict[str, Any]) -> DelugeError:
    known = {name: getattr(errors, name) for name in errors.__all__}
    kind: type[DelugeError] = known.get(data.get("type", ""), DelugeError)
    error = kind(data.get("message", ""))
    for name, value in {**data, "type": data.get("provider_type")}.items():
        if name in vars(error):
            setattr(error, name, value)
    return error


def _joined(pieces: list[str]) -> list[str]:
    return ["".join(pieces)] if len(pieces) > 1 else pieces


class _Pieces:
    """Text of one kind that is still growing. Once there are `most` pieces, those that came last are to be folded."""

    __slots__ = ("kind", "logprobs", "most", "pieces")

    def __init__(self, kind: type[TextPart | ReasoningPart | RefusalPart]) -> None:
        self.kind = kind
        self.pieces: list[str] = []
        self.most = _SMALL_PIECES
        self.logprobs: list[TokenLogprob] | None = None

    def part(self) -> Part:
        text = "".join(self.pieces)
        return TextPart(text, tuple(self.logprobs or ())) if self.kind is TextPart else self.kind(text)

    def fold(self) -> None:
        """Make one of the small pieces: each takes 49 bytes more than its text."""
        self.pieces[self.most - _SMALL_PIECES :] = ["".join(self.pieces[self.most - _SMALL_PIECES :])]
        self.most = len(self.pieces) + _SMALL_PIECES

    def count(self) -> int:
        """Return the characters so far. What was counted once is in one piece, so asking often is cheap."""
        self.pieces = _joined(self.pieces)
        self.most = len(self.pieces) + _SMALL_PIECES
        return sum(map(len, self.pieces))


class _CallPieces:
    """A tool call that is still growing."""

    __slots__ = ("finished", "pieces", "started")

    def __init__(self, started: ToolCallStarted) -> None:
        self.started = started
        self.pieces: list[str] = []
        self.finished: ToolCallFinished | None = None

    def count(self) -> int:
        """Return the characters of its arguments so far."""
        self.pieces = _joined(self.pieces)
        return sum(map(len, self.pieces))

    def part(self) -> Part:
        done = self.finished
        if done is None:
            start = self.started
            text = "".join(self.pieces)
            return ToolCallPart(start.id, start.name, text, None, "the call was cut off", start.custom)
        return ToolCallPart(done.id, done.name, done.arguments_text, done.arguments, done.arguments_error, done.custom)


class _AudioPieces:
    """Generated sound that is still growing."""

    __slots__ = ("data", "first", "transcript")

    def __init__(self, first: MediaDelta) -> None:
        self.first = first
        self.data = bytearray()
        self.transcript: list[str] = []

    def part(self) -> Part:
        media = Media(media_type=self.first.media_type, data=bytes(self.data), file_id=self.first.id)
        return AudioPart(media, "".join(self.transcript) or None)


class _WholePart:
    """A part that came in one event."""

    __slots__ = ("_part",)

    def __init__(self, part: Part) -> None:
        self._part = part

    def part(self) -> Part:
        return self._part


class ResponseBuilder:
    """The only fold from events to an answer: streamed, plain, cached and replayed answers all pass here."""

    def __init__(self) -> None:
        self._open: list[_Pieces | _CallPieces | _AudioPieces | _WholePart] = []
        self._calls: dict[int, _CallPieces] = {}
        self._text: _Pieces | None = None  # the pieces of the answer's text, where they came last
        self._citations: list[Citation] = []
        self.started: ResponseStarted | None = None
        self.finished: ResponseFinished | None = None
        self.usage: Usage | None = None
        self.has_deltas = False

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
        if not isinstance(last, _Pieces) or last.kind is not kind:
            last = _Pieces(kind)
            self._open.append(last)
        last.pieces.append(event.text)
        if len(last.pieces) >= last.most:
            last.fold()
        self._text = last if kind is TextPart else None
        if isinstance(event, TextDelta) and event.logprobs:
            last.logprobs = last.logprobs or []
            last.logprobs.extend(event.logprobs)

    def _append(self, pieces: _CallPieces | _AudioPieces | _WholePart) -> None:
        self.has_deltas = True
        self._text = None
        self._open.append(pieces)

    def _start_call(self, event: ToolCallStarted) -> None:
        self._calls[event.index] = _CallPieces(event)
        self._append(self._calls[event.index])

    def _add_arguments(self, event: ToolCallDelta) -> None:
        self._calls[event.index].pieces.append(event.arguments)

    def _finish_call(self, event: ToolCallFinished) -> None:
        self._calls[event.index].finished = event

    def _add_media(self, event: MediaDelta) -> None:
        if not event.media_type.startswith("audio/"):
            media = Media(media_type=event.media_type, data=_decoded(event.data) or None, url=event.url)
            self._append(_WholePart(ImagePart(media)))
            return
        last = self._open[-1] if self._open else None
        if not isinstance(last, _AudioPieces):
            last = _AudioPieces(event)
            self._append(last)
        last.data += _decoded(event.data)
        last.transcript.append(event.transcript or "")

    def _add_provider_part(self, event: ProviderPart) -> None:
        self._append(_WholePart(ProviderDataPart(event.provider, event.kind, event.data)))

    def _add_citation(self, event: Citation) -> None:
        self._citations.append(event)

    def _report_usage(self, event: UsageReported) -> None:
        self.usage = event.usage

    def _start(self, event: ResponseStarted) -> None:
        self.started = event

    def _finish(self, event: ResponseFinished) -> None:
        self.finished = event

    def _begin_anew(self, event: Attempt) -> None:
        """Drop what the attempts before said, mostly nothing, where the answer does not go on."""
        if event.goes_on:
            return
        self._open, self._calls, self._text, self._citations, self.usage = [], {}, None, [], None

    @property
    def output_characters(self) -> int:
        """Characters of text, reasoning and arguments so far: what token estimates start from."""
        return sum(item.count() for item in self._open if isinstance(item, _Pieces | _CallPieces))

    def response(self, model_internal: str = "") -> APIResponse:
        """Return the answer so far; complete once `ResponseFinished` was added."""
        started, finished = self.started, self.finished
        return APIResponse(
            model_internal=model_internal,
            model_external=started.model if started else None,
            response_id=started.response_id if started else None,
            content=Message("assistant", tuple([item.part() for item in self._open])),
            usage=self.usage,
            finish_reason=finished.finish_reason if finished else None,
            raw_finish_reason=finished.raw_finish_reason if finished else None,
            citations=tuple(self._citations),
            warnings=finished.warnings if finished else (),
        )


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data)
    except (binascii.Error, ValueError):
        return b""


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
    Attempt: ResponseBuilder._begin_anew,
    ResponseFinished: ResponseBuilder._finish,
}
