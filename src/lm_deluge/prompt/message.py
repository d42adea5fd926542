"""One message of a conversation."""

from __future__ import annotations

import json
from collections.abc import Iterable
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

__all__ = ["Message", "Role"]

Role = Literal["system", "developer", "user", "assistant", "tool"]


class Message(msgspec.Struct, frozen=True, gc=False):
    """Who says what. Built with `Message.user(...)` and its kin; a `with_*` method returns a longer message.

    Raises:
        InvalidPromptError: A part is of a wrong type, or a medium is not what it should be.
    """

    role: Role
    parts: tuple[Part, ...] = ()
    name: str | None = None

    @classmethod
    def system(cls, text: str) -> Message:
        """Start a message that tells the model how to behave."""
        return cls("system", (_text(text),))

    @classmethod
    def developer(cls, text: str) -> Message:
        """Start what newer OpenAI models take for a system message."""
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
        """Start a message of the user: text, and media as path, bytes, URL or data URL."""
        message = cls("user", () if text is None else (_text(text),))
        if image is not None:
            message = message.with_image(image)
        if file is not None:
            message = message.with_file(file)
        return message if audio is None else message.with_audio(audio)

    @classmethod
    def assistant(cls, text: str | None = None, *, tool_calls: Iterable[ToolCallPart] = ()) -> Message:
        """Start a message of the model, as it was answered or should have been."""
        return cls("assistant", (*(() if text is None else (_text(text),)), *tool_calls))

    @classmethod
    def tool_result(cls, tool_call_id: str, content: Any) -> Message:
        """Answer a tool call; what is no text is sent as JSON."""
        if not isinstance(content, str):
            try:
                content = json.dumps(content, ensure_ascii=False)
            except (TypeError, ValueError) as error:
                raise InvalidPromptError("a tool result must be text or fit into JSON") from error
        return cls("tool", (ToolResultPart(tool_call_id, content),))

    def with_text(self, text: str) -> Message:
        """Return the message with one more piece of text."""
        return self._with(_text(text))

    def with_image(self, image: MediaSource | Media, *, detail: str | None = None) -> Message:
        """Return the message with an image; its kind is read from its bytes."""
        return self._with(ImagePart(load_media(image, kind="image"), detail))

    def with_file(
        self, file: MediaSource | Media, *, media_type: str | None = None, filename: str | None = None
    ) -> Message:
        """Return the message with a document."""
        media = load_media(file, kind="file", media_type=media_type)
        return self._with(FilePart(msgspec.structs.replace(media, filename=filename or media.filename)))

    def with_audio(self, audio: MediaSource | Media) -> Message:
        """Return the message with sound."""
        return self._with(AudioPart(load_media(audio, kind="audio")))

    def _with(self, part: Part) -> Message:
        return Message(self.role, (*self.parts, part), self.name)

    @property
    def completion(self) -> str:
        """All text of the message, joined."""
        return "".join([part.text for part in self.parts if type(part) is TextPart])

    text = completion

    @property
    def thinking(self) -> str:
        """All reasoning text of the message, joined."""
        return "".join([part.text for part in self.parts if type(part) is ReasoningPart])

    @property
    def refusal(self) -> str:
        """The model's refusal, or an empty text."""
        return "".join([part.text for part in self.parts if type(part) is RefusalPart])

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The calls of the message, in order."""
        return tuple(part for part in self.parts if type(part) is ToolCallPart)


def _text(text: str) -> TextPart:
    if not isinstance(text, str):
        raise InvalidPromptError(f"message text must be a str, not {type(text).__name__}")
    return TextPart(text)
