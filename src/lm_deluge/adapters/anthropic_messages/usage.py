"""Convert Anthropic's usage into a `Usage`.

`input_tokens` on the wire excludes tokens read from and written to the cache, so these are added.
https://platform.claude.com/docs/en/build-with-claude/prompt-caching#tracking-cache-performance
"""

from __future__ import annotations

from typing import Any

from lm_deluge.adapters.token_counts import build_usage, read_count, read_tool_uses
from lm_deluge.usage import Usage

__all__ = ["merge_usage", "read_usage"]


def merge_usage(before: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the merged object: the last value of each field that is not null. The API sends totals, not increments."""
    return {**before, **{name: value for name, value in new.items() if value is not None}}


def read_usage(raw: dict[str, Any]) -> Usage | None:
    """Return the `Usage` of a usage object; None if it has no counts."""
    read, written = _count(raw, "cache_read_input_tokens"), _count(raw, "cache_creation_input_tokens")
    tier, region = raw.get("service_tier"), raw.get("inference_geo")
    uncached = _count(raw, "input_tokens")
    return build_usage(
        raw,
        None if uncached is None and not (read or written) else (uncached or 0) + (read or 0) + (written or 0),
        _count(raw, "output_tokens"),
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=_count(raw.get("cache_creation"), "ephemeral_1h_input_tokens"),
        reasoning_tokens=_count(raw.get("output_tokens_details"), "thinking_tokens"),
        service_tier=tier if isinstance(tier, str) else None,
        region=region if isinstance(region, str) else None,
        tool_uses=read_tool_uses(raw.get("server_tool_use"), "_requests"),
    )


def _count(raw: Any, name: str) -> int | None:
    return read_count(raw.get(name)) if isinstance(raw, dict) else None
