"""Text files in prompts: put into the text, with their names, where the API has no text files."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import FilePart, Part, TextPart, ToolResultPart

__all__ = ["takes_documents", "with_inline_files"]

_ROLES = ("user", "tool")


def with_inline_files(call: Call, is_taken: Callable[[Media], bool] | None = None) -> Call:
    """Return the call with the text files of user and tool messages as text.

    Args:
        call: The call.
        is_taken: Whether the API and the model take a text file as a file; by default they take none.
    """
    messages = call.conversation.messages
    if not any(map(_has_files, messages)):
        return call

    def inlined(part: Part) -> str | None:
        """Return the text in place of a part, or None if the part stays."""
        if not isinstance(part, FilePart) or (is_taken is not None and is_taken(part.media)):
            return None
        text = part.media.text
        return None if text is None else _tagged(text, part.media.filename)

    converted = [_converted(message, inlined) if _has_files(message) else message for message in messages]
    return msgspec.structs.replace(call, conversation=Conversation(converted))


def takes_documents(call: Call) -> Callable[[Media], bool]:
    """Return `is_taken` of an API that takes text files as documents, if the model takes documents."""
    return lambda _: call.model.capabilities.file_input


def _has_files(message: Message) -> bool:
    if message.role not in _ROLES:
        return False
    return any(
        isinstance(each, FilePart)
        for part in message.parts
        for each in (part, *(part.media if isinstance(part, ToolResultPart) else ()))
    )


def _tagged(text: str, filename: str | None) -> str:
    name = (filename or "").replace('"', "'")
    return f'<file name="{name}">\n{text}\n</file>' if name else f"<file>\n{text}\n</file>"


def _converted(message: Message, inlined: Callable[[Part], str | None]) -> Message:
    parts: list[Part] = []
    was_inlined = False  # the part before
    for part in message.parts:
        if isinstance(part, ToolResultPart):
            parts.append(_converted_result(part, inlined))
            continue
        text = inlined(part)
        is_separated = parts and isinstance(parts[-1], TextPart) and (text is not None or was_inlined)
        if text is not None or (is_separated and isinstance(part, TextPart)):
            content = text if text is not None else part.text if isinstance(part, TextPart) else ""
            # The blank line is part of the text: some APIs join the texts of a message.
            parts.append(TextPart(f"\n\n{content}" if is_separated else content))
        else:
            parts.append(part)
        was_inlined = text is not None
    return Message(message.role, tuple(parts), message.name)


def _converted_result(part: ToolResultPart, inlined: Callable[[Part], str | None]) -> ToolResultPart:
    texts = [part.content] if part.content else []
    media = []
    for each in part.media:
        text = inlined(each)
        if text is None:
            media.append(each)
        else:
            texts.append(text)
    return msgspec.structs.replace(part, content="\n\n".join(texts), media=tuple(media))
