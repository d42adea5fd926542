"""The options of an agent loop."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from lm_deluge.errors import ConfigurationError
from lm_deluge.option_checks import check_range
from lm_deluge.prompt.parts import ToolCallPart
from lm_deluge.tools.runner import MAX_CONCURRENT, MAX_RESULT_CHARACTERS, TIMEOUT_S

__all__ = ["LOOP_NAMES", "Approve", "LoopOptions", "Verdict"]

Verdict: TypeAlias = Literal["pause"] | bool
Approve: TypeAlias = Callable[[ToolCallPart], Verdict | Awaitable[Verdict]]

MAX_ROUNDS = 8
"""A trade-off: searching and reading takes three to five rounds, and a model that repeats itself is stopped early."""


class LoopOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of an agent loop.

    Attributes:
        run_tools: Whether the program runs the tools that the model calls, and sends the results back.
        max_rounds: Answers of the model at most. The calls of the last one are not run.
        approve: Called with each call before it runs, in order; may be async. It returns True, or False (the model
            reads that the call was declined), or `"pause"` (the stream ends, and the call is in `response.pending`). If
            it raises, the call is declined.
        decisions: Of a conversation whose calls are pending: for the id of each, whether it runs. With decisions, a
            call that has none is passed to `approve`, or stays pending.
        tool_timeout: Seconds that one call may take; None: no limit.
        max_concurrent_tools: Calls of a loop that run at once; the others wait.
        max_result_characters: A longer result is cut off and marked; None: no limit.
    """

    run_tools: bool = False
    max_rounds: int = MAX_ROUNDS
    approve: Approve | None = None
    decisions: Mapping[str, bool] | None = None
    tool_timeout: float | None = TIMEOUT_S
    max_concurrent_tools: int = MAX_CONCURRENT
    max_result_characters: int | None = MAX_RESULT_CHARACTERS

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> LoopOptions:
        """Build the options from keyword arguments; None stands for the default of the first four.

        Raises:
            ConfigurationError: A value is of a wrong type or out of range, or has no effect without `run_tools`.
        """
        given: dict[str, Any] = {}
        given |= {name: value for name, value in keywords.items() if value is not None or name in _NO_LIMIT}
        options = cls(**given)
        options._check(set(given) - {"run_tools"})
        return options

    def _check(self, given: set[str]) -> None:
        if not isinstance(self.run_tools, bool):
            raise ConfigurationError(f"run_tools is True or False, not {type(self.run_tools).__name__}")
        if given and not self.run_tools:
            raise ConfigurationError(f"{min(given)} has no effect without run_tools=True")
        for name, low in (("max_rounds", 1), ("max_concurrent_tools", 1), ("max_result_characters", 0)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise ConfigurationError(f"{name} is a whole number, not {type(value).__name__}")
            check_range(name, value, low, math.inf)
        check_range("tool_timeout", self.tool_timeout, 0, math.inf)
        if self.approve is not None and not callable(self.approve):
            raise ConfigurationError(
                f"approve is a function, not {type(self.approve).__name__}",
                hint="It takes a call and returns True, False or 'pause'.",
            )
        _check_decisions(self.decisions)


_NO_LIMIT = ("tool_timeout", "max_result_characters")
LOOP_NAMES = LoopOptions.__struct_fields__


def _check_decisions(decisions: Any) -> None:
    if decisions is None:
        return
    if not isinstance(decisions, Mapping):
        raise ConfigurationError(
            f"decisions is a mapping from ids of calls to True or False, not {type(decisions).__name__}",
            hint="Write decisions={call.id: True for call in response.pending}.",
        )
    for name, value in decisions.items():
        if not isinstance(value, bool):
            raise ConfigurationError(f"the decision about the call {str(name)[:64]!r} is neither True nor False")
