"""Usage as OpenAI-like hosts report it, in our convention.

Input counts all prompt tokens and output all generated ones. Hosts agree on the outer names and on little else.
"""

from __future__ import annotations

from typing import Any

from lm_deluge.usage import Usage

__all__ = ["merge_usage", "read_usage"]

# Where each number has been seen, best place first; a dot leads into an object.
_PLACES: dict[str, tuple[str, ...]] = {
    "input_tokens": ("prompt_tokens", "input_tokens"),
    "output_tokens": ("completion_tokens", "output_tokens"),
    "cache_read_tokens": (
        "prompt_tokens_details.cached_tokens",
        "input_tokens_details.cached_tokens",
        "prompt_cache_hit_tokens",  # DeepSeek
        "cache_read_input_tokens",  # LiteLLM's proxy
        "cached_tokens",  # Moonshot
    ),
    "cache_write_tokens": (
        "prompt_tokens_details.cache_write_tokens",
        "input_tokens_details.cache_write_tokens",
        "cache_creation_input_tokens",
    ),
    "reasoning_tokens": (
        "completion_tokens_details.reasoning_tokens",
        "output_tokens_details.reasoning_tokens",
        "reasoning_tokens",  # Perplexity
    ),
    "input_audio_tokens": ("prompt_tokens_details.audio_tokens", "input_tokens_details.audio_tokens"),
    "output_audio_tokens": ("completion_tokens_details.audio_tokens", "output_tokens_details.audio_tokens"),
}


# The same, cut at the dots once.
_PATHS = {
    name: tuple((outer, inner) for outer, _, inner in (place.partition(".") for place in places))
    for name, places in _PLACES.items()
}
_TOTALS = {name: _PATHS[name] for name in ("input_tokens", "output_tokens")}
# What says more than the totals; many hosts have none of these.
_DETAILS = {outer for name, paths in _PATHS.items() if name not in _TOTALS for outer, _ in paths}


def _count(value: Any) -> int | None:
    if type(value) is int:
        return value if value >= 0 else None
    return int(value) if isinstance(value, float) and value.is_integer() and value >= 0 else None


def _find(raw: dict[str, Any], paths: tuple[tuple[str, str], ...]) -> int | None:
    for outer, inner in paths:
        value = raw.get(outer)
        if inner and value is not None:
            value = value.get(inner) if isinstance(value, dict) else None
        if value is not None and (count := _count(value)) is not None:
            return count
    return None


def merge_usage(before: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """Return the provider's object so far: of each field the last value that is not null; nothing is added up."""
    return {**(before or {}), **{name: value for name, value in new.items() if value is not None}}


def read_usage(raw: dict[str, Any], service_tier: str | None = None) -> Usage:
    """Return the provider's usage object in our convention; the tier stands beside it in the answer."""
    paths = _PATHS if raw.keys() & _DETAILS else _TOTALS
    found = {name: _find(raw, places) for name, places in paths.items()}
    prompt, output, reasoning = found["input_tokens"] or 0, found["output_tokens"] or 0, found.get("reasoning_tokens")
    # xAI leaves reasoning out of completion_tokens; its own total tells (seen 2026-02).
    if reasoning and _count(raw.get("total_tokens")) == prompt + output + reasoning:
        output += reasoning
    return Usage(
        input_tokens=prompt,
        output_tokens=output,
        cache_read_tokens=found.get("cache_read_tokens"),
        cache_write_tokens=found.get("cache_write_tokens"),
        reasoning_tokens=reasoning,
        input_audio_tokens=found.get("input_audio_tokens"),
        output_audio_tokens=found.get("output_audio_tokens"),
        service_tier=service_tier,
        raw=raw,
    )
