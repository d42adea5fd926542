"""One message of a conversation."""

from __future__ import annotations

import json
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, overload

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

__all__ = ["Message", "Parts", "Role"]

Role = Literal["system", "developer", "user", "assistant", "tool"]


class Parts(list[Part]):
    """The parts of a message: a list that also equals a tuple of the same parts, as do its slices."""

    __slots__ = ()
    __hash__ = None  # mutable, so not hashable

    @overload
    def __getitem__(self, index: SupportsIndex) -> Part: ...
    @overload
    def __getitem__(self, index: slice) -> Parts: ...
    def __getitem__(self, index: Any) -> Any:
        found = list.__getitem__(self, index)
        return Parts(found) if isinstance(index, slice) else found

    def __eq__(self, other: object) -> bool:
        return list.__eq__(self, list(other) if isinstance(other, tuple) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message of a conversation: a role that stays, and parts that can grow.

    Create it with `Message.user(...)`, `Message.system(...)` and the other class methods. Each `add_*` method appends a
    part to the message and returns the message; each `with_*` method returns a copy with one more part. A call sends
    the message as it is when the call is made.

    Attributes:
        role: `system`, `developer`, `user`, `assistant` or `tool`.
        parts: Text, media, tool calls and so on, in order: a list of the message's own.
        name: Name of the author, where the API supports it.

    Raises:
        InvalidPromptError: A text is not a str, or an image, file or audio cannot be read or has an unknown format.

    Example:
        >>> message = Message.user("What is in this picture?").add_image("photo.png")
        >>> response = await client.stream(message)
    """

    role: Role
    parts: list[Part] = []
    name: str | None = None

    if TYPE_CHECKING:  # the parts may come from any iterable

        def __init__(self, role: Role, parts: Iterable[Part] = (), name: str | None = None) -> None: ...

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "parts", Parts(self.parts))

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
        image: ImageSource | None = None,
        file: FileSource | None = None,
        audio: AudioSource | None = None,
    ) -> Message:
        """Return a user message: text, and media as path, bytes, http(s) URL or data URL."""
        message = cls("user", () if text is None else (_text(text),))
        if image is not None:
            message.add_image(image)
        if file is not None:
            message.add_file(file)
        return message if audio is None else message.add_audio(audio)

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
        return cls("tool", (_result(tool_call_id, content, is_error=is_error, images=images),))

    @classmethod
    def ai(cls, text: str | None = None) -> Message:
        """Return a message of the model, as `assistant` does."""
        return cls.assistant(text)

    def copy(self) -> Message:
        """Return a copy with a list of parts of its own; the parts themselves are immutable."""
        return Message(self.role, self.parts, self.name)

    def add_text(self, text: str) -> Message:
        """Append a text, and return the message."""
        return self._add(_text(text))

    def add_image(self, image: ImageSource, *, detail: str | None = None) -> Message:
        """Append an image, whose format is detected from its first bytes, and return the message.

        Args:
            image: A path, bytes, an http(s) URL, a data URL, or an `ImagePart`.
            detail: `low`, `high` or `auto`, where the API supports it.
        """
        return self._add(_image(image, detail))

    def add_file(self, file: FileSource, *, media_type: str | None = None, filename: str | None = None) -> Message:
        """Append a document (a PDF, a text file and so on), and return the message.

        Text (UTF-8) is accepted by every API: where an API has no text files, it is sent as text with the file's name.

        Args:
            file: A path, bytes, an http(s) URL, a data URL, or what `File` returns.
            media_type: By default detected from the data and the file's name.
            filename: By default the name of the path.
        """
        return self._add(_file(file, media_type, filename))

    def add_audio(self, audio: AudioSource) -> Message:
        """Append audio, whose format is detected from its first bytes, and return the message."""
        return self._add(_audio(audio))

    def add_tool_call(self, id: str, name: str, arguments: Any = None) -> Message:
        """Append a tool call, for example of an earlier answer, and return the message.

        Args:
            id: The id, to which the result refers.
            name: The name of the tool.
            arguments: The arguments: a dict, or their JSON text as the model wrote it.

        Raises:
            InvalidPromptError: The arguments cannot be encoded as JSON.
        """
        return self._add(_call(id, name, arguments))

    def add_tool_result(
        self,
        tool_call_id: str,
        result: Any = "",
        *,
        is_error: bool = False,
        images: MediaSource | Media | Iterable[MediaSource | Media] = (),
    ) -> Message:
        """Append the result of a tool call, and return the message. Arguments as in `Message.tool_result`."""
        return self._add(_result(tool_call_id, result, is_error=is_error, images=images))

    def add_thinking(self, text: str) -> Message:
        """Append reasoning without a signature, and return the message.

        Only hosts that take reasoning back as text receive it; others need the signature of their own answers.
        """
        return self._add(ReasoningPart(_text(text).text))

    def with_text(self, text: str) -> Message:
        """Return a copy with one more text part."""
        return self._with(_text(text))

    def with_image(self, image: ImageSource, *, detail: str | None = None) -> Message:
        """Return a copy with one more image. Arguments as in `add_image`."""
        return self._with(_image(image, detail))

    def with_file(self, file: FileSource, *, media_type: str | None = None, filename: str | None = None) -> Message:
        """Return a copy with one more document. Arguments as in `add_file`."""
        return self._with(_file(file, media_type, filename))

    def with_audio(self, audio: AudioSource) -> Message:
        """Return a copy with more audio. Arguments as in `add_audio`."""
        return self._with(_audio(audio))

    def with_tool_call(self, id: str, name: str, arguments: Any = None) -> Message:
        """Return a copy with one more tool call. Arguments as in `add_tool_call`."""
        return self._with(_call(id, name, arguments))

    def with_tool_result(self, tool_call_id: str, result: Any = "", *, is_error: bool = False) -> Message:
        """Return a copy with one more result of a tool. Arguments as in `add_tool_result`."""
        return self._with(_result(tool_call_id, result, is_error=is_error, images=()))

    def with_thinking(self, text: str) -> Message:
        """Return a copy with more reasoning, see `add_thinking`."""
        return self._with(ReasoningPart(_text(text).text))

    def _add(self, part: Part) -> Message:
        self.parts.append(part)
        return self

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

    @property
    def tool_results(self) -> tuple[ToolResultPart, ...]:
        """The results of tools in the message, in order."""
        return tuple(part for part in self.parts if type(part) is ToolResultPart)

    @property
    def images(self) -> tuple[ImagePart, ...]:
        """The images of the message, in order; those of tool results are in the results."""
        return tuple(part for part in self.parts if type(part) is ImagePart)

    @property
    def files(self) -> tuple[FilePart, ...]:
        """The documents of the message, in order."""
        return tuple(part for part in self.parts if type(part) is FilePart)


ImageSource = MediaSource | Media | ImagePart
FileSource = MediaSource | Media | FilePart
AudioSource = MediaSource | Media | AudioPart


def _text(text: str) -> TextPart:
    if not isinstance(text, str):
        raise InvalidPromptError(f"message text must be a str, not {type(text).__name__}")
    return TextPart(str.__str__(text))  # a plain str in place of a subclass such as numpy.str_


def _image(image: ImageSource, detail: str | None) -> ImagePart:
    if isinstance(image, ImagePart):
        return image if detail is None else ImagePart(image.media, detail)
    return ImagePart(load_media(image, kind="image"), detail)


def _file(file: FileSource, media_type: str | None, filename: str | None) -> FilePart:
    source = file.media if isinstance(file, FilePart) else file
    return FilePart(load_media(source, kind="file", media_type=media_type, filename=filename))


def _audio(audio: AudioSource) -> AudioPart:
    return audio if isinstance(audio, AudioPart) else AudioPart(load_media(audio, kind="audio"))


def _call(call_id: str, name: str, arguments: Any) -> ToolCallPart:
    if isinstance(arguments, str):
        try:
            return ToolCallPart(call_id, name, arguments, json.loads(arguments) if arguments.strip() else {})
        except (ValueError, RecursionError):  # the model wrote the text, so invalid JSON is passed on
            return ToolCallPart(call_id, name, arguments, None, "the arguments are not JSON")
    plain = {} if arguments is None else to_plain(arguments)
    try:
        return ToolCallPart(call_id, name, json.dumps(plain, ensure_ascii=False), plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidPromptError("the arguments of a tool call must be data that can be encoded as JSON") from error


def _result(
    tool_call_id: str,
    content: Any,
    *,
    is_error: bool,
    images: MediaSource | Media | Iterable[MediaSource | Media],
) -> ToolResultPart:
    if isinstance(content, str):
        text = str.__str__(content)
    else:
        try:
            text = json.dumps(to_plain(content), ensure_ascii=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidPromptError("a tool result must be text or data that can be encoded as JSON") from error
    sources = [images] if isinstance(images, str | Path | bytes | bytearray | BytesIO | Media) else images
    media = tuple(ImagePart(load_media(source, kind="image")) for source in sources)
    return ToolResultPart(str(tool_call_id), text, media, is_error)
