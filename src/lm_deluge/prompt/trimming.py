"""Shorten a conversation by whole turns."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from lm_deluge.errors import ConfigurationError, ContextLengthError
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ToolCallPart
from lm_deluge.prompt.tool_pairs import answered_id

__all__ = ["trim_messages"]

_INSTRUCTIONS = ("system", "developer")


def trim_messages(messages: Sequence[Message], max_tokens: int, count: Callable[[list[Message]], int]) -> list[Message]:
    """Return the system messages, and the messages of as many of the newest turns as fit.

    Args:
        messages: The messages of a conversation.
        max_tokens: Most tokens of the result.
        count: Returns the number of tokens of messages.

    Raises:
        ContextLengthError: The last turn and the system messages alone are longer.
        ConfigurationError: `max_tokens` is no positive number.
    """
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 1:
        raise ConfigurationError(f"max_tokens must be a positive number of tokens, not {max_tokens!r}")
    turns = _turns(messages)
    last = max((turn for turn in turns if turn is not None), default=0)

    def kept(dropped: int) -> list[Message]:
        """Return the messages without the first turns, as many as are `dropped`."""
        return [message for message, turn in zip(messages, turns, strict=True) if turn is None or turn >= dropped]

    dropped = bisect_left(range(last + 1), True, key=lambda dropped: count(kept(dropped)) <= max_tokens)
    if dropped > last:
        raise ContextLengthError(
            f"the last turn and the system messages have about {count(kept(last)):,} tokens, more than the"
            f" {max_tokens:,} that are allowed",
            hint="Shorten the last message or the results of its tools, or allow more tokens.",
        )
    return kept(dropped)


def _turns(messages: Sequence[Message]) -> list[int | None]:
    """Return the number of each message's turn, from 0; None for a system message.

    A turn starts with a message of the user that is no answer to a tool call, unless the message before it is such a
    message, too. It does not start between a call and its result, which some APIs allow to be apart.
    """
    answered_at = {answered_id(part): index for index, message in enumerate(messages) for part in message.parts}
    open_calls: set[str] = set()
    turns: list[int | None] = []
    turn = 0
    was_user = True  # the first message starts no second turn
    for index, message in enumerate(messages):
        if message.role in _INSTRUCTIONS:
            turns.append(None)
            continue
        is_user = message.role == "user" and not any(map(answered_id, message.parts))
        if is_user and not was_user and not any(answered_at.get(each, -1) > index for each in open_calls):
            turn += 1
        turns.append(turn)
        was_user = is_user
        open_calls |= {part.id for part in message.parts if isinstance(part, ToolCallPart)}
        open_calls -= {answered_id(part) for part in message.parts}
    return turns
