"""Convert the usage that OpenAI-compatible hosts report into `Usage`.

`input_tokens` counts all prompt tokens and `output_tokens` all generated tokens. Hosts use the same names for
the totals but different names and structures for the details.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from lm_deluge.usage import Usage

__all__ = ["read_usage"]

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
_MOST_FIELDS = 50  # twice as many as any host sends
_MOST_PLANS = 256  # sets of fields whose paths are remembered: a host has a few, and there are about fifty hosts


@lru_cache(maxsize=_MOST_PLANS)
def _paths_in(present: tuple[str, ...]) -> tuple[tuple[str, str, str], ...]:
    """Return our name, object and field of each number that the fields `present` can contain, most reliable first.

    The result is remembered, because all usage objects of a stream have the same fields.
    """
    return tuple((name, *path) for name, paths in _PATHS.items() for path in paths if path[0] in present)


def _count(value: Any) -> int | None:
    if type(value) is int:
        return value if value >= 0 else None
    return int(value) if isinstance(value, float) and value.is_integer() and value >= 0 else None


def read_usage(raw: dict[str, Any], service_tier: str | None = None) -> Usage:
    """Convert a usage object of the provider; `service_tier` is a field of the response, outside the object."""
    # Beyond some number of fields it is no usage, and not worth being remembered.
    paths_in = _paths_in if len(raw) <= _MOST_FIELDS else _paths_in.__wrapped__
    found: dict[str, Any] = {}
    for name, outer, inner in paths_in(tuple(raw)):
        value = raw[outer]
        if inner:
            value = value.get(inner) if isinstance(value, dict) else None
        count = value if type(value) is int and value >= 0 else _count(value)
        if count is not None and name not in found:
            found[name] = count
    reasoning = found.get("reasoning_tokens")
    if reasoning:
        # xAI does not count reasoning in completion_tokens, but does in total_tokens (seen 2026-02).
        prompt, output = found.get("input_tokens", 0), found.get("output_tokens", 0)
        if _count(raw.get("total_tokens")) == prompt + output + reasoning:
            found["output_tokens"] = output + reasoning
    return Usage(service_tier=service_tier, raw=raw, **found)
