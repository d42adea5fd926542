"""Convert Google's `usageMetadata` into a `Usage`.

https://ai.google.dev/api/generate-content#UsageMetadata (read 2026-11): the prompt's count includes tokens read from
the cache, but not the results of server tools; the candidates' count does not include thoughts.
"""

from __future__ import annotations

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


class _Details(msgspec.Struct, gc=False, rename="camel"):
    prompt_tokens_details: list[_Modality] | None = None
    cache_tokens_details: list[_Modality] | None = None
    candidates_tokens_details: list[_Modality] | None = None


def _sum_of(details: list[_Modality] | None, modality: str) -> int | None:
    """Return the number of tokens of a modality, which has its own price, or None if there are none."""
    return sum(each.token_count or 0 for each in details or () if each.modality == modality) or None


def maybe_read_usage(raw: dict[str, Any]) -> Usage | None:
    """Return the `Usage`, or None for an object without counts: Vertex sends objects with only a traffic type.

    Google's JSON omits counts of 0, so objects are not merged: a field of an earlier object may be 0 now.
    """
    try:
        counts = msgspec.convert(raw, _Counts)
    except msgspec.ValidationError:
        counts = convert_tolerantly(raw, _Counts) or _Counts()
    if counts == _Counts():
        return None
    details = convert_tolerantly(raw, _Details) or _Details()
    return Usage(
        input_tokens=(counts.prompt_token_count or 0) + (counts.tool_use_prompt_token_count or 0),
        output_tokens=(counts.candidates_token_count or 0) + (counts.thoughts_token_count or 0),
        cache_read_tokens=counts.cached_content_token_count,
        reasoning_tokens=counts.thoughts_token_count,
        input_audio_tokens=_sum_of(details.prompt_tokens_details, "AUDIO"),
        cache_read_audio_tokens=_sum_of(details.cache_tokens_details, "AUDIO"),
        output_audio_tokens=_sum_of(details.candidates_tokens_details, "AUDIO"),
        output_image_tokens=_sum_of(details.candidates_tokens_details, "IMAGE"),
        raw=raw,
    )
