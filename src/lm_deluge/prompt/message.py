"""One message of a conversation."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from lm_deluge.errors import InvalidPromptError
from lm_deluge.prompt.media import Media, MediaSource, load_media
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from lm_deluge.prompt.plain_values import to_plain

__all__ = ["Message", "Role"]

Role = Literal["system", "developer", "user", "assistant", "tool"]


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message of a conversation, immutable.

    Create it with `Message.user(...)`, `Message.system(...)` and the other class methods; each `with_*` method
    returns a copy with one more part.

    Attributes:
        role: `system`, `developer`, `user`, `assistant` or `tool`.
        parts: Text, media, tool calls and so on, in order.
        name: Name of the author, where the API supports it.

    Raises:
        InvalidPromptError: A text is not a str, or an image, file or audio cannot be read or has an unknown format.

    Example:
        >>> message = Message.user("What is in this picture?").with_image("photo.png")
        >>> response = await client.stream(message)
    """

    role: Role
    parts: tuple[Part, ...] = ()
    name: str | None = None

    @classmethod
    def system(cls, text: str) -> Message:
        """Return a system message, the instructions for the model."""
        return cls("system", (_text(text),))

    @classmethod
    def developer(cls, text: str) -> Message:
        """Return a developer message, the name of newer OpenAI models for system messages."""
        return cls("developer", (_text(text),))

    @classmethod
    def user(
        cls,
        text: str | None = None,
        *,
        image: MediaSource | None = None,
        file: MediaSource | None = None,
        audio: MediaSource | None = None,
    ) -> Message:
        """Return a user message: text, and media as path, bytes, http(s) URL or data URL."""
        message = cls("user", () if text is None else (_text(text),))
        if image is not None:
            message = message.with_image(image)
        if file is not None:
            message = message.with_file(file)
        return message if audio is None else message.with_audio(audio)

    @classmethod
    def assistant(cls, text: str | None = None, *, tool_calls: Iterable[ToolCallPart] = ()) -> Message:
        """Return a message of the model, for example an earlier answer or an example of one."""
        return cls("assistant", (*(() if text is None else (_text(text),)), *tool_calls))

    @classmethod
    def tool_result(
        cls,
        tool_call_id: str,
        content: Any = "",
        *,
        is_error: bool = False,
        images: MediaSource | Media | Iterable[MediaSource | Media] = (),
    ) -> Message:
        """Return the result of a tool call.

        Args:
            tool_call_id: The id of the call.
            content: Text; other data is sent as JSON.
            is_error: The tool failed, and `content` is the reason.
            images: One image or several: paths, bytes, http(s) URLs or data URLs.

        Raises:
            InvalidPromptError: `content` cannot be encoded as JSON, or an image cannot be read.

        Example:
            >>> call = response.tool_calls[0]
            >>> result = Message.tool_result(call.id, "The city is unknown.", is_error=True)
        """
        if isinstance(content, str):
            text = str.__str__(content)
        else:
            try:
                text = json.dumps(to_plain(content), ensure_ascii=False)
            except (TypeError, ValueError, RecursionError) as error:
                raise InvalidPromptError("a tool result must be text or data that can be encoded as JSON") from error
        sources = [images] if isinstance(images, str | Path | bytes | bytearray | Media) else images
        media = tuple(ImagePart(load_media(source, kind="image")) for source in sources)
        return cls("tool", (ToolResultPart(str(tool_call_id), text, media, is_error),))

    def with_text(self, text: str) -> Message:
        """Return the message with one more text part."""
        return self._with(_text(text))

    def with_image(self, image: MediaSource | Media, *, detail: str | None = None) -> Message:
        """Return the message with an image, whose format is detected from its first bytes.

        Args:
            image: A path, bytes, an http(s) URL or a data URL.
            detail: `low`, `high` or `auto`, where the API supports it.
        """
        return self._with(ImagePart(load_media(image, kind="image"), detail))

    def with_file(
        self, file: MediaSource | Media, *, media_type: str | None = None, filename: str | None = None
    ) -> Message:
        """Return the message with a document: a PDF, a text file and so on.

        Text (UTF-8) is accepted by every API: where an API has no text files, it is sent as text with the file's name.

        Args:
            file: A path, bytes, an http(s) URL or a data URL.
            media_type: By default detected from the data and the file's name.
            filename: By default the name of the path.
        """
        return self._with(FilePart(load_media(file, kind="file", media_type=media_type, filename=filename)))

    def with_audio(self, audio: MediaSource | Media) -> Message:
        """Return the message with audio, whose format is detected from its first bytes."""
        return self._with(AudioPart(load_media(audio, kind="audio")))

    def _with(self, part: Part) -> Message:
        return Message(self.role, (*self.parts, part), self.name)

    @property
    def completion(self) -> str:
        """The text parts of the message, joined."""
        return "".join([part.text for part in self.parts if type(part) is TextPart])

    text = completion

    @property
    def thinking(self) -> str:
        """The reasoning parts of the message, joined."""
        return "".join([part.text for part in self.parts if type(part) is ReasoningPart])

    @property
    def refusal(self) -> str:
        """The refusal parts of the message, joined; empty if the model did not refuse."""
        return "".join([part.text for part in self.parts if type(part) is RefusalPart])

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The tool calls of the message, in order."""
        return tuple(part for part in self.parts if type(part) is ToolCallPart)


def _text(text: str) -> TextPart:
    if not isinstance(text, str):
        raise InvalidPromptError(f"message text must be a str, not {type(text).__name__}")
    return TextPart(str.__str__(text))  # a plain str in place of a subclass such as numpy.str_
