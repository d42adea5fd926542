"""Convert Google's `usageMetadata` into a `Usage`.

https://ai.google.dev/api/generate-content#UsageMetadata (read 2026-11): the prompt's count includes tokens read from
the cache, but not the results of server tools; the candidates' count does not include thoughts.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import msgspec

from lm_deluge.usage import Usage
from lm_deluge.wire.tolerant_json import convert_tolerantly

__all__ = ["maybe_read_usage"]


class _Modality(msgspec.Struct, gc=False, rename="camel"):
    modality: str | None = None
    token_count: int | None = None


class _Counts(msgspec.Struct, gc=False, rename="camel"):
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    total_token_count: int | None = None
    prompt_tokens_details: list[_Modality] | None = None
    cache_tokens_details: list[_Modality] | None = None
    candidates_tokens_details: list[_Modality] | None = None


_counts_of = attrgetter(
    *("prompt_token_count", "candidates_token_count", "thoughts_token_count", "tool_use_prompt_token_count"),
    *("cached_content_token_count", "total_token_count"),
)
_NONE = (None,) * 6


def _sum_of(details: list[_Modality], modality: str) -> int | None:
    """Return the number of tokens of a modality, which has its own price, or None if there are none."""
    count = 0
    for each in details:
        if each.modality == modality:
            count += each.token_count or 0
    return count or None


def maybe_read_usage(raw: dict[str, Any]) -> Usage | None:
    """Return the `Usage`, or None for an object without counts: Vertex sends objects with only a traffic type.

    Google's JSON omits counts of 0, so objects are not merged: a field of an earlier object may be 0 now.
    """
    counts = convert_tolerantly(raw, _Counts) or _Counts()
    if _counts_of(counts) == _NONE:
        return None
    prompt, cache, output = counts.prompt_tokens_details, counts.cache_tokens_details, counts.candidates_tokens_details
    return Usage(
        input_tokens=(counts.prompt_token_count or 0) + (counts.tool_use_prompt_token_count or 0),
        output_tokens=(counts.candidates_token_count or 0) + (counts.thoughts_token_count or 0),
        cache_read_tokens=counts.cached_content_token_count,
        reasoning_tokens=counts.thoughts_token_count,
        input_audio_tokens=_sum_of(prompt, "AUDIO") if prompt else None,
        cache_read_audio_tokens=_sum_of(cache, "AUDIO") if cache else None,
        output_audio_tokens=_sum_of(output, "AUDIO") if output else None,
        output_image_tokens=_sum_of(output, "IMAGE") if output else None,
        raw=raw,
    )
