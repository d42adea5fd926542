"""Turn a line of a batch's results into the response that the same request would have had as a direct call. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from lm_deluge.adapters.adapter import Adapter, Call
from lm_deluge.adapters.batch_api import BatchResult, BatchState, batch_ended
from lm_deluge.api_requests.answer import settle_answer, usage_of
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.errors import APIError, DelugeError
from lm_deluge.filters.answer_filter import AnswerFilter
from lm_deluge.filters.compiled import CompiledFilters
from lm_deluge.models.costs import request_cost
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.response import APIResponse, ResponseBuilder, StreamStats
from lm_deluge.usage import estimate_tokens

__all__ = ["BatchedCall", "build_batched_answer", "build_failure", "missing_error"]

_HTTP_OK = 200  # the status of an answered request, in the results of each batch API
_NO_PROMPT = Conversation()


class BatchedCall(NamedTuple):
    """A call that waits for its answer: without its prompt, of which only the length in characters is kept."""

    call: Call
    text_length: int
    adapter: Adapter
    judge: Callable[[APIResponse], APIResponse] | None
    filters: CompiledFilters | None

    @classmethod
    def of(cls, plan: CallPlan) -> BatchedCall:
        """Return the part of a call that is kept."""
        call = plan.call
        without_prompt = msgspec.structs.replace(call, conversation=_NO_PROMPT, tools=(), output=None, extra_body={})
        length = call.conversation.text_length()
        return cls(without_prompt, length, plan.adapter, plan.judge, plan.filters)


def build_batched_answer(batched: BatchedCall, result: BatchResult, *, attempt: int) -> APIResponse:
    """Return the response of a call from its line of the results; a failed call has `error` set."""
    if result.error is not None:
        return build_failure(batched, result.error, result.request_id, attempt=attempt)
    if result.status != _HTTP_OK:
        error = batched.adapter.classify_error(result.status, {}, result.body)
        return build_failure(batched, error, result.request_id, attempt=attempt)
    builder = ResponseBuilder()
    answer_filter = None if batched.filters is None else AnswerFilter(batched.filters)
    try:
        events = batched.adapter.parse_response(batched.call, result.body)
        builder.add_all(events if answer_filter is None else answer_filter.feed(list(events)))
    except DelugeError as error:
        error.billed = "maybe"
        return build_failure(batched, error, result.request_id, attempt=attempt)
    if answer_filter is not None:
        builder.withheld = answer_filter.withheld
    usage = usage_of(builder, estimate_tokens(batched.text_length))
    cost = request_cost(batched.call.model, batched.call.provider, usage, is_batch=True)
    answer = settle_answer(builder, batched.call, usage, cost)
    answer.status_code = result.status
    answer.request_id = result.request_id
    answer.stats = StreamStats(attempts=attempt, bytes_received=len(result.body), output_tokens=usage.output_tokens)
    if answer_filter is not None and answer_filter.error is not None:
        answer.error = _located(answer_filter.error, batched, result.request_id)
        answer.error.billed = "yes"
        return answer
    return answer if batched.judge is None else batched.judge(answer)


def build_failure(
    batched: BatchedCall, error: DelugeError, request_id: str | None = None, *, attempt: int = 1
) -> APIResponse:
    """Return the response of a call that failed."""
    error = _located(error, batched, request_id)
    return APIResponse(
        model_internal=batched.call.model.id,
        error=error,
        status_code=getattr(error, "status_code", None),
        request_id=error.request_id,
        stats=StreamStats(attempts=attempt),
    )


def _located(error: DelugeError, batched: BatchedCall, request_id: str | None) -> DelugeError:
    """Return the error with provider, model and request."""
    error.provider, error.model = batched.call.provider.id, batched.call.model.id
    error.request_id = error.request_id or request_id
    return error


def missing_error(state: BatchState) -> APIError:
    """Return the error of a call that has no answer in the results of a batch."""
    if state.error is not None:
        return state.error
    if state.phase in ("expired", "cancelled"):
        return batch_ended(
            f"{'expired' if state.phase == 'expired' else 'was cancelled'} without an answer", state.phase
        )
    return batch_ended("ended without a result for this request", "missing")
