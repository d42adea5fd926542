"""The events of a stream: one closed union, the same for every provider, for live, cached and replayed answers.

Order: `ResponseStarted (delta | Attempt | UsageReported ...)* ResponseFinished`. There is exactly one start and one
finish, whatever retries happened in between. Events are buffered until the first delta, so that `ResponseStarted`
names the attempt that is kept; the `Attempt` events of failed attempts follow directly after it. In background mode,
and with `on_break="continue"`, a stream that broke continues after an `Attempt` event, which can occur anywhere.

The stream of an agent loop has one start and one finish over all rounds. Between two rounds are the `ToolProgress` and
`ToolResult` events of the calls, and a `RoundStarted`. An `Attempt` that does not go on takes back the deltas of its
own round only.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from lm_deluge.prompt.parts import AudioPart, FilePart, ImagePart, TokenLogprob, TopLogprob
from lm_deluge.usage import Usage

__all__ = [
    "Attempt",
    "Citation",
    "Event",
    "FinishReason",
    "MediaDelta",
    "ProviderPart",
    "ReasoningDelta",
    "RefusalDelta",
    "ResponseFinished",
    "ResponseStarted",
    "RoundStarted",
    "TextDelta",
    "TokenLogprob",
    "ToolCallDelta",
    "ToolCallFinished",
    "ToolCallStarted",
    "ToolProgress",
    "ToolResult",
    "TopLogprob",
    "UsageReported",
]

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "pause", "error"]


class ResponseStarted(msgspec.Struct, frozen=True, gc=False, tag="response_started"):
    """The first event. `model` is the model's name as the provider reports it."""

    response_id: str | None = None
    model: str | None = None


class TextDelta(msgspec.Struct, frozen=True, gc=False, tag="text_delta"):
    """A piece of the answer's text. `text` is empty only where the event has nothing but log probabilities."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False, tag="reasoning_delta"):
    """A piece of the reasoning, or of its summary."""

    text: str


class RefusalDelta(msgspec.Struct, frozen=True, gc=False, tag="refusal_delta"):
    """A piece of the model's own refusal to answer."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class ToolCallStarted(msgspec.Struct, frozen=True, gc=False, tag="tool_call_started"):
    """The model starts to call a tool.

    Attributes:
        index: Position among the calls of this answer, from 0, in order of appearance; in an agent loop among the calls
            of all rounds.
        id: The provider's id of the call; `call_<index>` where the provider sends none.
        name: The tool's complete name.
        custom: The tool's input is free text, not JSON.
    """

    index: int
    id: str
    name: str
    custom: bool = False


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False, tag="tool_call_delta"):
    """A fragment of the JSON text of a call's arguments, not valid JSON by itself."""

    index: int
    arguments: str


class ToolCallFinished(msgspec.Struct, frozen=True, tag="tool_call_finished"):
    """A tool call is complete.

    Attributes:
        arguments: The parsed JSON; `{}` for empty text; None where the text is not valid JSON.
        arguments_text: The text as the model generated it, never repaired.
        arguments_error: Why the text is not valid JSON, or None.
    """

    index: int
    id: str
    name: str
    arguments_text: str
    arguments: Any = None
    arguments_error: str | None = None
    custom: bool = False


class Citation(msgspec.Struct, frozen=True, tag="citation"):
    """A source that the answer cites. `start` and `end` are character offsets in the answer's text."""

    url: str | None = None
    title: str | None = None
    start: int | None = None
    end: int | None = None
    raw: dict[str, Any] | None = None


class MediaDelta(msgspec.Struct, frozen=True, gc=False, tag="media_delta"):
    """A generated image or a piece of generated audio, as base64 text in `data` or as a `url`."""

    media_type: str
    data: str = ""
    url: str | None = None
    id: str | None = None
    transcript: str | None = None


class ProviderPart(msgspec.Struct, frozen=True, tag="provider_part"):
    """Opaque data of the provider, to be sent back on the next turn, to the same provider only.

    An event whose data have the `id` and all fields of an earlier event of the same kind replaces that event's data.
    """

    provider: str
    kind: str
    data: Any


class UsageReported(msgspec.Struct, frozen=True, gc=False, tag="usage_reported"):
    """Token counts so far, including attempts that this one continues. Each event replaces the previous one."""

    usage: Usage


class Attempt(msgspec.Struct, frozen=True, gc=False, tag="attempt"):
    """A further attempt starts, after a failed one or as a hedge in parallel to a slow one.

    Attributes:
        number: Number of the attempt that starts now, from 2.
        error: Class name of the error that ended the previous attempt; `Hedge` if that attempt is only slow.
        message: Message of that error; for a hedge how long nothing was received.
        wait_s: Seconds waited between the two attempts.
        model: Our name of the model of the new attempt.
        goes_on: The answer continues where it broke. Otherwise it starts again: earlier deltas are not part of it.
    """

    number: int
    error: str
    message: str
    wait_s: float
    model: str
    goes_on: bool = False


class ToolProgress(msgspec.Struct, frozen=True, tag="tool_progress"):
    """A tool that runs in the program reports progress.

    Attributes:
        call_id: The id of the call.
        name: The tool's name.
        progress: What the tool yielded or reported, as JSON data.
    """

    call_id: str
    name: str
    progress: Any = None


class ToolResult(msgspec.Struct, frozen=True, tag="tool_result"):
    """A call of a tool that runs in the program has ended. Results arrive as they are ready, in any order.

    Attributes:
        call_id: The id of the call.
        name: The tool's name.
        result: The text that the model reads; of a call that failed, what went wrong.
        error: Class and message of the exception that the tool raised, or why the call did not run; None for a success.
        duration_s: Seconds that the tool ran; 0 if it did not.
        is_truncated: The result was too long, and the model reads its start.
        media: Images, files and audio of the result.
    """

    call_id: str
    name: str
    result: str = ""
    error: str | None = None
    duration_s: float = 0.0
    is_truncated: bool = False
    media: tuple[ImagePart | FilePart | AudioPart, ...] = ()


class RoundStarted(msgspec.Struct, frozen=True, gc=False, tag="round_started"):
    """The model answers again, in the same agent loop. Text before this event belongs to earlier rounds.

    Attributes:
        number: Number of the round, from 1. Round 1 has this event only where results of tools come before it.
        response_id: The provider's id of the answer.
        model: The model's name as the provider reports it.
    """

    number: int
    response_id: str | None = None
    model: str | None = None


class ResponseFinished(msgspec.Struct, frozen=True, gc=False, tag="response_finished"):
    """The last event.

    Attributes:
        finish_reason: Why the answer ended.
        raw_finish_reason: The finish reason in the provider's own words, or None.
        warnings: Irregularities that are not errors.
        finish_details: What the provider adds to the finish reason, in its own structure, or None: the category and the
            explanation of a refusal, for example.
    """

    finish_reason: FinishReason
    raw_finish_reason: str | None = None
    warnings: tuple[str, ...] = ()
    finish_details: dict[str, Any] | None = None


Event: TypeAlias = (
    ResponseStarted
    | TextDelta
    | ReasoningDelta
    | RefusalDelta
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallFinished
    | Citation
    | MediaDelta
    | ProviderPart
    | UsageReported
    | Attempt
    | ToolProgress
    | ToolResult
    | RoundStarted
    | ResponseFinished
)
