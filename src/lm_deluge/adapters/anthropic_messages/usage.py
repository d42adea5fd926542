"""Convert Anthropic's usage into a `Usage`.

`input_tokens` on the wire excludes tokens read from and written to the cache, so these are added.
https://platform.claude.com/docs/en/build-with-claude/prompt-caching#tracking-cache-performance
"""

from __future__ import annotations

from typing import Any

from lm_deluge.usage import Usage

__all__ = ["read_usage"]


def read_usage(raw: dict[str, Any]) -> Usage:
    """Return the `Usage` of a usage object, with the tokens that are only in its `iterations`."""
    read, written = _total(raw, "cache_read_input_tokens"), _total(raw, "cache_creation_input_tokens")
    tier = raw.get("service_tier")
    return Usage(
        input_tokens=(_total(raw, "input_tokens") or 0) + (read or 0) + (written or 0),
        output_tokens=_total(raw, "output_tokens") or 0,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=_total(raw, "ephemeral_1h_input_tokens", inside="cache_creation"),
        reasoning_tokens=_count(raw.get("output_tokens_details"), "thinking_tokens"),
        service_tier=tier if isinstance(tier, str) else None,
        raw=raw,
    )


def _total(raw: dict[str, Any], name: str, *, inside: str = "") -> int | None:
    """Return a count of the whole request; `inside` names the object that contains the count.

    The counts of the request leave out iterations of other kinds than its own message, such as a compaction of the
    context; those of all iterations together are what is billed. Without such iterations the two are equal.
    https://platform.claude.com/docs/en/build-with-claude/compaction#understanding-usage (2026-11)
    """
    count = _count(raw.get(inside) if inside else raw, name)
    iterations = raw.get("iterations")
    if not iterations or not isinstance(iterations, list):
        return count
    parts = [_count(_inner(each, inside), name) for each in iterations]
    known = [part for part in parts if part is not None]
    return max(count or 0, sum(known)) if known else count


def _inner(fields: Any, inside: str) -> Any:
    return fields.get(inside) if inside and isinstance(fields, dict) else fields


def _count(raw: Any, name: str) -> int | None:
    value = raw.get(name) if isinstance(raw, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
