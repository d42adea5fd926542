"""A conversation: the prompt of every call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeAlias, TypeVar

from lm_deluge.errors import InvalidPromptError
from lm_deluge.prompt.conversation_formats import ConversationFormats
from lm_deluge.prompt.media import Media, MediaSource
from lm_deluge.prompt.message import AudioSource, FileSource, ImageSource, Message
from lm_deluge.prompt.message_dicts import message_from_dict
from lm_deluge.prompt.partial_answer import closed_calls, without_open_calls
from lm_deluge.prompt.parts import FilePart, ImagePart, TextPart, ToolResultPart
from lm_deluge.prompt.printing import print_messages
from lm_deluge.prompt.trimming import trim_messages
from lm_deluge.usage import estimate_tokens

__all__ = ["Conversation", "Prompt", "check_prompts", "to_conversation"]

P = ParamSpec("P")
T = TypeVar("T")


class _Answer(Protocol):
    """The attributes of a response that `Conversation.add_answer` reads."""

    content: Message
    finish_reason: Any
    error: Any


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


class Conversation(ConversationFormats):
    """A list of messages. Methods change the conversation and return it, so that calls can be chained.

    On the class, `user`, `system`, `developer`, `assistant` and `ai` start a new conversation; on an instance they
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
        image: ImageSource | None = None,
        file: FileSource | None = None,
        audio: AudioSource | None = None,
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

    @_StartOrAppend
    def ai(self, text: str) -> Conversation:
        """Append a message of the model, as `assistant` does."""
        return self.add(Message.assistant(text))

    def with_message(self, message: Message) -> Conversation:
        """Append a message, as `add` does: all methods of a conversation change it."""
        return self.add(message)

    def with_response(self, response: _Answer | Message) -> Conversation:
        """Append the answer of a response, as `add_answer` does: all methods of a conversation change it."""
        return self.add_answer(response)

    def tool_result(
        self,
        tool_call_id: str,
        content: Any = "",
        *,
        is_error: bool = False,
        images: MediaSource | Media | Iterable[MediaSource | Media] = (),
    ) -> Conversation:
        """Append the result of a tool call.

        Args:
            tool_call_id: The id of the call.
            content: Text; other data is sent as JSON.
            is_error: The tool failed, and `content` is the reason.
            images: One image or several: paths, bytes, http(s) URLs or data URLs. APIs without images in tool results
                get them in a user message after the results.

        Raises:
            InvalidPromptError: `content` cannot be encoded as JSON, or an image cannot be read.

        Example:
            >>> for call in response.tool_calls:
            ...     conversation.tool_result(call.id, {"temperature": 21}, images="map.png")
        """
        return self.add(Message.tool_result(tool_call_id, content, is_error=is_error, images=images))

    def with_tool_result(self, tool_call_id: str, result: Any = "") -> Conversation:
        """Append the result of a tool call, as `tool_result` does: all methods of a conversation change it."""
        return self.tool_result(tool_call_id, result)

    def with_tool_results(self, results: Iterable[tuple[str, Any]]) -> Conversation:
        """Append the results of several tool calls, each as the id of the call and the result.

        Example:
            >>> conversation.with_tool_results([(call.id, "sunny") for call in response.tool_calls])
        """
        for tool_call_id, result in results:
            self.tool_result(tool_call_id, result)
        return self

    def add_answer(
        self, response: _Answer | Message, *, open_calls: Literal["drop", "close"] | None = None
    ) -> Conversation:
        """Append the answer of a response, complete or partial.

        Providers reject a conversation that has a tool call without a result. A complete answer keeps its calls, which
        wait for their results. An answer that was cancelled or broke off has calls that will never get one.

        Args:
            response: A response; of a failed or cancelled call its partial response.
            open_calls: `drop`: leave the calls out. `close`: keep them, and append a result for each that states that
                the call was cancelled. By default the calls of a partial answer are dropped, and those of a complete
                answer are kept.

        Raises:
            InvalidPromptError: The argument is no response, or `open_calls` has another value.

        Example:
            >>> partial = await stream.cancel()
            >>> conversation.add_answer(partial).user("Go on without the tool.")
        """
        message = response if isinstance(response, Message) else getattr(response, "content", None)
        if not isinstance(message, Message):
            raise InvalidPromptError(f"{type(response).__name__} is not a response", hint="Pass an APIResponse.")
        if open_calls not in (None, "drop", "close"):
            raise InvalidPromptError(f"open_calls={open_calls!r} is neither 'drop' nor 'close'")
        is_partial = not isinstance(response, Message) and (
            response.finish_reason in (None, "error") or response.error is not None
        )
        if open_calls == "close":
            for each in closed_calls(message, is_partial=is_partial):
                self.add(each)
            return self
        if open_calls == "drop" or is_partial:
            message = without_open_calls(message, is_partial=is_partial)
        return self.add(message) if message.parts else self

    def trimmed(self, max_tokens: int, *, count_tokens: Callable[[Conversation], int] | None = None) -> Conversation:
        """Return a copy with as many of the newest turns as fit; system messages stay.

        A turn starts with a message of the user and ends before the next one, so tool calls stay with their results.

        Args:
            max_tokens: Most tokens of the result. Leave room for the answer: together they must fit into
                `client.context_window()`.
            count_tokens: Returns the tokens of a conversation; by default they are estimated, as by `count_tokens`.

        Returns:
            A new conversation.

        Raises:
            ContextLengthError: The last turn and the system messages alone are longer.
            ConfigurationError: `max_tokens` is no positive number.

        Example:
            >>> recent = conversation.trimmed(8_000)
            >>> response = await client.stream(recent)
        """
        count = count_tokens or Conversation.count_tokens
        return Conversation(
            message.copy()
            for message in trim_messages(self.messages, max_tokens, lambda kept: count(Conversation(kept)))
        )

    def count_tokens(self, max_new_tokens: int = 0) -> int:
        """Return the estimated number of tokens of all messages; `client.count_tokens` asks the provider.

        Args:
            max_new_tokens: Added to the number: the tokens of an answer.
        """
        return estimate_tokens(self.text_length()) + max_new_tokens

    def print(self, max_text_length: int = 500, indent: int = 2) -> None:
        """Print the messages to stdout, for a look at them. Control characters are shown and have no effect.

        Args:
            max_text_length: Longer texts, arguments and results are cut, and marked so.
            indent: Spaces before the parts of a message, and in JSON.
        """
        print_messages(self.messages, max_text_length=max_text_length, indent=indent)

    def copy(self) -> Conversation:
        """Return a copy with messages of its own; their parts, which are immutable, are shared."""
        return Conversation(message.copy() for message in self.messages)

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

    @property
    def is_text(self) -> bool:
        """Whether all messages are texts, so that nothing needs to be checked or converted for an API."""
        for message in self.messages:
            for part in message.parts:
                if type(part) is not TextPart:
                    return False
        return True

    def text_length(self) -> int:
        """Return the number of characters of all text, tool calls and results, the basis of token estimates."""
        total = 0
        for message in self.messages:
            for part in message.parts:
                if type(part) is TextPart:  # nearly always
                    total += len(part.text)
                    continue
                text = getattr(part, "text", None) or getattr(part, "arguments_text", None)
                if isinstance(part, ToolResultPart):
                    text = part.content
                if isinstance(part, FilePart):
                    text = part.media.text
                # OpenAI counts 85 tokens for the smallest image; four characters stand for a token.
                total += len(text) if text else (340 if isinstance(part, ImagePart) else 0)
        return total


Prompt: TypeAlias = str | Conversation | Message | Mapping[str, Any] | Iterable[Message | Mapping[str, Any]]
"""The types that a call accepts as a prompt: text, a conversation, one message or several. A message may be a dict in
the format of Chat Completions: `{"role": "user", "content": "Hello"}`."""


def to_conversation(prompt: Prompt) -> Conversation:
    """Return `prompt` as a new conversation, with messages of its own: later changes of the prompt have no effect.

    Raises:
        InvalidPromptError: The prompt is empty, or not of a type that is accepted as a prompt.
    """
    if type(prompt) is str and prompt.strip():  # nearly always
        return Conversation((Message("user", (TextPart(prompt),)),))
    if isinstance(prompt, str):
        conversation = Conversation((Message.user(prompt),))
    elif isinstance(prompt, Message | Mapping):
        conversation = Conversation([_to_message(prompt)])
    elif isinstance(prompt, Conversation | list | tuple):
        conversation = Conversation(map(_to_message, prompt))
    else:
        raise InvalidPromptError(
            f"a prompt is text or a Conversation, not {type(prompt).__name__}",
            hint='A list of messages is accepted, too: [{"role": "user", "content": "..."}].',
        )
    if not any(map(_has_content, conversation.messages)):
        raise InvalidPromptError("the prompt is empty", hint="Give it some text, an image or a file.")
    return conversation


def _to_message(value: Any) -> Message:
    if isinstance(value, Message):
        return value.copy()
    return message_from_dict(value) if isinstance(value, Mapping) else value


def check_prompts(prompts: Iterable[T]) -> Iterable[T]:
    """Return the prompts of a batch.

    Raises:
        InvalidPromptError: The argument is a single prompt, of which each character or message would be sent as a
            prompt of its own, or no iterable.
    """
    if isinstance(prompts, str | bytes | Conversation | Message | Mapping):
        raise InvalidPromptError(
            f"a batch takes a list of prompts, not a single {type(prompts).__name__}", hint="Write [prompt]."
        )
    if hasattr(prompts, "columns") or not isinstance(prompts, Iterable):
        raise InvalidPromptError(
            f"a batch takes a list of prompts, not {type(prompts).__name__}",
            hint='Of a table pass one column: list(table["prompt"]).',
        )
    return prompts


def _has_content(message: Message) -> bool:
    return any(not isinstance(part, TextPart) or part.text.strip() for part in message.parts)
