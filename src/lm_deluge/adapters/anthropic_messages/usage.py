"""Convert Anthropic's usage into a `Usage`.

`input_tokens` on the wire excludes tokens read from and written to the cache, so these are added.
https://platform.claude.com/docs/en/build-with-claude/prompt-caching#tracking-cache-performance
"""

from __future__ import annotations

from typing import Any

from lm_deluge.adapters.token_counts import build_usage, read_count, read_tool_uses
from lm_deluge.usage import Usage

__all__ = ["read_usage"]


def read_usage(raw: dict[str, Any]) -> Usage | None:
    """Return the `Usage` of a usage object, with the tokens that are only in its `iterations`; None without counts."""
    read, written = _total(raw, "cache_read_input_tokens"), _total(raw, "cache_creation_input_tokens")
    tier, region = raw.get("service_tier"), raw.get("inference_geo")
    uncached = _total(raw, "input_tokens")
    return build_usage(
        raw,
        None if uncached is None and not (read or written) else (uncached or 0) + (read or 0) + (written or 0),
        _total(raw, "output_tokens"),
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=_total(raw, "ephemeral_1h_input_tokens", inside="cache_creation"),
        reasoning_tokens=_count(raw.get("output_tokens_details"), "thinking_tokens"),
        service_tier=tier if isinstance(tier, str) else None,
        region=region if isinstance(region, str) else None,
        tool_uses=read_tool_uses(raw.get("server_tool_use"), "_requests"),
    )


def _total(raw: dict[str, Any], name: str, *, inside: str = "") -> int | None:
    """Return a count of the whole request; `inside` names the object that contains the count.

    The counts of the request leave out iterations of other kinds than its own message, such as a compaction of the
    context; those of all iterations together are what is billed. Without such iterations the two are equal.
    https://platform.claude.com/docs/en/build-with-claude/compaction#understanding-usage (2026-11)
    """
    count = _count(raw.get(inside), name) if inside else read_count(raw.get(name))
    iterations = raw.get("iterations")
    if not iterations or not isinstance(iterations, list):
        return count
    parts = [_count(_inner(each, inside), name) for each in iterations]
    known = [part for part in parts if part is not None]
    return max(count or 0, sum(known)) if known else count


def _inner(fields: Any, inside: str) -> Any:
    return fields.get(inside) if inside and isinstance(fields, dict) else fields


def _count(raw: Any, name: str) -> int | None:
    return read_count(raw.get(name)) if isinstance(raw, dict) else None
