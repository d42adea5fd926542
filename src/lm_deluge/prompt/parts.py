"""The parts of a message: text, media, tool calls and opaque data, one closed union."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from lm_deluge.prompt.media import Media, MediaSource, load_media

__all__ = [
    "AudioPart",
    "File",
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
    """One of the most likely tokens at a position."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None


class TokenLogprob(msgspec.Struct, frozen=True, gc=False):
    """A generated token and how likely it was (natural logarithm).

    `bytes` is the token in UTF-8, as a token can be a part of a character; `top_logprobs` are the requested
    alternatives.
    """

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top_logprobs: tuple[TopLogprob, ...] = ()


class TextPart(msgspec.Struct, frozen=True, gc=False, tag="text"):
    """Text. `logprobs` is set only on generated text, if the request asked for log probabilities."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class ReasoningPart(msgspec.Struct, frozen=True, gc=False, tag="reasoning"):
    """The model's reasoning, or its summary, as far as the provider discloses it."""

    text: str


class RefusalPart(msgspec.Struct, frozen=True, gc=False, tag="refusal"):
    """The model's refusal, where the provider separates it from text."""

    text: str


class ImagePart(msgspec.Struct, frozen=True, tag="image"):
    """An image. `detail` is `low`, `high` or `auto`, where the API supports it."""

    media: Media
    detail: str | None = None


class FilePart(msgspec.Struct, frozen=True, tag="file"):
    """A document, a PDF for example."""

    media: Media


def File(  # noqa: N802 - named like the class of the older lm-deluge
    data: MediaSource | Media, filename: str | None = None, *, media_type: str | None = None
) -> FilePart:
    """Return a document as a part of a message.

    Args:
        data: A path, bytes, an http(s) URL or a data URL.
        filename: By default the name of the path.
        media_type: By default detected from the data and the file's name.

    Returns:
        A `FilePart`, for `Message.add_file(file)` or `message.parts.append(file)`.

    Raises:
        InvalidPromptError: The file cannot be read.

    Example:
        >>> report = File("report.pdf", filename="Q4.pdf")
        >>> message = Message.user("Summarize the report.").add_file(report)
    """
    return FilePart(load_media(data, kind="file", media_type=media_type, filename=filename))


class AudioPart(msgspec.Struct, frozen=True, tag="audio"):
    """Recorded or generated audio. `transcript` is set on generated audio only."""

    media: Media
    transcript: str | None = None


class ToolCallPart(msgspec.Struct, frozen=True, tag="tool_call"):
    """A tool call of the model; the fields are those of the event `ToolCallFinished`."""

    id: str
    name: str
    arguments_text: str = ""
    arguments: Any = None
    arguments_error: str | None = None
    custom: bool = False


class ToolResultPart(msgspec.Struct, frozen=True, tag="tool_result"):
    """The result of the tool call `tool_call_id`: text, followed by media. `is_error`: the tool failed."""

    tool_call_id: str
    content: str = ""
    media: tuple[ImagePart | FilePart | AudioPart, ...] = ()
    is_error: bool = False


class ProviderDataPart(msgspec.Struct, frozen=True, tag="provider_data"):
    """Opaque data of a provider, sent back to the same provider only.

    It directly follows the part that it belongs to (the signature of a reasoning part or a tool call), or is
    independent of other parts (the call of a tool that the provider runs); `kind` distinguishes them.
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
