"""Refuse requests with tool calls that have no result, or results that have no call, as the providers do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lm_deluge.errors import BadRequestError
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.tool_pairs import OpenCalls, Orphans, PairRule, find_unpaired

__all__ = ["PairWording", "check_tool_pairs", "joined_ids"]

PairWording = Callable[[OpenCalls | Orphans], BadRequestError]
"""Returns the error of the API for calls without results, or results without calls."""


def check_tool_pairs(messages: Sequence[Message], rule: PairRule, wording: PairWording) -> None:
    """Check the messages of a request.

    Raises:
        BadRequestError: A call has no result where the rule requires it, or a result has no call.
    """
    for found in find_unpaired(messages, rule):
        raise wording(found)


def joined_ids(found: OpenCalls | Orphans) -> str:
    """Return the ids of the calls without results, or of the calls that the results name."""
    if isinstance(found, OpenCalls):
        return ", ".join(call.id for call in found.calls)
    return ", ".join(result.tool_call_id for result in found.results)
