"""Convert the usage that OpenAI-compatible hosts report into `Usage`.

`input_tokens` counts all prompt tokens and `output_tokens` all generated tokens. Hosts use the same names for
the totals but different names and structures for the details.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from lm_deluge.adapters.token_counts import build_usage, read_cost, read_count, read_tool_uses
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


def read_usage(raw: dict[str, Any], service_tier: str | None = None) -> Usage | None:
    """Convert a usage object of the provider; None if it has no counts.

    Args:
        raw: The object.
        service_tier: A field of the response, outside the object.
    """
    # Beyond some number of fields it is no usage, and not worth being remembered.
    paths_in = _paths_in if len(raw) <= _MOST_FIELDS else _paths_in.__wrapped__
    found: dict[str, Any] = {}
    for name, outer, inner in paths_in(tuple(raw)):
        value = raw[outer]
        if inner:
            value = value.get(inner) if isinstance(value, dict) else None
        if value is not None and name not in found and (count := read_count(value)) is not None:
            found[name] = count
    prompt, output = found.pop("input_tokens", None), found.pop("output_tokens", None)
    reasoning = found.get("reasoning_tokens")
    # xAI does not count reasoning in completion_tokens, but does in total_tokens (seen 2026-02).
    if reasoning and output is not None and read_count(raw.get("total_tokens")) == (prompt or 0) + output + reasoning:
        output += reasoning
    # xAI: https://docs.x.ai/docs/guides/tools/tool-usage-details (2026-11)
    tool_uses = raw.get("server_side_tool_usage_details")
    if tool_uses is not None:
        found["tool_uses"] = read_tool_uses(tool_uses, "_calls")
    cost = read_cost(raw)
    if cost is not None:
        found["reported_cost"] = cost
    return build_usage(raw, prompt, output, raw.get("total_tokens"), service_tier=service_tier, **found)
