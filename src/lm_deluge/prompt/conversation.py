"""A conversation: the prompt of every call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias

from lm_deluge.errors import InvalidPromptError
from lm_deluge.prompt.media import MediaSource
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ImagePart, TextPart, ToolResultPart

__all__ = ["Conversation", "Prompt", "to_conversation"]

P = ParamSpec("P")


class _StartOrAppend(Generic[P]):
    """Descriptor: `Conversation.user(...)` starts a conversation, `conversation.user(...)` appends to an existing one.

    A classmethod would silently drop the history in the second form.
    """

    def __init__(self, append: Callable[Concatenate[Conversation, P], Conversation]) -> None:
        self._append = append
        self.__doc__ = append.__doc__

    def __get__(self, instance: Conversation | None, owner: type[Conversation]) -> Callable[P, Conversation]:
        append = self._append

        def start_or_append(*args: P.args, **kwargs: P.kwargs) -> Conversation:
            return append(owner() if instance is None else instance, *args, **kwargs)

        start_or_append.__doc__ = append.__doc__
        return start_or_append


class Conversation:
    """A list of messages. Methods change the conversation and return it, so that calls can be chained.

    On the class, `user`, `system`, `developer` and `assistant` start a new conversation; on an instance they
    append to that instance.

    Args:
        messages: The first messages of the conversation.

    Raises:
        InvalidPromptError: An element of `messages` is not a `Message`.

    Example:
        >>> conversation = Conversation.system("Be brief.").user("Hello")
        >>> response = await client.stream(conversation)
        >>> conversation.add(response.content).user("Tell me more")
    """

    __slots__ = ("messages",)

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self.messages: list[Message] = []
        for message in messages:
            self.add(message)

    def add(self, message: Message) -> Conversation:
        """Append a message, for example the `content` of a response.

        Raises:
            InvalidPromptError: The argument is not a `Message`.
        """
        if not isinstance(message, Message):
            raise InvalidPromptError(
                f"a conversation takes messages, not {type(message).__name__}",
                hint="Create one with Message.user(...).",
            )
        self.messages.append(message)
        return self

    @_StartOrAppend
    def system(self, text: str) -> Conversation:
        """Append a system message, the instructions for the model."""
        return self.add(Message.system(text))

    @_StartOrAppend
    def developer(self, text: str) -> Conversation:
        """Append a developer message, the name of newer OpenAI models for system messages."""
        return self.add(Message.developer(text))

    @_StartOrAppend
    def user(
        self,
        text: str | None = None,
        *,
        image: MediaSource | None = None,
        file: MediaSource | None = None,
        audio: MediaSource | None = None,
    ) -> Conversation:
        """Append a user message.

        Args:
            text: The text, None for a message of media only.
            image: A path, bytes, an http(s) URL or a data URL.
            file: The same, for a document.
            audio: The same, for audio.

        Raises:
            InvalidPromptError: A file cannot be read, or the data is not an image or audio of a known format.
        """
        return self.add(Message.user(text, image=image, file=file, audio=audio))

    @_StartOrAppend
    def assistant(self, text: str) -> Conversation:
        """Append a message of the model, for example an earlier answer."""
        return self.add(Message.assistant(text))

    def tool_result(self, tool_call_id: str, content: Any) -> Conversation:
        """Append the result of a tool call; a `content` that is not text is sent as JSON."""
        return self.add(Message.tool_result(tool_call_id, content))

    def copy(self) -> Conversation:
        """Return a copy with a message list of its own; the messages, which are immutable, are shared."""
        return Conversation(self.messages)

    def __len__(self) -> int:
        return len(self.messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def __getitem__(self, index: int) -> Message:
        return self.messages[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Conversation) and self.messages == other.messages

    __hash__ = None  # type: ignore[assignment]  # mutable, so not hashable

    def __repr__(self) -> str:
        return f"Conversation({len(self.messages)} messages)"

    def text_length(self) -> int:
        """Return the number of characters of all text, tool calls and results, the basis of token estimates."""
        total = 0
        for message in self.messages:
            for part in message.parts:
                text = getattr(part, "text", None) or getattr(part, "arguments_text", None)
                if isinstance(part, ToolResultPart):
                    text = part.content
                # OpenAI counts 85 tokens for the smallest image; four characters stand for a token.
                total += len(text) if text else (340 if isinstance(part, ImagePart) else 0)
        return total


Prompt: TypeAlias = str | Conversation | Message | Iterable[Message]
"""The types that a call accepts as a prompt: text, a conversation, one message or several."""


def to_conversation(prompt: Prompt) -> Conversation:
    """Return `prompt` as a new conversation.

    Raises:
        InvalidPromptError: The prompt is empty, or not of a type that is accepted as a prompt.
    """
    if isinstance(prompt, str):
        conversation = Conversation((Message("user", (TextPart(prompt),)),))
    elif isinstance(prompt, Message):
        conversation = Conversation([prompt])
    elif isinstance(prompt, Conversation | list | tuple):
        conversation = Conversation(prompt)
    else:
        raise InvalidPromptError(f"a prompt is text or a Conversation, not {type(prompt).__name__}")
    if not any(map(_has_content, conversation.messages)):
        raise InvalidPromptError("the prompt is empty", hint="Give it some text, an image or a file.")
    return conversation


def _has_content(message: Message) -> bool:
    return any(not isinstance(part, TextPart) or part.text.strip() for part in message.parts)
