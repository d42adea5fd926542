"""Decide which calls of a round run: by the decisions of the user, or by the function `approve`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lm_deluge.agents.options import Approve
from lm_deluge.dispatch.hooks import is_interruption
from lm_deluge.prompt.parts import ToolCallPart

__all__ = ["Decided", "Refusal", "decide"]

_DECLINED = "The user declined this call. It was not run."


class Refusal(NamedTuple):
    """A call that does not run.

    Attributes:
        call: The call.
        message: What the model reads.
        error: The error of the event.
    """

    call: ToolCallPart
    message: str
    error: str


class Decided(NamedTuple):
    """The calls of a round that run, and those that are declined; the others wait for a decision."""

    runs: list[ToolCallPart]
    refused: list[Refusal]


async def decide(
    calls: Iterable[ToolCallPart], approve: Approve | None, decisions: Mapping[str, bool] | None = None
) -> Decided:
    """Decide about calls, one after the other, before any of them runs.

    Args:
        calls: The calls, in order.
        approve: The user's function; None approves everything.
        decisions: Decisions by the ids of the calls. If there are any, a call without one waits unless `approve` is
            given: a forgotten decision must not run a tool.
    """
    decided = Decided([], [])
    for call in calls:
        verdict: object = None if decisions is None else decisions.get(call.id)
        failure = ""
        if verdict is None and approve is not None:
            verdict, failure = await _ask(approve, call)
        elif verdict is None:
            verdict = True if decisions is None else "pause"
        if verdict is True:
            decided.runs.append(call)
        elif verdict is False:
            decided.refused.append(Refusal(call, _DECLINED, failure or "the call was declined"))
    return decided


async def _ask(approve: Approve, call: ToolCallPart) -> tuple[object, str]:
    """Return the verdict of the user's function and "", or False and why it has none."""
    is_awaited = False
    try:
        verdict: object = approve(call)
        if inspect.isawaitable(verdict):
            is_awaited = True
            verdict = await verdict
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or (is_awaited and is_interruption(error, of_hook=True)):
            raise
        return False, f"approve raised {type(error).__name__}: {error}"
    if verdict is True or verdict is False or (isinstance(verdict, str) and verdict == "pause"):
        return verdict, ""
    return False, f"approve returned {type(verdict).__name__}, not True, False or 'pause'"
