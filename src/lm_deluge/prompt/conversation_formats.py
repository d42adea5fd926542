"""The methods of a conversation that store it, and that convert it to and from the messages of other libraries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Self

from lm_deluge.errors import ConfigurationError
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.older_logs import is_older_log, read_older_log
from lm_deluge.prompt.stored import encode_messages, read_file, read_messages, to_data, write_file

__all__ = ["ConversationFormats"]


class ConversationFormats:
    """The base class of `Conversation` with everything that leaves or enters a program.

    The formats of the providers are those of the adapters and encoders, which are imported on first use.
    """

    __slots__ = ()

    messages: list[Message]

    @classmethod
    def _of(cls, messages: Iterable[Message]) -> Self:
        conversation = cls()
        conversation.messages.extend(messages)
        return conversation

    # --- JSON ---

    def save(self, path: str | PathLike[str]) -> None:
        """Write the conversation to a file as JSON, complete with media, reasoning and the data of providers.

        The file is replaced at once when it is complete, and only its owner can read it.

        Args:
            path: The file; it may exist.

        Raises:
            ConfigurationError: The file cannot be written.
            InvalidPromptError: The arguments of a tool call cannot be stored as JSON.

        Example:
            >>> conversation.save("chat.json")
            >>> conversation = Conversation.load("chat.json")
        """
        write_file(_path(path), encode_messages(self.messages) + "\n")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Return the conversation that `save`, or `/save` of `deluge chat`, wrote.

        Args:
            path: The file.

        Returns:
            A new conversation, equal to the one that was saved.

        Raises:
            ConfigurationError: The file cannot be read.
            InvalidPromptError: It is damaged, or of a newer version; the message has the file and the place.

        Example:
            >>> conversation = Conversation.load("chat.json")
            >>> response = await client.stream(conversation.user("Where were we?"))
        """
        return cls._of(read_file(_path(path)))

    def to_json(self) -> str:
        """Return the conversation as JSON text, as `save` writes it.

        Raises:
            InvalidPromptError: The arguments of a tool call cannot be stored as JSON.
        """
        return encode_messages(self.messages)

    @classmethod
    def from_json(cls, stored: str | bytes | Mapping[str, Any]) -> Self:
        """Return the conversation in JSON text of `to_json`, or in the data of such a text.

        Raises:
            InvalidPromptError: The text is damaged, or of a newer version; the message has the place.
        """
        return cls._of(read_messages(stored))

    def to_log(self) -> dict[str, Any]:
        """Return the data of `to_json`, which can be part of other JSON.

        Raises:
            InvalidPromptError: The arguments of a tool call cannot be stored as JSON.
        """
        return to_data(self.messages)

    @classmethod
    def from_log(cls, log: Mapping[str, Any]) -> Self:
        """Return the conversation in data of `to_log`, also in that of the older lm-deluge, without its signatures.

        Raises:
            InvalidPromptError: The data is neither.
        """
        return cls._of(read_older_log(log)) if is_older_log(log) else cls.from_json(log)

    # --- the messages of other libraries ---

    def to_openai(self, *, provider: str | None = None) -> list[dict[str, Any]]:
        """Return the messages of Chat Completions, for OpenAI's library and those that take the same.

        What the format has no field for is left out: reasoning, and opaque data of other providers.

        Args:
            provider: The provider that gets the messages; its own opaque data is kept. None: OpenAI.

        Raises:
            UnsupportedParameterError: A part cannot be sent in this format, a document by URL for example.

        Example:
            >>> completion = openai.OpenAI().chat.completions.create(model="gpt-5.4", messages=conversation.to_openai())
        """
        from lm_deluge.formats.outgoing import build_openai

        return build_openai(self.messages, provider)

    @classmethod
    def from_openai(cls, messages: Iterable[Any], *, provider: str | None = None) -> Self:
        """Return the conversation in messages of Chat Completions.

        Args:
            messages: Dicts, or objects of OpenAI's library.
            provider: The provider that the answers are from; opaque data is sent back to it only. None: OpenAI.

        Raises:
            InvalidPromptError: A message has another form; the error names its number and the field.

        Example:
            >>> conversation = Conversation.from_openai([{"role": "user", "content": "Hello"}])
        """
        from lm_deluge.formats.incoming import read_openai

        return cls._of(read_openai(messages, provider))

    from_openai_chat = from_openai

    def to_openai_responses(self) -> dict[str, Any]:
        """Return the field `input` of OpenAI's Responses API, with the encrypted reasoning of its own answers.

        Raises:
            UnsupportedParameterError: A part cannot be sent in this format, audio for example.

        Example:
            >>> answer = openai.OpenAI().responses.create(model="gpt-5.4", **conversation.to_openai_responses())
        """
        from lm_deluge.formats.outgoing import build_openai_responses

        return build_openai_responses(self.messages)

    @classmethod
    def from_openai_responses(cls, items: Iterable[Any], *, instructions: str | None = None) -> Self:
        """Return the conversation in input and output items of OpenAI's Responses API.

        Args:
            items: Dicts, or objects of OpenAI's library: `[*input, *response.output]`.
            instructions: The system message, which this API has in a field of its own.

        Raises:
            InvalidPromptError: An item has another form; the error names its number and the field.
        """
        from lm_deluge.formats.incoming import read_openai_responses

        return cls._of(read_openai_responses(items, instructions))

    def to_anthropic(self, cache_pattern: Any = None) -> tuple[str | list[dict[str, Any]] | None, list[dict[str, Any]]]:
        """Return the system text and the messages for Anthropic's library.

        Reasoning is kept if it has Anthropic's signature; opaque data of other providers is left out.

        Args:
            cache_pattern: The part of the prompt to cache, as `cache` in `LLMClient.stream`.

        Returns:
            The field `system`, None without one, and the field `messages`.

        Raises:
            UnsupportedParameterError: A part cannot be sent in this format, audio for example.

        Example:
            >>> system, messages = conversation.to_anthropic()
            >>> anthropic.Anthropic().messages.create(model=model, max_tokens=500, system=system, messages=messages)
        """
        from lm_deluge.formats.outgoing import build_anthropic

        return build_anthropic(self.messages, cache_pattern)

    @classmethod
    def from_anthropic(cls, messages: Iterable[Any], *, system: Any = None) -> Self:
        """Return the conversation in messages of Anthropic's library.

        Args:
            messages: Dicts, or objects of Anthropic's library.
            system: The field `system`: text, or text blocks.

        Raises:
            InvalidPromptError: A message has another form; the error names its number and the field.

        Example:
            >>> conversation = Conversation.from_anthropic([{"role": "user", "content": "Hello"}], system="Be brief.")
        """
        from lm_deluge.formats.incoming import read_anthropic

        return cls._of(read_anthropic(messages, system))

    def to_gemini(self) -> tuple[str | None, list[dict[str, Any]]]:
        """Return the system instruction and the contents for Google's library.

        Raises:
            UnsupportedParameterError: A part cannot be sent in this format.

        Example:
            >>> instruction, contents = conversation.to_gemini()
        """
        from lm_deluge.formats.outgoing import build_gemini

        return build_gemini(self.messages)

    def to_mistral(self) -> list[dict[str, Any]]:
        """Return the messages for Mistral's library.

        Raises:
            UnsupportedParameterError: A part cannot be sent in this format.
        """
        from lm_deluge.formats.outgoing import build_mistral

        return build_mistral(self.messages)

    @classmethod
    def from_unknown(cls, messages: Any, *, system: Any = None) -> tuple[Self, str]:
        """Return the conversation in messages whose format is not known, and the name of the format.

        Args:
            messages: A list of messages, or the data of `to_log`.
            system: The system text, in formats that do not have it among the messages.

        Returns:
            The conversation, and `openai`, `openai-responses`, `anthropic` or `log`.

        Raises:
            InvalidPromptError: The messages are in none of these formats.

        Example:
            >>> conversation, format_name = Conversation.from_unknown(messages)
        """
        from lm_deluge.formats.incoming import find_format

        name, read = find_format(messages, system)
        return (cls.from_log(messages) if read is None else cls._of(read())), name


def _path(path: str | PathLike[str]) -> Path:
    if not isinstance(path, str | PathLike):
        raise ConfigurationError(f"a file is named by a path, not by {type(path).__name__}")
    return Path(path)
