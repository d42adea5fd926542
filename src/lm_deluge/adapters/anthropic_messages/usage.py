"""Convert Anthropic's usage into a `Usage`.

`input_tokens` on the wire excludes tokens read from and written to the cache, so these are added.
https://platform.claude.com/docs/en/build-with-claude/prompt-caching#tracking-cache-performance
"""

from __future__ import annotations

from typing import Any

import msgspec

from lm_deluge.adapters.token_counts import Count, complete_counts, read_count, read_counts, read_tool_uses
from lm_deluge.usage import Usage

__all__ = ["read_usage"]


class _CacheCreation(msgspec.Struct, gc=False):
    ephemeral_1h_input_tokens: Count = None


class _OutputDetails(msgspec.Struct, gc=False):
    thinking_tokens: Count = None


class _Counts(msgspec.Struct, gc=False):
    input_tokens: Count = None
    output_tokens: Count = None
    cache_read_input_tokens: Count = None
    cache_creation_input_tokens: Count = None
    cache_creation: _CacheCreation | None = None
    output_tokens_details: _OutputDetails | None = None
    service_tier: Any = None
    inference_geo: Any = None
    server_tool_use: Any = None
    iterations: Any = None


def read_usage(raw: dict[str, Any]) -> Usage | None:
    """Return the `Usage` of a usage object, with the tokens that are only in its `iterations`; None without counts."""
    counts = read_counts(raw, _Counts)
    created, details = counts.cache_creation, counts.output_tokens_details
    uncached, output = counts.input_tokens, counts.output_tokens
    read, written = counts.cache_read_input_tokens, counts.cache_creation_input_tokens
    for_an_hour = None if created is None else created.ephemeral_1h_input_tokens
    iterations = counts.iterations
    if iterations and isinstance(iterations, list):
        uncached, output = _total(uncached, iterations, "input_tokens"), _total(output, iterations, "output_tokens")
        read = _total(read, iterations, "cache_read_input_tokens")
        written = _total(written, iterations, "cache_creation_input_tokens")
        for_an_hour = _total(for_an_hour, iterations, "ephemeral_1h_input_tokens", inside="cache_creation")
    tier, region, tools = counts.service_tier, counts.inference_geo, counts.server_tool_use
    has_input = uncached is not None or read or written
    sent = (uncached or 0) + (read or 0) + (written or 0) if has_input else None
    known = complete_counts(sent, output)
    if known is None:
        return None
    return Usage(
        raw=raw,
        input_tokens=known[0],
        output_tokens=known[1],
        estimated=known[2],
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=for_an_hour,
        reasoning_tokens=None if details is None else details.thinking_tokens,
        service_tier=tier if isinstance(tier, str) else None,
        region=region if isinstance(region, str) else None,
        tool_uses=read_tool_uses(tools, "_requests") if tools else {},
    )


def _total(count: int | None, iterations: list[Any], name: str, *, inside: str = "") -> int | None:
    """Return a count of the whole request; `inside` names the object that contains the count of an iteration.

    The counts of the request leave out iterations of other kinds than its own message, such as a compaction of the
    context; those of all iterations together are what is billed. Without such iterations the two are equal.
    https://platform.claude.com/docs/en/build-with-claude/compaction#understanding-usage (2026-11)
    """
    parts = [_count(_inner(each, inside), name) for each in iterations]
    known = [part for part in parts if part is not None]
    return max(count or 0, sum(known)) if known else count


def _inner(fields: Any, inside: str) -> Any:
    return fields.get(inside) if inside and isinstance(fields, dict) else fields


def _count(raw: Any, name: str) -> int | None:
    return read_count(raw.get(name)) if isinstance(raw, dict) else None
