"""An answer that several attempts produce together: the delivered part, and the continuation after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.config import Collect
from lm_deluge.dispatch.attempts.attempt import CallAttempt
from lm_deluge.dispatch.attempts.continuation import Rest, ask_for_rest, find_obstacle, is_blank, may_end_with
from lm_deluge.dispatch.attempts.discarded_cost import DiscardedCost
from lm_deluge.dispatch.attempts.splice import PrefillSplice, Splice, SpliceError
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.errors import BadRequestError, DelugeError
from lm_deluge.events import (
    Citation,
    Event,
    MediaDelta,
    RefusalDelta,
    ResponseFinished,
    TextDelta,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.response import APIResponse, ResponseBuilder, StreamStats

__all__ = ["SplicedResponse"]

_WHOLE_ENDS = ("stop", "length", "tool_calls", "pause")


class SplicedResponse:
    """An answer whose stream broke. It plans the requests for the rest.

    Attributes:
        spec: The call.
        broken: The error that broke the stream last.
    """

    def __init__(self, spec: CallSpec, attempt: CallAttempt, discarded: DiscardedCost) -> None:
        assert attempt.stream is not None  # noqa: S101 - its stream broke
        self.spec = spec
        self.broken = DelugeError("the stream broke")
        self._first = attempt
        self._discarded = discarded
        self._builder: ResponseBuilder = attempt.stream.builder  # of delivered events only
        self._last = attempt.stream
        self._rests: dict[str, Rest] = {}
        self._plans: dict[str, CallPlan] = {}  # of requests for the rest
        self._may_prefill = True
        self._splice: Splice | None = None
        self._joins: dict[type, Callable[[Any], list[Event]]] = {
            TextDelta: self._join_text,
            ToolCallStarted: self._join_call,
            RefusalDelta: self._require_splice,
            MediaDelta: self._require_splice,
            Citation: self._shift,
            UsageReported: self._add_usage,
            ResponseFinished: self._join_end,
        }
        self._offset = 0  # of the continuation, in the whole text

    @property
    def is_blank(self) -> bool:
        """Whether the answer so far has no text."""
        return is_blank(self._builder.response().content)

    @property
    def obstacle(self) -> str | None:
        """Why the answer must not be continued; None if it may be."""
        shown = self._builder.response()
        return find_obstacle(self._first.plan.call, shown.content, has_citations=bool(shown.citations))

    # Requests for the rest

    def spec_for_rest(self) -> CallSpec:
        """Return the call that requests the rest."""
        self._rests, self._plans = {}, {}
        shown = Message.assistant(self._builder.response().completion)
        conversation = Conversation([*self.spec.conversation, shown])
        return msgspec.structs.replace(self.spec, planner=self, conversation=conversation, plans=self._plans)

    def plan(self, model: str, conversation: Conversation, collect: Collect = "stream") -> CallPlan:
        """Return the plan of a request for the rest; its conversation is made from the answer so far."""
        if model not in self._rests:
            call = self.spec.plan_for(model).call
            may_prefill = self._may_prefill and model == self._first.plan.call.model.id
            self._rests[model] = ask_for_rest(call, self._builder.response().content, may_prefill=may_prefill)
        rest = self._rests[model]
        plan = self.plan_rest(model, rest.conversation, rest.max_new_tokens)
        filters = plan.filters
        return plan if filters is None else msgspec.structs.replace(plan, filters=filters.after(rest.context))

    def plan_rest(self, model: str, conversation: Conversation, max_new_tokens: int | None) -> CallPlan:
        """Return the plan of a request for the rest of an answer."""
        return self.spec.planner.plan_rest(model, conversation, max_new_tokens)

    def has_other_way(self, failure: DelugeError) -> bool:
        """Whether the rest can be requested in another way after this failure; the next request uses it."""
        was_refused = type(failure) is BadRequestError and self._may_prefill
        if not was_refused or not any(isinstance(rest.splice, PrefillSplice) for rest in self._rests.values()):
            return False
        self._may_prefill, self._rests = False, {}
        self._plans.clear()
        return True

    # Splicing

    def begin(self, attempt: CallAttempt) -> None:
        """Read the rest from this attempt."""
        assert attempt.stream is not None  # noqa: S101 - it is open
        attempt.stream.follow(self._last)
        self._last = attempt.stream
        self._splice = self._rests[attempt.start.route.model].splice
        self._offset = len(self._builder.response().completion)

    def take(self, events: list[Event]) -> list[Event]:
        """Return those of a continuation's events, or parts of them, that were not delivered before.

        Raises:
            SpliceError: It is not certain what was delivered before.
        """
        ready: list[Event] = []
        for event in events:
            join = self._joins.get(type(event))
            ready += [event] if join is None else join(event)
        self._builder.add_all(ready)
        return ready

    def _join_text(self, event: TextDelta) -> list[Event]:
        splice = self._splice
        if splice is None or splice.is_sure:
            return [event]
        text = splice.feed(event.text)
        return [TextDelta(text)] if text else []

    def _close_splice(self, *, is_whole: bool) -> list[Event]:
        if self._splice is None or self._splice.is_sure:
            return []
        text = self._splice.close(is_whole=is_whole)
        return [TextDelta(text)] if text else []

    def _join_call(self, event: ToolCallStarted) -> list[Event]:
        """Return a tool call unchanged if the text before it was complete and the continuation has no text."""
        splice = self._splice
        if splice is not None and not splice.is_sure and not splice.buffered:
            if not may_end_with(self._builder.response().completion):
                raise SpliceError("the model did not continue it")
            self._splice = None
        return [*self._close_splice(is_whole=True), event]

    def _join_end(self, event: ResponseFinished) -> list[Event]:
        if event.finish_reason not in _WHOLE_ENDS:
            self._require_splice(event)
        return [*self._close_splice(is_whole=event.finish_reason != "length"), event]

    def _require_splice(self, event: RefusalDelta | MediaDelta | ResponseFinished) -> list[Event]:
        if self._splice is not None and not self._splice.is_sure:
            raise SpliceError("the model did not continue it")
        return [event]

    def _shift(self, event: Citation) -> list[Event]:
        """Return a citation whose positions count in the whole text."""
        if self._splice is None or not self._splice.is_sure:
            raise SpliceError("the continuation has citations before its text")
        by = self._offset - self._splice.cut
        start, end = (None if at is None else max(0, at + by) for at in (event.start, event.end))
        return [msgspec.structs.replace(event, start=start, end=end)]

    def _add_usage(self, event: UsageReported) -> list[Event]:
        return [UsageReported(self._discarded.plus(event.usage))]

    # Results

    def complete(self, answer: APIResponse) -> None:
        """Replace the content of one attempt's response by that of all attempts."""
        whole = self._builder.response()
        for name in (
            "model_external",
            "response_id",
            "content",
            "citations",
            "finish_reason",
            "raw_finish_reason",
            "finish_details",
        ):
            setattr(answer, name, getattr(whole, name))

    def complete_stats(self, stats: StreamStats) -> StreamStats:
        """Return the timing of all attempts together."""
        tokens = stats.output_tokens + self._discarded.output_tokens
        speed = stats.tokens_per_second
        if speed is not None and stats.output_tokens:
            speed *= tokens / stats.output_tokens
        return msgspec.structs.replace(stats, output_tokens=tokens, tokens_per_second=speed)
