"""What a message is made of."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from lm_deluge.prompt.media import Media

__all__ = [
    "AudioPart",
    "FilePart",
    "ImagePart",
    "Part",
    "ProviderDataPart",
    "ReasoningPart",
    "RefusalPart",
    "TextPart",
    "TokenLogprob",
    "ToolCallPart",
    "ToolResultPart",
    "TopLogprob",
]


class TopLogprob(msgspec.Struct, frozen=True, gc=False):
    """One of the likeliest tokens at a position."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None


class TokenLogprob(msgspec.Struct, frozen=True, gc=False):
    """A generated token and how likely it was (natural logarithm).

    `bytes` is the token's UTF-8, for tokens that are a part of a character; `top_logprobs` are the
    alternatives that were asked for.
    """

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top_logprobs: tuple[TopLogprob, ...] = ()


class TextPart(msgspec.Struct, frozen=True, gc=False, tag="text"):
    """Text. `logprobs` only on generated text for which they were asked."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class ReasoningPart(msgspec.Struct, frozen=True, gc=False, tag="reasoning"):
    """What the model thought, as far as the provider shows it."""

    text: str


class RefusalPart(msgspec.Struct, frozen=True, gc=False, tag="refusal"):
    """The model's refusal, where the provider keeps it apart from text."""

    text: str


class ImagePart(msgspec.Struct, frozen=True, tag="image"):
    """An image. `detail` is `low`, `high` or `auto` where the API knows it."""

    media: Media
    detail: str | None = None


class FilePart(msgspec.Struct, frozen=True, tag="file"):
    """A document, a PDF for example."""

    media: Media


class AudioPart(msgspec.Struct, frozen=True, tag="audio"):
    """Recorded or generated sound. `transcript` comes with generated sound."""

    media: Media
    transcript: str | None = None


class ToolCallPart(msgspec.Struct, frozen=True, tag="tool_call"):
    """A call that the model made; fields as in `ToolCallFinished`."""

    id: str
    name: str
    arguments_text: str = ""
    arguments: Any = None
    arguments_error: str | None = None
    custom: bool = False


class ToolResultPart(msgspec.Struct, frozen=True, tag="tool_result"):
    """What a tool answered to the call `tool_call_id`: text, and media behind it. `is_error`: the tool failed."""

    tool_call_id: str
    content: str = ""
    media: tuple[ImagePart | FilePart | AudioPart, ...] = ()
    is_error: bool = False


class ProviderDataPart(msgspec.Struct, frozen=True, tag="provider_data"):
    """Opaque data of a provider, echoed to that provider and to no other.

    It stands right behind the part that it belongs to (the signature of a thought, of a call), or for itself
    (a server's own tool); `kind` says which.
    """

    provider: str
    kind: str
    data: Any


Part: TypeAlias = (
    TextPart
    | ReasoningPart
    | RefusalPart
    | ImagePart
    | FilePart
    | AudioPart
    | ToolCallPart
    | ToolResultPart
    | ProviderDataPart
)
