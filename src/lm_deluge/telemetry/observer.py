"""The protocol by which a program watches calls: logs, traces and metrics implement it, too.

An observer is asked at the start of each call for an object that watches this call. Its methods are called in the event
loop of the call, so they must return at once. Nothing is called for each token, and nothing at all without an observer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

from lm_deluge.adapters.adapter import Call
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.errors import DelugeError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.response import APIResponse

__all__ = [
    "AgentObserver",
    "CallObserver",
    "ObservedAttempt",
    "ObservedCall",
    "Observer",
    "Outcome",
    "ToolObserver",
    "observe_all_calls",
    "observers_of_all_calls",
    "outcome_of",
]

Outcome = Literal["ok", "cached", "cancelled", "error"]


class ObservedCall:
    """A call at its start.

    Args:
        conversation: The prompt.
        find_models: Returns the ids of the models that may answer, the first choice first.
        plan_for: Plans the request to a model.

    Attributes:
        conversation: The prompt. It may be confidential.
    """

    def __init__(
        self, conversation: Conversation, find_models: Callable[[], Sequence[str]], plan_for: Callable[[str], CallPlan]
    ) -> None:
        self.conversation = conversation
        self._find_models = find_models
        self._plan_for = plan_for

    @cached_property
    def model(self) -> str:
        """Id of the model that is the first choice; an `ObservedAttempt` has the model that is really asked."""
        return next(iter(self._find_models()), "")

    @cached_property
    def request(self) -> Call | None:
        """Its parameters, tools, provider and URL at the model of first choice; None if that cannot take the call."""
        try:
            return self._plan_for(self.model).call
        except DelugeError:
            return None


class ObservedAttempt(NamedTuple):
    """A request that is sent for a call.

    Attributes:
        number: From 1.
        model: Id of the model that is asked.
        provider: Id of its provider.
        reason: What it follows: the class of the error that ended the attempt before; `Hedge`: an attempt beside it
            that had no output yet; None: it is the first attempt.
    """

    number: int
    model: str
    provider: str
    reason: str | None


class CallObserver:
    """Watches one call. Override what you need; each method returns at once, and what it raises is one warning.

    Example:
        >>> class Ends(CallObserver):
        ...     def ended(self, response):
        ...         print(outcome_of(response), response.cost)
    """

    def waited(self, seconds: float) -> None:
        """Note that a request waited for the limits of the client, without the pause before a retry."""

    def attempt_started(self, attempt: ObservedAttempt) -> None:
        """Note that a request is sent."""

    def attempt_failed(self, attempt: ObservedAttempt, error: DelugeError) -> None:
        """Note that an attempt failed; another one may follow."""

    def first_token(self, seconds: float) -> None:
        """Note that the answer begins, `seconds` after the first request was admitted, retries included."""

    def read(self, events: int, seconds: float) -> None:
        """Note that a read brought events, `seconds` after the one before; not called for the first token."""

    def ended(self, response: APIResponse) -> None:
        """Note the end of the call, with the response so far; `outcome_of` names how it ended."""


class ToolObserver:
    """Watches one run of a tool."""

    def ended(self, error: BaseException | None) -> None:
        """Note the end, in the task that ran the tool; with what the tool raised, or None."""


class AgentObserver:
    """Watches one agent loop."""

    def call_started(self, call: ObservedCall) -> CallObserver | None:
        """Return what watches the call of a round; None: nothing does."""
        return None

    def tool_started(self, name: str, call_id: str) -> ToolObserver | None:
        """Return what watches a run of a tool that starts now, in the task that runs it; None: nothing does.

        Args:
            name: The name of the tool; `unknown` if the model called one that does not exist.
            call_id: The id of the tool call.
        """
        return None

    def ended(self, response: APIResponse) -> None:
        """Note the end of the loop, with the response so far."""


class Observer:
    """Watches the calls of clients.

    Example:
        >>> class Costs(Observer):
        ...     def call_started(self, call):
        ...         return Ends()
        >>> client = LLMClient("gpt-5.4", observers=[Costs()])
    """

    def call_started(self, call: ObservedCall) -> CallObserver | None:
        """Return what watches a call that starts now, in the task of the caller; None: nothing does."""
        return None

    def agent_started(self, call: ObservedCall) -> AgentObserver | None:
        """Return what watches an agent loop; None: each of its rounds is a call as any other."""
        return None


_OBSERVERS_OF_ALL: list[Observer] = []


def observe_all_calls(observer: Observer) -> Callable[[], None]:
    """Have an observer watch the calls of all clients of the process, from now on.

    Args:
        observer: The observer, in addition to those of a client's own option `observers`.

    Returns:
        A function that ends it, for calls that start later.

    Example:
        >>> stop = observe_all_calls(OpenTelemetryObserver())
    """
    _OBSERVERS_OF_ALL.append(observer)

    def stop() -> None:
        _OBSERVERS_OF_ALL[:] = [each for each in _OBSERVERS_OF_ALL if each is not observer]

    return stop


def observers_of_all_calls() -> Sequence[Observer]:
    """Return the observers that `observe_all_calls` registered."""
    return _OBSERVERS_OF_ALL


def outcome_of(response: APIResponse) -> Outcome:
    """Return how a call ended.

    Args:
        response: The response that `CallObserver.ended` gets.

    Returns:
        `ok`, `cached` (an answer of the local cache), `error`, or `cancelled`: the caller stopped before the end.

    Example:
        >>> outcome_of(response)
        'ok'
    """
    if response.error is not None:
        return "error"
    if response.local_cache_hit:
        return "cached"
    return "cancelled" if response.finish_reason is None else "ok"
