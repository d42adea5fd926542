"""The answer of an attempt as users get it: with usage, cost, status and how it went."""

from __future__ import annotations

from lm_deluge.api_requests.attempt import Attempt
from lm_deluge.providers.adapter import Call
from lm_deluge.response import APIResponse, StreamStats
from lm_deluge.usage import Usage

__all__ = ["build_answer", "build_stats", "build_usage"]

_CHARACTERS_PER_TOKEN = 4
_BUFFERED_AFTER_S, _BUFFERED_WITHIN_S, _BUFFERED_TOKENS = 2.0, 0.005, 20


def build_answer(attempt: Attempt, call: Call, stats: StreamStats) -> APIResponse:
    """Return the answer so far. Usage is the provider's, or an estimate: never nothing, never 0 for text."""
    model = call.model
    answer = attempt.builder.response(model.id)
    answer.status_code = attempt.head.status
    answer.request_id = attempt.request_id
    answer.usage = build_usage(attempt)
    if model.price is not None:
        answer.cost = model.price.cost(answer.usage, call.params.service_tier)
    answer.stats = stats
    answer.warnings = (*call.warnings, *answer.warnings, *_warnings(attempt, call, stats))
    return answer


def build_stats(attempt: Attempt | None, *, attempts: int, begun: float | None, now: float | None) -> StreamStats:
    """Return how a call went that began at `begun`, of which `attempt` is the one that is kept."""
    duration = None if begun is None or now is None else now - begun
    if attempt is None or begun is None or now is None:
        return StreamStats(attempts=attempts, duration=duration)
    timing = attempt.timing
    first = timing.first_token_at
    tokens = _output_tokens(attempt)
    flowing = (timing.last_at or now) - (first or now)
    return StreamStats(
        attempts=attempts,
        bytes_received=attempt.bytes_received,
        time_to_headers=timing.headers_s,
        time_to_first_token=None if first is None else first - begun,
        duration=duration,
        reads=timing.reads,
        gap_mean=timing.gap_sum / timing.gaps if timing.gaps else None,
        gap_max=timing.gap_max if timing.gaps else None,
        output_tokens=tokens,
        tokens_per_second=tokens / flowing if flowing > 0 else None,
        ignored=attempt.ignored,
    )


def build_usage(attempt: Attempt) -> Usage:
    """Return the tokens so far: as the provider reported them, else as the texts' lengths suggest."""
    return attempt.builder.usage or Usage(
        input_tokens=attempt.input_estimate,
        output_tokens=_output_tokens(attempt),
        estimated=True,
    )


def _output_tokens(attempt: Attempt) -> int:
    usage = attempt.builder.usage
    return usage.output_tokens if usage else -(-attempt.builder.output_characters // _CHARACTERS_PER_TOKEN)


def _warnings(attempt: Attempt, call: Call, stats: StreamStats) -> list[str]:
    found = []
    started = attempt.builder.started
    asked, served = call.model.name, started.model if started else None
    if served and asked.rpartition("/")[2] not in served and served not in asked:
        found.append("other_model")
    if _was_buffered(attempt, stats):
        found.append("buffered_upstream")
    return found


def _was_buffered(attempt: Attempt, stats: StreamStats) -> bool:
    """Whether something in between kept a long answer and gave it out at once."""
    timing = attempt.timing
    if stats.time_to_first_token is None or timing.last_at is None or timing.first_token_at is None:
        return False
    is_at_once = timing.last_at - timing.first_token_at < _BUFFERED_WITHIN_S
    return is_at_once and stats.time_to_first_token > _BUFFERED_AFTER_S and stats.output_tokens > _BUFFERED_TOKENS
