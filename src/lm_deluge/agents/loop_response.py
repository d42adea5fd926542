"""The response of an agent loop, from the answers of its rounds. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add

import msgspec

from lm_deluge.response import APIResponse, StreamStats
from lm_deluge.usage import Usage

__all__ = ["build_response", "total_usage"]


def total_usage(rounds: Iterable[APIResponse]) -> Usage | None:
    """Return the sum of the usage of rounds; None if none is known."""
    known = [answer.usage for answer in rounds if answer.usage is not None]
    return reduce(add, known) if known else None


def build_response(rounds: Sequence[APIResponse], *, model: str, duration: float | None) -> APIResponse:
    """Return the response of a loop: the answer of its last round that has content, with the sums of all rounds.

    Args:
        rounds: The answers of the rounds; the last one may be incomplete.
        model: Id of the model that is preferred, for a loop without an answer.
        duration: Seconds from the start of the loop to its end, or until now.
    """
    if not rounds:
        return APIResponse(model_internal=model, stats=StreamStats(duration=duration))
    last = rounds[-1]
    shown = next((answer for answer in reversed(rounds) if answer.content.parts), last)
    response = msgspec.structs.replace(last, content=shown.content, citations=shown.citations)
    costs = [answer.cost for answer in rounds if answer.cost is not None]
    response.usage = total_usage(rounds)
    response.cost = sum(costs) if costs else None
    response.stats = _total_stats([answer.stats for answer in rounds if answer.stats is not None], duration)
    response.warnings = tuple(dict.fromkeys(warning for answer in rounds for warning in answer.warnings))
    response.local_cache_hit = all(answer.local_cache_hit for answer in rounds)
    response.rounds = tuple(answer for answer in rounds if answer.content.parts or answer.usage is not None)
    return response


def _total_stats(stats: Sequence[StreamStats], duration: float | None) -> StreamStats:
    """Return the sums, and of the times to the first token and to the headers those of the first round."""
    if not stats:
        return StreamStats(duration=duration)
    tokens = sum(each.output_tokens for each in stats)
    flowing = sum(each.output_tokens / each.tokens_per_second for each in stats if each.tokens_per_second)
    gaps = [(each.gap_mean, each.reads) for each in stats if each.gap_mean is not None]
    reads = sum(count for _, count in gaps)
    return StreamStats(
        attempts=sum(each.attempts for each in stats),
        bytes_received=sum(each.bytes_received for each in stats),
        time_to_headers=stats[0].time_to_headers,
        time_to_first_token=stats[0].time_to_first_token,
        duration=duration,
        reads=sum(each.reads for each in stats),
        gap_mean=sum(mean * count for mean, count in gaps) / reads if reads else None,
        gap_max=max((each.gap_max for each in stats if each.gap_max is not None), default=None),
        output_tokens=tokens,
        tokens_per_second=tokens / flowing if flowing else None,
        ignored=sum(each.ignored for each in stats),
    )
