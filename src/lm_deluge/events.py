"""What a stream is made of: one closed union, the same for every provider, live or not.

Order: `ResponseStarted (delta | Attempt | UsageReported ...)* ResponseFinished`. Exactly one start and one
finish, whatever retries happened in between. Events are held back until the first delta: so the start names the
attempt that is kept, and the `Attempt` events of those that were not follow right behind it. In background mode, and
with `on_break="continue"`, a stream that broke goes on behind an `Attempt`, wherever that is.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from lm_deluge.prompt.parts import TokenLogprob, TopLogprob
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
    "TextDelta",
    "TokenLogprob",
    "ToolCallDelta",
    "ToolCallFinished",
    "ToolCallStarted",
    "TopLogprob",
    "UsageReported",
]

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "pause", "error"]


class ResponseStarted(msgspec.Struct, frozen=True, gc=False, tag="response_started"):
    """The first event: who answers. `model` is the name that the provider gives itself."""

    response_id: str | None = None
    model: str | None = None


class TextDelta(msgspec.Struct, frozen=True, gc=False, tag="text_delta"):
    """A piece of the answer. Empty only where it carries nothing but log probabilities."""

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
    """The model calls a tool.

    Attributes:
        index: Position among the calls of this answer, from 0, in order of appearance.
        id: The provider's id of the call; made up (`call_<index>`) where it gives none.
        name: The tool's name, whole.
        custom: The input is free text, not JSON.
    """

    index: int
    id: str
    name: str
    custom: bool = False


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False, tag="tool_call_delta"):
    """A fragment of a call's arguments: a piece of JSON text that need not stand alone."""

    index: int
    arguments: str


class ToolCallFinished(msgspec.Struct, frozen=True, tag="tool_call_finished"):
    """The call is complete.

    Attributes:
        arguments: The parsed JSON; `{}` for empty text; None where `arguments_error` says why it is none.
        arguments_text: What the model wrote, never repaired.
        arguments_error: Why the text is not JSON, or None.
    """

    index: int
    id: str
    name: str
    arguments_text: str
    arguments: Any = None
    arguments_error: str | None = None
    custom: bool = False


class Citation(msgspec.Struct, frozen=True, tag="citation"):
    """A source that the answer names. `start` and `end` count characters of the answer's text."""

    url: str | None = None
    title: str | None = None
    start: int | None = None
    end: int | None = None
    raw: dict[str, Any] | None = None


class MediaDelta(msgspec.Struct, frozen=True, gc=False, tag="media_delta"):
    """A generated image or a piece of generated audio: base64 text, or the URL where it lies."""

    media_type: str
    data: str = ""
    url: str | None = None
    id: str | None = None
    transcript: str | None = None


class ProviderPart(msgspec.Struct, frozen=True, tag="provider_part"):
    """Opaque data of the provider, to be sent back to it on the next turn and to nobody else."""

    provider: str
    kind: str
    data: Any


class UsageReported(msgspec.Struct, frozen=True, gc=False, tag="usage_reported"):
    """The provider's count so far, with that of attempts that it goes on from. The last one holds, never a sum."""

    usage: Usage


class Attempt(msgspec.Struct, frozen=True, gc=False, tag="attempt"):
    """An attempt failed and another one follows; or it was silent for long, and another one began beside it.

    Attributes:
        number: The attempt that begins now, from 2.
        error: Class name of what ended the one before; `Hedge` where it was only silent.
        message: What that error said; for how long nothing came.
        wait_s: Seconds waited in between.
        model: Our name of the model that is asked now.
        goes_on: The answer goes on where it broke. Else it begins anew: what came before is no part of it.
    """

    number: int
    error: str
    message: str
    wait_s: float
    model: str
    goes_on: bool = False


class ResponseFinished(msgspec.Struct, frozen=True, gc=False, tag="response_finished"):
    """The last event. `raw_finish_reason` is the provider's own word, None where it gave none."""

    finish_reason: FinishReason
    raw_finish_reason: str | None = None
    warnings: tuple[str, ...] = ()


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
    | ResponseFinished
)
