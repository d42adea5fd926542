"""Protocols without parts: the chunks of Chat Completions, and plain text."""

from __future__ import annotations

import time
import uuid
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from lm_deluge.encoders.openai_chat.response import ENCODER, open_stream
from lm_deluge.errors import APIError, TruncatedError
from lm_deluge.events import (
    Attempt,
    Citation,
    Event,
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
from lm_deluge.ui.failures import as_api_error
from lm_deluge.ui.frame_encoder import AnswerEnd, DataPart, ErrorText, FrameEncoder, Handler, UIEvent, handler_of

__all__ = ["OpenAIEncoder", "TextEncoder"]

_BETWEEN_ROUNDS = "\n\n"


class _FlatEncoder(FrameEncoder):
    """Base of the encoders that cannot take back text: an answer that starts again after its text ends with an error.

    A method of the table returns the event to write, or None.
    """

    opens_early = False  # clients learn of errors by the status of the response

    def __init__(self, *, error_text: ErrorText | None = None) -> None:
        super().__init__(error_text=error_text)
        self._has_text = False  # whether this round has any
        self._is_restarted = False

    def frames(self, events: Sequence[UIEvent]) -> bytes:
        """Return the frames for the events of one read.

        Raises:
            ConfigurationError: One of them is no event.
        """
        if self.is_over:
            return b""
        kept: list[Event] = []
        for event in events:
            written = handler_of(self.HANDLERS, event)(self, event)
            if written is not None:
                kept.append(written)
            if self._is_restarted:
                return self._written(kept) + self.end(_restarted())
        if not kept:
            return b""
        self.is_empty = False
        return self._written(kept)

    @abstractmethod
    def _written(self, events: list[Event]) -> bytes:
        """Return the frames of these events."""

    def _write(self, event: Event) -> Event:
        self._has_text = True
        return event

    def _remember(self, event: ResponseStarted | UsageReported | ResponseFinished) -> Event | None:
        self._note(event)
        return None

    def _skip(self, event: UIEvent) -> Event | None:
        """Write nothing: the protocol cannot express the event."""
        return None

    def _restart(self, event: Attempt) -> Event | None:
        self._is_restarted = not event.goes_on and self._has_text
        return None

    def _start_round(self, event: RoundStarted) -> Event | None:
        self._note(event)
        has_text, self._has_text = self._has_text, False
        return TextDelta(_BETWEEN_ROUNDS) if has_text else None

    HANDLERS: ClassVar[dict[type, Handler]] = {
        ResponseStarted: _remember,
        TextDelta: _write,
        ReasoningDelta: _skip,
        RefusalDelta: _write,
        ToolCallStarted: _skip,
        ToolCallDelta: _skip,
        ToolCallFinished: _skip,
        Citation: _skip,
        MediaDelta: _skip,
        ProviderPart: _skip,
        UsageReported: _remember,
        Attempt: _restart,
        ToolProgress: _skip,
        ToolResult: _skip,
        RoundStarted: _start_round,
        ResponseFinished: _remember,
        DataPart: _skip,
    }


def _restarted() -> TruncatedError:
    return TruncatedError("the answer starts again, and this protocol cannot take back its text", billed="maybe")


class TextEncoder(_FlatEncoder):
    """Encoder of `text`: the text of the answer and nothing else. It has no frame for an error."""

    media_type = "text/plain; charset=utf-8"
    heartbeat = b""
    can_fail = False

    def _written(self, events: list[Event]) -> bytes:
        texts = [event.text for event in events if isinstance(event, TextDelta | RefusalDelta)]
        return "".join(texts).encode(errors="replace")

    def _end(self, outcome: AnswerEnd) -> bytes:
        return b""


class OpenAIEncoder(_FlatEncoder):
    """Encoder of `openai-chat`, with the writer of the simulator and the gateway.

    A client of this API runs the calls that it gets. So calls are written at the end of the answer, without those that
    ran on the server.

    Args:
        message_id: The id of the response; None: that of the provider's response, or a random one.
        created: Time of the answer, in seconds since 1970; None: now.
        error_text: Returns the text that the client gets for an error.
    """

    def __init__(
        self, *, message_id: str | None = None, created: int | None = None, error_text: ErrorText | None = None
    ) -> None:
        super().__init__(error_text=error_text)
        self._id = message_id
        self._writer = open_stream(created=int(time.time()) if created is None else created, include_usage=True)
        self._calls: dict[int, list[Event]] = {}  # the events of calls, by their index

    def _written(self, events: list[Event]) -> bytes:
        return self._writer.write(events)

    def _end(self, outcome: AnswerEnd) -> bytes:
        if outcome.kind == "complete":
            usage = [UsageReported(outcome.usage)] if outcome.usage is not None else []
            calls = [event for call in self._calls.values() for event in call]
            return self._writer.write([*calls, *usage, ResponseFinished(outcome.finish_reason or "stop")])
        if outcome.kind == "stopped":
            return self._writer.fail(APIError("the answer was stopped", type="stopped", code="stopped"))
        return self._writer.fail(self._shown(outcome.error))

    def refusal(self, error: BaseException) -> tuple[str, bytes]:
        """Return the error as Chat Completions has it."""
        return "application/json", ENCODER.encode_error(self._shown(error))

    def _shown(self, error: BaseException | None) -> APIError:
        shown = as_api_error(error or _restarted())
        return APIError(self._text_of(error), type=shown.type, code=shown.code or type(shown).__name__)

    def _start(self, event: ResponseStarted) -> Event:
        self._note(event)
        named = self._id or event.response_id or f"{ENCODER.id_prefix}{uuid.uuid4().hex}"
        return msgspec.structs.replace(event, response_id=named)

    def _pass(self, event: ReasoningDelta | Citation | MediaDelta) -> Event:
        return self._write(event)

    def _keep_call(self, event: ToolCallStarted | ToolCallDelta | ToolCallFinished) -> Event | None:
        self._calls.setdefault(event.index, []).append(event)
        return None

    def _drop_call(self, event: ToolResult) -> Event | None:
        self._calls = {index: call for index, call in self._calls.items() if _id_of(call) != event.call_id}
        return None

    def _restart(self, event: Attempt) -> Event | None:
        if not event.goes_on:
            self._calls = {}
        return super()._restart(event)

    HANDLERS: ClassVar[dict[type, Handler]] = {
        **_FlatEncoder.HANDLERS,
        ResponseStarted: _start,
        ReasoningDelta: _pass,
        ToolCallStarted: _keep_call,
        ToolCallDelta: _keep_call,
        ToolCallFinished: _keep_call,
        Citation: _pass,
        MediaDelta: _pass,
        Attempt: _restart,
        ToolResult: _drop_call,
    }


def _id_of(call: Sequence[Event]) -> str | None:
    return next((event.id for event in call if isinstance(event, ToolCallStarted | ToolCallFinished)), None)
