"""What a chat knows: the conversation, who is asked, and what it took so far."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec

from lm_deluge.cli.options import DEFAULT_MODEL, CommandOptions, build_client
from lm_deluge.cli.render.output import Output
from lm_deluge.cli.render.stream_view import show_stream
from lm_deluge.errors import ConfigurationError, DelugeError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import TextPart
from lm_deluge.response import APIResponse
from lm_deluge.usage import Usage

__all__ = ["ChatSession"]


class ChatSession:
    """A conversation that grows.

    Only what was answered is in it. A message whose answer failed waits in `unanswered`, so that it can be asked again;
    what had come of the answer is in `cut`, in case the user wants to go on from there.
    """

    def __init__(self, settings: CommandOptions) -> None:
        self._settings = settings
        self.model = settings.model or DEFAULT_MODEL
        self.client, self.notice = build_client(settings)
        self.system = settings.system
        self.messages: list[Message] = []
        self.unanswered: Message | None = None
        self.cut: APIResponse | None = None
        self.usage = Usage()
        self.cost: float | None = None
        self._own_files: set[Path] = set()

    def choose_model(self, name: str) -> str | None:
        """Ask another model from now on; return what the user must know of it.

        Raises:
            ConfigurationError: There is no such model; the one before stays.
        """
        self.client, self.notice = build_client(self._settings, name)
        self.model = name
        return self.notice

    def conversation(self) -> Conversation:
        """Return what the model is to see."""
        start = Conversation() if self.system is None else Conversation.system(self.system)
        return Conversation([*start, *self.messages])

    async def ask(self, message: Message, output: Output) -> APIResponse:
        """Ask and show the answer; what comes of it is in the conversation.

        Raises:
            DelugeError: The call failed. The conversation is as it was.
            CancelledError: It was stopped. What had come is kept as the answer.
        """
        self.unanswered, self.cut = message, None
        stream = self.client.stream(self.conversation().add(message))
        try:
            response = await show_stream(stream, output)
        except DelugeError as error:
            self.cut = error.partial
            self._count(error.partial)
            raise
        except asyncio.CancelledError:
            self.cut = stream.response
            self._count(self.cut)
            self.keep()
            raise
        self._count(response)
        self._answered(message, response.content)
        return response

    def _count(self, response: APIResponse | None) -> None:
        if response is None:
            return
        if response.usage is not None:
            self.usage = self.usage + response.usage
        if response.cost is not None:
            self.cost = (self.cost or 0.0) + response.cost

    def _answered(self, message: Message, answer: Message) -> None:
        self.messages += [message, answer] if answer.parts else [message]
        self.unanswered = self.cut = None

    def keep(self) -> bool:
        """Take the piece of an answer that was cut for the answer; return whether there was one."""
        text = self.cut.completion if self.cut is not None else ""
        if self.unanswered is None or not text:
            return False
        # Tool calls and opaque data of a cut answer are no whole ones, and a provider would refuse them.
        self._answered(self.unanswered, Message("assistant", (TextPart(text),)))
        return True

    def take_back(self) -> Message | None:
        """Return the message to ask again: one that was not answered, else the last one, its answer forgotten."""
        if self.unanswered is not None:
            return self.unanswered
        last = max((index for index, each in enumerate(self.messages) if each.role == "user"), default=None)
        if last is None:
            return None
        message = self.messages[last]
        del self.messages[last:]
        return message

    def clear(self) -> None:
        """Forget what was said, but not how the model is to behave."""
        self.messages.clear()
        self.unanswered = self.cut = None

    def save(self, path: Path, *, overwrite: bool) -> None:
        """Write the conversation: as Markdown where the name ends so, else as JSON.

        Raises:
            ConfigurationError: It cannot be written there, or another file is there already.
        """
        path = path.expanduser()
        if path.exists() and not overwrite and path.absolute() not in self._own_files:
            raise ConfigurationError(f"there is a file {path.name} already", hint="/save! FILE writes over it.")
        text = self._as_markdown() if path.suffix.lower() == ".md" else self._as_json()
        try:
            path.write_text(text, "utf-8")
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
