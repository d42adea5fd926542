"""One call, before anything of it is sent: the prompt, the models that may answer, and what follows a failure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.config import Collect, OnBreak, Priority
from lm_deluge.dispatch.budget import Budget
from lm_deluge.dispatch.call_watch import ObserverGroup
from lm_deluge.prompt.conversation import Conversation

__all__ = ["CallSpec", "Planner"]


class Planner(Protocol):
    """Plans the requests of a call."""

    def plan(self, model: str, conversation: Conversation, collect: Collect = "stream") -> CallPlan:
        """Return the plan of a request to a model. What it raises ends the call.

        Args:
            model: Id of the model.
            conversation: The prompt.
            collect: Whether the request may ask for a plain document.
        """
        ...

    def plan_rest(self, model: str, conversation: Conversation, max_new_tokens: int | None) -> CallPlan:
        """Return the plan of a request for the rest of an answer; only used for `on_break="continue"`."""
        ...


class CallSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A call to be run.

    Attributes:
        planner: Plans its requests.
        conversation: The prompt.
        max_output_tokens: The call's own limit, if it has one.
        models: Ids of the models that may answer; None: all of the client's.
        prefer: Id of the model that answers as long as it is available.
        priority: `interactive` calls are admitted before those of batches.
        is_cached: The plans have a local cache, which is asked first.
        on_break: What follows when a stream dies after its first delta.
        budgets: What pays for the call.
        min_tokens_per_second: A slower attempt is replaced by another one, as long as nothing of it was delivered.
        delivers_events: Whether the caller reads events. If false, only the final response is used.
        collect: Whether the answer may be requested as a plain document.
        postprocess: Called with the response if it is no error; its result is the response.
        before_attempt: Awaited before each request is sent, with the number of the attempt, from 1. What it raises
            ends the call, and nothing is sent.
        on_attempt_failed: Awaited after each attempt that failed, with its number, a response whose `error` is set,
            and whether it was the last. What it raises ends the call. Of two attempts side by side, the one that is
            not kept has failed.
        open_with: Makes the running call, in place of one that is a single answer: an agent loop, for example.
        observers: What watches the call.
        needs_events: Whether `open_with` reads the events, also where the caller does not.
        reads_cache: Whether the local cache is asked first; it is written to in any case.
        is_judged: Whether the answer is stored in the local cache only after `judge` was called on the running call.
        plans: The plans made so far, by model; copies of the call for the same prompt share it.
    """

    planner: Planner
    conversation: Conversation
    max_output_tokens: int | None = None
    models: frozenset[str] | None = None
    prefer: str | None = None
    priority: Priority = "batch"
    is_cached: bool = False
    on_break: OnBreak = "raise"
    budgets: tuple[Budget, ...] = ()
    min_tokens_per_second: float | None = None
    delivers_events: bool = True
    collect: Collect = "stream"
    postprocess: Callable[[Any], Any] | None = None
    before_attempt: Callable[[int], Awaitable[None]] | None = None
    on_attempt_failed: Callable[[int, Any, bool], Awaitable[None]] | None = None
    open_with: Callable[[CallSpec, Callable[[], Any]], Any] | None = None
    observers: ObserverGroup = ObserverGroup()
    needs_events: bool = False
    reads_cache: bool = True
    is_judged: bool = False
    plans: dict[str, CallPlan] = {}

    def plan_for(self, model: str, attempt: int = 1) -> CallPlan:
        """Return the plan for a model; it is made when first asked for.

        Args:
            model: Id of the model.
            attempt: Number of the attempt. With `collect="auto"` only the first one asks for a plain document.
        """
        plan = self.plans.get(model)
        is_repeated = attempt > 1 and self.collect == "auto"
        if plan is None or (is_repeated and not plan.call.is_streamed):
            collect = "stream" if is_repeated else self.collect
            plan = self.plans[model] = self.planner.plan(model, self.conversation, collect)
        return plan
