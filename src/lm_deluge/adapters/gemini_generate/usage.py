"""Convert Google's `usageMetadata` into a `Usage`.

https://ai.google.dev/api/generate-content#UsageMetadata (read 2026-11): the prompt's count includes tokens read from
the cache, but not the results of server tools; the candidates' count does not include thoughts.
"""

from __future__ import annotations

from typing import Any

from lm_deluge.adapters.token_counts import read_count
from lm_deluge.usage import Usage

__all__ = ["maybe_read_usage"]

_COUNTS = (
    *("promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount"),
    "cachedContentTokenCount",
)
_DETAILS = ("promptTokensDetails", "cacheTokensDetails", "candidatesTokensDetails")


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
    prompt, cache, answer = map(raw.get, _DETAILS)
    sent, tools, output, thoughts, cached = map(read_count, map(raw.get, _COUNTS))
    sent, output = _plus(sent, tools), _plus(output, thoughts)
    if sent is None and output is None:
        return None
    return Usage(
        raw=raw,
        input_tokens=sent or 0,
        output_tokens=output or 0,
        cache_read_tokens=cached,
        reasoning_tokens=thoughts,
        input_audio_tokens=_sum_of(prompt, "AUDIO") if prompt else None,
        cache_read_audio_tokens=_sum_of(cache, "AUDIO") if cache else None,
        output_audio_tokens=_sum_of(answer, "AUDIO") if answer else None,
        output_image_tokens=_sum_of(answer, "IMAGE") if answer else None,
        tool_uses={"web_search": searches} if searches else {},
    )
