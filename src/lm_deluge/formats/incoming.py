"""Read messages in the format of a provider's own library: dicts, or the objects of that library.

The encoders read them, and their errors name the message and the field. A conversation may end with open tool calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lm_deluge.encoders.anthropic_messages.blocks import read_system
from lm_deluge.encoders.anthropic_messages.request import read_turn
from lm_deluge.encoders.openai_chat.request import CHAT_ROLES
from lm_deluge.encoders.openai_chat.request_fields import read_message
from lm_deluge.encoders.openai_responses.request import ITEMS, WHOLE_ITEMS, read_item
from lm_deluge.errors import BadRequestError, InvalidPromptError
from lm_deluge.models.registry import find_provider
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.older_logs import is_older_log
from lm_deluge.prompt.parts import ProviderDataPart
from lm_deluge.prompt.plain_values import to_plain

__all__ = ["find_format", "read_anthropic", "read_openai", "read_openai_responses"]

# Blocks of Anthropic's that have no part of ours and are passed on as opaque data; the results and uses of server tools
# have names that end alike. https://platform.claude.com/docs/en/api/messages/create (2026-11)
_ANTHROPIC_BLOCKS = frozenset(
    {"text", "image", "document", "search_result", "thinking", "redacted_thinking", "tool_use", "tool_result"}
    | {"container_upload", "compaction", "tool_reference"}
)
_ANTHROPIC_ENDINGS = ("_tool_use", "_tool_result")


def read_openai(messages: Iterable[Any], provider: str | None = None) -> list[Message]:
    """Return messages of Chat Completions; None: the opaque data in them belongs to OpenAI.

    Raises:
        InvalidPromptError: A message has another form; the error names its number and the field.
        UnknownModelError: There is no such provider.
    """
    owner = find_provider(provider or "openai").opaque_owner
    found = []
    for at, message in _numbered(messages, "messages[{}]"):
        with _ours(at):
            found.append(_owned(read_message(message, at, CHAT_ROLES), owner))
    return found


def read_openai_responses(items: Iterable[Any], instructions: str | None) -> list[Message]:
    """Return the messages in items of the Responses API.

    Raises:
        InvalidPromptError: An item has another form; the error names its number and the field.
    """
    found = [] if instructions is None else [Message.system(instructions)]
    for at, item in _numbered(items, "input[{}]"):
        kind = item.get("type", "message") if isinstance(item, dict) else None
        if isinstance(kind, str) and kind not in ITEMS and kind not in WHOLE_ITEMS:
            raise InvalidPromptError(f"{at}.type is {kind[:40]!r}, which is no known item of the Responses API")
        with _ours(at):
            read_item(item, at, found)
    owner = find_provider("openai-responses").opaque_owner
    return [_owned(message, owner) for message in found]


def read_anthropic(messages: Iterable[Any], system: Any) -> list[Message]:
    """Return messages of Anthropic's API.

    Raises:
        InvalidPromptError: A message has another form; the error names its number and the field.
    """
    with _ours("system"):
        found = read_system(_plain(system), "system")
    for at, message in _numbered(messages, "messages.{}"):
        with _ours(at):
            _check_blocks(message, at)
            found += read_turn(message, at)
    return [_owned(message, "anthropic") for message in found]


def _check_blocks(message: Any, at: str) -> None:
    content = message.get("content") if isinstance(message, dict) else None
    for position, block in enumerate(content if isinstance(content, list) else ()):
        kind = block.get("type") if isinstance(block, dict) else None
        if isinstance(kind, str) and kind not in _ANTHROPIC_BLOCKS and not kind.endswith(_ANTHROPIC_ENDINGS):
            raise InvalidPromptError(
                f"{at}.content.{position}.type is {kind[:40]!r}, which is no block of Anthropic's messages"
            )


def find_format(messages: Any, system: Any) -> tuple[str, Callable[[], list[Message]] | None]:
    """Return the name of the format of messages, and a function that reads them; None: they are a log of ours.

    Raises:
        InvalidPromptError: The data is in no format that can be read.
    """
    if isinstance(messages, Mapping):
        if "version" in messages or is_older_log(messages):
            return "log", None
        messages, system = messages.get("messages"), messages.get("system", system)
    if isinstance(messages, str | bytes) or not isinstance(messages, Iterable):
        raise InvalidPromptError(
            f"messages are a list of dicts, not {type(messages).__name__}", hint="Or pass the data of to_log()."
        )
    plain = [_plain(each) for each in messages]
    if any(isinstance(each, dict) and "role" not in each and "type" in each for each in plain):
        return "openai-responses", lambda: read_openai_responses(plain, system)
    if any(map(_is_openai, plain)) or (system is None and not any(map(_is_anthropic, plain))):
        instructions = [] if system is None else [{"role": "system", "content": system}]
        return "openai", lambda: read_openai([*instructions, *plain])
    return "anthropic", lambda: read_anthropic(plain, system)


_ANTHROPIC_MARKS = frozenset(
    {"tool_use", "tool_result", "thinking", "redacted_thinking", "image", "document", "search_result"}
)


_OPENAI_ROLES = ("system", "developer", "tool", "function")
_OPENAI_FIELDS = ("tool_calls", "function_call", "tool_call_id")


def _is_openai(message: Any) -> bool:
    if not isinstance(message, dict):
        return False
    return message.get("role") in _OPENAI_ROLES or any(message.get(name) for name in _OPENAI_FIELDS)


def _is_anthropic(message: Any) -> bool:
    content = message.get("content") if isinstance(message, dict) else None
    blocks = content if isinstance(content, list) else ()
    return any(isinstance(block, dict) and block.get("type") in _ANTHROPIC_MARKS for block in blocks)


def _numbered(messages: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Iterable):
        raise InvalidPromptError(f"messages are a list of dicts, not {type(messages).__name__}")
    for number, message in enumerate(messages):
        yield path.format(number), _plain(message)


@contextmanager
def _ours(at: str) -> Iterator[None]:
    """Raise the errors of an encoder, which answer a request, as errors of the caller's data."""
    try:
        yield
    except BadRequestError as error:
        raise InvalidPromptError(error.message) from error
    except InvalidPromptError as error:
        raise (
            error if error.message.startswith(at) else InvalidPromptError(f"{at}: {error.message}", hint=error.hint)
        ) from error


def _plain(value: Any) -> Any:
    """Return data with dicts and lists in place of the objects of a provider's library, at any depth."""
    dump = getattr(value, "model_dump", None)
    if dump is not None and not isinstance(value, type):
        return dump(mode="json", exclude_none=True)
    if isinstance(value, Mapping):
        return {to_plain(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return to_plain(value)


def _owned(message: Message, owner: str) -> Message:
    """Return a message whose opaque data belongs to a provider: encoders name it after the wire API."""
    parts = [
        ProviderDataPart(owner, part.kind, part.data) if isinstance(part, ProviderDataPart) else part
        for part in message.parts
    ]
    return Message(message.role, parts, message.name)
