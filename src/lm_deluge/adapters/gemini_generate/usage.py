"""Convert Google's `usageMetadata` into a `Usage`.

https://ai.google.dev/api/generate-content#UsageMetadata (read 2026-11): the prompt's count includes tokens read from
the cache, but not the results of server tools; the candidates' count does not include thoughts.
"""

from __future__ import annotations

from typing import Any

from lm_deluge.adapters.token_counts import build_usage, read_count
from lm_deluge.usage import Usage

__all__ = ["maybe_read_usage"]


def _sum_of(details: Any, modality: str) -> int | None:
    """Return the number of tokens of a modality, which has its own price, or None if there are none."""
    counts = [
        read_count(each.get("tokenCount"))
        for each in (details if isinstance(details, list) else ())
        if isinstance(each, dict) and each.get("modality") == modality
    ]
    return sum(count or 0 for count in counts) or None


def _plus(raw: dict[str, Any], *names: str) -> int | None:
    counts = [count for name in names if (count := read_count(raw.get(name))) is not None]
    return sum(counts) if counts else None


def maybe_read_usage(raw: dict[str, Any]) -> Usage | None:
    """Return the `Usage`, or None for an object without counts: Vertex sends objects with only a traffic type.

    Google's JSON omits counts of 0, so objects are not merged: a field of an earlier object may be 0 now.
    """
    prompt_details = raw.get("promptTokensDetails")
    answer_details = raw.get("candidatesTokensDetails")
    sent = _plus(raw, "promptTokenCount", "toolUsePromptTokenCount")
    output = _plus(raw, "candidatesTokenCount", "thoughtsTokenCount")
    if sent is None and output is None:
        return None
    return build_usage(
        raw,
        sent or 0,
        output or 0,
        cache_read_tokens=read_count(raw.get("cachedContentTokenCount")),
        reasoning_tokens=read_count(raw.get("thoughtsTokenCount")),
        input_audio_tokens=_sum_of(prompt_details, "AUDIO"),
        cache_read_audio_tokens=_sum_of(raw.get("cacheTokensDetails"), "AUDIO"),
        output_audio_tokens=_sum_of(answer_details, "AUDIO"),
        output_image_tokens=_sum_of(answer_details, "IMAGE"),
    )
