"""Convert Anthropic's usage into a `Usage`.

`input_tokens` on the wire excludes tokens read from and written to the cache, so these are added.
https://platform.claude.com/docs/en/build-with-claude/prompt-caching#tracking-cache-performance
"""

from __future__ import annotations

from typing import Any

from lm_deluge.usage import Usage

__all__ = ["merge_usage", "read_usage"]


def merge_usage(before: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the merged object: the last value of each field that is not null. The API sends totals, not increments."""
    return {**before, **{name: value for name, value in new.items() if value is not None}}


def read_usage(raw: dict[str, Any]) -> Usage:
    """Return the `Usage` of a usage object."""
    read, written = _count(raw, "cache_read_input_tokens"), _count(raw, "cache_creation_input_tokens")
    tier = raw.get("service_tier")
    return Usage(
        input_tokens=(_count(raw, "input_tokens") or 0) + (read or 0) + (written or 0),
        output_tokens=_count(raw, "output_tokens") or 0,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=_count(raw.get("cache_creation"), "ephemeral_1h_input_tokens"),
        reasoning_tokens=_count(raw.get("output_tokens_details"), "thinking_tokens"),
        service_tier=tier if isinstance(tier, str) else None,
        raw=raw,
    )


def _count(raw: Any, name: str) -> int | None:
    value = raw.get(name) if isinstance(raw, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
