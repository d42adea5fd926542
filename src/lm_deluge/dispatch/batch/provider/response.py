"""What a line of a batch's results becomes: the answer that the same request alone would have had. Pure."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from lm_deluge.adapters.adapter import Adapter, Call
from lm_deluge.adapters.batch_api import BatchResult
from lm_deluge.api_requests.answer import settle_answer, usage_of
from lm_deluge.errors import DelugeError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.response import APIResponse, ResponseBuilder, StreamStats
from lm_deluge.usage import estimate_tokens

__all__ = ["BatchedCall", "build_batched_answer", "build_failure"]

_HTTP_OK = 200
_NOTHING = Conversation()


class BatchedCall(NamedTuple):
    """What must be known of a call until its answer comes: all but the prompt, of which only the length."""

    call: Call
    text_length: int

    @classmethod
    def of(cls, call: Call) -> BatchedCall:
        """Return what is to be kept of a call."""
        bare = msgspec.structs.replace(call, conversation=_NOTHING, tools=(), output=None, extra_body={})
        return cls(bare, call.conversation.text_length())


def build_batched_answer(adapter: Adapter, asked: BatchedCall, result: BatchResult, *, attempt: int) -> APIResponse:
    """Return the answer that a line of the results stands for, with its error where it is one."""
    if result.error is not None:
        return build_failure(asked, result.error, result.request_id, attempt=attempt)
    if result.status != _HTTP_OK:
        error = adapter.classify_error(result.status, {}, result.body)
        return build_failure(asked, error, result.request_id, attempt=attempt)
    builder = ResponseBuilder()
    try:
        builder.add_all(adapter.parse_response(asked.call, result.body))
    except DelugeError as error:
        error.billed = "maybe"
        return build_failure(asked, error, result.request_id, attempt=attempt)
    usage = usage_of(builder, lambda: estimate_tokens(asked.text_length))
    price = asked.call.model.price
    answer = settle_answer(builder, asked.call, usage, None if price is None else price.batch_cost(usage))
    answer.status_code = result.status
    answer.request_id = result.request_id
    answer.stats = StreamStats(attempts=attempt, bytes_received=len(result.body), output_tokens=usage.output_tokens)
    return answer


def build_failure(
    asked: BatchedCall, error: DelugeError, request_id: str | None = None, *, attempt: int = 1
) -> APIResponse:
    """Return the answer of a call that got none."""
    error.provider, error.model = asked.call.provider.id, asked.call.model.id
    error.request_id = error.request_id or request_id
    return APIResponse(
        model_internal=asked.call.model.id,
        error=error,
        status_code=getattr(error, "status_code", None),
        request_id=error.request_id,
        stats=StreamStats(attempts=attempt),
    )
