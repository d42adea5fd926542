"""Convert the usage that OpenAI-compatible hosts report into `Usage`.

`input_tokens` counts all prompt tokens and `output_tokens` all generated tokens. Hosts use the same names for
the totals but different names and structures for the details.
"""

from __future__ import annotations

from typing import Any

from lm_deluge.adapters.token_counts import build_usage, read_cost, read_count, read_tool_uses
from lm_deluge.usage import Usage

__all__ = ["merge_usage", "read_usage"]

# The fields in which hosts report each number, most reliable first; a dot separates an object from its field.
_FIELDS: dict[str, tuple[str, ...]] = {
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


# `_FIELDS` as pairs of object and field, split once at import because usage is parsed with each response.
_PATHS = {
    name: tuple((outer, inner) for outer, _, inner in (field.partition(".") for field in fields))
    for name, fields in _FIELDS.items()
}
_TOTALS = {name: _PATHS[name] for name in ("input_tokens", "output_tokens")}
# Top-level fields with details. Many hosts send none, so only the totals have to be searched for.
_DETAILS = {outer for name, paths in _PATHS.items() if name not in _TOTALS for outer, _ in paths}


def _find(raw: dict[str, Any], paths: tuple[tuple[str, str], ...]) -> int | None:
    for outer, inner in paths:
        value = raw.get(outer)
        if inner and value is not None:
            value = value.get(inner) if isinstance(value, dict) else None
        if value is not None and (count := read_count(value)) is not None:
            return count
    return None


def merge_usage(before: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """Merge two usage objects of one response: the last value of each field that is not null wins, without summing."""
    return {**(before or {}), **{name: value for name, value in new.items() if value is not None}}


def read_usage(raw: dict[str, Any], service_tier: str | None = None) -> Usage | None:
    """Convert a usage object of the provider; None if it has no counts.

    Args:
        raw: The object.
        service_tier: A field of the response, outside the object.
    """
    paths = _PATHS if raw.keys() & _DETAILS else _TOTALS
    found = {name: _find(raw, fields) for name, fields in paths.items()}
    prompt, output, reasoning = found["input_tokens"], found["output_tokens"], found.get("reasoning_tokens")
    # xAI does not count reasoning in completion_tokens, but does in total_tokens (seen 2026-02).
    if reasoning and output is not None and read_count(raw.get("total_tokens")) == (prompt or 0) + output + reasoning:
        output += reasoning
    return build_usage(
        raw,
        prompt,
        output,
        raw.get("total_tokens"),
        cache_read_tokens=found.get("cache_read_tokens"),
        cache_write_tokens=found.get("cache_write_tokens"),
        reasoning_tokens=reasoning,
        input_audio_tokens=found.get("input_audio_tokens"),
        output_audio_tokens=found.get("output_audio_tokens"),
        service_tier=service_tier,
        # xAI: https://docs.x.ai/docs/guides/tools/tool-usage-details (2026-11)
        tool_uses=read_tool_uses(raw.get("server_side_tool_usage_details"), "_calls"),
        reported_cost=read_cost(raw),
    )
