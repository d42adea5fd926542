"""The response of an attempt as users get it: with usage, cost, status and timing."""

from __future__ import annotations

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.api_requests.response_stream import ResponseStream
from lm_deluge.models.costs import endpoint_region, request_cost, unpriced_tools
from lm_deluge.response import APIResponse, ResponseBuilder, StreamStats
from lm_deluge.usage import Usage, estimate_tokens

__all__ = ["build_answer", "build_stats", "build_usage", "settle_answer", "usage_of"]

# An answer of 20 tokens or more that arrives within 5 ms after 2 s of silence was buffered by a proxy: a model takes at
# least 100 ms for 20 tokens, and a shorter wait could be its normal time to the first token. A trade-off, not measured.
_BUFFERED_AFTER_S, _BUFFERED_WITHIN_S, _BUFFERED_TOKENS = 2.0, 0.005, 20

# A reported count below an eighth of the estimate is wrong: the text would have 32 characters per token, which only
# long runs of one character have. Hosts that count nothing report 0, others only the tokens of the last chunk.
_LOWEST_SHARE = 8


def build_answer(attempt: ResponseStream, call: Call, stats: StreamStats) -> APIResponse:
    """Return the response so far. Its usage is reported or estimated: never None, never 0 for an answer with text."""
    usage = build_usage(attempt)
    region = endpoint_region(call.base_url or "")
    cost = request_cost(call.model, call.provider, usage, tier=call.params.service_tier, region=region)
    answer = settle_answer(attempt.builder, call, usage, cost)
    answer.status_code = attempt.head.status
    answer.request_id = attempt.request_id
    answer.stats = stats
    if _was_buffered(attempt, stats):
        answer.warnings += ("buffered_upstream",)
    return answer


def settle_answer(builder: ResponseBuilder, call: Call, usage: Usage, cost: float | None) -> APIResponse:
    """Return a response from the events so far, of a stream, a plain answer or a batch.

    Args:
        builder: Has the events.
        call: The call; its conversation is not used.
        usage: The usage of the response.
        cost: US dollars; None if the model has no price.
    """
    answer = builder.response(call.model.id)
    answer.usage = usage
    answer.cost = cost
    requested, served = call.model.name, answer.model_external
    answer.warnings = (*call.warnings, *answer.warnings)
    if served and requested.rpartition("/")[2] not in served and served not in requested:
        answer.warnings += ("other_model",)
    if usage.tool_uses and cost is not None and usage.reported_cost is None:
        answer.warnings += tuple(f"cost_without_{tool}" for tool in unpriced_tools(call.model, call.provider, usage))
    return answer


def build_stats(
    attempt: ResponseStream | None, *, attempts: int, started_at: float | None, now: float | None
) -> StreamStats:
    """Return the timing of a call that started at `started_at`; `attempt` is kept, None before it is open."""
    duration = None if started_at is None or now is None else now - started_at
    if attempt is None or started_at is None or now is None:
        return StreamStats(attempts=attempts, duration=duration)
    timing = attempt.timing
    first = timing.first_token_at
    tokens = _output_tokens(attempt.builder) if attempt.final_usage is None else attempt.final_usage.output_tokens
    flowing = (timing.last_at or now) - (first or now)
    return StreamStats(
        attempts=attempts,
        bytes_received=attempt.bytes_received,
        time_to_headers=timing.headers_s,
        time_to_first_token=None if first is None else first - started_at,
        duration=duration,
        reads=timing.reads,
        gap_mean=timing.gap_sum / timing.gaps if timing.gaps else None,
        gap_max=timing.gap_max if timing.gaps else None,
        output_tokens=tokens,
        tokens_per_second=tokens / flowing if flowing > 0 else None,
        ignored=attempt.ignored,
    )


def build_usage(attempt: ResponseStream) -> Usage:
    """Return the usage so far: as the provider reported it, else estimated from the length of the texts."""
    if attempt.final_usage is not None:
        return attempt.final_usage
    usage = usage_of(attempt.builder, attempt.input_estimate)
    if attempt.builder.finished is not None:
        attempt.final_usage = usage
    return usage


def usage_of(builder: ResponseBuilder, input_estimate: int) -> Usage:
    """Return the usage of a builder's events, with estimates in place of counts that are missing or too low.

    Args:
        builder: Has the events.
        input_estimate: Tokens of the prompt, estimated from its texts.
    """
    usage, output = builder.usage, _output_tokens(builder)
    if usage is None:
        return Usage(input_tokens=input_estimate, output_tokens=output, estimated=True)
    sent = usage.input_tokens if _is_plausible(usage.input_tokens, input_estimate) else input_estimate
    if sent == usage.input_tokens and output <= usage.output_tokens:
        return usage
    return msgspec.structs.replace(
        usage, input_tokens=sent, output_tokens=max(output, usage.output_tokens), estimated=True
    )


def _is_plausible(reported: int, estimate: int) -> bool:
    """Whether a reported count may be right for a text with this estimate."""
    return reported * _LOWEST_SHARE >= estimate


def _output_tokens(builder: ResponseBuilder) -> int:
    """Return the generated tokens; some APIs report usage at the start of a stream, when there are hardly any."""
    estimate = estimate_tokens(builder.output_characters)
    if builder.usage is None:
        return estimate
    reported = builder.usage.output_tokens
    is_final = not builder.is_cut and (builder.finished is not None or not builder.has_deltas)
    return reported if is_final and _is_plausible(reported, estimate) else max(estimate, reported)


def _was_buffered(attempt: ResponseStream, stats: StreamStats) -> bool:
    """Whether a proxy on the way buffered a long answer and passed it on at once."""
    timing = attempt.timing
    if stats.time_to_first_token is None or timing.last_at is None or timing.first_token_at is None:
        return False
    is_at_once = timing.last_at - timing.first_token_at < _BUFFERED_WITHIN_S
    return is_at_once and stats.time_to_first_token > _BUFFERED_AFTER_S and stats.output_tokens > _BUFFERED_TOKENS
