"""The state of a chat: the conversation, the model, the usage so far."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import msgspec

from lm_deluge.cli.options import CommandOptions, build_client, model_of
from lm_deluge.cli.render.output import Output
from lm_deluge.cli.render.stream_view import show_stream
from lm_deluge.errors import ConfigurationError, DelugeError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import TextPart
from lm_deluge.response import APIResponse
from lm_deluge.usage import Usage

__all__ = ["ChatSession"]

_SIMULATOR = "simulator"


class _SavedChat(msgspec.Struct):
    """The contents of a saved chat."""

    messages: list[Message]
    model: str = ""
    usage: Usage = Usage()
    cost: float | None = None


def _read(path: Path) -> _SavedChat:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_SavedChat)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path.name}: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ConfigurationError(
            f"{path.name} is not a chat that /save has written",
            hint="Markdown files cannot be resumed, JSON files can.",
        ) from None


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, also if it existed before."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        if path.is_file():  # /dev/stdout is none, and its permissions are not ours to change
            path.chmod(0o600)
            file.truncate()
        file.write(text.encode("utf-8", "replace"))


class ChatSession:
    """A conversation with a model.

    Attributes:
        model: The name of the model.
        client: The client of that model.
        notice: A notice for the user about the client, or None.
        system: The system message, or None.
        messages: The messages that were answered, each with its answer.
        unanswered: The last message if its call failed, so that the user can send it again; else None.
        partial: The part of the answer to `unanswered` that was received, so that the user can keep it; else None.
        usage: The tokens of all calls so far.
        cost: The cost of all calls so far in US dollars; None if no call had a known price.
    """

    def __init__(self, settings: CommandOptions) -> None:
        self._settings = settings
        self.model = model_of(settings)
        self.client, self.notice = build_client(settings)
        self.system = settings.system
        self.messages: list[Message] = []
        self.unanswered: Message | None = None
        self.partial: APIResponse | None = None
        self.usage = Usage()
        self.cost: float | None = None
        self._own_files: set[Path] = set()

    @classmethod
    def resume(cls, settings: CommandOptions, path: Path) -> ChatSession:
        """Return the session that `save` has written as JSON. The options of the command override what is in the file.

        Raises:
            ConfigurationError: The file cannot be read, or it is not such a file.
        """
        path = path.expanduser()
        saved = _read(path)
        model = saved.model if saved.model != _SIMULATOR else None
        chat_session = cls(dataclasses.replace(settings, model=settings.model or model or None))
        messages = list(saved.messages)
        if messages and messages[0].role == "system":
            system = messages.pop(0).completion
            chat_session.system = system if settings.system is None else settings.system
        chat_session.messages = messages
        chat_session.usage, chat_session.cost = saved.usage, saved.cost
        chat_session._own_files.add(path.absolute())
        return chat_session

    def choose_model(self, name: str) -> str | None:
        """Use another model from now on; return the notice about its client, or None.

        Raises:
            ConfigurationError: There is no such model; the session keeps the previous model.
        """
        self.client, self.notice = build_client(self._settings, name)
        self.model = name
        return self.notice

    def conversation(self) -> Conversation:
        """Return the system message and the messages that were answered."""
        start = Conversation() if self.system is None else Conversation.system(self.system)
        return Conversation([*start, *self.messages])

    async def ask(self, message: Message, output: Output) -> APIResponse:
        """Send a message, show the answer, and add both to the conversation.

        Raises:
            DelugeError: The call failed; the conversation is unchanged.
            CancelledError: The call was stopped; the part of the answer that was received is added as the answer.
        """
        self.unanswered, self.partial = message, None
        stream = self.client.stream(self.conversation().add(message))
        try:
            response = await show_stream(stream, output)
        except DelugeError as error:
            self.partial = error.partial
            self._add_usage(error.partial)
            raise
        except asyncio.CancelledError:
            self.partial = stream.response
            self._add_usage(self.partial)
            self.keep()
            raise
        self._add_usage(response)
        self._add(message, response.content)
        return response

    def _add_usage(self, response: APIResponse | None) -> None:
        if response is None:
            return
        if response.usage is not None:
            self.usage = self.usage + response.usage
        if response.cost is not None:
            self.cost = (self.cost or 0.0) + response.cost

    def _add(self, message: Message, answer: Message) -> None:
        self.messages += [message, answer] if answer.parts else [message]
        self.unanswered = self.partial = None

    def keep(self) -> bool:
        """Add `unanswered` and `partial` to the conversation; return whether there was a partial answer."""
        text = self.partial.completion if self.partial is not None else ""
        if self.unanswered is None or not text:
            return False
        # Only the text: providers refuse tool calls and opaque data that are incomplete.
        self._add(self.unanswered, Message("assistant", (TextPart(text),)))
        return True

    def take_back(self) -> Message | None:
        """Return the message to send again, or None.

        This is the unanswered message, else the last message of the user, which is removed together with its answer.
        """
        if self.unanswered is not None:
            return self.unanswered
        last = max((index for index, each in enumerate(self.messages) if each.role == "user"), default=None)
        if last is None:
            return None
        message = self.messages[last]
        del self.messages[last:]
        return message

    def clear(self) -> None:
        """Remove all messages, but keep the system message."""
        self.messages.clear()
        self.unanswered = self.partial = None

    def save(self, path: Path, *, overwrite: bool) -> None:
        """Write the conversation: as Markdown if the name ends in `.md`, else as JSON.

        Raises:
            ConfigurationError: The file cannot be written, or it exists and this session has not written it.
        """
        path = path.expanduser()
        if path.exists() and not overwrite and path.absolute() not in self._own_files:
            raise ConfigurationError(f"the file {path.name} exists already", hint="/save! FILE overwrites it.")
        text = self._as_markdown() if path.suffix.lower() == ".md" else self._as_json()
        try:
            _write_private(path, text)
        except OSError as error:
            raise ConfigurationError(f"cannot write {path.name}: {error.strerror}") from None
        self._own_files.add(path.absolute())

    def _as_json(self) -> str:
        data: dict[str, Any] = {
            "model": self.client.models[0].id,
            "usage": msgspec.to_builtins(self.usage),
            "cost": self.cost,
            "messages": msgspec.to_builtins(self.conversation().messages),
        }
        return json.dumps(data, ensure_ascii=False, indent=2) + "\n"

    def _as_markdown(self) -> str:
        return "\n".join(
            f"**{message.role.capitalize()}:**\n\n{message.completion}\n" for message in self.conversation()
        )
