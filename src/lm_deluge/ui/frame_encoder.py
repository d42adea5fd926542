"""The interface of the encoders: events of one answer -> frames of a protocol that user interfaces read.

The last frame is always a terminal one, and it reports a success only after the answer came to its real end. Clients
of these protocols take a closed connection for a success.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

from lm_deluge.dispatch.hooks import unexpected_error
from lm_deluge.errors import ConfigurationError, TruncatedError
from lm_deluge.events import (
    Attempt,
    Event,
    FinishReason,
    ResponseFinished,
    ResponseStarted,
    RoundStarted,
    UsageReported,
)
from lm_deluge.prompt.parts import ToolCallPart
from lm_deluge.prompt.plain_values import to_plain
from lm_deluge.response import APIResponse, StreamStats
from lm_deluge.ui.failures import public_text
from lm_deluge.usage import Usage

__all__ = [
    "AnswerEnd",
    "DataPart",
    "ErrorText",
    "FrameEncoder",
    "Handler",
    "UIEvent",
    "attempt_fields",
    "compact",
    "encode_json",
    "handler_of",
    "sse_frame",
]

JSON = dict[str, Any]
ErrorText: TypeAlias = Callable[[BaseException], str]
"""Returns the text that a client gets for an error."""


class DataPart(msgspec.Struct, frozen=True, tag="data"):
    """Data of the application in a stream of events: `data-<name>` of `vercel-ui`, CUSTOM of `ag-ui`.

    Args:
        name: Kind of the data, in letters, digits and hyphens.
        data: Any JSON data; dataclasses, structs and Pydantic models become objects.
        id: In `vercel-ui`, data with the id of earlier data of the same name replaces it.
        transient: In `vercel-ui`, the data reaches `onData`, and is not added to the message.

    Example:
        >>> yield DataPart("progress", {"documents": 3}, transient=True)
    """

    name: str
    data: Any
    id: str | None = None
    transient: bool = False


UIEvent: TypeAlias = Event | DataPart
Handler: TypeAlias = Callable[[Any, Any], Any]


class AnswerEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer ended.

    Attributes:
        kind: `complete`, `stopped` (by the application or the user) or `failed`.
        error: Of a failed answer.
        finish_reason: Of a complete answer.
        usage, cost, model, stats: As far as they are known.
        pending: The calls that wait for a decision.
    """

    kind: Literal["complete", "stopped", "failed"]
    error: BaseException | None = None
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    cost: float | None = None
    model: str | None = None
    stats: StreamStats | None = None
    pending: tuple[ToolCallPart, ...] = ()

    def metadata(self) -> JSON:
        """Return what user interfaces show about an answer; unknown values are left out."""
        usage, stats = self.usage, self.stats
        counts = usage and {
            "inputTokens": usage.input_tokens,
            "outputTokens": usage.output_tokens,
            "totalTokens": usage.total_tokens,
            "reasoningTokens": usage.reasoning_tokens,
            "cachedInputTokens": usage.cache_read_tokens,
            "isEstimated": usage.estimated or None,
        }
        return compact(
            {
                "model": self.model,
                "finishReason": self.finish_reason,
                "usage": counts and compact(counts),
                "cost": self.cost,
                "firstTokenS": stats and stats.time_to_first_token,
                "durationS": stats and stats.duration,
                "attempts": stats and stats.attempts,
            }
        )


def compact(fields: Mapping[str, Any]) -> JSON:
    """Return the fields whose value is not None."""
    return {name: value for name, value in fields.items() if value is not None}


class FrameEncoder(ABC):
    """Writes the frames of one answer: `start`, then `frames` for the events of each read, then `end`.

    Args:
        error_text: Returns the text that the client gets for an error; by default the error's own message.

    Attributes:
        media_type: Content type of the frames.
        protocol_headers: Headers that the protocol asks for.
        heartbeat: A frame that clients skip; empty if the protocol has none.
        can_fail: Whether a frame can report an error. Otherwise the connection must break to do so.
        opens_early: Whether errors before the first event are frames; otherwise clients expect an HTTP status.
        is_over: Whether the terminal frame was written. Later events and ends give no frames.
        outcome: How the answer ended, once it is over.
        is_empty: Whether no frame was written but those of the start and the end.
    """

    media_type: ClassVar[str] = "text/event-stream; charset=utf-8"
    protocol_headers: ClassVar[Mapping[str, str]] = {}
    heartbeat: ClassVar[bytes] = b": keep-alive\n\n"
    can_fail: ClassVar[bool] = True
    opens_early: ClassVar[bool] = True

    def __init__(self, *, error_text: ErrorText | None = None) -> None:
        self.is_over = False
        self.outcome: AnswerEnd | None = None
        self.is_empty = True
        self._error_text = error_text or public_text
        self._started: ResponseStarted | RoundStarted | None = None
        self._finished: ResponseFinished | None = None
        self._usage: Usage | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a response with these frames; no proxy may change, keep or delay them."""
        return {
            "content-type": self.media_type,
            "cache-control": "no-cache, no-transform",
            "x-accel-buffering": "no",
            **self.protocol_headers,
        }

    def start(self) -> bytes:
        """Return the frames before the first event."""
        return b""

    @abstractmethod
    def frames(self, events: Sequence[UIEvent]) -> bytes:
        """Return the frames for the events of one read, which may be none.

        Raises:
            ConfigurationError: One of them is no event.
        """

    def end(self, outcome: APIResponse | BaseException | None = None) -> bytes:
        """Return the last frames.

        Args:
            outcome: The response, or the error that ended the call; None: the events show how the answer ended.
        """
        if self.is_over:
            return b""
        self.is_over = True
        self.outcome = self._outcome(outcome)
        return self._end(self.outcome)

    @abstractmethod
    def _end(self, outcome: AnswerEnd) -> bytes:
        """Return the last frames."""

    def refusal(self, error: BaseException) -> tuple[str, bytes]:
        """Return content type and body of the response to a call that failed before its first event."""
        return "text/plain; charset=utf-8", self._text_of(error).encode(errors="replace")

    def _outcome(self, outcome: APIResponse | BaseException | None) -> AnswerEnd:
        if isinstance(outcome, APIResponse):
            return _outcome_of(outcome)
        usage = self._usage
        known: JSON = {
            "usage": usage,
            "cost": usage and usage.reported_cost,
            "model": self._started and self._started.model,
        }
        if isinstance(outcome, BaseException):
            partial = getattr(outcome, "partial", None)
            if isinstance(partial, APIResponse):
                response = _outcome_of(partial)
                known = {"usage": response.usage, "cost": response.cost, "model": response.model}
            return AnswerEnd(kind="failed", error=outcome, **known)
        finish = self._finished
        if finish is None:
            broken = TruncatedError("the answer ended before it was complete", billed="maybe")
            return AnswerEnd(kind="failed", error=broken, **known)
        return AnswerEnd(kind="complete", finish_reason=finish.finish_reason, **known)

    def _note(self, event: ResponseStarted | RoundStarted | UsageReported | ResponseFinished) -> None:
        """Keep what the last frames need."""
        if type(event) is UsageReported:
            self._usage = event.usage
        elif type(event) is ResponseFinished:
            self._finished = event
        elif isinstance(event, ResponseStarted | RoundStarted):
            self._started = event

    def _text_of(self, error: BaseException | None) -> str:
        """Return the text of an error for the client; a failing `error_text` gives that of an unknown error."""
        failure = error or unexpected_error(RuntimeError())
        try:
            return str(self._error_text(failure))
        except Exception:  # noqa: BLE001 - a hook never breaks a stream
            return public_text(RuntimeError())


def _outcome_of(response: APIResponse) -> AnswerEnd:
    known: JSON = {
        "usage": response.usage,
        "cost": response.cost,
        "model": response.model_external or response.model_internal or None,
        "stats": response.stats,
    }
    if response.error is not None:
        return AnswerEnd(kind="failed", error=response.error, **known)
    if response.finish_reason is None:
        return AnswerEnd(kind="stopped", **known)
    return AnswerEnd(kind="complete", finish_reason=response.finish_reason, pending=response.pending, **known)


def handler_of(handlers: Mapping[type, Handler], event: UIEvent) -> Handler:
    """Return the handler of an event.

    Raises:
        ConfigurationError: The value is no event.
    """
    handler = handlers.get(type(event))
    if handler is None:
        raise ConfigurationError(
            f"a stream of events contains a value of type {type(event).__name__}",
            hint="Yield the events of `stream.events()`, and `DataPart` for other data.",
        )
    return handler


def attempt_fields(event: Attempt) -> JSON:
    """Return what a client may know about a further attempt: not the provider's message, which is for the operator."""
    return {
        "number": event.number,
        "error": event.error,
        "waitS": event.wait_s,
        "model": event.model,
        "continues": event.goes_on,
    }


def sse_frame(fields: Mapping[str, Any]) -> bytes:
    """Return a server-sent event with one JSON object."""
    return b"data: %b\n\n" % encode_json(fields)


def _as_data(value: Any) -> Any:
    """Return a value of another library as data."""
    dump = getattr(value, "model_dump", None)  # of Pydantic
    if callable(dump):
        return dump(mode="json")
    plain = to_plain(value)
    return plain if plain is not value else str(value)


_encode = msgspec.json.Encoder(enc_hook=_as_data).encode


def encode_json(value: Any) -> bytes:
    """Return a value as JSON. A value that has no JSON becomes its text, and half a character `?`."""
    try:
        return _encode(value)
    except (TypeError, ValueError, OverflowError):
        return json.dumps(value, default=_as_data, skipkeys=True, ensure_ascii=False).encode(errors="replace")
