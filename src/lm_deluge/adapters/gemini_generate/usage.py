"""Convert Google's `usageMetadata` into a `Usage`.

https://ai.google.dev/api/generate-content#UsageMetadata (read 2026-11): the prompt's count includes tokens read from
the cache, but not the results of server tools; the candidates' count does not include thoughts.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lm_deluge.adapters.token_counts import Count, read_count, read_counts
from lm_deluge.usage import Usage

__all__ = ["maybe_read_usage"]


class _Counts(msgspec.Struct, gc=False, rename="camel"):
    prompt_token_count: Count = None
    tool_use_prompt_token_count: Count = None
    candidates_token_count: Count = None
    thoughts_token_count: Count = None
    cached_content_token_count: Count = None
    prompt_tokens_details: Any = None
    cache_tokens_details: Any = None
    candidates_tokens_details: Any = None


def _sum_of(details: Any, modality: str) -> int | None:
    """Return the number of tokens of a modality, which has its own price, or None if there are none."""
    count = 0
    for each in details if isinstance(details, list) else ():
        if isinstance(each, dict) and each.get("modality") == modality:
            count += read_count(each.get("tokenCount")) or 0
    return count or None


def _plus(one: int | None, other: int | None) -> int | None:
    return one if other is None else (one or 0) + other


def maybe_read_usage(raw: dict[str, Any], *, searches: int = 0) -> Usage | None:
    """Return the `Usage`, or None for an object without counts: Vertex sends objects with only a traffic type.

    Google's JSON omits counts of 0, so objects are not merged: a field of an earlier object may be 0 now.

    Args:
        raw: The object.
        searches: Number of the searches that Google made for the response so far, which it charges for.
    """
    counts = read_counts(raw, _Counts)
    sent = _plus(counts.prompt_token_count, counts.tool_use_prompt_token_count)
    output = _plus(counts.candidates_token_count, counts.thoughts_token_count)
    if sent is None and output is None:
        return None
    prompt, cache, answer = counts.prompt_tokens_details, counts.cache_tokens_details, counts.candidates_tokens_details
    return Usage(
        raw=raw,
        input_tokens=sent or 0,
        output_tokens=output or 0,
        cache_read_tokens=counts.cached_content_token_count,
        reasoning_tokens=counts.thoughts_token_count,
        input_audio_tokens=_sum_of(prompt, "AUDIO") if prompt else None,
        cache_read_audio_tokens=_sum_of(cache, "AUDIO") if cache else None,
        output_audio_tokens=_sum_of(answer, "AUDIO") if answer else None,
        output_image_tokens=_sum_of(answer, "IMAGE") if answer else None,
        tool_uses={"web_search": searches} if searches else {},
    )
