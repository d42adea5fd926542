"""Find tool calls without a result, and results without a call: providers reject conversations that contain them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import Part, ProviderDataPart, ToolCallPart, ToolResultPart

__all__ = ["OpenCalls", "Orphans", "PairRule", "answered_id", "find_unpaired", "has_tool_parts"]

PairRule: TypeAlias = Literal["next_message", "next_turn", "later"]
"""Where an API requires the results of an assistant message's calls.

`next_message`: in the tool messages that follow directly. `next_turn`: the same, in APIs that merge consecutive
messages of a role and take system messages out of the conversation. `later`: anywhere after the call.
"""


class OpenCalls(NamedTuple):
    """Tool calls without results.

    Attributes:
        turn: Number of the turn with the calls, from 0; system messages do not count, and consecutive messages of a
            role count as one.
        calls: The calls.
    """

    turn: int
    calls: tuple[ToolCallPart, ...]


class Orphans(NamedTuple):
    """Results that belong to no call; `turn` is their turn, as in `OpenCalls`."""

    turn: int
    results: tuple[ToolResultPart, ...]


class _Turn(NamedTuple):
    number: int
    is_assistant: bool
    parts: tuple[Part, ...]


def has_tool_parts(messages: Iterable[Message]) -> bool:
    """Whether a message contains a tool call or the result of one."""
    return any(isinstance(part, ToolCallPart | ToolResultPart) for message in messages for part in message.parts)


def find_unpaired(messages: Sequence[Message], rule: PairRule) -> Iterator[OpenCalls | Orphans]:
    """Yield all calls and results that break the rule, in order."""
    if not has_tool_parts(messages):
        return
    open_calls: list[ToolCallPart] = []
    opened_at = 0
    for turn in _turns(messages, is_merged=rule != "next_message"):
        open_calls, orphans = _without_answered(open_calls, turn.parts)
        if orphans:
            yield Orphans(turn.number, tuple(orphans))
        if open_calls and rule != "later":
            yield OpenCalls(opened_at, tuple(open_calls))
            open_calls = []
        if turn.is_assistant:
            opened_at = opened_at if open_calls else turn.number
            open_calls = [*open_calls, *(part for part in turn.parts if isinstance(part, ToolCallPart))]
    if open_calls:
        yield OpenCalls(opened_at, tuple(open_calls))


def _without_answered(
    calls: list[ToolCallPart], parts: Iterable[Part]
) -> tuple[list[ToolCallPart], list[ToolResultPart]]:
    """Return the calls that have no result among the parts, and the results that have no call."""
    open_calls, orphans = list(calls), []
    for part in parts:
        answered = next((call for call in open_calls if call.id == answered_id(part)), None)
        if answered is not None:
            open_calls.remove(answered)
        elif isinstance(part, ToolResultPart):
            orphans.append(part)
    return open_calls, orphans


def answered_id(part: Part) -> Any:
    """Return the id of the call that a result belongs to; opaque data may be a result in the provider's own format."""
    if isinstance(part, ToolResultPart):
        return part.tool_call_id
    if not isinstance(part, ProviderDataPart) or not isinstance(part.data, dict):
        return None
    data = part.data.get("toolResult", part.data)
    if not isinstance(data, dict):
        return None
    return data.get("tool_use_id") or data.get("toolUseId") or data.get("call_id")


def _turns(messages: Sequence[Message], *, is_merged: bool) -> Iterator[_Turn]:
    """Yield the turns: runs of assistant messages, of messages with results, and of other messages."""
    previous: tuple[str, bool] | None = None
    parts: tuple[Part, ...] = ()
    number = -1
    is_assistant = False
    for message in messages:
        if is_merged and message.role in ("system", "developer"):
            continue
        is_user = message.role != "assistant"
        has_results = message.role == "tool" or (is_user and any(map(answered_id, message.parts)))
        kind = ("user" if is_user else "assistant", has_results)
        joins = kind == previous and (has_results or is_merged)
        if previous is not None and not joins:
            yield _Turn(number, is_assistant, parts)
        if previous is None or kind[0] != previous[0]:
            number += 1
        parts = (*parts, *message.parts) if joins else tuple(message.parts)
        previous, is_assistant = kind, message.role == "assistant"
    if previous is not None:
        yield _Turn(number, is_assistant, parts)
