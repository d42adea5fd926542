"""The conversation that is sent for an answer, from the stored messages on the way to it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from lm_deluge.errors import DelugeError
from lm_deluge.gateway.page.store.files import StoredFile
from lm_deluge.gateway.page.store.messages import PathMessage
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import AudioPart, FilePart, ImagePart, Part, TextPart
from lm_deluge.prompt.stored import encode_messages, read_messages
from lm_deluge.response import APIResponse

__all__ = ["file_ids_of", "prompt_of", "title_of", "upstream_of"]

JSON = dict[str, Any]

_LONGEST_TITLE = 60  # characters: a line in the list of conversations


def file_ids_of(path: Iterable[PathMessage]) -> list[str]:
    """Return the ids of all files in messages."""
    return [part["file_id"] for each in path if each.role == "user" for part in _parts(each) if "file_id" in part]


def prompt_of(system: str, path: Iterable[PathMessage], files: Mapping[str, StoredFile]) -> Conversation:
    """Return the conversation that ends with a message of the user.

    Args:
        system: The system prompt; empty: there is none.
        path: The messages, the first one first. Answers have the messages that the API needs: signatures, tool calls
            with their results, and the part that arrived of an answer that broke off.
        files: The files in them, by id.
    """
    conversation = Conversation().system(system) if system.strip() else Conversation()
    for each in path:
        if each.role == "user":
            conversation.add(Message("user", tuple(_part(part, files) for part in _parts(each))))
        elif each.upstream:
            for message in read_messages(each.upstream):
                conversation.add(message)
    return conversation


def _parts(message: PathMessage) -> list[JSON]:
    parts: list[JSON] = msgspec.json.decode(message.parts)
    return parts


def _part(part: JSON, files: Mapping[str, StoredFile]) -> Part:
    if part["type"] == "text":
        return TextPart(part["text"])
    media = files[part["file_id"]].media()
    kinds: Mapping[str, type[ImagePart | AudioPart]] = {"image": ImagePart, "audio": AudioPart}
    return kinds.get((media.media_type or "").partition("/")[0], FilePart)(media)


def upstream_of(response: APIResponse, prompt_length: int) -> str:
    """Return the messages of an answer, complete or not, as the next turn sends them; empty: there are none.

    Args:
        response: The answer.
        prompt_length: Number of messages of its prompt.
    """
    if response.conversation is not None:  # of an agent loop, with all rounds
        messages = response.conversation.messages[prompt_length:]
    else:
        messages = Conversation().add_answer(response, open_calls="close").messages
    try:
        return encode_messages(messages) if messages else ""
    except DelugeError:  # a provider's opaque data that JSON does not have: the text is sent without it
        return encode_messages([Message.assistant(response.completion)])


def title_of(text: str) -> str:
    """Return the beginning of the first message as a title."""
    line = " ".join(text.split())
    if len(line) <= _LONGEST_TITLE:
        return line
    head = line[:_LONGEST_TITLE]
    return f"{head.rpartition(' ')[0] or head}…"
