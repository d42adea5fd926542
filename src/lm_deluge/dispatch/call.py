"""A call, before anything of it is sent: what is asked, where, and what is done about a stream that breaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.config import OnBreak
from lm_deluge.dispatch.budget import Budget
from lm_deluge.prompt.conversation import Conversation

__all__ = ["CallSpec"]


class CallSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A call to be run.

    Attributes:
        plan_for: Makes its plan for a model. What it raises ends the call.
        text_length: Characters of the prompt: what its input tokens are estimated from.
        max_output_tokens: Its own limit, if it has one.
        models: Which models may take it; None: all of the client's.
        prefer: The model that should, as long as it can.
        is_cached: Its plans have a local cache, to be looked into first.
        on_break: What is done about a stream that dies after its first delta.
        purses: What pays for it.
        min_tokens_per_second: A slower attempt is given up, as long as nothing of it was handed out.
        is_collected: Nobody wants its events, but for the answer that they make.
        postprocess: What becomes of its answer, where it is no error.
        plan_rest: Makes the plan for the rest of an answer: for a model, of another conversation with another limit of
            new tokens. Only for `on_break="continue"`.
        intend: Awaited before each request leaves, with the number of the attempt, from 1. What it raises ends the
            call, and nothing is sent.
        attempt_failed: Awaited after each attempt that failed, with its number, what is to be told of it (`error`
            set), and whether it was the last. What it raises ends the call. Of two attempts side by side the one that
            is not kept has failed, too.
    """

    plan_for: Callable[[str], CallPlan]
    text_length: int = 0
    max_output_tokens: int | None = None
    models: frozenset[str] | None = None
    prefer: str | None = None
    is_cached: bool = False
    on_break: OnBreak = "raise"
    budgets: tuple[Budget, ...] = ()
    min_tokens_per_second: float | None = None
    is_collected: bool = False
    postprocess: Callable[[Any], Any] | None = None
    plan_rest: Callable[[str, Conversation, int | None], CallPlan] | None = None
    before_attempt: Callable[[int], Awaitable[None]] | None = None
    on_attempt_failed: Callable[[int, Any, bool], Awaitable[None]] | None = None
